"""Intervals of the bulk: quantiles on both sides of an atom and next to edges, masses of intervals."""

import math

import numpy as np
import pytest

from rmtbn.theory.free import factors
from rmtbn.theory.free_probability import free_product_law
from rmtbn.theory.jacobian import jacobian_law

NEAR = np.array([1e-12, 1e-9, 1e-6, 1e-3])


def three_values():
    """1, 4, 9 with weights 0.05, 0.9, 0.05, twice: an atom of 0.8 at 16, with bulk on both sides of it."""
    own = factors.points([1.0, 4.0, 9.0], [0.05, 0.9, 0.05])
    return free_product_law([own, own])


LAWS = {
    "above the bulk": lambda: jacobian_law("hard_tanh", depth=4, sigma_w=1.0, sigma_b=0.5, weights="orthogonal"),
    "between intervals": three_values,
    "single factor": lambda: jacobian_law("selu", depth=1, sigma_w=1.0, sigma_b=0.5, weights="orthogonal"),
}


@pytest.mark.parametrize("name", LAWS)
def test_quantiles_near_an_atom(name):
    """In its jump they are the atom, to the last bit; on both sides they invert F and lie on their side."""
    law = LAWS[name]()
    ((x, mass),) = law.log_atoms
    below, top = float(law.cdf_log(np.nextafter(x, -math.inf))), float(law.cdf_log(x))
    assert top - below == pytest.approx(mass, abs=1e-12)
    np.testing.assert_array_equal(law.log_ppf([*(below + NEAR), below + mass / 2, *(top - NEAR)]), x)
    for p, side in ((below - NEAR, -1), (top + NEAR, 1)):
        if not 0 < p[-1] < 1:
            continue
        quantile = law.log_ppf(p)
        assert np.all(side * (quantile - x) >= 0)
        assert side * (quantile[-1] - x) > 0
        np.testing.assert_allclose(law.cdf_log(quantile[1:]), p[1:], rtol=0, atol=2e-10)
    grid = law.log_ppf(np.linspace(0, 1, 401))
    assert np.all(np.diff(grid[np.isfinite(grid)]) >= 0)


def test_the_atom_between_two_intervals_parts_their_masses():
    """What is not in the atom of 0.8 is in the two intervals, and F is constant between them."""
    law = three_values()
    low, high = law.bulk
    x = law.log_atoms[0][0]
    assert low.chart.high <= x <= high.chart.low
    assert low.mass + high.mass == pytest.approx(0.2, abs=1e-10)
    assert float(law.cdf_log(np.nextafter(x, -math.inf))) == pytest.approx(low.mass, abs=1e-10)
    for part in (low, high):
        assert part.mean(np.ones_like) == pytest.approx(part.mass, abs=1e-9)


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_quantiles_next_to_the_edges(name):
    """Far tails of 1e-9 and 1e-12: F of the quantile is p, and p = 0, 1 are the ends."""
    law = jacobian_law(name, depth=3, sigma_b=0.0 if name == "relu" else 0.3)
    zero = 1 - law.curve.rank
    p = np.array([zero + 1e-9, zero + 1e-6, 1 - 1e-6, 1 - 1e-12])
    quantile = law.log_ppf(p)
    np.testing.assert_allclose(law.cdf_log(quantile), p, rtol=0, atol=1e-12)
    assert law.log_ppf(1.0) == law.log_bulk[1]
    assert np.all(quantile < law.log_bulk[1])
    assert law.log_ppf(0.0) == (-math.inf if zero else law.log_bulk[0])
