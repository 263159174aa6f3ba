"""Limits of infinite depth: their equations, masses, moments, and the rate at which real networks' laws reach them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from scipy.special import lambertw

from rmtbn._checks import InvalidArgumentError
from rmtbn.theory import mean_field
from rmtbn.theory.bernoulli_limit import BernoulliLimit
from rmtbn.theory.depth_limit import bernoulli_limit, root_limit, slope_spread, smooth_limit
from rmtbn.theory.free.chain import Placed
from rmtbn.theory.free.factors import bernoulli, gaussian
from rmtbn.theory.free_probability import FreeProductLaw, parts
from rmtbn.theory.fuss_catalan import FussCatalan
from rmtbn.theory.jacobian import jacobian_law
from rmtbn.theory.root_limit import RootLimit

SPREADS = (1e-3, 0.25, 0.9, 1.0, 1.1, 4.0, 1e3)


def power_law(factor, depth):
    """The free product of `depth` equal factors."""
    curve, bulk, log_atoms = parts([Placed(factor=factor, count=depth)], start=1.0)
    return FreeProductLaw(curve=curve, bulk=bulk, log_atoms=log_atoms)


@pytest.mark.parametrize("s", SPREADS)
def test_bernoulli_limit_solves_lamberts_equation(s):
    """v = -W_{-1}(-s/x)/s on the cut: density -Im M/π, M = v/(1 - v), 1 - F = Im[(1 - s) ln(1 - v) - ln v]/π."""
    law = bernoulli_limit(s=s)
    edge = law.log_bulk[1]
    assert edge == pytest.approx(1 + math.log(s), rel=1e-15)
    x = edge - np.concatenate([[1e-6, 1e-3, 0.1, 1.0], np.linspace(2, 20, 7), [100.0, 500.0]])
    v = -lambertw(-s * np.exp(-x), -1) / s
    v = np.where(v.imag < 0, v, v.conj())
    m = v / (1 - v)
    tail = np.imag((1 - s) * np.log(1 - v) - np.log(v)) / np.pi
    assert np.allclose(np.exp(law.log_pdf_log(x)), -m.imag / np.pi, rtol=1e-8, atol=0)
    assert np.allclose(law.cdf_log(x), 1 - tail, rtol=0, atol=1e-9)


@pytest.mark.parametrize("s", SPREADS)
def test_bernoulli_limit_has_its_mass_and_quantiles(s):
    """F(es) = min(s, 1), the rest at e^s; F(F^{-1}(p)) = p; slopes of F are the density; F(0) = 0."""
    law = bernoulli_limit(s=s)
    share = np.concatenate([[1e-9, 1e-4], np.linspace(0.01, 0.99, 25), [1 - 1e-6]])
    p = share * min(s, 1.0)
    x = law.log_ppf(p)
    assert np.all(np.diff(x) > 0)
    assert np.allclose(law.cdf_log(x), p, rtol=1e-9, atol=1e-13)
    step = 1e-4 * np.minimum(1.0, law.log_bulk[1] - x[2:-1])
    slope = (law.cdf_log(x[2:-1] + step) - law.cdf_log(x[2:-1] - step)) / (2 * step)
    assert np.allclose(slope, np.exp(law.log_pdf_log(x[2:-1])), rtol=1e-5, atol=0)
    assert law.log_ppf([0.0, min(s, 1.0)]) == pytest.approx([-np.inf, law.log_bulk[1]])
    assert sum(mass for _, mass in law.atoms) == pytest.approx(max(0.0, 1 - s))
    if s < 1:
        assert law.log_ppf([s + 1e-3 * (1 - s), 1.0]) == pytest.approx([s, s])
        assert law.cdf_log([(s + 1 + math.log(s)) / 2, s - 1e-12, s]) == pytest.approx([s, s, 1.0])
    assert law.cdf_log([-np.inf, 1 + s]) == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize("s", SPREADS)
def test_bernoulli_limit_integrates_to_its_moments(s):
    """E λ^k = (1/k) Σ (k - j)(sk)^j/j!: 1, 1 + s, 1 + 2s + 3s²/2, by midpoints in p, atoms added."""
    law = bernoulli_limit(s=s)
    assert law.moment(1) == 1.0
    assert law.moment(2) == pytest.approx(1 + s, rel=1e-15)
    assert law.moment(3) == pytest.approx(1 + 2 * s + 1.5 * s * s, rel=1e-15)
    p = (np.arange(20000) + 0.5) / 20000 * min(s, 1.0)
    for k in (1, 2, 3):
        bulk = np.mean(np.exp(k * law.log_ppf(p))) * min(s, 1.0)
        found = bulk + sum(mass * lam**k for lam, mass in law.atoms)
        assert found == pytest.approx(law.moment(k), rel=3e-4 if s < 10 else 3e-2)  # 20,000 points miss the narrow top
    assert (law.log_moment(1), law.log_moment(2)) == (-math.inf, math.inf)


@pytest.mark.parametrize("s", [0.25, 3.0])
def test_general_engine_gives_the_bernoulli_limit(s):
    """10^8 free Bernoulli factors, each with 1/p = 1 + s/10^8."""
    law, p = bernoulli_limit(s=s), 1 / (1 + s * 1e-8)
    engine = power_law(bernoulli(p, value=1 / p), 10**8)
    x = law.log_ppf(np.linspace(0.2, 0.98, 25) * min(s, 1.0))
    assert engine.log_bulk[1] == pytest.approx(law.log_bulk[1], abs=1e-6)
    assert np.allclose(engine.log_pdf_log(x), law.log_pdf_log(x), rtol=0, atol=1e-6)
    assert np.allclose(engine.cdf_log(x), law.cdf_log(x), rtol=0, atol=1e-6)


@given(log_s=st.floats(-6, 6), near_one=st.floats(-16, -1), which=st.booleans(), u=st.floats(-60, 60))
def test_bernoulli_limit_is_a_law_for_every_spread(log_s, near_one, which, u):
    """s from 1e-6 to 1e6, and as near to 1 as floats go: quantiles invert F down to where floats end, no warning."""
    law = bernoulli_limit(s=1 + 10**near_one if which else 10**log_s)
    p = np.array([0.0, 1e-300, 1e-17, 1 / (1 + math.exp(-u)), 1 - 1e-16, 1.0])
    x = law.log_ppf(p)
    assert not np.isnan(law.log_pdf_log(x)).any()
    on_atom = x == (law.s if law.s < 1 else math.nan)
    assert np.all((np.abs(law.cdf_log(x) - p) < 1e-9) | on_atom)
    low = p * min(law.s, 1.0) * 1e-3
    assert np.allclose(law.cdf_log(law.log_ppf(low[2:4])), low[2:4], rtol=1e-8, atol=0)


def test_smooth_limit_has_the_edges_of_the_notes():
    """s = 1/4: [.3213189208, 2.4237626004]; mean 1, variance s."""
    law = smooth_limit(s=0.25)
    assert law.support == pytest.approx((0.3213189208, 2.4237626004), abs=1e-10)
    assert (law.moment(1), law.moment(2)) == pytest.approx((1.0, 1.25))


def slope(errors, depths):
    return np.polyfit(np.log(depths), np.log(errors), 1)[0]


@pytest.mark.parametrize("s", [0.25, 2.0])
def test_free_bernoulli_factors_reach_their_limit_as_one_over_depth(s):
    """p = 1/(1 + s/L): edge, atom and distribution function, with error 1/L."""
    limit, depths, found = bernoulli_limit(s=s), (16, 64, 256), []
    x = limit.log_ppf(np.linspace(0.1, 0.9, 9) * min(s, 1.0))
    for depth in depths:
        p = 1 / (1 + s / depth)
        law = power_law(bernoulli(p, value=1 / p), depth)
        atoms = [mass for lam, mass in law.atoms if lam > 0]
        found.append(
            (
                np.max(np.abs(law.cdf_log(x) - limit.cdf_log(x))),
                abs(law.log_bulk[1] - limit.log_bulk[1]),
                abs(sum(atoms) - max(0.0, 1 - s)) if s < 1 else 1 / depth,
            )
        )
    for errors in zip(*found, strict=True):
        assert slope(errors, depths) == pytest.approx(-1.0, abs=0.12)


def bias_of_length(activation, spread):
    """σ_b at whose critical point the slopes have the given spread."""

    def excess(log_bias):
        q = mean_field.critical_point(activation, sigma_b=math.exp(log_bias)).q
        return math.log(slope_spread(activation, q=q) / spread)

    return math.exp(optimize.brentq(excess, -14.0, 0.0, xtol=1e-6))


@pytest.mark.parametrize(("activation", "exponent"), [("tanh", -0.5), ("hard_tanh", -1.0)])
def test_orthogonal_networks_reach_the_limit_of_their_class(activation, exponent):
    """s = 1/2 at L = 256 and 2048: tanh the smooth one as L^{-1/2}, hard-tanh that of Bernoulli factors as 1/L."""
    s, depths, errors, other = 0.5, (256, 2048), [], []
    limits = {"tanh": smooth_limit(s=s), "hard_tanh": bernoulli_limit(s=s)}
    right = limits.pop(activation)
    (wrong,) = limits.values()
    for depth in depths:
        bias = bias_of_length(activation, s / depth)
        law = jacobian_law(activation, depth=depth, weights="orthogonal", sigma_b=bias)
        assert law.moment(2) == pytest.approx(1 + s, rel=1e-4)
        x = right.log_ppf(np.linspace(0.05, 0.45, 5))
        errors.append(np.max(np.abs(law.cdf_log(x) - right.cdf_log(x))))
        other.append(np.max(np.abs(law.cdf_log(x) - wrong.cdf_log(x))))
    assert slope(errors, depths) == pytest.approx(exponent, abs=0.15)
    assert errors[-1] < 0.03
    assert min(other) > 0.1


@pytest.mark.parametrize(
    ("p", "weights"), [(1.0, "gaussian"), (0.5, "gaussian"), (0.5, "orthogonal"), (0.1, "orthogonal")]
)
def test_roots_of_deep_products_reach_their_limit(p, weights):
    """P(λ^{1/L} <= x) → 1 - p + px and (1 - p)/(1 - px), errors as 1/L at fixed x; quantile 1/S(t - 1)."""
    limit = root_limit(p=p, weights=weights)
    factors = [bernoulli(p, value=1 / p)] if p < 1 else []
    x, depths, errors = np.log(np.linspace(0.1, 0.9, 9)), (50, 200, 800), []
    for depth in depths:
        chain = [
            Placed(factor=one, count=depth) for one in (*factors, *([gaussian()] if weights == "gaussian" else ()))
        ]
        curve, bulk, log_atoms = parts(chain, start=1.0)
        law = FreeProductLaw(curve=curve, bulk=bulk, log_atoms=log_atoms)
        errors.append(np.max(np.abs(law.cdf_log(depth * x) - limit.cdf_log(x))))
    assert errors[-1] < 4e-3
    assert slope(errors, depths) < -0.9


def test_root_of_fuss_catalan_is_uniform():
    """Median^{1/L}: .5177 (L = 5), .50030 (50), .5000033 (500)."""
    roots = [math.exp(float(FussCatalan(depth=depth).log_ppf(0.5)) / depth) for depth in (5, 50, 500)]
    assert roots == pytest.approx([0.5177, 0.50030, 0.5000033], abs=1e-4)
    assert [round(root, 7) for root in roots[2:]] == [0.5000033]


@pytest.mark.parametrize("law", [RootLimit(p=1.0), RootLimit(p=0.3), RootLimit(p=0.3, weights="orthogonal")], ids=str)
def test_root_limits_are_laws(law):
    """Quantiles invert F, the density is its slope, moments are integrals over quantiles, the atom is 1 - p."""
    t = (np.arange(4000) + 0.5) / 4000
    x = law.log_ppf(t)
    inside = np.isfinite(x)
    assert np.allclose(law.cdf_log(x[inside]), t[inside], rtol=0, atol=1e-13)
    assert np.mean(~inside) == pytest.approx(1 - law.p, abs=3e-4)
    step = 1e-6
    rate = (law.cdf_log(x[inside][:-9] + step) - law.cdf_log(x[inside][:-9] - step)) / (2 * step)
    assert np.allclose(np.exp(law.log_pdf_log(x[inside][:-9])), rate, rtol=1e-4, atol=1e-6)
    for k in (1, 2, 5):
        assert np.mean(np.exp(k * x)) == pytest.approx(law.moment(k), rel=1e-4)
    assert law.ppf([0.0, 1.0]).tolist() == [0.0, 1.0]
    if law.p == 1:
        assert np.mean(x**2) == pytest.approx(law.log_moment(2), rel=0.01) == 2.0
    else:
        assert (law.atoms, law.log_moment(1)) == (((0.0, 1 - law.p),), -math.inf)


def test_spread_of_slopes():
    """Var φ′²/(E φ′²)²: 0 for linear, 1 for ReLU, 1/p - 1 for hard-tanh, 8q² for tanh at small q."""
    assert slope_spread("linear", q=1.0) == 0.0
    assert slope_spread("relu", q=3.0) == 1.0
    p = math.erf(1 / math.sqrt(2 * 0.7))
    assert slope_spread("hard_tanh", q=0.7) == pytest.approx(1 / p - 1, rel=1e-12)
    assert slope_spread("tanh", q=1e-4) == pytest.approx(8e-8, rel=5e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: smooth_limit(s=0.0), "`s`"),
        (lambda: BernoulliLimit(s=-1.0), "`s`"),
        (lambda: root_limit(p=0.0), "`p`"),
        (lambda: root_limit(p=1.0, weights="orthogonal"), "`p` must be below 1 for orthogonal"),
        (lambda: root_limit(p=0.5, weights="haar"), "`weights`"),
        (lambda: slope_spread("sine", q=1.0), "sine"),
    ],
)
def test_arguments_out_of_range_are_named(make, message):
    """One line that names the argument."""
    with pytest.raises(InvalidArgumentError, match=message):
        make()
