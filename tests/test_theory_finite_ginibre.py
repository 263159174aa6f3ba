"""The exact finite-width law against Laguerre's density, exact moments, Monte Carlo over networks, its wide limit."""

import math

import mpmath as mp
import numpy as np
import pytest
from cases import SEEDS
from scipy import special

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.theory.finite_ginibre import FiniteGinibre
from rmtbn.theory.finite_width import ginibre_moments, lyapunov_exponents
from rmtbn.theory.fuss_catalan import FussCatalan


@pytest.mark.parametrize("width", [1, 2, 7, 20])
def test_one_factor_has_laguerres_density(width):
    """L = 1: ρ(λ) = Σ_{j<N} L_j(Nλ)² e^{-Nλ}."""
    lam = np.array([1e-4, 0.02, 0.5, 1.0, 2.0, 3.9])
    exact = sum(special.eval_laguerre(j, width * lam) ** 2 for j in range(width)) * np.exp(-width * lam)
    visible = lam * exact > 1e-6
    np.testing.assert_allclose(FiniteGinibre(width=width, depth=1).pdf(lam)[visible], exact[visible], rtol=1e-8)


def test_products_of_scalars_have_the_meijer_density():
    """N = 1, L = 2: ρ = 2 K_0(2√λ), 1 - F = 2√λ K_1(2√λ)."""
    lam = np.array([1e-4, 0.3, 1.0, 8.0])
    law = FiniteGinibre(width=1, depth=2)
    np.testing.assert_allclose(law.pdf(lam), 2 * special.k0(2 * np.sqrt(lam)), rtol=1e-9)
    np.testing.assert_allclose(1 - law.cdf(lam), 2 * np.sqrt(lam) * special.k1(2 * np.sqrt(lam)), atol=1e-13)


def test_density_is_the_sum_over_biorthogonal_pairs():
    """ρ(s) = (1/N) Σ p_j q_j/h_j, q_j by its own Mellin–Barnes integral: eqs. of arXiv:1303.5694, N = 3, L = 2."""
    width, depth, lam = 3, 2, 0.7
    with mp.workdps(30):
        s, total = mp.mpf(lam) * width**depth, mp.mpf(0)
        for j in range(width):
            p = sum((-1) ** (j - i) * mp.binomial(j, i) * (mp.fac(j) / mp.fac(i)) ** depth * s**i for i in range(j + 1))
            q = mp.quad(lambda y, j=j: _pair(mp.mpc(1.5, y), j, depth, s), mp.linspace(-24, 24, 13)) / (2 * mp.pi)
            total += p * q.real / mp.fac(j) ** (depth + 1)
        exact = float(total / width * width**depth)
    assert float(FiniteGinibre(width=width, depth=depth).pdf(lam)) == pytest.approx(exact, rel=1e-11)


def _pair(t, j, depth, s):
    return s**-t * mp.gamma(t) ** (depth + 1) / mp.gamma(t - j)


