"""Argument validators: one clear line that names the argument, the rule and the value."""

import math
import operator
from collections.abc import Iterable
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import ArrayLike, NDArray


class InvalidArgumentError(ValueError):
    """An argument breaks its rule; the message names the argument, the rule and the value."""


def fail(name: str, rule: str, value: object) -> InvalidArgumentError:
    """Build the error for an argument that breaks a rule (the caller raises it)."""
    return InvalidArgumentError(f"`{name}` must be {rule}; got {value!r}")


def integer(name: str, value: object, *, at_least: int | None = None, at_most: int | None = None) -> int:
    """Return `value` as an int within the bounds; bools and non-integral numbers are refused."""
    rule = "an integer" + _bounds(at_least=at_least, at_most=at_most)
    if isinstance(value, bool | np.bool_):
        raise fail(name, rule, value)
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise fail(name, rule, value) from None
    if (at_least is not None and number < at_least) or (at_most is not None and number > at_most):
        raise fail(name, rule, number)
    return number


def real(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> float:
    """Return `value` as a finite float within the bounds; bools and arrays of several numbers are refused."""
    rule = "a finite number" + _bounds(above=above, at_least=at_least, below=below, at_most=at_most)
    if isinstance(value, bool | np.bool_) or not isinstance(value, SupportsFloat):
        raise fail(name, rule, value)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a torch tensor of several numbers
        raise fail(name, rule, value) from None
    inside = (
        math.isfinite(number)
        and (above is None or number > above)
        and (at_least is None or number >= at_least)
        and (below is None or number < below)
        and (at_most is None or number <= at_most)
    )
    if not inside:
        raise fail(name, rule, number)
    return number


def array(
    name: str, values: ArrayLike, *, at_least: float | None = None, at_most: float | None = None
) -> NDArray[np.float64]:
    """Return `values` as a float64 array without NaN, every entry within the bounds (infinities may be)."""
    rule = "numbers without NaN" + _bounds(at_least=at_least, at_most=at_most)
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise fail(name, rule, values) from None
    bad = np.isnan(numbers)
    if at_least is not None:
        bad |= numbers < at_least
    if at_most is not None:
        bad |= numbers > at_most
    if bad.any():
        raise fail(name, rule, float(numbers[bad].flat[0]))
    return numbers


def probabilities(p: ArrayLike) -> NDArray[np.float64]:
    """Return `p`, at which quantiles are asked for, as a float64 array of numbers in [0, 1]."""
    return array("p", p, at_least=0.0, at_most=1.0)


def one_of(name: str, value: object, options: Iterable[str]) -> str:
    """Return `value` if it is one of the `options`."""
    names = list(options)
    if not isinstance(value, str) or value not in names:
        raise fail(name, "one of " + ", ".join(repr(option) for option in names), value)
    return value


def instance(name: str, value: Any, kind: type, described: str) -> None:
    """Refuse a `value` that is not an instance of `kind`."""
    if not isinstance(value, kind):
        raise fail(name, described, value)


def _bounds(
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> str:
    parts = [(">", above), (">=", at_least), ("<", below), ("<=", at_most)]
    return "".join(
        f" {sign} {bound}" if i == 0 else f" and {sign} {bound}"
        for i, (sign, bound) in enumerate((s, b) for s, b in parts if b is not None)
    )
