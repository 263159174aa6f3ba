"""Free sums on the line against the sums that are known."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import integrate

from rmtbn._checks import InvalidArgumentError
from rmtbn.theory.free import series
from rmtbn.theory.free.addition import free_sum, marchenko_pastur, point_masses, semicircle
from rmtbn.theory.marchenko_pastur import MarchenkoPastur


def wide_semicircle(x):
    """1/2 + x √(100 - x²)/(100π) + arcsin(x/10)/π."""
    return 0.5 + x * np.sqrt(100 - x**2) / (100 * np.pi) + np.arcsin(x / 10) / np.pi


def test_the_sum_of_two_semicircles_is_a_semicircle():
    """Variances add: ρ = √(4v - x²)/(2πv), edges ±2√v."""
    law = free_sum(semicircle(9.0), semicircle(16.0, mean=1.0))
    x = np.linspace(-8.99, 10.99, 41)
    np.testing.assert_allclose(law.pdf(x), np.sqrt(100 - (x - 1) ** 2) / (50 * np.pi), rtol=1e-12)
    np.testing.assert_allclose(law.support, (-9, 11), rtol=1e-12)


@pytest.mark.parametrize("ratio", [0.3, 1.0, 1.9])
def test_the_sum_of_two_wishart_matrices_is_one_of_twice_as_many_columns(ratio):
    """MP(c) ⊞ MP(c) = 2 MP(c/2), and the edges 2(1 ± √(c/2))²."""
    law = free_sum(marchenko_pastur(ratio), marchenko_pastur(ratio))
    low, high = 2 * (1 - np.sqrt(ratio / 2)) ** 2, 2 * (1 + np.sqrt(ratio / 2)) ** 2
    x = np.linspace(low + 1e-3, high - 1e-3, 33)
    exact = np.sqrt((high - x) * (x - low)) / (2 * np.pi * x * ratio)
    np.testing.assert_allclose(law.pdf(x), exact, rtol=1e-11)
    np.testing.assert_allclose(law.support, (low, high), rtol=1e-11)
    assert law.atoms == ()


def test_adding_a_point_shifts_a_law():
    """X + a."""
    law, alone = (
        free_sum(marchenko_pastur(0.5), point_masses([3.0])),
        free_sum(marchenko_pastur(0.5), point_masses([0])),
    )
    x = np.linspace(0.1, 2.8, 17)
    np.testing.assert_allclose(law.pdf(x + 3), alone.pdf(x), rtol=1e-12)
    np.testing.assert_allclose(law.support, 3 + np.array([1 - 0.5**0.5, 1 + 0.5**0.5]) ** 2, rtol=1e-12)


def test_the_sum_of_two_coins_is_arcsine():
    """±1 plus free ±1: ρ = 1/(π√(4 - x²)), which diverges at the edges."""
    law = free_sum(point_masses([-1, 1]), point_masses([-1, 1]))
    x = np.linspace(-1.99, 1.99, 40)
    np.testing.assert_allclose(law.pdf(x), 1 / (np.pi * np.sqrt(4 - x**2)), rtol=1e-10)
    np.testing.assert_allclose(law.support, (-2, 2), rtol=1e-12)


def test_moments_of_a_sum_add_free_cumulants():
    """m_k = mean of z^{k+1} G(z) over a circle, against the series, for a semicircle plus points, with gaps."""
    law = free_sum(semicircle(0.01), point_masses([0.0, 1.0, 4.0]))
    known = series.boxplus([0, 0.01, 0, 2e-4], [5 / 3, 17 / 3, 65 / 3, 257 / 3])
    z = 10 * np.exp(1j * np.pi * (np.arange(40) + 0.5) / 40)
    g = law.cauchy_transform(z)
    moments = [float(np.mean((z ** (k + 1) * g).real)) for k in range(5)]
    np.testing.assert_allclose(moments, [1.0, *known], rtol=1e-11)


def test_heavy_atoms_stay():
    """Masses 0.8 at 1 and 0.7 at 1 leave 0.5 at 2; 0.8 and 0.3 leave 0.1 at 1."""
    law = free_sum(point_masses([0, 1], [0.2, 0.8]), point_masses([0, 1], [0.3, 0.7]))
    np.testing.assert_allclose(law.atoms, [(1, 0.1), (2, 0.5)], atol=1e-14)
    assert law.support[1] == 2.0


CLOSED = {
    "semicircle": (free_sum(semicircle(9.0), semicircle(16.0)), wide_semicircle),
    "marchenko-pastur": (
        free_sum(marchenko_pastur(0.6), marchenko_pastur(0.6)),
        MarchenkoPastur(ratio=0.3, log_scale=math.log(2)).cdf,
    ),
    "atom": (
        free_sum(marchenko_pastur(3.0), marchenko_pastur(3.0)),
        MarchenkoPastur(ratio=1.5, log_scale=math.log(2)).cdf,
    ),
    "coins": (free_sum(point_masses([-1, 1]), point_masses([-1, 1])), lambda x: 0.5 + np.arcsin(x / 2) / np.pi),
}


@pytest.mark.parametrize("name", CLOSED)
def test_distribution_functions_of_sums_in_closed_form(name):
    """F of a semicircle, of Marchenko & Pastur with and without an atom, of the arcsine law; 0 and 1 outside."""
    law, exact = CLOSED[name]
    low, high = law.support
    x = low + (high - low) * np.array([0.003, 0.1, 0.35, 0.5, 0.8, 0.99])
    np.testing.assert_allclose(law.cdf(x), exact(x), rtol=0, atol=1e-11)
    np.testing.assert_array_equal(law.cdf([low - 1e-9, high, high + 3.0]), [0.0, 1.0, 1.0])
    assert law.cdf(np.zeros((2, 3))).shape == (2, 3)


@pytest.mark.slow
def test_the_distribution_function_of_a_sum_jumps_at_its_atoms():
    """0.8 δ_1 + 0.2 δ_0 plus 0.7 δ_1 + 0.3 δ_0: F has jumps 0.1 at 1 and 0.5 at 2, and ∫ ρ between them."""
    law = free_sum(point_masses([0, 1], [0.2, 0.8]), point_masses([0, 1], [0.3, 0.7]))
    for x, mass in law.atoms:
        below, at = law.cdf([np.nextafter(x, -1.0), x])
        assert at - below == pytest.approx(mass, abs=1e-10)
    low, high = 0.3, 0.9
    mass = integrate.quad(lambda x: float(law.pdf(x)), low, high, epsabs=1e-12)[0]
    assert float(law.cdf(high) - law.cdf(low)) == pytest.approx(mass, abs=1e-10)
    grid = law.cdf(np.linspace(-0.1, 2.1, 201))
    assert np.all(np.diff(grid) >= -1e-12)


def test_the_distribution_function_rests_in_gaps():
    """Points 0, 1, 4 of weight 1/3 and a narrow semicircle: 1/3 and 2/3 in between."""
    law = free_sum(semicircle(0.01), point_masses([0.0, 1.0, 4.0]))
    np.testing.assert_allclose(law.cdf([0.5, 2.0, 3.0]), [1 / 3, 2 / 3, 2 / 3], rtol=0, atol=1e-11)


def test_a_summand_without_its_potential_has_no_distribution_function():
    law = free_sum(semicircle(), dataclasses.replace(semicircle(), angle=None))
    with pytest.raises(InvalidArgumentError, match="`first and second` must be given with their `angle`"):
        law.cdf(0.0)


def test_bad_laws_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"values.*distinct"):
        point_masses([1.0, 1.0])
    with pytest.raises(InvalidArgumentError, match=r"weights.*sum 1"):
        point_masses([1.0, 2.0], [0.5, 0.6])
    with pytest.raises(InvalidArgumentError, match=r"z.*Im z"):
        free_sum(semicircle(), semicircle()).cauchy_transform(1 - 1j)
