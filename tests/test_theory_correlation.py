"""The correlation map, its slope and its iteration: printed and closed values, second routes, extreme arguments."""

import math

import numpy as np
import pytest

from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS
from rmtbn.theory import gauss_hermite
from rmtbn.theory.correlation import (
    correlation_map,
    correlation_slope,
    correlations,
    decorrelation_map,
    decorrelations,
)
from rmtbn.theory.length import chi1, length_map, lengths, log_lengths

SMOOTH = ["tanh", "erf", "gelu", "silu"]


def hermite_series(name, q, *, terms=160):
    """Coefficients a_n² of E φ(h₁)φ(h₂) = Σ a_n² c^n in normalised Hermite polynomials (300-node Gauss–Hermite)."""
    z, w = np.polynomial.hermite_e.hermegauss(300)
    w = w / w.sum()
    values, previous, current = [], np.zeros_like(z), np.ones_like(z)
    for n in range(terms):
        values.append(np.sum(w * ACTIVATIONS[name].phi(math.sqrt(q) * z) * current))
        previous, current = current, (z * current - math.sqrt(n) * previous) / math.sqrt(n + 1)
    return np.square(values)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("c", [-1.0, -0.6, 0.0, 0.3, 0.9])
def test_the_map_is_its_hermite_series(name, c):
    """c′ = [σ_w² Σ a_n² c^n + σ_b²]/q′ (Daniely et al. 2016, arXiv:1602.05897), another route for smooth φ."""
    q, weight, bias = 0.3, 1.7, 0.2
    series = float(np.polynomial.polynomial.polyval(c, hermite_series(name, q)))
    after = float(length_map(q, name, sigma_w=weight**0.5, sigma_b=bias**0.5))
    found = float(correlation_map(c, name, q=q, sigma_w=weight**0.5, sigma_b=bias**0.5))
    assert found == pytest.approx((weight * series + bias) / after, abs=1e-10)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("q", [1e-12, 0.7, 1e12])
def test_the_map_at_its_ends(name, q):
    """c = 1 is kept exactly; c = 0 goes to [σ_w² (E φ)² + σ_b²]/q′; 1 - c = 1e-12 is multiplied by σ_w² q E φ′²/q′."""
    record, sigmas = ACTIVATIONS[name], {"sigma_w": 1.3, "sigma_b": 0.4}
    mean = float(gauss_hermite.expectation(record.phi, q, kinks=record.kinks))
    after = float(length_map(q, name, **sigmas))
    assert float(correlation_map(1.0, name, q=q, **sigmas)) == 1.0
    independent = (sigmas["sigma_w"] ** 2 * mean**2 + sigmas["sigma_b"] ** 2) / after
    assert float(correlation_map(0.0, name, q=q, **sigmas)) == pytest.approx(independent, abs=1e-10)
    ratio = float(decorrelation_map(1e-24, name, q=q, **sigmas)) / 1e-24
    assert ratio == pytest.approx(q * float(chi1(q, name, sigma_w=1.3)) / after, rel=1e-6 if q == 1e12 else 1e-10)


@pytest.mark.parametrize("name", ["linear", "tanh", "erf", "hard_tanh"])
@pytest.mark.parametrize("c", [1e-3, 0.5, 1 - 1e-12, 1.0])
def test_odd_activations_without_bias_keep_the_sign(name, c):
    """c′(-c) = -c′(c) for odd φ and σ_b = 0, also within 1e-12 of ±1."""
    sigmas = {"q": 2.0, "sigma_w": 1.3}
    up, down = (float(correlation_map(x, name, **sigmas)) for x in (c, -c))
    assert down == pytest.approx(-up, abs=1e-12)