@pytest.mark.parametrize(("width", "depth"), [(1, 3), (3, 2), (8, 5), (16, 1)])
def test_density_integrates_to_exact_moments(width, depth):
    """E m_1 = 1 and E m_2 by Wick's recursion; E ln λ = 2L mean exponent; the density gives the same."""
    law = FiniteGinibre(width=width, depth=depth)
    exact = ginibre_moments((width,) * (depth + 1), field="complex")
    assert (law.moment(0), law.moment(1)) == (1.0, 1.0)
    assert law.moment(2) == pytest.approx(exact.m2, rel=1e-14)
    mean = 2 * depth * lyapunov_exponents(width, field="complex").mean()
    assert law.log_moment() == pytest.approx(mean, rel=1e-14)
    x = np.linspace(-120, 14, 8001)
    weight = np.exp(law.log_pdf_log(x)) * (x[1] - x[0])
    assert np.sum(weight) == pytest.approx(1, abs=1e-10)
    assert np.sum(weight * x) == pytest.approx(mean, rel=1e-9)
    assert np.sum(weight * x**2) == pytest.approx(law.log_moment(2), rel=1e-8)
    assert np.sum(weight * np.exp(2 * x)) == pytest.approx(exact.m2, rel=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_mean_spectrum_of_networks_is_the_exact_law_and_not_that_of_another_depth(seed):
    """At every decile, the share of values below it over 4,000 networks of N = 4, L = 3, within 4 standard errors."""
    generator, width, depth, networks = rng.generator(seed, "finite"), 4, 3, 4000
    j = np.eye(width)
    for _ in range(depth):
        parts = generator.standard_normal((2, networks, width, width))
        j = (parts[0] + 1j * parts[1]) / math.sqrt(2 * width) @ j
    log_lam = 2 * np.log(np.linalg.svd(j, compute_uv=False))
    law = FiniteGinibre(width=width, depth=depth)
    p = np.arange(1, 10) / 10
    share = np.mean(log_lam[:, :, None] <= law.log_ppf(p), axis=1)
    error = share.std(axis=0, ddof=1) / math.sqrt(networks)
    assert np.all(np.abs(share.mean(axis=0) - p) < 4 * error)
    for other in (FiniteGinibre(width=width, depth=depth + 1), FiniteGinibre(width=width + 1, depth=depth)):
        assert np.max(np.abs(other.cdf_log(law.log_ppf(p)) - p) / error) > 8


def test_wide_products_approach_fuss_catalan_as_one_over_n():
    """sup |F_N - F_∞| falls as 1/N at L = 2: the repulsion's bias, without Monte Carlo."""
    x, widths = np.linspace(-20, 2.5, 2000), (4, 8, 16, 32)
    limit = FussCatalan(depth=2).cdf_log(x)
    distance = [np.abs(FiniteGinibre(width=n, depth=2).cdf_log(x) - limit).max() for n in widths]
    assert np.polyfit(np.log(widths), np.log(distance), 1)[0] == pytest.approx(-1, abs=0.1)


@pytest.mark.parametrize(("width", "depth"), [(1, 1), (6, 40), (12, 500)])
def test_quantiles_invert_the_cdf(width, depth):
    """F(F⁻¹(p)) = p to 1e-12 absolute, with a scale too."""
    law = FiniteGinibre(width=width, depth=depth, log_scale=3.5)
    p = np.concatenate([np.logspace(-11, -1, 21), np.linspace(0.1, 1 - 1e-11, 31)])
    np.testing.assert_allclose(law.cdf_log(law.log_ppf(p)), p, atol=1e-12)
    assert law.log_ppf([0.0, 1.0]).tolist() == [-math.inf, math.inf]
    assert law.cdf_log([-1e9, 1e9]).tolist() == [0.0, 1.0]
    assert law.log_pdf_log([-math.inf, -1e9, 1e9]).tolist() == [-math.inf] * 3
    assert law.log_moment() - FiniteGinibre(width=width, depth=depth).log_moment() == pytest.approx(3.5)


@pytest.mark.parametrize(
    ("build", "name", "value"),
    [
        (lambda: FiniteGinibre(width=49, depth=1), "width", "49"),
        (lambda: FiniteGinibre(width=0, depth=1), "width", "0"),
        (lambda: FiniteGinibre(width=2, depth=0), "depth", "0"),
        (lambda: FiniteGinibre(width=2, depth=1, log_scale=math.inf), "log_scale", "inf"),
        (lambda: FiniteGinibre(width=2, depth=1).moment(-1), "k", "-1"),
        (lambda: FiniteGinibre(width=2, depth=1).log_ppf(2.0), "p", "2.0"),
    ],
)
def test_arguments_out_of_range_are_named(build, name, value):
    with pytest.raises(InvalidArgumentError, match=f"`{name}` must be .*{value}"):
        build()
