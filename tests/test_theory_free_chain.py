"""Chains: ln z of rectangular products against the product formula, atoms against explicit subspaces."""

import itertools
import math

import numpy as np
import pytest

from rmtbn import rng
from rmtbn.theory.free import factors
from rmtbn.theory.free.chain import Placed, log_atoms, spectral_curve
from rmtbn.theory.free.terms import Place

U = np.array([-2.0 - 1.0j, -0.3 - 2.5j, 0.4 - 0.2j, 3.0 - 3.0j])  # in the strip
NO_FACTOR = np.empty((0, U.size), dtype=complex)


def log_z(chain, start=1.0):
    """ln z on the curve, and M there."""
    curve = spectral_curve(chain, start=start)
    return curve.residual(U, NO_FACTOR).log_z, Place.at(U, rank=curve.rank).m


@pytest.mark.parametrize("widths", [(100, 300, 50), (40, 20, 80, 30), (10, 10)])
def test_rectangular_gaussian_products_are_muttalib_formula(widths):
    """z = ((1 + M')/M') ∏ (n_l + n_0 M')/n_{l-1} for Jᵀ J, M' = M n_L/n_0, entries of variance 1/n_{l-1}."""
    chain = [Placed(factor=factors.gaussian(), dimension=n / widths[-1]) for n in widths[1:]]  # T = 1 + M/dimension
    found, m = log_z(chain, start=widths[0] / widths[-1])
    of_input = m * widths[-1] / widths[0]
    z = (1 + of_input) / of_input
    for before, after in itertools.pairwise(widths):
        z = z * (after + widths[0] * of_input) / before
    np.testing.assert_allclose(np.exp(found), z, rtol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_relu_layers_multiply(depth):
    """z = ((1 + M)/M) (1 + 2M)^L for Gaussian weights, ((1 + M)/M)((1 + 2M)/(1 + M))^L for orthogonal ones."""
    slopes = Placed(factor=factors.bernoulli(0.5, value=2.0), count=depth)
    gaussian, m = log_z([Placed(factor=factors.gaussian(), count=depth), slopes])
    np.testing.assert_allclose(np.exp(gaussian), (1 + m) / m * (1 + 2 * m) ** depth, rtol=1e-11)
    orthogonal, m = log_z([Placed(factor=factors.constant(1.0), count=depth), slopes])
    np.testing.assert_allclose(np.exp(orthogonal), (1 + m) / m * ((1 + 2 * m) / (1 + m)) ** depth, rtol=1e-11)


def test_a_count_is_so_many_factors():
    """Three times one factor, or one factor three times: the same curve."""
    own = factors.bernoulli(0.7, value=3.0)
    several, _ = log_z([Placed(factor=own)] * 3)
    at_once, _ = log_z([Placed(factor=own, count=3)])
    np.testing.assert_allclose(several, at_once, rtol=1e-13)


def test_the_rank_is_that_of_the_narrowest_space_or_factor():
    """p = min over spaces and factors of their rank, over the dimension of the last."""
    half = factors.bernoulli(0.5)
    assert spectral_curve([Placed(factor=half, dimension=1.5)]).rank == 0.75
    assert spectral_curve([Placed(factor=half, dimension=4.0)]).rank == 1.0
    assert spectral_curve([Placed(factor=half, dimension=4.0)], start=0.3).rank == 0.3


def projections(traces, n, *, seed):
    """Random projections of given ranks, in generic position."""
    draws = rng.generator(seed, "projections")
    for trace in traces:
        basis = np.linalg.qr(draws.standard_normal((n, n)))[0][:, : round(trace * n)]
        yield basis @ basis.T


@pytest.mark.parametrize("traces", [(0.8, 0.7), (0.9, 0.8, 0.7), (0.6, 0.3)])
def test_an_atom_of_projections_is_where_their_ranges_meet(traces):
    """Mass max(0, 1 - Σ (1 - p_l)) at 1, by the number of singular values 1 of explicit products."""
    atoms, _ = log_atoms([Placed(factor=factors.bernoulli(p)) for p in traces])
    n, product = 60, np.eye(60)
    for projection in projections(traces, n, seed=1):
        product = projection @ product
    share = float(np.mean(np.linalg.svd(product)[1] > 1 - 1e-9))
    assert sum(mass for _, mass in atoms) == pytest.approx(share, abs=1e-12)
    assert all(x == 0 for x, _ in atoms)


def test_an_atom_of_two_valued_factors_is_where_eigenspaces_meet():
    """d = 4 with probability 0.9, else 1: of three, λ = 64 with mass 0.7 only; of two, 16 with 0.8."""
    own = factors.points([1.0, 4.0], [0.1, 0.9])
    for count, mass in ((2, 0.8), (3, 0.7), (9, 0.1)):
        ((x, found),), _ = log_atoms([Placed(factor=own, count=count)])
        assert x == pytest.approx(count * math.log(4.0))
        assert found == pytest.approx(mass, abs=1e-12)
    draws = rng.generator(2, "eigenspaces")
    product = np.eye(40)
    for _ in range(2):
        basis = np.linalg.qr(draws.standard_normal((40, 40)))[0]
        product = (basis * np.where(np.arange(40) < 4, 1.0, 2.0)) @ basis.T @ product
    assert np.mean(np.abs(np.linalg.svd(product)[1] - 4) < 1e-9) == 0.8


def test_eigenvalues_that_multiply_to_one_value_are_one_atom():
    """2 · 3 and 3 · 2 meet at 6: masses 0.9 + r - 1 of each pair, added up where the products are equal."""
    first = factors.points([2.0, 3.0], [0.5, 0.5])
    second = factors.points([2.0, 3.0], [0.25, 0.75])
    atoms, lost = log_atoms([Placed(factor=first), Placed(factor=second)])
    np.testing.assert_allclose(atoms, [(math.log(6.0), 0.25), (math.log(9.0), 0.25)], atol=1e-12)
    assert lost == ()


def test_an_atom_whose_mass_has_just_gone_is_told():
    """Two projections of trace 1/2: nothing is left at 1, exactly, and the place is remembered."""
    atoms, lost = log_atoms([Placed(factor=factors.bernoulli(0.5, value=2.0), count=2)])
    assert atoms == ()
    np.testing.assert_allclose(lost, [2 * math.log(2.0)])


def test_a_factor_without_atoms_leaves_none():
    chain = [Placed(factor=factors.gaussian()), Placed(factor=factors.constant(2.0))]
    assert log_atoms(chain) == ((), ())


def test_atoms_do_not_lie_above_their_own_exponentials():
    """P(λ <= e^x) holds the atom at x: ln e^x >= x, for a thousand products of projections."""
    values = 1 + rng.generator(3, "values").random(1000)
    for value in values:
        ((x, _),), _ = log_atoms([Placed(factor=factors.bernoulli(0.9, value=float(value)), count=3)])
        assert float(np.log(np.exp(x))) >= x
        assert x == pytest.approx(3 * math.log(value), abs=1e-14)