def test_relu_is_the_arc_cosine_kernel():
    """c′ = [√(1 - c²) + (π - arccos c)c]/π (Cho & Saul 2009), whatever σ_w and q."""
    c = np.linspace(-1, 1, 41)
    expected = (np.sqrt(1 - c * c) + (np.pi - np.arccos(c)) * c) / np.pi
    np.testing.assert_allclose(correlation_map(c, "relu", q=3.0, sigma_w=0.8), expected, atol=1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_slope_is_the_derivative_of_the_map(name):
    """dc′/dc by central differences of the map, error O(1e-8²) and rounding."""
    c, step, sigmas = np.array([-0.7, 0.0, 0.4, 0.95]), 1e-5, {"q": 1.4, "sigma_w": 1.2, "sigma_b": 0.3}
    numeric = (correlation_map(c + step, name, **sigmas) - correlation_map(c - step, name, **sigmas)) / (2 * step)
    np.testing.assert_allclose(correlation_slope(c, name, **sigmas), numeric, rtol=1e-7)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_iteration_is_the_map_repeated(name):
    """c^l from c^{l-1} at q^{l-1}; the first layer is linear: c¹ = (σ_w² q⁰ c⁰ + σ_b²)/q¹."""
    sigmas, depth = {"sigma_w": 1.3, "sigma_b": 0.4}, 6
    found = correlations(0.2, name, q0=0.9, depth=depth, **sigmas)
    q = lengths(0.9, name, depth=depth, **sigmas)
    assert found[0] == pytest.approx((sigmas["sigma_w"] ** 2 * 0.9 * 0.2 + sigmas["sigma_b"] ** 2) / q[0], rel=1e-13)
    for layer in range(1, depth):
        step = float(correlation_map(found[layer - 1], name, q=q[layer - 1], **sigmas))
        assert found[layer] == pytest.approx(step, rel=1e-12)


def test_arrays_of_networks_iterate_together():
    """(σ_w, σ_b) of shape (2, 1) with c0 of shape (3,): every network as if alone."""
    sigma_w, sigma_b = np.array([[1.1], [2.0]]), np.array([[0.3], [0.1]])
    together = correlations(np.array([0.0, 0.5, 1.0]), "erf", q0=1.0, depth=5, sigma_w=sigma_w, sigma_b=sigma_b)
    alone = correlations(0.5, "erf", q0=1.0, depth=5, sigma_w=2.0, sigma_b=0.1)
    assert together.shape == (5, 2, 3)
    np.testing.assert_allclose(together[:, 1, 1], alone, rtol=1e-14)


@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_rectifiers_forget_the_inputs_as_a_power_of_depth(name):
    """1 - c_l ~ 9π²/(2 l²) for ReLU, times ((1+a²)/(1-a)²)² for slope a: d^-½ grows by the same each layer."""
    slope = 0.01 if name == "leaky_relu" else 0.0
    d = decorrelations(0.8, name, q0=1.0, depth=300, sigma_w=(2 / (1 + slope**2)) ** 0.5)
    limit = 9 * math.pi**2 / 2 * ((1 + slope**2) / (1 - slope) ** 2) ** 2
    assert float(np.diff(d**-0.5)[-1]) == pytest.approx(limit**-0.5, rel=0.01)


def test_critical_tanh_forgets_as_one_over_depth():
    """1 - c_l ~ 2/(C″(1) l), C″(1) = σ_w² q E φ″², on the critical line at σ_b² = 0.05 (σ_w² = 1.7609546396)."""
    depth, q, sigmas = 300, 0.5700478816, {"sigma_w": 1.7609546396**0.5, "sigma_b": 0.05**0.5}

    def bend(h):
        return -2 * np.tanh(h) / np.cosh(h) ** 2

    curvature = sigmas["sigma_w"] ** 2 * q * float(gauss_hermite.expectation(lambda h: bend(h) ** 2, q))
    d = decorrelations(0.5, "tanh", q0=q, depth=depth, **sigmas)
    steps = np.diff(1 / d)  # 1/d grows by C″/2 per layer up to O(d)
    assert steps[-1] == pytest.approx(curvature / 2, rel=0.02)


def test_vanishing_and_exploding_lengths_leave_the_correlation_right():
    """At σ_w² = 2^-6 (2^8) the ReLU's q falls (grows) by 2^7 per layer to below 1e-400; c^l does not depend on σ_w."""
    expected = decorrelations(0.7, "relu", q0=1.0, depth=200, sigma_w=2**0.5)
    for weight in (2**-6, 2**8):
        found = decorrelations(0.7, "relu", q0=1.0, depth=200, sigma_w=weight**0.5)
        np.testing.assert_allclose(found, expected, rtol=1e-10)
        log_q = log_lengths(1.0, "relu", depth=200, sigma_w=weight**0.5)
        assert log_q[-1] == pytest.approx(math.log(weight) + 199 * math.log(weight / 2), rel=1e-12)


def test_ordered_phase_keeps_digits_below_the_spacing_of_floats():
    """Deep in the ordered phase log(1 - c^l) falls by ln χ₁ per layer, to 1e-150."""
    sigmas = {"sigma_w": 0.7, "sigma_b": 0.5}
    d = decorrelations(0.5, "tanh", q0=1.0, depth=320, **sigmas)
    q = lengths(1.0, "tanh", depth=320, **sigmas)[-1]
    assert d[-1] < 1e-150
    assert d[-1] / d[-2] == pytest.approx(float(chi1(q, "tanh", sigma_w=0.7)), rel=1e-10)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"c": 1.2}, "`c`.*1.2"),
        ({"c": float("nan")}, "`c`.*nan"),
        ({"q": -1.0}, "`q`.*-1"),
        ({"sigma_w": -0.5}, "`sigma_w`.*-0.5"),
        ({"sigma_w": 0.0}, "`sigma_w` must be > 0 where `sigma_b` is 0"),
        ({"activation": "swish"}, "`activation`.*'swish'"),
    ],
)
def test_arguments_out_of_range_are_named(change, named):
    """-1 <= c <= 1, q >= 0, σ_w >= 0, a next length above 0, a known φ."""
    arguments = {"c": 0.5, "activation": "relu", "q": 1.0, "sigma_w": 1.0} | change
    with pytest.raises(InvalidArgumentError, match=named):
        correlation_map(
            arguments["c"], arguments["activation"], q=arguments["q"], sigma_w=arguments["sigma_w"], sigma_b=0.0
        )


def test_a_network_without_signal_has_no_correlation():
    """q0 = 0 without bias: every length is 0."""
    with pytest.raises(InvalidArgumentError, match="`q0`"):
        correlations(0.5, "tanh", q0=0.0, depth=3, sigma_w=1.0)
