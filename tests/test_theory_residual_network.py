"""Linear residual networks of finite depth: edges, moments, the cubic at depth 1, the limit, and matrices."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.compare import compare
from rmtbn.result import EmpiricalSpectrum
from rmtbn.theory.residual import residual_law
from rmtbn.theory.residual_network import residual_network_law

NETWORKS = [
    (1, 1.0),
    (2, 1.0),
    (10, 1.0),
    (1, 0.3),
    (3, math.sqrt(0.99)),
    (3, math.sqrt(1.01)),
    (3, 1.5),
    (10_000, 0.01),
]


@pytest.mark.parametrize(("depth", "edge"), [(1, 6.75), (2, 21.85825), (5, 372.008), (10, 22361.79)])
def test_edges_of_unscaled_blocks_are_those_of_the_notes(depth, edge):
    """a = 1: 6.75, 21.85825, 372.008, 22361.79."""
    assert residual_network_law(depth=depth, alpha=1.0).support[1] == pytest.approx(edge, rel=1e-6)


@pytest.mark.parametrize(("depth", "alpha"), NETWORKS)
def test_mass_moments_and_quantiles(depth, alpha):
    """Mass 1, m₁ = (1 + ε)^L, m₂/m₁² = 1 + L(2ε + ε²)/(1 + ε)²; F inverts; the bulk reaches 0 from a = 1 on."""
    law, eps = residual_network_law(depth=depth, alpha=alpha), alpha**2
    assert sum(part.mean(np.ones_like) for part in law.bulk) == pytest.approx(1.0, abs=1e-11)
    assert law.moment(1) == pytest.approx(math.exp(depth * math.log1p(eps)), rel=1e-12)
    expected = 1 + depth * (2 * eps + eps**2) / (1 + eps) ** 2
    assert law.moment(2) / law.moment(1) ** 2 == pytest.approx(expected, rel=1e-11)
    mean_square = sum(part.mean(lambda w: np.exp(2 * w - 2 * depth * math.log1p(eps))) for part in law.bulk)
    assert mean_square == pytest.approx(expected, rel=1e-10)
    p = np.linspace(0.02, 0.98, 9)
    assert np.allclose(law.cdf_log(law.log_ppf(p)), p, rtol=0, atol=1e-10)
    assert law.support[0] == 0.0 or alpha < 1


def cubic_edges(eps):
    """Where λ(g) = (h + g)/(g h²), h = 1 - εg, turns next to g = 0+ and, for ε < 1, next to λ = 0."""
    g = np.polynomial.Polynomial([0, 1])
    top, bottom = 1 - eps * g + g, g * (1 - eps * g) ** 2
    turns = (top.deriv() * bottom - top * bottom.deriv()).roots()
    lam = [top(r) / bottom(r) for r in turns.real[np.abs(turns.imag) < 1e-9] if abs(bottom(r)) > 1e-9]
    return (min(lam) if eps < 1 else 0.0, max(lam))


@pytest.mark.parametrize("alpha", [0.3, 0.9, 1.0, 2.0])
def test_one_block_solves_the_cubic_of_dozier_and_silverstein(alpha):
    """g = E 1/(z - λ): g z (1 - εg)² - g - (1 - εg) = 0, density -Im g/π."""
    law, eps = residual_network_law(depth=1, alpha=alpha), alpha**2
    assert law.support == pytest.approx(cubic_edges(eps), rel=1e-9, abs=1e-9)
    for lam in law.ppf(np.linspace(0.05, 0.95, 7)):
        roots = np.roots([lam * eps**2, -2 * lam * eps, lam - 1 + eps, -1])
        assert float(law.pdf(lam)) == pytest.approx(-roots.imag.min() / math.pi, rel=1e-8)


def test_depth_leads_to_the_universal_law_as_one_over_depth():
    """c = La² = 1: F at fixed λ, and the edge 21.0944 of the limit, with errors 1/L."""
    limit, depths = residual_law(c=1.0), (16, 128, 1024)
    x = limit.log_ppf(np.linspace(0.1, 0.9, 9))
    laws = [residual_network_law(depth=depth, alpha=depth**-0.5) for depth in depths]
    for errors in (
        [np.max(np.abs(law.cdf_log(x) - limit.cdf_log(x))) for law in laws],
        [abs(law.log_bulk[1] - limit.log_bulk[1]) for law in laws],
    ):
        assert np.polyfit(np.log(depths), np.log(errors), 1)[0] == pytest.approx(-1.0, abs=0.05)


def blocks(depth, alpha, *, slopes, width=120, networks=8):
    """Spectra of ∏ (I + a D G), D² of the given values in equal shares."""
    rows, diagonal = [], np.resize(np.sqrt(slopes), width)
    for network in range(networks):
        generator, product = rng.generator(1, "blocks", depth, network), np.eye(width)
        for _ in range(depth):
            branch = generator.standard_normal((width, width)) * alpha / math.sqrt(width)
            product = product + generator.permutation(diagonal)[:, None] * (branch @ product)
        rows.append(np.log(np.linalg.svd(product, compute_uv=False)))
    return EmpiricalSpectrum(by_network=np.array(rows), relative_error=1e-12, method="dense")


def test_matrices_follow_the_law_of_their_depth_and_no_other():
    """L = 3, a = 0.7, N = 120: accepted up to order 1/N; two blocks or four are not."""
    measured = blocks(3, 0.7, slopes=[1.0])
    found = compare(residual_network_law(depth=3, alpha=0.7), measured)
    assert found.verdict in {"agrees", "agrees to order 1/N"}
    for depth in (2, 4):
        assert compare(residual_network_law(depth=depth, alpha=0.7), measured).ks > max(0.03, 3 * found.ks)


def test_branches_with_slopes_have_another_law_at_finite_depth():
    """x + φ′W with φ′² in {0, 2}: m₂/m₁² = 1 + (2ε + (κ - 1)ε²)/(1 + ε)² with κ = 3 where one matrix has 2."""
    for slopes, kappa in (([1.0], 2), ([0.0, 2.0], 3)):
        lam = np.exp(2 * blocks(1, 1.0, slopes=slopes, networks=20).by_network)
        ratios = (lam**2).mean(axis=1) / lam.mean(axis=1) ** 2
        error = ratios.std(ddof=1) / math.sqrt(ratios.size)
        assert error < 0.03
        assert ratios.mean() == pytest.approx(1 + (2 + (kappa - 1)) / 4, abs=4 * error + 2 / 120)


@settings(max_examples=10)
@given(
    log_alpha=st.floats(-4, 2), near_one=st.floats(-9, -2), which=st.booleans(), depth=st.sampled_from([1, 2, 17, 3000])
)
def test_every_network_has_a_law(log_alpha, near_one, which, depth):
    """a from 1e-4 to 100, and next to 1, where the bulk comes to reach 0: mass 1, quantiles invert F, no warning."""
    law = residual_network_law(depth=depth, alpha=1 - 10**near_one if which else 10**log_alpha)
    assert sum(part.mean(np.ones_like) for part in law.bulk) == pytest.approx(1.0, abs=1e-9)
    p = np.array([1e-9, 1e-3, 0.5, 0.999])
    assert np.allclose(law.cdf_log(law.log_ppf(p)), p, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"), [({"depth": 0, "alpha": 1.0}, "`depth`"), ({"depth": 1, "alpha": 0.0}, "`alpha`")]
)
def test_arguments_out_of_range_are_named(options, message):
    """L >= 1, a > 0."""
    with pytest.raises(InvalidArgumentError, match=message):
        residual_network_law(**options)
