"""Fuss–Catalan and Raney laws against exact moments, 150-digit arithmetic, closed forms, known numbers, Monte Carlo."""

import math

import mpmath as mp
import numpy as np
import pytest
from cases import SEEDS
from hypothesis import given
from hypothesis import strategies as st

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.theory.finite_width import ginibre_moments
from rmtbn.theory.fuss_catalan import FussCatalan, Raney

DEPTHS = (1, 2, 3, 10, 100, 1000)
RANEY = ((1.25, 1.0), (1.5, 1.5), (2.0, 0.5), (3.0, 1.7), (4.5, 3.0), (7.0, 7.0), (30.0, 0.2))
NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)


def expectation(law, function, *, reach):
    """∫ f(y) ρ(y) dy over y = ln(edge) - ln λ < reach, by Gauss–Legendre panels in √y, where the density is smooth."""
    cuts = np.linspace(0, math.sqrt(reach), 41)
    half = (cuts[1] - cuts[0]) / 2
    root = (cuts[:-1, None] + half * (NODES + 1)).ravel()
    x = law.log_bulk[1] - root**2
    density = np.exp(law.log_pdf_log(x)) * 2 * root
    return np.sum(np.tile(half * WEIGHTS, 40) * density * function(x))


def oracle(p, r, log_lam):
    """ln(λρ), F and 1 - F (of r = 1) at the exact float log_lam: the defining formulas, 150 digits."""
    with mp.workdps(150):
        p, r = mp.mpf(p), mp.mpf(r)
        q, edge = p - 1, p * mp.log(p) - (p - 1) * mp.log(p - 1)

        def point(u):
            phi, delta = mp.pi / p / (1 + mp.exp(-u)), mp.pi / p / (1 + mp.exp(u))  # φ and π/p - φ
            sines = (mp.sin(p * phi), mp.sin(q * phi)) if u < 0 else (mp.sin(p * delta), mp.sin(mp.pi / p + q * delta))
            return phi, delta, *sines

        def height(fall):
            return mp.log(mp.expm1(2 * fall / p))

        def residual(u):
            phi, _, sin_p, sin_q = point(u)
            return height(edge - p * mp.log(sin_p) + mp.log(mp.sin(phi)) + q * mp.log(sin_q)) - target

        target = height(edge - mp.mpf(log_lam))
        phi, delta, sin_p, sin_q = point(mp.findroot(residual, (target / 2, target / 2 + 1), tol=1e-90, maxsteps=200))
        sin_r = sin_p if r == p else mp.sin(r * phi)
        wave = q / mp.pi * mp.sin(phi) * sin_p / sin_q
        return mp.log(sin_r / mp.pi) + r * mp.log(sin_p / sin_q), p * delta / mp.pi + wave, p * phi / mp.pi - wave


def points(law, depth):
    """Points of the whole bulk: the last float under the edge, 1e-15 ... 1 of it, the middle, and far into the tail."""
    edge = law.log_bulk[1]
    near = [np.nextafter(edge, -9), *(edge - edge * 10.0**-k for k in range(16))]
    far = [0.1, 0.0, -0.5, -1.0, -3.0, -10.0, -100.0, -700.0, -5000.0, -5e5]
    return [float(x) for x in (*near, *far, *(edge - depth * t for t in (0.01, 0.1, 1.0, 3.0, 10.0)))]


@pytest.mark.parametrize("depth", DEPTHS)
def test_density_and_both_tails_agree_with_150_digits_over_the_whole_support(depth):
    """λρ = (1/π) sin φ sin((L+1)φ)/sin(Lφ), F = 1 - (L+1)φ/π + (L/π) sin φ sin((L+1)φ)/sin(Lφ)."""
    law = FussCatalan(depth=depth)
    for x in points(law, depth):
        log_density, cdf, sf = oracle(depth + 1, 1, x)
        assert float(law.log_pdf_log(x)) == pytest.approx(float(log_density), rel=1e-13, abs=1e-12), x
        assert float(law.cdf_log(x)) == pytest.approx(float(cdf), rel=1e-12, abs=1e-307), x
        assert float(law.sf_log(x)) == pytest.approx(float(sf), rel=1e-12), x


