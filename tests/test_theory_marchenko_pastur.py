"""Marchenko–Pastur: tails against 700 digits, duality, Narayana moments, Fuss–Catalan at depth 1, Monte Carlo."""

import math

import mpmath as mp
import numpy as np
import pytest
from cases import SEEDS
from hypothesis import given
from hypothesis import strategies as st

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.theory.fuss_catalan import FussCatalan
from rmtbn.theory.marchenko_pastur import MarchenkoPastur

RATIOS = (1e-8, 1e-3, 0.1, 0.5, 0.999, 1 - 1e-9, 1.0, 1 + 1e-9, 2.0, 10.0, 1e8)


def oracle(c, log_lam):
    """ln(λρ), F of the bulk and 1 - F from the integral in θ: (1/π)[θ - sin θ/√c + (1/c - 1) arg(1 + √c e^{iθ})]."""
    with mp.workdps(700):  # λ = e^-700 sits at cos θ = -1 + 1e-304
        c, lam = mp.mpf(c), mp.exp(mp.mpf(log_lam))
        s = mp.sqrt(c)
        density = mp.sqrt(((1 + s) ** 2 - lam) * (lam - (1 - s) ** 2)) / (2 * mp.pi * c)
        theta = mp.acos((lam - 1 - c) / (2 * s))
        sf = (theta - mp.sin(theta) / s + (1 / c - 1) * mp.atan2(s * mp.sin(theta), 1 + s * mp.cos(theta))) / mp.pi
        return mp.log(density), min(1, 1 / c) - sf, sf


def points(law):
    """Points of the bulk, 1e-15 ... 1 of its width from each edge, and far into the tail where there is one."""
    low, high = (-5000.0 if law.ratio == 1 else law.log_bulk[0]), law.log_bulk[1]
    steps = np.logspace(-15, -0.3, 16) * (high - low)
    x = np.concatenate([high - steps, low + steps, [-700.0, -10.0]])
    return x[(x > low) & (x < high)].tolist()


@pytest.mark.parametrize("ratio", RATIOS)
def test_density_and_both_tails_agree_with_700_digits(ratio):
    """ρ = √((λ₊ - λ)(λ - λ₋))/(2πcλ) and its integral."""
    law = MarchenkoPastur(ratio=ratio)
    atom = law.atoms[0][1] if law.atoms else 0.0
    for x in points(law):
        log_density, cdf, sf = oracle(ratio, x)
        assert float(law.log_pdf_log(x)) == pytest.approx(float(log_density), rel=1e-13, abs=1e-12), x
        assert float(law.sf_log(x)) == pytest.approx(float(sf), rel=1e-12), x
        assert float(law.cdf_log(x)) - atom == pytest.approx(float(cdf), rel=1e-12, abs=1e-15 if atom else 1e-307), x


@pytest.mark.parametrize("ratio", [0.25, 1.0, 3.0])
def test_density_integrates_to_narayana_moments_and_the_mass_of_the_bulk(ratio):
    """∫ λ^k ρ dλ = Σ_j C(k,j) C(k-1,j) c^j/(j+1): 1, 1 + c, 1 + 3c + c², 1 + 6c + 6c² + c³."""
    law, c = MarchenkoPastur(ratio=ratio), ratio
    theta = (np.arange(4000) + 0.5) * math.pi / 4000  # midpoints: λ = 1 + c + 2√c cos θ
    lam = 1 + c + 2 * math.sqrt(c) * np.cos(theta)
    weight = law.pdf(lam) * 2 * math.sqrt(c) * np.sin(theta) * math.pi / 4000
    assert np.sum(weight) == pytest.approx(min(1, 1 / c), rel=1e-6 if c == 1 else 1e-12)
    exact = (1, 1 + c, 1 + 3 * c + c**2, 1 + 6 * c + 6 * c**2 + c**3)
    for k, moment in enumerate(exact, start=1):
        assert law.moment(k) == pytest.approx(moment, rel=1e-14)
        assert np.sum(weight * lam**k) == pytest.approx(moment, rel=1e-10)


def test_square_matrices_have_the_law_of_fuss_catalan_depth_one():
    """c = 1 and L = 1, both far into the tail and with a scale."""
    square, product = MarchenkoPastur(ratio=1.0, log_scale=0.5), FussCatalan(depth=1, log_scale=0.5)
    x = np.concatenate([-np.logspace(-3, 4, 30), np.linspace(0, 1.88, 20)])
    np.testing.assert_allclose(square.log_pdf_log(x), product.log_pdf_log(x), rtol=1e-13, atol=1e-12)
    np.testing.assert_allclose(square.cdf_log(x), product.cdf_log(x), rtol=1e-12)
    np.testing.assert_allclose(square.log_ppf([1e-200, 0.3, 0.9]), product.log_ppf([1e-200, 0.3, 0.9]), rtol=1e-13)
    for k in (1, 2, 3, 4, 20):
        assert square.log_moment(k) == pytest.approx(product.log_moment(k), rel=1e-11)
        assert square.moment(k) == pytest.approx(product.moment(k), rel=1e-13)


@pytest.mark.parametrize("ratio", [0.2, 1.0, 4.0])
def test_non_zero_eigenvalues_of_w_and_its_transpose_agree(ratio):
    """c F_c(λ) has the same bulk as F_{1/c}(λ/c)."""
    law, dual = MarchenkoPastur(ratio=ratio), MarchenkoPastur(ratio=1 / ratio, log_scale=math.log(ratio))
    x = np.linspace(law.log_bulk[1] - 3, law.log_bulk[1] + 0.1, 40)
    np.testing.assert_allclose(ratio * law.sf_log(x), dual.sf_log(x), rtol=1e-9, atol=1e-14)


