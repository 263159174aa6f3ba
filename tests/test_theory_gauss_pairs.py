"""Expectations over pairs of Gaussians, against closed forms and mpmath, from q = 1e-12 to 1e12 and 1 ∓ c = 1e-12."""

import mpmath
import numpy as np
import pytest
from scipy import special

from rmtbn._checks import InvalidArgumentError
from rmtbn.theory.gauss_pairs import pair_expectation

LENGTHS = np.array([1e-12, 1e-3, 1.0, 50.0, 1e12])
DECORRELATIONS = np.array([0.0, 1e-12, 1e-6, 0.01, 0.3, 1.0, 1.7, 2 - 1e-6, 2 - 1e-12, 2.0])
Q, D = (grid.ravel() for grid in np.meshgrid(LENGTHS, DECORRELATIONS))


def test_products_of_the_pair_are_its_covariance():
    """E h₁h₂ = q c."""
    found = pair_expectation(lambda s, t: (s + t) * (s - t), Q, D)
    np.testing.assert_allclose(found, Q * (1 - D), rtol=1e-12, atol=Q.max() * 1e-15)
    np.testing.assert_allclose(found / Q, 1 - D, rtol=0, atol=1e-13)


def test_half_squares_of_sum_and_difference_keep_every_digit():
    """E t² = q(1 - c)/2 and E s² = q(1 + c)/2, relative, at any distance from c = ±1."""
    np.testing.assert_allclose(pair_expectation(lambda s, t: t * t + 0 * s, Q, D), Q * D / 2, rtol=1e-12)
    np.testing.assert_allclose(pair_expectation(lambda s, t: s * s + 0 * t, Q, D), Q * (2 - D) / 2, rtol=1e-12)


def test_smooth_steps_of_width_one_at_any_length():
    """E erf′(h₁) erf′(h₂) = (4/π)/√(1 + 4q + 4q²(1 - c²)): a spot of width 1 in a Gaussian of width √q."""

    def slope(x):
        return 2 / np.sqrt(np.pi) * np.exp(-x * x)

    with np.errstate(under="ignore"):
        found = pair_expectation(lambda s, t: slope(s + t) * slope(s - t), Q, D)
    np.testing.assert_allclose(found, 4 / np.pi / np.sqrt(1 + 4 * Q + 4 * Q**2 * D * (2 - D)), rtol=1e-12)


def test_a_kink_at_the_origin_gives_the_arcsine_law():
    """P(h₁ > 0, h₂ > 0) = 1/4 + arcsin(c)/2π (Sheppard 1899)."""
    found = pair_expectation(lambda s, t: np.where((s + t > 0) & (s - t > 0), 1.0, 0.0), Q, D, kinks=(0.0,))
    np.testing.assert_allclose(found, 0.5 - 2 * np.arcsin(np.sqrt(D / 2)) / (2 * np.pi), rtol=0, atol=1e-13)


def rectangle(q, d, low, high):
    """P(low < h₁, h₂ < high) as a single integral over h₁ of a difference of normal distribution functions."""
    q, d = mpmath.mpf(q), mpmath.mpf(d)
    c, spread = 1 - d, mpmath.sqrt(q * d * (2 - d))

    def inner(x):
        return (mpmath.ncdf((high - c * x) / spread) - mpmath.ncdf((low - c * x) / spread)) * mpmath.npdf(x, 0, q**0.5)

    steps = [0, 0.5, 1, 2, 4, 8]
    cuts = [low, high] + [edge + sign * spread * k for edge in (low / c, high / c) for sign in (-1, 1) for k in steps]
    scales = [k * mpmath.sqrt(q) for k in (-8, -4, -2, -1, 0, 1, 2, 4, 8)]
    return float(mpmath.quad(inner, sorted({float(min(max(x, low), high)) for x in [*cuts, *scales]})))


@pytest.mark.parametrize(("q", "d"), [(0.3, 0.4), (2.0, 1e-3), (2.0, 1.6), (1e4, 0.02)])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.5, 2.0)])
def test_kinks_away_from_the_origin_need_not_be_symmetric(q, d, low, high):
    """P(low < h₁, h₂ < high) against a one-dimensional integral in mpmath."""

    def inside(x):
        return np.where((x > low) & (x < high), 1.0, 0.0)

    found = float(pair_expectation(lambda s, t: inside(s + t) * inside(s - t), q, d, kinks=(low, high)))
    assert found == pytest.approx(rectangle(q, d, low, high), rel=1e-11)


def test_length_zero_is_the_limit_from_above():
    """For q → 0 a smooth f is taken at 0."""
    assert float(pair_expectation(lambda s, t: np.cos(s) * np.cos(t), 0.0, 0.5)) == pytest.approx(1.0)


def test_shapes_broadcast():
    """q of shape (3, 1) and d of shape (2,) give (3, 2)."""
    found = pair_expectation(
        lambda s, t: special.erf(s + t) * special.erf(s - t), np.ones((3, 1)), np.array([0.1, 1.0])
    )
    assert found.shape == (3, 2)
    assert np.ptp(found, axis=0).max() == 0


@pytest.mark.parametrize(
    ("q", "d", "named"), [(-1.0, 0.5, "`q`.*-1"), (1.0, 2.5, "`d`.*2.5"), (1.0, -0.1, "`d`.*-0.1")]
)
def test_arguments_out_of_range_are_named(q, d, named):
    """q >= 0 and 0 <= d <= 2."""
    with pytest.raises(InvalidArgumentError, match=named):
        pair_expectation(lambda s, t: s * t, q, d)
