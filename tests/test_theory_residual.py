"""The universal law of residual networks: its defining equation, edges, moments and symmetry, real networks."""

import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.compare import compare
from rmtbn.result import EmpiricalSpectrum
from rmtbn.theory import mean_field
from rmtbn.theory.free.factors import multiplicative_normal
from rmtbn.theory.free_probability import free_product_law
from rmtbn.theory.residual import ResidualLaw, branch_variance, residual_law
from rmtbn.theory.residual_moments import residual_moments

VARIANCES = (1e-6, 1e-3, 0.125, 0.5, 1.0, 10.0, 1e3)
P = np.concatenate([[1e-8, 1e-6, 1e-3], np.linspace(0.01, 0.99, 33), [1 - 1e-3, 1 - 1e-6]])


def oracle(log_lam, c):
    """Density of ln λ and P(λ' > λ) in 60 digits: θ by bisection, M from it, U = -ln M + c(2M + M²) + const."""
    with mp.workdps(60):
        c, x = mp.mpf(c), abs(mp.mpf(log_lam))

        def point(theta):
            b = theta / c
            return mp.mpc(mp.sqrt(max(1 + 2 * b * mp.cot(theta) - b * b, 0)), -b)

        def bisect(low, high, is_low):
            for _ in range(230):
                low, high = ((low + high) / 2, high) if is_low((low + high) / 2) else (low, (low + high) / 2)
            return low

        top = bisect(mp.mpf(0), mp.pi, lambda theta: theta * mp.tan(theta / 2) < c)
        ln_z = lambda v: mp.re(mp.log((v + 1) / (v - 1)) + c * v)  # noqa: E731
        m = (point(bisect(mp.mpf(10) ** -40, top, lambda theta: ln_z(point(theta)) > x)) - 1) / 2
        tail = mp.im(-mp.log(m) + c * (2 * m + m * m)) / mp.pi
        return -mp.im(m) / mp.pi, tail if log_lam > 0 else 1 - tail


@pytest.mark.parametrize("c", VARIANCES)
def test_density_and_both_tails_agree_with_sixty_digits(c):
    """z = ((1 + M)/M) e^{c(1 + 2M)}, density -Im M/π, from 1e-12 of the edge to λ = 1 and on both sides."""
    law = residual_law(c=c)
    edge = law.log_bulk[1]
    for share in (1 - 1e-12, 1 - 1e-6, 0.99, 0.7, 0.2, 1e-5, -0.4, -0.999):
        density, tail = oracle(edge * share, c)
        relative = max(1e-12, 1e-15 / (1 - abs(share)))  # the distance to the edge is known to an ulp of the edge
        assert float(np.exp(law.log_pdf_log(edge * share))) == pytest.approx(float(density), rel=relative)
        assert float(law.sf_log(edge * share)) == pytest.approx(float(tail), rel=2 * relative)
        assert float(law.cdf_log(edge * share)) == pytest.approx(float(1 - tail), rel=2 * relative)


@pytest.mark.parametrize("c", VARIANCES)
def test_edges_are_where_the_curve_turns(c):
    """((s ± 1)/(s ∓ 1)) e^{±√(c² + 2c)}, s = √(1 + 2/c); product 1."""
    s = math.sqrt(1 + 2 / c)
    low, high = residual_law(c=c).log_bulk
    assert low == -high
    assert high == pytest.approx(math.log((s + 1) ** 2 * c / 2) + math.sqrt(c * c + 2 * c), rel=1e-14)


def test_edges_are_those_of_the_notes():
    """c = 1/2 and c = 1, to the ten digits known."""
    assert residual_law(c=0.5).support == pytest.approx((0.1248730524, 8.0081329087), abs=1e-10)
    assert residual_law(c=1).support == pytest.approx((0.0474058944, 21.0944232477), abs=1e-10)


@pytest.mark.parametrize("c", VARIANCES)
def test_quantiles_invert_the_distribution_function(c):
    """F(F^{-1}(p)) = p, in both tails relatively; the law is that of 1/λ; edges at 0 and 1, λ = 1 at 1/2."""
    law = residual_law(c=c)
    x = law.log_ppf(P)
    assert np.allclose(law.cdf_log(x), P, rtol=1e-9, atol=0)
    assert np.allclose(law.sf_log(x), 1 - P, rtol=1e-9, atol=0)
    assert np.allclose(law.log_ppf(1 - P), -x, rtol=1e-9, atol=1e-12)
    assert np.allclose(law.log_pdf_log(-x), law.log_pdf_log(x), rtol=0, atol=1e-9)
    assert law.log_ppf([0.0, 0.5, 1.0]) == pytest.approx(
        [*law.log_bulk[:1], 0.0, law.log_bulk[1]], abs=1e-15 * max(1, c)
    )


