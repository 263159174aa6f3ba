"""The checker of the tests refuses what it is there to refuse, in a package written for the purpose."""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import typechecker
from beartype.roar import BeartypeCallHintViolation

SOURCE = """
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float


@cache
def half(x: float) -> float:
    return x / 2


def wrong(x: float) -> int:
    return half(x)


def dot(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "n"]) -> Float[np.ndarray, ""]:
    return np.asarray(a @ b)


def twice(a: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    return np.concatenate([a, a])


def two_sizes(a: Float[np.ndarray, "n"]) -> float:
    return float(dot(a[1:], a[1:]))


def of_a_static_type(n: int, bar: "list[Any].append[int]") -> int:
    return n


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    x: Float[np.ndarray, "n"]
    y: Float[np.ndarray, "n"]

    def moved(self, by: float) -> "Point":
        return Point(x=self.x + by, y=self.y)

    @property
    def name(self) -> str:
        return self.x

    @classmethod
    def origin(cls, n: int) -> "Point":
        return cls(x=np.zeros(n), y=np.zeros(n))
"""


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("checked")
    (folder / "checked_package.py").write_text(SOURCE)
    finders, paths = list(sys.meta_path), list(sys.path)
    sys.path.insert(0, str(folder))
    typechecker.install("checked_package")
    yield importlib.import_module("checked_package")
    sys.meta_path[:], sys.path[:] = finders, paths
    del sys.modules["checked_package"]


def test_arguments_have_their_types(checked: ModuleType) -> None:
    assert checked.half(3) == 1.5  # an int where a float is due
    with pytest.raises(BeartypeCallHintViolation, match="'three'"):
        checked.half("three")


def test_values_have_their_types(checked: ModuleType) -> None:
    with pytest.raises(BeartypeCallHintViolation, match="return"):
        checked.wrong(1.0)


def test_a_dimension_has_one_size_in_one_call(checked: ModuleType) -> None:
    a, b = np.arange(3.0), np.arange(4.0)
    assert checked.dot(a, a) == 5
    assert checked.two_sizes(b) == checked.dot(b, b) == 14  # calls within a call have sizes of their own
    with pytest.raises(BeartypeCallHintViolation, match="parameter b"):
        checked.dot(a, b)
    with pytest.raises(BeartypeCallHintViolation, match="return"):
        checked.twice(a)


def test_an_array_has_its_kind_and_dimensions(checked: ModuleType) -> None:
    for wrong in (np.arange(3), np.eye(3), [1.0, 2.0]):
        with pytest.raises(BeartypeCallHintViolation, match="parameter a"):
            checked.twice(wrong)


def test_fields_have_their_types_and_methods_too(checked: ModuleType) -> None:
    point = checked.Point.origin(2).moved(1)
    np.testing.assert_array_equal(point.x, [1, 1])
    with pytest.raises(BeartypeCallHintViolation, match="parameter y"):
        checked.Point(x=np.zeros(2), y=np.zeros(3))
    with pytest.raises(BeartypeCallHintViolation, match="parameter by"):
        point.moved("one")
    with pytest.raises(BeartypeCallHintViolation, match="return"):
        _ = point.name
    with pytest.raises(BeartypeCallHintViolation, match="parameter n"):
        checked.Point.origin(2.5)


def test_a_hint_for_static_checkers_alone_leaves_the_others_checked(checked: ModuleType) -> None:
    assert checked.of_a_static_type(2, "anything") == 2
    with pytest.raises(BeartypeCallHintViolation, match="parameter n"):
        checked.of_a_static_type("two", "anything")


def test_rmtbn_and_its_analyses_are_checked() -> None:
    from rmtbn.analyses._options import load

    from rmtbn.theory.gauss_hermite import expectation

    with pytest.raises(BeartypeCallHintViolation, match="parameter source"):
        load(3)
    with pytest.raises(BeartypeCallHintViolation, match="parameter kinks"):
        expectation(np.cos, 1.0, kinks="none")
