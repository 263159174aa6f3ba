"""Fixed points of length and correlation, their slopes and depth scales, against derivations that share no code."""

import functools
import math

import mpmath
import numpy as np
import pytest

from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS
from rmtbn.theory.mean_field import critical_point, decorrelations, depth_scale, fixed_point
from rmtbn.theory.propagation import correlations

POINTS = [(1.3, 0.1), (2.5, 0.3)]  # (σ_w², σ_b²)
MP = {
    "tanh": (mpmath.tanh, lambda h: mpmath.sech(h) ** 2),
    "erf": (mpmath.erf, lambda h: 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-h * h)),
}


def gaussian(f, q):
    """E f(h) over h ~ N(0, q) in mpmath, for even f."""
    root = mpmath.sqrt(q)
    edges = [0, 0.5, 1, 2, 4, 8, 14]
    return 2 * mpmath.quad(lambda z: f(root * z) * mpmath.npdf(z), edges)


@functools.cache
def length_by_mpmath(name, weight, bias):
    """q*, χ₁ and χ_q = σ_w² E(φ′² + φφ″) = dq′/dq by numerical differentiation."""
    phi, dphi = MP[name]

    def after(q):
        return weight * gaussian(lambda h: phi(h) ** 2, q) + bias

    q = mpmath.findroot(lambda q: after(q) - q, (0.4, 0.6), tol=1e-14)
    return float(q), float(weight * gaussian(lambda h: dphi(h) ** 2, q)), float(mpmath.diff(after, q, h=1e-5))


@pytest.mark.parametrize(("weight", "bias"), POINTS)
@pytest.mark.parametrize("name", MP)
def test_smooth_fixed_points_match_mpmath(name, weight, bias):
    """q*, χ₁, ξ_q and (in the ordered phase, c* = 1) ξ_c = -1/ln χ₁, to 1e-9."""
    q, chi1, chi_q = length_by_mpmath(name, weight, bias)
    found = fixed_point(name, sigma_w=weight**0.5, sigma_b=bias**0.5)
    assert (found.q, found.chi1) == pytest.approx((q, chi1), rel=1e-9)
    assert found.xi_q == pytest.approx(-1 / math.log(chi_q), rel=1e-9)
    if chi1 < 1:
        assert found.c == 1.0
        assert found.xi_c == pytest.approx(-1 / math.log(chi1), rel=1e-9)


def test_relu_is_affine_in_the_length():
    """q* = σ_b²/(1 - σ_w²/2), χ₁ = χ_q = χ_c = σ_w²/2 and c* = 1, to 1e-12."""
    found = fixed_point("relu", sigma_w=1.3**0.5, sigma_b=0.1**0.5)
    assert (found.q, found.c, found.chi1, found.chi_q, found.chi_c) == pytest.approx(
        (0.1 / 0.35, 1.0, 0.65, 0.65, 0.65), rel=1e-12
    )
    assert (found.xi_q, found.xi_c) == pytest.approx((-1 / math.log(0.65),) * 2, rel=1e-11)
    assert (found.stable, fixed_point("relu", sigma_w=2**0.5).xi_c) == (True, math.inf)
    grown = fixed_point("relu", sigma_w=2.5**0.5, sigma_b=0.3**0.5)  # σ_w² > 2: no fixed point, c → 1
    assert (grown.q, grown.c, grown.xi_q, grown.stable) == (math.inf, 1.0, math.inf, False)
    assert (grown.chi1, grown.chi_q) == pytest.approx((1.25, 1.25), rel=1e-12)


@pytest.mark.parametrize(("weight", "bias"), POINTS)
def test_hard_tanh_matches_its_closed_moments(weight, bias):
    """E φ² = q P(χ²₃ < 1/q) + P(|h| > 1), E φ′² = P(|h| < 1), and χ_q = dq′/dq by mpmath."""

    def inside(q):
        return mpmath.erf(1 / mpmath.sqrt(2 * q))

    def after(q):
        pulled = inside(q) - mpmath.sqrt(2 / (mpmath.pi * q)) * mpmath.exp(-1 / (2 * q))
        return weight * (q * pulled + 1 - inside(q)) + bias

    q = mpmath.findroot(lambda q: after(q) - q, (0.5, 1.5))
    found = fixed_point("hard_tanh", sigma_w=weight**0.5, sigma_b=bias**0.5)
    assert (found.q, found.chi1) == pytest.approx((float(q), float(weight * inside(q))), rel=1e-9)
    assert found.xi_q == pytest.approx(float(-1 / mpmath.log(mpmath.diff(after, q))), rel=1e-9)


