"""The rule of an interval: means of a law in closed form, refinement, and what does not add up."""

import math

import numpy as np
import pytest
from scipy import integrate

from rmtbn.theory.free.branch import ConvergenceError
from rmtbn.theory.free.cells import Rule, rule


def semicircle(eta):
    """Wigner's law in w = cos η: density of η (2/π) sin² η, F = 1 - (η - sin η cos η)/π."""
    return 2 / math.pi * np.sin(eta) ** 2, 1 - (eta - np.sin(eta) * np.cos(eta)) / math.pi, np.cos(eta)


def spiked(eta):
    """A Lorentzian of width 1e-4 at η = 1, half of the mass, on 0 < η < 2; w = η."""
    width = 1e-4
    below = np.arctan((eta - 1) / width) / (2 * math.atan(1 / width)) + 0.5
    slope = width / ((eta - 1) ** 2 + width**2) / (2 * math.atan(1 / width))
    return 0.5 * slope + 0.25, 1 - 0.5 * below - 0.25 * eta, eta


def ruled(law, ends, *, rounding=1e-15) -> Rule:
    """The rule of a law η ↦ density, F, w."""

    def cdf_at(eta):
        return law(eta)[1]

    return rule(lambda eta: law(eta)[::2], ends, np.array(cdf_at(ends)), cdf_at=cdf_at, rounding=rounding)


@pytest.mark.parametrize("cells", [4, 7])
def test_means_of_a_law_in_closed_form(cells):
    """E 1 = 1, E w = 0, E w² = 1/4, E w⁴ = 1/8, with the cells of a table that resolves it."""
    ends = np.linspace(0, math.pi, cells + 1)
    found = ruled(semicircle, ends)
    for k, moment in ((0, 1.0), (1, 0.0), (2, 0.25), (4, 0.125)):
        assert found.w**k @ found.weights == pytest.approx(moment, abs=1e-12)


def test_cells_are_halved_where_the_density_is_steep():
    """The mass of a spike that no first cell resolves, and a mean against `quad`."""
    ends = np.array([0.0, 0.7, 2.0])
    found = ruled(spiked, ends)
    assert found.weights.sum() == pytest.approx(1.0, abs=1e-11)
    exact = integrate.quad(lambda x: math.exp(x) * spiked(x)[0], 0, 2, points=[1 - 1e-3, 1, 1 + 1e-3], limit=500)[0]
    assert np.exp(found.w) @ found.weights == pytest.approx(exact, abs=1e-9)
    assert 16 < found.w.size < 2000


def test_a_density_that_does_not_add_up_is_refused():
    """F of another law: no halving mends it."""

    def wrong(eta):
        slope, cdf, w = semicircle(eta)
        return 1.01 * slope, cdf, w

    ends = np.linspace(0, math.pi, 4)
    with pytest.raises(ConvergenceError, match="does not add up to its mass"):
        ruled(wrong, ends)


def test_what_is_within_the_rounding_is_not_halved():
    """A miss of 1e-8 is left where F is said to be wrong by as much, and found where it is not."""

    def near(eta):
        slope, cdf, w = semicircle(eta)
        return slope, cdf + 1e-8 * np.sin(777 * eta), w

    ends = np.linspace(0, math.pi, 9)
    kept = ruled(near, ends, rounding=1e-7)
    assert kept.w.size == 8 * 8
    assert ruled(near, ends).w.size > 8 * 8
