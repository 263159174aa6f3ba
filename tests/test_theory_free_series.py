"""Moments, free cumulants and S-transforms as exact series, each against a known sequence."""

import math
from fractions import Fraction

import pytest

from rmtbn._checks import InvalidArgumentError
from rmtbn.theory.free import series

CATALAN = [1, 2, 5, 14, 42, 132, 429, 1430]


def fuss_catalan(depth, order=8):
    return [Fraction(math.comb((depth + 1) * k, k), depth * k + 1) for k in range(1, order + 1)]


def test_free_cumulants_of_the_semicircle_are_its_variance():
    """κ_2 = 1 and no other: moments 0, 1, 0, 2, 0, 5, the Catalan numbers."""
    assert series.free_cumulants([0, 1, 0, 2, 0, 5, 0, 14]) == [0, 1, 0, 0, 0, 0, 0, 0]
    assert series.moments_of_free_cumulants([0, 1, 0, 0, 0, 0]) == [0, 1, 0, 2, 0, 5]


def test_free_cumulants_of_the_free_poisson_law_are_equal():
    """κ_n = 1 for every n: the Catalan numbers are the moments of one Gaussian matrix."""
    assert series.free_cumulants(CATALAN) == [1] * 8


def test_s_transform_of_the_free_poisson_law():
    """S = 1/(1 + m) = 1 - m + m² - ..."""
    assert series.s_series(CATALAN) == [(-1) ** k for k in range(8)]


@pytest.mark.parametrize("depth", [1, 2, 5, 40])
def test_free_products_of_free_poisson_laws_are_fuss_catalan(depth):
    """S^L, and L factors one after another, both exactly."""
    product = CATALAN
    for _ in range(min(depth, 5) - 1):
        product = series.boxtimes(product, CATALAN)
    assert product == fuss_catalan(min(depth, 5))
    assert series.boxtimes_power(CATALAN, depth) == fuss_catalan(depth)


def test_moments_and_transforms_are_inverse_to_each_other():
    """Moments → κ → moments, and moments → S → moments, in exact arithmetic."""
    moments = [Fraction(3, 2), Fraction(7, 2), Fraction(19, 2), 30, Fraction(211, 2)]
    assert series.moments_of_free_cumulants(series.free_cumulants(moments)) == moments
    assert series.moments_of_s_series(series.s_series(moments)) == moments


def test_the_free_sum_of_two_coins_is_arcsine():
    """±1 plus free ±1: moments C(2k, k) at 2k (Voiculescu, Dykema & Nica 1992)."""
    coin = [0, 1, 0, 1, 0, 1, 0, 1]
    assert series.boxplus(coin, coin) == [0, 2, 0, 6, 0, 20, 0, 70]


def test_half_of_a_free_poisson_law_is_free_poisson():
    """κ_n → t^{n-1} κ_n is Marchenko–Pastur of ratio t, of moments 1, 1 + t, 1 + 3t + t², ..."""
    t = Fraction(1, 3)
    assert series.compression(CATALAN, t)[:3] == [1, 1 + t, 1 + 3 * t + t * t]


def test_a_compression_needs_a_trace():
    with pytest.raises(InvalidArgumentError, match=r"trace.*1.5"):
        series.compression(CATALAN, 1.5)


def test_an_s_transform_needs_a_mean():
    with pytest.raises(InvalidArgumentError, match=r"moments.*first not 0"):
        series.s_series([0, 1])