def hard_tanh_pair(q, c):
    """E φ(h₁)φ(h₂) and E φ′φ′ of hard-tanh by one integral over h₁ of closed conditional means in mpmath."""
    spread = mpmath.sqrt(q * (1 - c * c))

    def conditional(x):
        m = c * x
        a, b = (-1 - m) / spread, (1 - m) / spread
        low, high = mpmath.ncdf(a), mpmath.ncdf(b)
        clipped = m * (high - low) + spread * (mpmath.npdf(a) - mpmath.npdf(b)) + (1 - high) - low
        return clipped, high - low

    def density(x):
        return mpmath.npdf(x, 0, mpmath.sqrt(q))

    clipped = 2 * mpmath.quad(lambda x: min(x, 1) * conditional(x)[0] * density(x), [0, 0.5, 1, 2, 4, 9, 16])
    return clipped, 2 * mpmath.quad(lambda x: conditional(x)[1] * density(x), [0, 0.5, 1])


@pytest.mark.parametrize(("weight", "bias"), POINTS)
def test_chaotic_hard_tanh_matches_a_conditional_integral(weight, bias):
    """c* < 1 and χ_c: c* = [σ_w² E φφ + σ_b²]/q*, χ_c = σ_w² E φ′φ′ and ξ_c = -1/ln χ_c, to 1e-9."""
    found = fixed_point("hard_tanh", sigma_w=weight**0.5, sigma_b=bias**0.5)
    product, slopes = hard_tanh_pair(mpmath.mpf(found.q), mpmath.mpf(found.c))
    chi = float(weight * slopes)
    assert found.c < 0.995
    assert found.c == pytest.approx(float((weight * product + bias) / found.q), abs=1e-9 * (1 - found.chi_c))
    assert found.chi_c == pytest.approx(chi, rel=1e-9)
    assert found.xi_c == pytest.approx(-1 / math.log(chi), rel=1e-9)


@pytest.mark.parametrize(("weight", "bias"), [(4.0, 0.05), (2.5, 0.3)])
def test_chaotic_erf_solves_its_arcsine_equation(weight, bias):
    """c* q* = σ_w² (2/π) arcsin(2q*c*/(1+2q*)) + σ_b², χ_c = σ_w² (4/π)/√((1+2q*)² - (2q*c*)²) < 1 < χ₁."""
    found = fixed_point("erf", sigma_w=weight**0.5, sigma_b=bias**0.5)
    q, bend = found.q, 2 * found.q / (1 + 2 * found.q)
    near = (found.c - 0.05, found.c + 0.05)
    c = float(mpmath.findroot(lambda c: (weight * 2 / mpmath.pi * mpmath.asin(bend * c) + bias) / q - c, near))
    chi = weight * 4 / math.pi / math.sqrt((1 + 2 * q) ** 2 - (2 * q * c) ** 2)
    assert found.c == pytest.approx(c, abs=1e-9)
    assert (found.chi_c, found.xi_c) == pytest.approx((chi, -1 / math.log(chi)), rel=1e-9)
    assert found.chi_c < 1 < found.chi1


def test_no_bias_and_an_odd_activation_decorrelate_inputs():
    """c* = 0 for tanh in the chaotic phase at σ_b = 0, where χ_c = σ_w² (E φ′)²."""
    found = fixed_point("tanh", sigma_w=2.0)
    slope = gaussian(MP["tanh"][1], found.q)
    assert found.c == 0.0
    assert found.chi_c == pytest.approx(float(4 * slope**2), rel=1e-9)