@pytest.mark.parametrize("c", VARIANCES)
def test_density_integrates_to_mass_log_moments_and_moments(c):
    """Mass 1; E ln λ = 0, E ln² λ = 2c + c²/3; E λ = e^c, E λ² = (1 + 2c) e^{2c}: midpoints in ln λ = edge·sin t."""
    law, count = residual_law(c=c), 4000
    edge = law.log_bulk[1]
    t = math.pi * ((np.arange(count) + 0.5) / count - 0.5)
    x, weights = edge * np.sin(t), math.pi / count * edge * np.cos(t)
    weights = weights * np.exp(law.log_pdf_log(x))
    assert weights.sum() == pytest.approx(1.0, rel=1e-10)
    assert weights @ x**2 == pytest.approx(law.log_moment(2), rel=1e-10)
    assert law.log_moment(2) == pytest.approx(2 * c + c * c / 3, rel=1e-14)
    assert weights @ x**4 == pytest.approx(law.log_moment(4), rel=1e-10)
    assert law.log_moment(1) == law.log_moment(3) == 0.0
    for k in (1, 2, 3) if c <= 10 else ():
        assert weights @ np.exp(k * x) == pytest.approx(law.moment(k), rel=1e-10)


def test_first_moments():
    """m₁ = e^c, m₂/m₁² = 1 + 2c, m₃/m₁³ = 1 + 6c + 6c²; beyond the floating range inf."""
    law = residual_law(c=0.7)
    assert law.moment(0) == 1.0
    assert law.moment(1) == pytest.approx(math.exp(0.7), rel=1e-15)
    assert law.moment(2) == pytest.approx(2.4 * math.exp(1.4), rel=1e-15)
    assert law.moment(3) == pytest.approx((1 + 6 * 0.7 + 6 * 0.49) * math.exp(2.1), rel=1e-15)
    assert residual_law(c=1e3).moment(2) == math.inf


@pytest.mark.parametrize("c", [1e-3, 0.5, 3.0])
def test_general_engine_gives_the_same_law(c):
    """The free product of one factor with S = e^{-c(1 + 2M)}."""
    law, engine = residual_law(c=c), free_product_law([multiplicative_normal(c)])
    x = law.log_ppf(np.linspace(0.01, 0.99, 21))
    assert engine.log_bulk == pytest.approx(law.log_bulk, abs=1e-10)
    assert np.allclose(engine.log_pdf_log(x), law.log_pdf_log(x), rtol=0, atol=1e-9)
    assert np.allclose(engine.cdf_log(x), law.cdf_log(x), rtol=0, atol=1e-10)
    assert engine.moment(4) == pytest.approx(law.moment(4), rel=1e-12)


@given(log_c=st.floats(-8, 5), shift=st.floats(-500, 500), u=st.floats(-40, 40))
def test_every_variance_gives_a_law(log_c, shift, u):
    """c from 1e-8 to 1e5, any scale: quantiles invert F in both tails, no warning."""
    law = ResidualLaw(c=10**log_c, log_scale=shift)
    p = np.array([0.0, 1e-300, 1e-17, 1 / (1 + math.exp(-u)), 1 - 1e-16, 1.0])
    x = law.log_ppf(p)
    rounding = np.spacing(abs(shift) + law.log_bulk[1]) * np.exp(law.log_pdf_log(shift))
    assert np.all(np.abs(law.cdf_log(x) - p) < 1e-9 + 4 * rounding)
    assert not np.isnan(law.log_pdf_log(x)).any()


def test_small_variance_is_a_semicircle_in_log_lambda():
    """c → 0: density of ln λ = √(8c - x²)/(4πc), to order c."""
    c = 1e-6
    x = np.linspace(-0.99, 0.99, 21) * math.sqrt(8 * c)
    density = np.exp(residual_law(c=c).log_pdf_log(x))
    assert np.allclose(density, np.sqrt(8 * c - x * x) / (4 * math.pi * c), rtol=1e-4, atol=0)


def test_scale_moves_the_law():
    """λ e^a: quantiles of ln λ by a, E λ^k by e^{ka}, E ln λ = a."""
    law, moved = residual_law(c=0.5), ResidualLaw(c=0.5, log_scale=-2.5)
    assert np.allclose(moved.log_ppf(P), law.log_ppf(P) - 2.5, rtol=1e-13, atol=1e-13)
    assert np.allclose(moved.cdf_log(law.log_ppf(P) - 2.5), P, rtol=1e-9, atol=1e-13)
    assert moved.moment(2) == pytest.approx(law.moment(2) * math.exp(-5.0))
    assert (moved.log_moment(1), moved.log_moment(2)) == (-2.5, pytest.approx(6.25 + law.log_moment(2)))


def test_outside_the_bulk_there_is_nothing():
    """F = 0 below and 1 above, density 0, shapes kept."""
    law = residual_law(c=1)
    x = np.array([[-np.inf, -4.0], [4.0, np.inf]])
    assert law.cdf_log(x).tolist() == [[0.0, 0.0], [1.0, 1.0]]
    assert law.sf_log(x).tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert np.all(law.log_pdf_log(x) == -np.inf)


