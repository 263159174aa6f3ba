"""Roots by signs, many at a time."""

import numpy as np
import pytest

from rmtbn.theory.crossing import crossing


@pytest.mark.parametrize("turned", [False, True])
def test_roots_are_found_to_rounding_from_either_side(turned):
    """t³ = x on -1 < t < 2, and the same on the mirrored axis: t = x^(1/3) to 1e-15, the value there not above 0."""
    x, sign = np.linspace(-0.99, 7.9, 300), -1.0 if turned else 1.0
    t = crossing(
        lambda t, which: (sign * t) ** 3 - x[which], np.full(x.shape, -1.0 * sign), np.full(x.shape, 2.0 * sign)
    )
    np.testing.assert_allclose(sign * t, np.cbrt(x), rtol=2e-15, atol=1e-15)
    assert np.all((sign * t) ** 3 - x <= 0)


def test_a_few_values_do():
    """A smooth function needs no more than 14 values, where halving needs 52."""
    calls = []

    def function(t, which):
        calls.append(which.size)
        return np.exp(t) - np.linspace(1.1, 7.0, 50)[which]

    crossing(function, np.zeros(50), np.full(50, 2.0))
    assert len(calls) <= 14 + 2


def test_zeros_are_kept_on_the_side_that_is_not_above():
    """max(t - 1, 0) is 0 up to t = 1; min(t, 0) never rises above 0, and t + 1 > 0 everywhere."""
    ends = np.zeros(1), np.full(1, 3.0)
    assert crossing(lambda t, _: np.maximum(t - 1, 0.0), *ends)[0] == pytest.approx(1.0, abs=1e-15)
    assert crossing(lambda t, _: np.minimum(t, 0.0), *ends)[0] == 3.0
    assert crossing(lambda t, _: t + 1, *ends)[0] == 0.0