@pytest.mark.parametrize("depth", range(1, 11))
def test_integrated_moments_are_fuss_catalan_numbers(depth):
    """∫ λ^k ρ dλ = C((L+1)k, k)/(Lk+1), k = 1..5, and the mass is 1."""
    law = FussCatalan(depth=depth)
    for k in range(1, 6):
        exact = math.comb((depth + 1) * k, k) // (depth * k + 1)
        assert law.moment(k) == exact
        assert expectation(law, lambda x, k=k: np.exp(k * x), reach=40.0) == pytest.approx(exact, rel=1e-10)
    assert expectation(law, np.ones_like, reach=36.0 * (depth + 1)) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(
    ("depth", "edge", "rho_tenth", "rho_one", "cdf_one"),
    [
        (1, "4", ".9939223010", ".2756644477", ".6089977810"),
        (2, "6.75", "1.0797205618", ".1789791275", ".6858236"),
        (10, "28.5311670611", ".5473639792", ".0565658196", ".8491053"),
        (50, "137.2709894828", ".1508081776", ".0143742861", ".9458739"),
    ],
)
def test_known_numbers_of_four_depths(depth, edge, rho_tenth, rho_one, cdf_one):
    """Edge (L+1)^{L+1}/L^L, ρ(0.1), ρ(1) and F(1), to every printed digit."""
    law = FussCatalan(depth=depth)
    values = (law.support[1], law.pdf(0.1), law.pdf(1.0), law.cdf(1.0))
    for value, printed in zip(values, (edge, rho_tenth, rho_one, cdf_one), strict=True):
        digits = len(printed.partition(".")[2])
        assert float(value) == pytest.approx(float(printed), abs=0.51 * 10.0**-digits)


def test_one_factor_is_marchenko_pastur():
    """L = 1: ρ = √((4-λ)/λ)/(2π), F = (2/π) arcsin(√λ/2) + √(λ(4-λ))/(2π)."""
    lam = np.array([1e-12, 1e-3, 0.3, 1.0, 2.5, 3.999])
    law = FussCatalan(depth=1)
    np.testing.assert_allclose(law.pdf(lam), np.sqrt((4 - lam) / lam) / (2 * np.pi), rtol=1e-12)
    wave = np.sqrt(lam * (4 - lam)) / (2 * np.pi)
    np.testing.assert_allclose(law.cdf(lam), 2 / np.pi * np.arcsin(np.sqrt(lam) / 2) + wave, rtol=1e-13)


@pytest.mark.parametrize("depth", [1, 2, 5, 64, 1000])
def test_density_vanishes_as_a_square_root_at_the_edge(depth):
    """ρ ~ √(2/z'') √(e-λ)/(πe) with z'' = e L³/(L+1), e the edge."""
    law = FussCatalan(depth=depth)
    edge, fall = law.support[1], 1e-9
    leading = math.sqrt(2 * (depth + 1) / (edge * depth**3)) * math.sqrt(edge * fall) / (math.pi * edge)
    assert np.exp(law.log_pdf_log(law.log_bulk[1] - fall)) / edge == pytest.approx(leading, rel=1e-6)


@pytest.mark.parametrize("depth", [1, 2, 5, 64, 1000])
def test_density_is_a_power_law_at_zero(depth):
    """ρ ~ sin(π/(L+1))/π λ^{-L/(L+1)} as λ → 0."""
    x = -60.0 * (depth + 1)
    leading = math.log(math.sin(math.pi / (depth + 1)) / math.pi) + x / (depth + 1)
    assert float(FussCatalan(depth=depth).log_pdf_log(x)) == pytest.approx(leading, rel=1e-12)


@pytest.mark.parametrize(("depth", "root"), [(5, 0.5177), (50, 0.50030), (500, 0.5000033)])
def test_median_to_the_power_one_over_depth_tends_to_one_half(depth, root):
    """λ^{1/L} → U(0, 1)."""
    assert math.exp(float(FussCatalan(depth=depth).log_ppf(0.5)) / depth) == pytest.approx(root, rel=1e-4)
    assert float(FussCatalan(depth=10_000).log_ppf(0.25)) / 10_000 == pytest.approx(math.log(0.25), abs=1e-3)


@pytest.mark.parametrize("depth", [*DEPTHS, 10_000])
def test_quantiles_invert_the_cdf_in_both_tails(depth):
    """F(F⁻¹(p)) = p to 1e-12, relative to the smaller tail as far as log λ can hold it."""
    law = FussCatalan(depth=depth)
    p = np.concatenate([np.logspace(-300, -1, 60), np.linspace(0.01, 1 - 1e-9, 301)])
    np.testing.assert_allclose(law.cdf_log(law.log_ppf(p)), p, rtol=1e-12)
    assert law.log_ppf([0.0, 1.0]).tolist() == [-math.inf, law.log_bulk[1]]


@pytest.mark.parametrize("depth", DEPTHS)
def test_log_moments_are_those_of_the_quantiles(depth):
    """E (ln λ)^k = ∫ (F⁻¹)^k dp, k = 1..4; mean -L, variance L² + Lπ²/3."""
    law = FussCatalan(depth=depth)
    s = np.linspace(-80, 36, 2500)  # p = 1/(1 + e^-s): the trapezoidal rule converges exponentially
    weight = (s[1] - s[0]) / (2 + 2 * np.cosh(s))
    quantile = law.log_ppf(1 / (1 + np.exp(-s)))
    for k in range(1, 5):
        assert law.log_moment(k) == pytest.approx(np.sum(weight * quantile**k), rel=1e-9)
    assert law.log_moment() == -depth
    assert law.log_moment(2) - depth**2 == pytest.approx(depth**2 + depth * math.pi**2 / 3, rel=1e-12)


