"""Cells: what a sweep computes, each named by the hash of all that decides its result."""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rmtbn import _checks

Value = str | bool | int | float
"""What a parameter may be: plain scalars, so that every parameter is also a column of the results."""

RESERVED = ("table", "seed", "key")
"""Names of columns that the store writes beside the parameters."""

_AXIS_RULE = "a non-empty sequence of different values"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One point of a grid: the parameters and the seed that a cell function is called with.

    Parameters
    ----------
    parameters
        Name to value (str, bool, int or finite float; numpy scalars become plain ones). The device and dtype of a
        computation belong here too: what decides a result is a parameter.
    seed
        An integer >= 0.
    """

    parameters: Mapping[str, Any]  # a Value each, once checked
    seed: int

    def __post_init__(self) -> None:
        plain = {_name(name): _plain(name, value) for name, value in self.parameters.items()}
        object.__setattr__(self, "parameters", plain)
        object.__setattr__(self, "seed", _checks.integer("seed", self.seed, at_least=0))

    def __str__(self) -> str:
        """Write the cell as the call it stands for."""
        return ", ".join([*(f"{name}={value!r}" for name, value in self.parameters.items()), f"seed={self.seed}"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """How cells of equal shape are computed in one vectorised call.

    Parameters
    ----------
    compute
        ``compute(cells) -> [{table name: DataFrame}, ...]``, one mapping per `Cell`, in their order: what the study's
        own function returns for each, up to rounding. Picklable: a function of a module.
    same
        Names of the parameters in which all cells of a group agree (the shapes, the device); the seed may differ.
    size
        ``size(parameters) -> int``: how many cells like this one are worth a call, by memory and device; 1: alone.
    """

    compute: Callable[[Sequence[Cell]], Sequence[Mapping[str, pd.DataFrame]]]
    same: tuple[str, ...]
    size: Callable[[Mapping[str, Any]], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A cell function with the name and version under which its results are stored.

    Parameters
    ----------
    name
        Name of the study, for example "schemes".
    version
        An integer >= 1, raised whenever `compute` would return something else for the same parameters.
    compute
        ``compute(*, seed, **parameters) -> {table name: DataFrame}``, pure and picklable: a function of a module.
    group
        How cells of equal shape are computed together; None: each alone.
    """

    name: str
    version: int
    compute: Callable[..., Mapping[str, pd.DataFrame]]
    group: Group | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise _checks.fail("name", "a non-empty string", self.name)
        _checks.integer("version", self.version, at_least=1)


def grid(axes: Mapping[str, Sequence[Value]], *, seeds: Sequence[int]) -> tuple[Cell, ...]:
    """Return the cells of the product of all axes and seeds; the last axis, then the seed, runs fastest.

    Parameters
    ----------
    axes
        Parameter name to the values it takes; a constant is an axis of one value.
    seeds
        The seeds, one cell each.

    Raises
    ------
    InvalidArgumentError
        For an empty axis, a repeated value, or a value that is not a plain scalar.

    Examples
    --------
    >>> [str(cell) for cell in grid({"norm": ("none", "batch"), "depth": (8,)}, seeds=(1,))]
    ["norm='none', depth=8, seed=1", "norm='batch', depth=8, seed=1"]
    """
    for name, values in (*axes.items(), ("seeds", seeds)):
        if isinstance(values, str) or len(values) == 0 or len({repr(value) for value in values}) < len(values):
            raise _checks.fail(name, _AXIS_RULE, values)
    points = itertools.product(*axes.values(), seeds)
    return tuple(Cell(parameters=dict(zip(axes, point, strict=False)), seed=point[-1]) for point in points)  # type: ignore[arg-type]


def key(name: str, version: int, cell: Cell) -> str:
    """Return the content hash of a cell of a study: 64 hexadecimal digits.

    SHA-256 of the canonical JSON (names sorted, no spaces) of name, version, parameters and seed. Floats are written by
    the shortest text that reads back as the same float, so that different numbers have different keys; 1, 1.0, True and
    "1" differ too. The order of the parameters does not matter.
    """
    content = {"study": name, "version": version, "parameters": cell.parameters, "seed": cell.seed}
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def canonical(content: Mapping[str, object]) -> str:
    """Write a mapping as canonical JSON: names sorted, no spaces, ASCII, no NaN."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _name(name: str) -> str:
    if not name.isidentifier() or name in RESERVED:
        raise _checks.fail("parameters", f"named by identifiers other than {', '.join(RESERVED)}", name)
    return name


def _plain(name: str, value: object) -> Value:
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, Value) or (isinstance(value, float) and not math.isfinite(value)):
        raise _checks.fail(name, "a string, bool, int or finite float", value)
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    return str(value)
