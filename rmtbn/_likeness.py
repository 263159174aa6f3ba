"""Whether two objects, as settings of modules, mean the same: compared by ==, else by what they hold."""

import random
from collections.abc import Sequence
from types import CellType, FunctionType, MethodType
from typing import Any, TypeAlias, cast
from weakref import ReferenceType

import numpy as np
import torch
from torch import Tensor

# The parts of one network, and those of another in the same order.
Twins: TypeAlias = tuple[Sequence[Any], Sequence[Any]]

# Weights may have been drawn from one; a network that draws when it is called is refused for that.
_SOURCES = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
# Of classes that compare no contents.
_BY_IDENTITY = (object.__eq__, MethodType.__eq__, ReferenceType.__eq__)


def equal(a: object, b: object) -> bool | None:
    """Compare by ==; None where that has no single answer, as for arrays."""
    try:
        return bool(a == b)
    except (RuntimeError, TypeError, ValueError):
        return None


def do_the_same(a: object, b: object, twins: Twins) -> bool:
    """Compare what == does not: tensors, functions, bound methods, and other objects by what a copy is made from.

    Parameters
    ----------
    a, b
        Of two networks.
    twins
        A part of the one counts as the same as that of the other: one call gives it the other's tensors.
    """
    return _same(a, b, {(id(first), id(second)): None for first, second in zip(*twins, strict=False)})


def _same(a: Any, b: Any, met: dict[tuple[int, int], object]) -> bool:
    if a is b or (id(a), id(b)) in met:
        return True
    met[id(a), id(b)] = (a, b)  # held, so that no other object gets their ids
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_same(x, y, met) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key], met) for key in a)
    return _are_equal(a, b) or (_says_nothing(a, b) and _held(a) is not None and _same(_held(a), _held(b), met))


def _are_equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor | np.ndarray):
        return torch.equal(a, b) if isinstance(a, Tensor) else np.array_equal(a, b)
    return isinstance(a, _SOURCES) or bool(equal(a, b))


def _says_nothing(a: Any, b: Any) -> bool:
    """Tell whether == knows nothing of what two objects hold."""
    if isinstance(a, Tensor | np.ndarray):
        return False
    return cast(Any, type(a)).__eq__ in _BY_IDENTITY or equal(a, b) is None


def _held(value: Any) -> object:
    """Return what tells an object from another of its class; None if that is unknown."""
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]
        return (value.__code__, value.__defaults__, value.__kwdefaults__, cells)
    if isinstance(value, MethodType):
        return (value.__func__, value.__self__)
    if isinstance(value, ReferenceType):
        return value()
    try:
        return value.__reduce_ex__(2)
    except Exception:  # whatever keeps it from being copied
        return None