def test_scale_shifts_log_lambda():
    """λ → e^s λ: quantiles and log density shift by s, the k-th moment gains e^{ks}."""
    law, scaled = FussCatalan(depth=7), FussCatalan(depth=7, log_scale=-2000.5)
    x, p = np.linspace(-30, 3, 50), np.linspace(0.01, 0.99, 9)
    np.testing.assert_allclose(scaled.log_pdf_log(x - 2000.5), law.log_pdf_log(x), atol=1e-9)
    np.testing.assert_allclose(scaled.log_ppf(p) + 2000.5, law.log_ppf(p), atol=1e-9)
    assert FussCatalan(depth=7, log_scale=0.5).moment(3) == pytest.approx(math.exp(1.5) * law.moment(3), rel=1e-14)
    assert scaled.log_moment() == -2007.5
    assert scaled.moment(1) == 0.0


def test_moments_leave_the_floating_range_as_infinity():
    """C(10001·80, 80) > 1e308; and the largest below it is still right."""
    law = FussCatalan(depth=10_000)
    assert law.moment(0) == 1.0
    assert law.moment(60) == float(math.comb(10_001 * 60, 60) // (10_000 * 60 + 1))
    assert law.moment(200) == math.inf
    assert law.log_moment(101) == -math.inf


@given(depth=st.integers(1, 10_000), x=st.floats(allow_nan=False), step=st.floats(0, 1e6))
def test_law_is_finite_and_monotone_at_every_depth_and_log_lambda(depth, x, step):
    """No NaN and no warning; 0 <= F <= 1, non-decreasing; F + (1-F) = 1; the density is -inf outside the bulk only."""
    law = FussCatalan(depth=depth)
    low, high = law.cdf_log([x, x + step])
    assert 0 <= low <= high + 1e-15 <= 1 + 2e-15
    assert low + float(law.sf_log(x)) == pytest.approx(1, abs=1e-14)
    log_density = float(law.log_pdf_log(x))
    assert not math.isnan(log_density)
    assert math.isfinite(log_density) == (-1e299 < x < law.log_bulk[1]) or not -1e299 < x < law.log_bulk[1] - 1e-9


@given(depth=st.integers(1, 10_000), p=st.floats(0, 1))
def test_every_quantile_inverts_the_cdf(depth, p):
    """F(F⁻¹(p)) = p, for subnormal p too."""
    law = FussCatalan(depth=depth)
    assert float(law.cdf_log(law.log_ppf(p))) == pytest.approx(p, rel=1e-11, abs=1e-300)


def log_spectra(generator, *, depth, width, networks):
    """ln λ of products of `depth` Gaussian matrices, shape (networks, width), each row ascending."""
    product = np.eye(width)
    for _ in range(depth):
        product = generator.standard_normal((networks, width, width)) @ product / math.sqrt(width)
    return np.sort(2 * np.log(np.linalg.svd(product, compute_uv=False)), axis=1)


@pytest.mark.parametrize("seed", SEEDS)
def test_products_of_gaussian_matrices_approach_the_law_of_their_depth_and_no_other(seed):
    """The KS distance of pooled networks falls as 1/N for L = 3, and stays away from L = 2 and L = 4."""
    widths, distances = (8, 16, 32, 64), []
    for width in widths:
        generator = rng.generator(seed, "fuss-catalan", width)
        pooled = np.sort(log_spectra(generator, depth=3, width=width, networks=400), axis=None)
        rank = np.arange(1, pooled.size + 1) / pooled.size
        distances.append([np.abs(FussCatalan(depth=depth).cdf_log(pooled) - rank).max() for depth in (3, 2, 4)])
    right, fewer, more = np.array(distances).T
    assert np.polyfit(np.log(widths), np.log(right), 1)[0] == pytest.approx(-1, abs=0.25)
    assert right[-1] < 0.015
    assert min(fewer[-1], more[-1]) > 0.04


@pytest.mark.parametrize("seed", SEEDS)
def test_moments_of_networks_are_those_of_the_law_and_the_known_correction_in_one_over_n(seed):
    """E m_1 = 1; E m_2 = L + 1 and the exact excess at N = 64, within 4 standard errors over networks."""
    lam = np.exp(log_spectra(rng.generator(seed, "moments"), depth=2, width=64, networks=200))
    exact = ginibre_moments((64, 64, 64))
    assert 0 < exact.m2 - FussCatalan(depth=2).moment(2) < 5 / 64
    for samples, expected in ((lam.mean(axis=1), 1.0), ((lam**2).mean(axis=1), exact.m2)):
        assert abs(samples.mean() - expected) < 4 * samples.std(ddof=1) / math.sqrt(200)


def test_raney_with_unit_r_is_fuss_catalan_by_another_route():
    """Raney(L+1, 1): its tails are quadratures, those of FussCatalan closed forms."""
    for depth in (1, 4, 50, 1000):
        law, raney = FussCatalan(depth=depth), Raney(p=depth + 1, r=1)
        x = np.concatenate(
            [np.linspace(-4 * depth, law.log_bulk[1] - 1e-3, 12), law.log_bulk[1] - np.logspace(-13, -1, 5)]
        )
        np.testing.assert_allclose(raney.cdf_log(x), law.cdf_log(x), rtol=1e-12)
        np.testing.assert_allclose(raney.sf_log(x), law.sf_log(x), rtol=1e-12)


def test_raney_of_two_and_two_is_the_semicircle_moved_to_zero_and_four():
    """Raney(2, 2): ρ = √(λ(4-λ))/(2π)."""
    lam = np.array([1e-9, 0.5, 2.0, 3.99])
    np.testing.assert_allclose(Raney(p=2, r=2).pdf(lam), np.sqrt(lam * (4 - lam)) / (2 * np.pi), rtol=1e-12)


@pytest.mark.parametrize(("p", "r"), RANEY)
def test_raney_density_integrates_to_its_moments_and_tails(p, r):
    """∫ λ^k ρ dλ = r C(kp + r, k)/(kp + r); F from the quadrature of the tails."""
    law = Raney(p=p, r=r)
    for k in range(1, 5):
        exact = r / (k * p + r) * float(mp.binomial(k * p + r, k))
        assert law.moment(k) == pytest.approx(exact, rel=1e-13)
        assert expectation(law, lambda x, k=k: np.exp(k * x), reach=40.0) == pytest.approx(exact, rel=1e-10)
    reach = 3.0
    assert expectation(law, np.ones_like, reach=reach) == pytest.approx(
        float(law.sf_log(law.log_bulk[1] - reach)), rel=1e-11
    )


@pytest.mark.parametrize(("p", "r"), RANEY)
def test_raney_density_agrees_with_150_digits(p, r):
    """λρ = (1/π) sin(rφ) (sin(pφ)/sin(qφ))^r."""
    law = Raney(p=p, r=r)
    for y in (1e-14, 1e-6, 0.1, 1.0, 10.0, 700.0):
        x = float(law.log_bulk[1] - y)
        assert float(law.log_pdf_log(x)) == pytest.approx(float(oracle(p, r, x)[0]), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("p", "r"), RANEY)
def test_raney_quantiles_invert_its_cdf_and_give_its_log_moments(p, r):
    """F(F⁻¹(p)) = p; E (ln λ)^k = ∫ (F⁻¹)^k dp, k = 1, 2."""
    law = Raney(p=p, r=r)
    probability = np.array([1e-200, 1e-9, 0.01, 0.5, 0.99, 1 - 1e-9])
    np.testing.assert_allclose(law.cdf_log(law.log_ppf(probability)), probability, rtol=1e-12)
    s = np.linspace(-60, 36, 400)
    weight, quantile = (s[1] - s[0]) / (2 + 2 * np.cosh(s)), law.log_ppf(1 / (1 + np.exp(-s)))
    for k in (1, 2):
        assert law.log_moment(k) == pytest.approx(np.sum(weight * quantile**k), rel=1e-8, abs=1e-8)


@pytest.mark.parametrize(
    ("build", "name", "value"),
    [
        (lambda: FussCatalan(depth=0), "depth", "0"),
        (lambda: FussCatalan(depth=True), "depth", "True"),
        (lambda: FussCatalan(depth=2, log_scale=math.inf), "log_scale", "inf"),
        (lambda: Raney(p=1.0, r=1.0), "p", "1.0"),
        (lambda: Raney(p=2.0, r=2.1), "r", "2.1"),
        (lambda: Raney(p=2.0, r=0.0), "r", "0.0"),
        (lambda: FussCatalan(depth=2).log_ppf(1.5), "p", "1.5"),
        (lambda: FussCatalan(depth=2).moment(-1), "k", "-1"),
        (lambda: FussCatalan(depth=2).log_moment(0), "k", "0"),
        (lambda: FussCatalan(depth=2).cdf_log(math.nan), "log_lam", "nan"),
    ],
)
def test_arguments_out_of_range_are_named(build, name, value):
    with pytest.raises(InvalidArgumentError, match=f"`{name}` must be .*{value}"):
        build()