@pytest.mark.parametrize("name", ["tanh", "erf", "hard_tanh", "selu"])
@pytest.mark.parametrize("weight", [0.8, 2.6])
def test_iteration_ends_at_the_fixed_point_at_its_rate(name, weight):
    """1 - c^l → 1 - c* and its deviations shrink by χ_c per layer, from any c⁰."""
    sigmas = {"sigma_w": weight**0.5, "sigma_b": 0.2**0.5}
    found = fixed_point(name, **sigmas)
    if found.q == math.inf:
        pytest.skip("lengths diverge")
    c = correlations(0.3, name, q0=1.0, depth=120, **sigmas)
    steps = np.abs(np.diff(c))
    last = np.flatnonzero(steps > 1e-9)[-1]
    ahead = (c[-1] - c[-2]) * found.chi_c / (1 - found.chi_c)  # the rest of a geometric series
    assert c[-1] + ahead == pytest.approx(found.c, abs=2e-5)
    assert steps[last] / steps[last - 1] == pytest.approx(found.chi_c, rel=0.02)


def test_close_to_the_critical_line_c_leaves_one_linearly():
    """1 - c* ≈ 2(χ₁ - 1)/C″(1): halving the distance from the critical σ_w halves it (slope 1 ± 0.02 in log-log)."""
    critical = critical_point("tanh", sigma_b=0.05**0.5).sigma_w
    distances = np.array([1e-4, 1e-3])
    gaps = [1 - fixed_point("tanh", sigma_w=critical + x, sigma_b=0.05**0.5).c for x in distances]
    assert np.diff(np.log(gaps))[0] / np.diff(np.log(distances))[0] == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("bias", [0.0, 1e-4, 0.1, 1.0, *(pytest.param(b, marks=pytest.mark.slow) for b in (0.01, 0.5))])
@pytest.mark.parametrize("name", MP)
def test_critical_line_matches_mpmath(name, bias):
    """σ_w² with χ₁(q*) = 1, to 1e-8 over σ_b² in [0, 1], with moments and root by mpmath."""
    phi, dphi = MP[name]
    found = critical_point(name, sigma_b=bias**0.5)
    if bias == 0:
        assert found.sigma_w**2 == pytest.approx({"tanh": 1.0, "erf": math.pi / 4}[name], rel=1e-8)
        return

    def excess(q):
        return q - gaussian(lambda h: phi(h) ** 2, q) / gaussian(lambda h: dphi(h) ** 2, q) - bias

    q = mpmath.findroot(excess, (found.q * 0.99, found.q * 1.01), solver="anderson", tol=1e-15)
    assert found.sigma_w**2 == pytest.approx(float(1 / gaussian(lambda h: dphi(h) ** 2, q)), rel=1e-8)


@pytest.mark.parametrize("name", ["linear", "relu", "leaky_relu", "tanh", "erf", "hard_tanh"])
def test_vanishing_lengths_keep_the_correlation_marginal(name):
    """At σ_w² = 0.5, σ_b = 0 lengths vanish, but c is normalised: φ is two half lines near 0, of slope 1 at c = 1."""
    found = fixed_point(name, sigma_w=0.5**0.5)
    assert (found.q, found.c, found.xi_c) == (0.0, 1.0, math.inf)
    assert found.chi1 == pytest.approx(0.5 * float(ACTIVATIONS[name].dphi(np.array([1e-9]))[0] ** 2), rel=1.01)


def test_depth_scale_is_where_deviations_fell_by_e():
    """ξ = -1/ln χ: 1/ln 2 at χ = 1/2, 0 at χ = 0, inf at χ = 1 and above; χ < 0 is refused."""
    assert depth_scale(0.5) == pytest.approx(1 / math.log(2), rel=1e-15)
    assert (depth_scale(0.0), depth_scale(1.0), depth_scale(1.2)) == (0.0, math.inf, math.inf)
    with pytest.raises(InvalidArgumentError, match=r"`chi`.*-0\.1"):
        depth_scale(-0.1)


def test_ordered_deviations_follow_the_depth_scale():
    """1 - c^l falls by e every ξ_c layers."""
    sigmas = {"sigma_w": 0.9, "sigma_b": 0.4}
    d = decorrelations(0.3, "tanh", q0=1.0, depth=80, **sigmas)
    assert math.log(d[40] / d[79]) == pytest.approx(39 / fixed_point("tanh", **sigmas).xi_c, rel=1e-6)
