"""The law of φ′² as a factor: masses, moments against `quad`, and what is refused."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import integrate, optimize, special

from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import Activation, activation
from rmtbn.theory.slope_law import slope_factor


def _sech2(h):
    decay = np.exp(-2 * np.abs(h))
    return 4 * decay / (1 + decay) ** 2


def expectation(function, q):
    root = math.sqrt(q)
    pieces = [(-12, -3), (-3, -1), (-1, 0), (0, 1), (1, 3), (3, 12)]
    return sum(
        integrate.quad(lambda z: function(root * z) * math.exp(-z * z / 2), a, b, epsabs=1e-14, limit=300)[0]
        for a, b in pieces
    ) / math.sqrt(2 * math.pi)


@pytest.mark.parametrize("q", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("name", ["tanh", "erf", "gelu", "silu", "selu"])
def test_moments_are_those_of_the_slope(name, q):
    """E d^k = E φ′^2k, k = 1, 2, 3, to 1e-11."""
    factor, record = slope_factor(activation(name), q), activation(name)
    for k in (1, 2, 3):
        exact = expectation(lambda h, k=k: float(record.dphi(np.array([h]))[0]) ** (2 * k), q)
        assert math.exp(factor.law.log_moment(k) + k * factor.log_mean) == pytest.approx(exact, rel=1e-11)


@pytest.mark.parametrize("name", ["tanh", "gelu"])
def test_moment_transform_is_the_mean_of_its_kernel(name):
    """M(ζ) = E d/(ζ - d), off the axis and near it."""
    factor, record = slope_factor(activation(name), 0.7), activation(name)
    for zeta in (2 + 1j, 0.4 + 0.05j, -0.01):
        m = factor.law.sums(np.array([np.log(zeta + 0j) - factor.log_mean]))[0][0]

        def kernel(h, zeta=zeta):
            d = float(record.dphi(np.array([h]))[0]) ** 2
            return d / (zeta - d)

        exact = expectation(lambda h: complex(kernel(h)).real, 0.7) + 1j * expectation(
            lambda h: complex(kernel(h)).imag, 0.7
        )
        assert abs(m - exact) < 1e-10 * abs(exact)


@pytest.mark.parametrize("q", [1e-4, 0.3, 50.0])
def test_hard_tanh_is_a_projection(q):
    """P(|h| < 1) = erf(1/√(2q))."""
    factor = slope_factor(activation("hard_tanh"), q)
    assert factor.rank == pytest.approx(math.erf(1 / math.sqrt(2 * q)), rel=1e-14)


def test_selu_has_an_atom_of_one_half():
    """φ′ is constant for h > 0."""
    ((_, mass),) = slope_factor(activation("selu"), 1.0).atoms
    assert mass == pytest.approx(0.5, abs=1e-15)


def test_what_spans_too_many_decades_is_refused():
    with pytest.raises(InvalidArgumentError, match=r"q.*so small.*5000"):
        slope_factor(activation("erf"), 5000.0)


def test_mass_that_piles_up_where_a_slope_levels_off_is_counted():
    """GELU, d > 1: P(φ′² > d) = P(a < h < b) with φ′(a) = φ′(b); F never falls within 1e-7 of d = 1, from above."""
    q, record = 8.772, activation("gelu")
    law = slope_factor(record, q).law.scaled(0.0)
    b = np.linspace(2.5, 6.0, 15)
    level = record.dphi(b)
    a = [
        optimize.brentq(lambda h, y=y: float(record.dphi(np.array([h]))[0]) - y, 0.0, 2**0.5, xtol=1e-15) for y in level
    ]
    log_mean = slope_factor(record, q).log_mean
    cdf = law.at(2 * np.log(level) - log_mean)[1]
    expected = 1 - (special.ndtr(b / q**0.5) - special.ndtr(np.array(a) / q**0.5))
    np.testing.assert_allclose(cdf, expected, rtol=0, atol=1e-15 / np.min(level - 1) * 0.1)
    near = law.at(np.logspace(-15, -7, 400) - log_mean)[1]
    assert np.all(np.diff(near) >= -1e-15)
    assert near[-1] - near[0] > 0.02


@pytest.mark.parametrize("name", ["tanh", "erf", "gelu", "silu", "selu"])
def test_levels_and_poles_are_one_density(name):
    """The roots of φ′(h)² = d against the moment transform of the panels on the axis, away from pile-ups."""
    law = slope_factor(activation(name), 1.3).law
    x = law.span[1] - np.array([0.003, 0.3, 2.0, 5.0, 15.0])
    by_levels, by_poles = law.at(x), dataclasses.replace(law, levels=None).at(x)
    np.testing.assert_allclose(by_levels[0], by_poles[0], rtol=1e-8)
    np.testing.assert_allclose(by_levels[1], by_poles[1], rtol=0, atol=1e-12)


def test_a_slope_of_the_users_own_has_its_levels():
    """φ′ = 0.4 + sin h, given without its φ″: zeros and extrema are found, and the poles give the same law."""
    own = Activation(
        name="own", formula="0.4*x - cos(x)", phi=lambda h: 0.4 * h - np.cos(h), dphi=lambda h: 0.4 + np.sin(h)
    )
    law = slope_factor(own, 1.3).law
    x = np.array([-8.0, -2.0, -0.5, 0.1, 0.3])
    for by_levels, by_poles in zip(law.at(x), dataclasses.replace(law, levels=None).at(x), strict=True):
        np.testing.assert_allclose(by_levels, by_poles, rtol=1e-9)


@pytest.mark.parametrize(("q", "slope"), [(5.0, lambda h: np.exp(-h * h)), (300.0, _sech2)])
def test_a_slope_that_underflows_far_out_is_cut_off_there(q, slope):
    """φ′ given by itself, 0 in floating point from h = 12 or 20 standard deviations on: moments as of the logarithm."""
    own = Activation(name="own", formula="x", phi=lambda h: h, dphi=slope)
    known = activation("erf" if q == 5.0 else "tanh")
    law, exact = slope_factor(own, q), slope_factor(known, q)
    assert law.rank == 1.0
    for k in (1, 2, 3):
        scale = 2 * k * math.log(math.pi**0.5 / 2) if known.name == "erf" else 0.0
        expected = exact.law.log_moment(k) + k * exact.log_mean + scale
        assert law.law.log_moment(k) + k * law.log_mean == pytest.approx(expected, rel=1e-12)


def test_a_slope_that_underflows_where_there_is_mass_is_refused():
    own = Activation(name="own", formula="x", phi=lambda h: h, dphi=lambda h: np.exp(-h * h))
    with pytest.raises(InvalidArgumentError, match=r"q.*so small that φ′.*300\.0"):
        slope_factor(own, 300.0)


@pytest.mark.parametrize("q", [0.3, 5.0, 300.0])
def test_an_interval_on_which_a_slope_vanishes_is_mass_at_zero(q):
    """Hard swish, φ′ = 0 for h < -3, (2h + 3)/6, 1 for h > 3: rank P(h > -3), an atom P(h > 3) at 1, E d by parts."""
    swish = Activation(
        name="hard_swish",
        formula="x*Min(Max(x + 3, 0), 6)/6",
        phi=lambda h: h * np.clip(h + 3, 0, 6) / 6,
        dphi=lambda h: np.where(h < -3, 0.0, np.where(h > 3, 1.0, (2 * h + 3) / 6)),
        kinks=(-3.0, 3.0),
    )
    factor, edge = slope_factor(swish, q), 3 / math.sqrt(q)
    tail, inner = special.ndtr(-edge), special.erf(edge / math.sqrt(2))
    assert factor.rank == pytest.approx(1 - tail, abs=1e-14)
    assert factor.atoms == ((0.0, pytest.approx(tail, rel=1e-12)),)
    second = q * (inner - 2 * edge * math.exp(-(edge**2) / 2) / math.sqrt(2 * math.pi))
    assert math.exp(factor.log_mean) == pytest.approx(second / 9 + inner / 4 + tail, rel=1e-12)


def test_a_slope_that_oscillates_too_fast_is_refused():
    """φ = sin, φ′ = cos, and φ′ = 2 + cos: at q = 300 some four hundred zeros, or extrema, within reach."""
    for name, slope in (("zeros", np.cos), ("extrema", lambda h: 2 + np.cos(h))):
        own = Activation(name=name, formula="sin(x)", phi=np.sin, dphi=slope)
        assert slope_factor(own, 20.0).law.mass == pytest.approx(1.0, abs=1e-12)
        with pytest.raises(InvalidArgumentError, match=r"`q` must be so small that φ′.*at most 200.*300\.0"):
            slope_factor(own, 300.0)


def test_a_slope_that_vanishes_almost_surely_is_refused():
    flat = Activation(name="flat", formula="0*x", phi=np.zeros_like, dphi=np.zeros_like)
    with pytest.raises(InvalidArgumentError, match=r"activation.*almost surely.*φ′ = 0"):
        slope_factor(flat, 1.0)


@pytest.mark.parametrize(("name", "turn"), [("gelu", 2**0.5), ("silu", 2.3993572805154684)])
def test_the_supremum_is_the_largest_slope(name, turn):
    """Sup ln d = 2 ln φ′ where φ″ = 0, which lies between the nodes of a panel; all of the mass is below."""
    factor = slope_factor(activation(name), 4.43)
    top = 2 * math.log(float(activation(name).dphi(np.array([turn]))[0])) - factor.log_mean
    assert factor.law.span[1] == pytest.approx(top, abs=1e-13)
    assert factor.law.at(np.array([top - 1e-14]))[1][0] == pytest.approx(1.0, abs=1e-6)