def test_wide_output_has_an_atom_at_zero():
    """c = 4: mass 3/4 at 0, bulk [1, 9]; the cdf counts the atom, the quantiles fall into it."""
    law = MarchenkoPastur(ratio=4.0)
    assert law.atoms == ((0.0, 0.75),)
    assert law.support == (0.0, pytest.approx(9.0))
    assert law.cdf([-1.0, 0.0, 0.9, 9.1]).tolist() == [0.0, 0.75, 0.75, 1.0]
    assert law.ppf([0.0, 0.75]).tolist() == [0.0, 0.0]
    low, high = law.ppf([0.750001, 1.0])
    assert (low, high) == (pytest.approx(1.0, abs=1e-2), pytest.approx(9.0, rel=1e-14))
    assert (law.log_moment(1), law.log_moment(2)) == (-math.inf, math.inf)
    assert MarchenkoPastur(ratio=0.25).atoms == ()


@pytest.mark.parametrize("ratio", RATIOS)
def test_quantiles_invert_the_cdf(ratio):
    """F(F⁻¹(p)) = p to 1e-12 outside the atom, as far as log λ resolves the edges."""
    law = MarchenkoPastur(ratio=ratio)
    p = np.concatenate([np.logspace(-9, -1, 30), np.linspace(0.05, 1 - 1e-9, 50)])
    p = p[p > (law.atoms[0][1] if law.atoms else 0)]
    x = law.log_ppf(p)
    resolution = np.exp(law.log_pdf_log(x)) * np.spacing(np.abs(x))
    assert np.all(np.abs(law.cdf_log(x) - p) <= 1e-12 * p + 2 * resolution)
    assert law.log_ppf(1.0) == law.log_bulk[1]


@pytest.mark.parametrize("ratio", [1e-3, 0.3, 0.99])
def test_mean_log_is_the_closed_form_and_higher_ones_those_of_the_quantiles(ratio):
    """E ln λ = -1 - (1/c - 1) ln(1 - c); E (ln λ)^k = ∫ (F⁻¹)^k dp."""
    law = MarchenkoPastur(ratio=ratio)
    assert law.log_moment() == pytest.approx(-1 - (1 / ratio - 1) * math.log1p(-ratio), rel=1e-9)
    s = np.linspace(-40, 36, 2000)
    weight, quantile = (s[1] - s[0]) / (2 + 2 * np.cosh(s)), law.log_ppf(1 / (1 + np.exp(-s)))
    for k in (2, 3):
        assert law.log_moment(k) == pytest.approx(np.sum(weight * quantile**k), rel=1e-10)


@given(ratio=st.floats(1e-12, 1e12), x=st.floats(allow_nan=False), p=st.floats(0, 1))
def test_law_is_finite_and_monotone_at_every_ratio(ratio, x, p):
    """No NaN, no warning; 0 <= F <= 1; F + (1 - F) = 1; quantiles inside the support."""
    law = MarchenkoPastur(ratio=ratio)
    cdf = float(law.cdf_log(x))
    assert 0 <= cdf <= 1
    assert cdf + float(law.sf_log(x)) == pytest.approx(1, abs=1e-14)
    assert not math.isnan(float(law.log_pdf_log(x)))
    quantile = float(law.log_ppf(p))
    assert quantile == -math.inf or law.log_bulk[0] - 1e-14 <= quantile <= law.log_bulk[1] + 1e-14


@pytest.mark.parametrize("seed", SEEDS)
def test_gaussian_matrices_approach_the_law_of_their_shape_and_no_other(seed):
    """The KS distance of 100 pooled networks of 30·N × 20·N falls as 1/N; c = 1 and c = 2/3 are far."""
    distances = []
    for n in (1, 2, 4):
        w = rng.generator(seed, "mp", n).standard_normal((100, 30 * n, 20 * n)) / math.sqrt(20 * n)
        lam = np.sort(np.linalg.svd(w, compute_uv=False) ** 2, axis=None)
        rank = 1 / 3 + 2 / 3 * (np.arange(lam.size) + 0.5) / lam.size
        distances.append([np.abs(MarchenkoPastur(ratio=c).cdf(lam) - rank).max() for c in (1.5, 1.0, 2 / 3)])
    right, square, flipped = np.array(distances).T
    assert np.polyfit(np.log([1, 2, 4]), np.log(right), 1)[0] == pytest.approx(-1, abs=0.3)
    assert right[-1] < 0.01
    assert min(square[-1], flipped[-1]) > 0.04


@pytest.mark.parametrize(
    ("build", "name", "value"),
    [
        (lambda: MarchenkoPastur(ratio=0.0), "ratio", "0.0"),
        (lambda: MarchenkoPastur(ratio=math.inf), "ratio", "inf"),
        (lambda: MarchenkoPastur(ratio=1.0, log_scale=math.nan), "log_scale", "nan"),
        (lambda: MarchenkoPastur(ratio=1.0).log_ppf(-0.5), "p", "-0.5"),
        (lambda: MarchenkoPastur(ratio=1.0).moment(-2), "k", "-2"),
        (lambda: MarchenkoPastur(ratio=1.0).log_moment(0), "k", "0"),
    ],
)
def test_arguments_out_of_range_are_named(build, name, value):
    with pytest.raises(InvalidArgumentError, match=f"`{name}` must be .*{value}"):
        build()
