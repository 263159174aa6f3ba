"""Propagation through many layers: iteration is the map repeated, known power laws, extreme depths, tables."""

import math

import numpy as np
import pytest

from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS
from rmtbn.theory import gauss_hermite, moment_rules, moment_table
from rmtbn.theory.correlation import correlation_map, correlation_slope
from rmtbn.theory.length import chi1, dphi_second_moment, phi_second_moment
from rmtbn.theory.pair_moments import closed_form, dphi_product, phi_difference
from rmtbn.theory.propagation import correlations, decorrelations, lengths, log_lengths, propagation

TABULATED = ["tanh", "hard_tanh", "silu", "selu"]
EDGE = {"tanh": (0.9, 2.5), "hard_tanh": (0.9, 2.5), "silu": (1.5, 1.9), "selu": (0.7, 0.98)}  # σ_w of bounded lengths


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


def test_a_network_without_signal_has_no_correlation():
    """q0 = 0 without bias: every length is 0."""
    with pytest.raises(InvalidArgumentError, match="`q0`"):
        correlations(0.5, "tanh", q0=0.0, depth=3, sigma_w=1.0)


@pytest.mark.parametrize("name", TABULATED)
def test_tables_hold_the_moments_of_one_input(name):
    """E φ² and E φ′² to 1e-12 within the table, 1e-10 beyond its ends (log q = ±60), where they are power laws."""
    record = ACTIVATIONS[name]
    table = moment_table.length_table(record)
    for log_q, tolerance in ((np.linspace(-59.03, 59.01, 200), 1e-10), (np.array([-150.0, 90.0, 150.0]), 1e-9)):
        q = np.exp(log_q)
        np.testing.assert_allclose(np.exp(table.log_gain(log_q)) * q, phi_second_moment(q, record), rtol=tolerance)
        np.testing.assert_allclose(np.exp(table.log_slope(log_q)), dphi_second_moment(q, record), rtol=tolerance)


@pytest.mark.parametrize("name", TABULATED)
def test_tables_hold_the_moments_of_pairs(name):
    """E(φ₁ - φ₂)²/2 relative and E φ′φ′ absolute to 1e-10, on both sides of c = 0, in several blocks."""
    record, rng = ACTIVATIONS[name], np.random.default_rng(1)
    log_q = rng.uniform(-3.5, 3.5, 60)
    d = np.exp(rng.uniform(-30, 0, 60))
    d[::2] = 2 - d[::2]
    d[:2] = 0.0, 2.0
    difference = moment_table.look_up(log_q, d, record=record, moment="difference")
    np.testing.assert_allclose(difference, phi_difference(np.exp(log_q), d, record), rtol=1e-10)
    product = moment_table.look_up(log_q, d, record=record, moment="slope_product")
    np.testing.assert_allclose(product, dphi_product(np.exp(log_q), d, record), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", TABULATED)
def test_long_recursions_by_table_are_the_direct_ones(name, monkeypatch):
    """The same q, c, χ₁, χ whether every moment is evaluated or looked up."""
    assert closed_form(name) is None
    arguments = {"q0": 0.8, "depth": 12, "sigma_w": np.array(EDGE[name]), "sigma_b": np.array([0.4, 0.0])}
    direct = propagation(-0.4, name, **arguments)
    monkeypatch.setattr(moment_rules, "MANY", 0)
    table = propagation(-0.4, name, **arguments)
    for field in ("log_q", "decorrelation", "chi1", "chi"):
        np.testing.assert_allclose(getattr(table, field), getattr(direct, field), rtol=1e-9)


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_both_slopes_are_those_of_the_maps(name):
    """χ₁^l = σ_w² E φ′² and χ^l = σ_w² E φ′φ′: at a fixed length the latter is the slope of the correlation map."""
    sigmas = {"sigma_w": 2**0.5, "sigma_b": 0.0}
    q0 = 1.0 if name == "relu" else 0.5
    found = propagation(0.3, name, q0=q0, depth=60, **sigmas)
    q, c = np.exp(found.log_q[-1]), 1 - found.decorrelation[-1]
    assert found.chi1[-1] == pytest.approx(float(chi1(q, name, sigma_w=sigmas["sigma_w"])), rel=1e-12)
    assert found.chi[-1] == pytest.approx(float(correlation_slope(c, name, q=q, **sigmas)), rel=1e-9)


@pytest.mark.parametrize("name", ["selu", "silu"])
def test_diverging_lengths_end_as_a_rectifier(name):
    """At σ_w = 3 q diverges and φ becomes two half lines: c follows the map of the ReLU (SELU to O(q^-½))."""
    found = correlations(0.3, name, q0=1.0, depth=60, sigma_w=3.0, sigma_b=0.3)
    step = float(correlation_map(found[-2], "relu", q=1.0, sigma_w=1.0))
    assert found[-1] == pytest.approx(step, abs=1e-7)
    assert log_lengths(1.0, name, depth=60, sigma_w=3.0)[-1] > 60