@pytest.mark.parametrize("c", [0.0, -1.0, math.nan, math.inf])
def test_variance_must_be_a_positive_number(c):
    """c > 0, named in the message."""
    with pytest.raises(InvalidArgumentError, match=r"`c` must be a finite number > 0"):
        residual_law(c=c)


def test_branch_variance_is_that_of_the_branches():
    """c = Σ α²χ: σ_w² of linear branches, σ_w²/2 of ReLU, χ₁(q_l) along the lengths of tanh; its square for m = 2."""
    assert branch_variance(residual_moments("linear", depth=7, sigma_w=1.5, alpha=0.2)) == pytest.approx(
        7 * 0.04 * 2.25
    )
    two = residual_moments("relu", depth=7, sigma_w=2, alpha=0.2, branch_layers=2)
    assert branch_variance(two) == pytest.approx(7 * 0.04 * 4)
    total, q = 0.0, 0.8
    for _ in range(5):
        total += 0.09 * mean_field.chi1(q, "tanh", sigma_w=1.4)
        q += 0.09 * mean_field.length_map(q, "tanh", sigma_w=1.4, sigma_b=0.3)
    found = branch_variance(residual_moments("tanh", depth=5, sigma_w=1.4, sigma_b=0.3, alpha=0.3, q0=0.8))
    assert found == pytest.approx(total, rel=1e-10)


PHI = {
    "linear": (lambda h: h, np.ones_like),
    "relu": (lambda h: np.maximum(h, 0), lambda h: (h > 0) * 1.0),
    "tanh": (np.tanh, lambda h: 1 / np.cosh(h) ** 2),
}


def residual_spectrum(activation, *, depth, width, alpha, sigma_w, networks):
    """Spectra of J = ∏ (I + α W₂ φ′(W₁x) W₁) on real forward passes."""
    phi, dphi = PHI[activation]
    rows = []
    for network in range(networks):
        generator = rng.generator(1, "residual", activation, network)
        x, jacobian = generator.standard_normal(width), np.eye(width)
        for _ in range(depth):
            first, last = sigma_w / math.sqrt(width) * generator.standard_normal((2, width, width))
            h, tangent = first @ x, first @ jacobian
            x = x + alpha * last @ phi(h)
            jacobian = jacobian + alpha * last @ (dphi(h)[:, None] * tangent)
        rows.append(np.log(np.linalg.svd(jacobian, compute_uv=False)))
    return EmpiricalSpectrum(by_network=np.array(rows), relative_error=1e-12, method="dense")


@pytest.mark.parametrize(("activation", "sigma_w"), [("linear", 1.0), ("relu", 2**0.5), ("tanh", 1.4)])
def test_real_residual_networks_follow_the_law_of_their_branch_variance_and_no_other(activation, sigma_w):
    """L = 100 blocks x + α W₂ φ(W₁ x), N = 100, 10 networks: accepted; with 1.3 c rejected. Networks are the unit."""
    measured = residual_spectrum(activation, depth=100, width=100, alpha=0.08, sigma_w=sigma_w, networks=10)
    moments = residual_moments(activation, depth=100, sigma_w=sigma_w, alpha=0.08, branch_layers=2, linear_first=True)
    c = branch_variance(moments)
    found = compare(residual_law(c=c), measured)
    assert found.verdict in {"agrees", "agrees to order 1/N"}
    assert found.ks < 0.02
    wrong = compare(residual_law(c=1.3 * c), measured)
    assert wrong.ks > found.ks + 0.01
    assert wrong.ks_pvalue < 0.01


def test_slopes_that_stay_the_same_in_all_blocks_widen_the_law():
    """J = ∏ (I + α W_l D), one D: m₂/m₁² = 1 + 2c + (κ - 1)c² + O(c³), κ = E φ′⁴/(E φ′²)², 2 for ReLU, 1 for D = I.

    So a branch W φ(x) of one layer, which sees nearly the same x in every block, is not of the universal law.
    """
    c, depth, width, networks = 0.2, 60, 100, 60
    slopes = math.sqrt(2) * (np.arange(width) % 2)
    generator, ratios = rng.generator(1, "frozen slopes"), []
    for _ in range(networks):
        frozen = linear = np.eye(width)
        for _ in range(depth):
            weights = generator.standard_normal((width, width)) * math.sqrt(c / depth / width)
            frozen, linear = frozen + weights @ (slopes[:, None] * frozen), linear + weights @ linear
        lam = np.linalg.svd(np.stack([frozen, linear]), compute_uv=False) ** 2
        ratios.append((lam**2).mean(axis=1) / lam.mean(axis=1) ** 2)
    excess = np.subtract(*np.transpose(ratios))
    error = excess.std(ddof=1) / math.sqrt(networks)
    assert error < 0.003
    assert np.mean(ratios, axis=0)[1] == pytest.approx(1 + 2 * c, abs=0.02)
    assert excess.mean() == pytest.approx(c * c, abs=c**3 / 2 + 4 * error)
