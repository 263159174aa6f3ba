"""The law of a network's Jacobian: closed forms, exact moments, atoms, edges, and independent routes."""

import math

import numpy as np
import pytest
from golden import LOG_EDGE

from rmtbn.theory.fuss_catalan import FussCatalan
from rmtbn.theory.jacobian import jacobian_law

DEPTHS = (1, 2, 3, 10, 100, 1000)
LEVELS = np.linspace(0.001, 0.999, 200)


@pytest.mark.parametrize("depth", DEPTHS)
def test_linear_gaussian_networks_are_fuss_catalan(depth):
    """The general engine against the exact angle: density to 1e-10 relative, F to 1e-11, the edge to 1e-12."""
    law, exact = jacobian_law("linear", depth=depth), FussCatalan(depth=depth)
    x = exact.log_ppf(LEVELS)
    np.testing.assert_allclose(law.log_pdf_log(x), exact.log_pdf_log(x), rtol=0, atol=1e-10)
    np.testing.assert_allclose(law.cdf_log(x), LEVELS, rtol=0, atol=1e-11)
    assert law.log_bulk[1] == pytest.approx(exact.log_bulk[1], abs=1e-12)


@pytest.mark.parametrize("depth", [*DEPTHS, 10_000])
def test_moments_of_linear_gaussian_networks_are_binomial(depth):
    """m_k = C((L + 1)k, k)/(Lk + 1) to order 8, to 1e-12."""
    law = jacobian_law("linear", depth=depth)
    for k in range(1, 9):
        assert law.moment(k) == pytest.approx(math.comb((depth + 1) * k, k) / (depth * k + 1), rel=1e-12)


@pytest.mark.parametrize("key", [key for key in LOG_EDGE if key[0] != "tanh"], ids=str)
def test_upper_edges_are_those_of_the_table(key):
    """Ln of the upper edge at criticality."""
    activation, weights, depth = key
    assert LOG_EDGE[key].agrees(jacobian_law(activation, depth=depth, weights=weights).log_bulk[1])


@pytest.mark.parametrize("depth", [2, 3, 10, 1000, 10_000])
def test_orthogonal_relu_networks_are_fuss_catalan_of_one_factor_less(depth):
    """z = (1 + w)^L/w with M = w/(1 - w): the curve of FC_{L-1}, but another density on it; edge L^L/(L-1)^{L-1}."""
    law = jacobian_law("relu", depth=depth, weights="orthogonal")
    edge = depth * math.log(depth) - (depth - 1) * math.log(depth - 1)
    assert law.log_bulk[1] == pytest.approx(edge, abs=1e-10)
    angle = np.linspace(0.01, 0.99, 50) * np.pi / depth
    w = np.sin(angle) / np.sin((depth - 1) * angle) * np.exp(-1j * depth * angle)
    log_lam = depth * np.log(np.abs(1 + w)) - np.log(np.abs(w))
    density = -(w / (1 - w)).imag / np.pi
    rounding = 1e-12 * depth  # of log_lam here, 2 % of a bulk's length from the edge
    np.testing.assert_allclose(law.log_pdf_log(log_lam), np.log(density), rtol=0, atol=1e-10 + rounding)
    assert law.atoms == ((0.0, 0.5),)
    assert sum(part.mean(np.ones_like) for part in law.bulk) == pytest.approx(0.5, abs=1e-11)


@pytest.mark.parametrize("depth", [1, 2, 5, 50, 10_000])
@pytest.mark.parametrize(("activation", "weights", "per_layer"), [("linear", "gaussian", 1), ("relu", "gaussian", 2)])
def test_variance_grows_by_a_constant_per_layer(activation, weights, per_layer, depth):
    """Var λ = L(E φ′⁴/(E φ′²)² - 1 + g) at mean 1."""
    law = jacobian_law(activation, depth=depth, weights=weights)
    assert law.moment(1) == pytest.approx(1.0, rel=1e-12)
    assert law.moment(2) - 1 == pytest.approx(per_layer * depth, rel=1e-11)


@pytest.mark.parametrize("sigma_b", [0.01, 0.2, 1.0])
@pytest.mark.parametrize("depth", [1, 2, 3, 7, 40])
def test_atoms_and_bulk_of_orthogonal_hard_tanh_networks_share_the_mass(depth, sigma_b):
    """An atom 1 - p at 0, one of max(0, 1 - L(1 - p)) at p^{-L}, and the rest in the bulk, below the atom."""
    law = jacobian_law("hard_tanh", depth=depth, weights="orthogonal", sigma_b=sigma_b)
    p = math.erf(1 / math.sqrt(2 * law.q[0]))
    expected = [(0.0, 1 - p)] * (p < 1) + [(p**-depth, 1 - depth * (1 - p))] * (depth * (1 - p) < 1)
    np.testing.assert_allclose(law.atoms, expected, rtol=1e-12, atol=1e-15)
    bulk = sum(part.mean(np.ones_like) for part in law.bulk)
    assert bulk + sum(mass for _, mass in law.atoms) == pytest.approx(1.0, abs=1e-9)
    assert law.support[1] == max(
        *(lam for lam, _ in law.atoms), 0.0 if law.log_bulk is None else np.exp(law.log_bulk[1])
    )
