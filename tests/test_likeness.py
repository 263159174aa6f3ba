"""Settings of modules that mean the same, whatever == says of them."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from weakref import ref

import numpy as np
import pytest
import torch

from rmtbn._likeness import do_the_same, equal


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    width: int


@dataclass
class Table:
    entries: torch.Tensor = field(default_factory=lambda: torch.arange(3.0))


class Scale:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def apply(self, x: float) -> float:
        return self.factor * x


def recursive(known: bool) -> Callable[[int], int]:
    """A function that closes over a name, known or not yet."""

    def outer(x: int) -> int:
        return inner(x)

    if known:

        def inner(x: int) -> int:
            return x

    return outer


ALIKE = {
    "class without ==": lambda: Slots(3),
    "== without an answer": Table,
    "namespace of arrays": lambda: SimpleNamespace(a=np.ones(2), b={"c": [torch.ones(2)]}),
    "bound method": lambda: Scale(2.0).apply,
    "partial of one": lambda: partial(Scale(2.0).apply, x=3.0),
    "function that is not complete": lambda: recursive(known=False),
    "generators": lambda: [
        torch.Generator().manual_seed(random.randrange(99)),
        np.random.default_rng(),
        random.Random(),
    ],
}
UNLIKE = {
    "class without ==": (Slots(3), Slots(4)),
    "== without an answer": (Table(), Table(torch.ones(3))),
    "namespace of arrays": (SimpleNamespace(a=np.ones(2)), SimpleNamespace(a=np.zeros(2))),
    "bound method": (Scale(2.0).apply, Scale(3.0).apply),
    "partial of one": (partial(Scale(2.0).apply, x=3.0), partial(Scale(2.0).apply, x=4.0)),
    "function that is not complete": (recursive(known=False), recursive(known=True)),
    "what cannot be looked into": ((i for i in range(3)), (i for i in range(3))),
    "numbers": (1.0, 2.0),
    "keys": ({"a": [1, np.ones(2)]}, {"b": [1, np.ones(2)]}),
    "lengths": ([np.ones(2)], [np.ones(2), np.ones(2)]),
    "types": ([np.ones(2)], (np.ones(2),)),
}


@pytest.mark.parametrize("case", ALIKE)
def test_what_holds_the_same_is_the_same(case):
    a, b = ALIKE[case](), ALIKE[case]()
    assert not equal(a, b)
    assert do_the_same(a, b, ((), ()))


@pytest.mark.parametrize("case", UNLIKE)
def test_what_holds_something_else_is_not(case):
    a, b = UNLIKE[case]
    assert not do_the_same(a, b, ((), ()))
    assert not do_the_same(b, a, ((), ()))


def test_twins_are_the_same_wherever_they_are_referred_to():
    """Networks of one architecture have parts of other values."""
    a, b = Scale(2.0), Scale(3.0)
    for one, other in ((a.apply, b.apply), ([a], [b]), (ref(a), ref(b)), (partial(a.apply), partial(b.apply))):
        assert do_the_same(one, other, ([a], [b]))
        assert not do_the_same(one, other, ([b], [a]))


def test_comparing_by_equality_has_three_answers():
    assert equal(1, 1) is True
    assert equal(1, 2) is False
    assert equal(np.ones(2), np.ones(2)) is None
