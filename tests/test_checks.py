"""Argument validators: what passes comes back in its plain form, what fails names argument, rule and value."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rmtbn import _checks
from rmtbn._checks import InvalidArgumentError


@given(st.integers(-1000, 1000))
def test_integers_come_back_as_ints(value):
    """Python's, numpy's and torch's integers are one."""
    for form in (value, np.int64(value), torch.tensor(value)):
        found = _checks.integer("n", form)
        assert type(found) is int
        assert found == value


@pytest.mark.parametrize("value", [True, np.True_, 3.0, "3", None, [3], 2.5, math.nan])
def test_what_is_no_integer_is_refused(value):
    """Bools and floats are no integers, not even whole ones."""
    with pytest.raises(InvalidArgumentError, match=r"^`depth` must be an integer; got "):
        _checks.integer("depth", value)


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(-20, 20))
def test_integer_bounds_include_their_ends(value, low, high):
    """low <= n <= high, and the message names both bounds and the value."""
    if low <= value <= high:
        assert _checks.integer("n", value, at_least=low, at_most=high) == value
    else:
        with pytest.raises(InvalidArgumentError, match=f"^`n` must be an integer >= {low} and <= {high}; got {value}$"):
            _checks.integer("n", value, at_least=low, at_most=high)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_finite_numbers_come_back_as_floats(value):
    """Floats of Python, numpy and torch are one, and integers and fractions are numbers too."""
    for form in (value, np.float64(value), torch.tensor(value, dtype=torch.float64), np.array(value)):
        found = _checks.real("x", form)
        assert type(found) is float
        assert found == value
    assert _checks.real("x", Fraction(1, 4)) == 0.25
    assert _checks.real("x", 3) == 3.0


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, "1", b"1", None, 1j, True, np.array([1.0, 2.0]), torch.ones(2), 10**400, [1.0]],
    ids=repr,
)
def test_what_is_no_finite_number_is_refused(value):
    """NaN, infinity, text, bools, arrays of several numbers, integers beyond the floating range."""
    with pytest.raises(InvalidArgumentError, match=r"^`sigma_w` must be a finite number"):
        _checks.real("sigma_w", value)


@pytest.mark.parametrize(
    ("bound", "inside", "outside", "sign"),
    [
        ("above", 1.0 + 1e-9, 1.0, ">"),
        ("at_least", 1.0, 1.0 - 1e-9, ">="),
        ("below", 1.0 - 1e-9, 1.0, "<"),
        ("at_most", 1.0, 1.0 + 1e-9, "<="),
    ],
)
def test_each_bound_of_a_number_is_where_it_says(bound, inside, outside, sign):
    """Strict and inclusive bounds differ at the bound itself, and the message says which it was."""
    assert _checks.real("x", inside, **{bound: 1.0}) == inside
    with pytest.raises(InvalidArgumentError, match=f"a finite number {sign} 1.0; got "):
        _checks.real("x", outside, **{bound: 1.0})


def test_two_bounds_are_named_together():
    """Both ends of an interval stand in the message."""
    with pytest.raises(InvalidArgumentError, match=r"^`p` must be a finite number > 0 and <= 1; got 1.5$"):
        _checks.real("p", 1.5, above=0, at_most=1)


def test_arrays_come_back_in_float64_with_infinities():
    """Any nesting and dtype of numbers; infinities are numbers here."""
    found = _checks.array("q", [[1, 2], [3, math.inf]])
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [[1, 2], [3, math.inf]])
    assert _checks.array("q", 2).shape == ()
    assert _checks.array("q", np.float32(0.1)).item() == float(np.float32(0.1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, math.nan], "numbers without NaN >= 0.0 and <= 1.0; got nan"),
        ([0.5, -0.25], "numbers without NaN >= 0.0 and <= 1.0; got -0.25"),
        ([0.5, math.inf], "numbers without NaN >= 0.0 and <= 1.0; got inf"),
        (["half"], "numbers without NaN >= 0.0 and <= 1.0; got "),
        ([[1.0], [1.0, 2.0]], "numbers without NaN >= 0.0 and <= 1.0; got "),
    ],
)
def test_arrays_with_a_bad_entry_name_that_entry(values, message):
    """NaN, entries out of bounds, ragged lists and text."""
    with pytest.raises(InvalidArgumentError, match=f"^`p` must be {message}"):
        _checks.array("p", values, at_least=0.0, at_most=1.0)


def test_probabilities_are_in_the_unit_interval():
    """0 and 1 are; what is outside is named."""
    np.testing.assert_array_equal(_checks.probabilities([0, 0.5, 1]), [0.0, 0.5, 1.0])
    for bad in (-0.1, 1.5):
        with pytest.raises(InvalidArgumentError, match=rf"`p` must be numbers .*>= 0.0 and <= 1.0; got {bad}"):
            _checks.probabilities([0.5, bad])


def test_options_are_listed_when_none_matches():
    """The message is the remedy: it lists what would have passed."""
    assert _checks.one_of("norm", "batch", {"none": 1, "batch": 2}) == "batch"
    for value in ("bn", None, 3, ["batch"]):
        with pytest.raises(InvalidArgumentError, match=r"^`norm` must be one of 'none', 'batch'; got "):
            _checks.one_of("norm", value, {"none": 1, "batch": 2})


def test_instances_of_another_kind_are_refused():
    """A description of the kind stands in the message."""
    _checks.instance("x", torch.ones(1), torch.Tensor, "a tensor")
    with pytest.raises(InvalidArgumentError, match=r"^`x` must be a tensor; got \[1\]$"):
        _checks.instance("x", [1], torch.Tensor, "a tensor")


def test_the_error_is_a_value_error():
    """Callers that know Python only can catch it."""
    assert issubclass(InvalidArgumentError, ValueError)
