"""Mean field: length map, fixed points and the order-to-chaos line, by closed forms, direct iteration and networks."""

import math

import numpy as np
import pytest
from cases import ACTIVATION_NAMES, SEEDS, inputs, network
from golden import CRITICAL_LENGTH, CRITICAL_WEIGHT_VARIANCE, HALF_STABLE

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS, leaky_relu
from rmtbn.measure.moments import activation_moments
from rmtbn.theory import mean_field
from rmtbn.theory.gauss_hermite import expectation

HOMOGENEOUS = ("linear", "relu", "leaky_relu")
OTHERS = tuple(name for name in ACTIVATION_NAMES if name not in HOMOGENEOUS)
# A stable fixed point for each of them: (σ_w, σ_b)
STABLE = {
    "linear": (0.9, 0.3),
    "relu": (1.2, 0.4),
    "leaky_relu": (1.3, 0.1),
    "tanh": (1.7, 0.3),
    "erf": (0.8, 0.5),
    "hard_tanh": (2.5, 0.0),
    "gelu": (1.2, 0.5),
    "silu": (1.3, 0.8),
    "selu": (0.9, 0.2),
}


def iterated(activation, *, sigma_w, sigma_b, start=1.0, steps=4000):
    """The length map applied until nothing moves."""
    q = start
    for _ in range(steps):
        q, before = float(mean_field.length_map(q, activation, sigma_w=sigma_w, sigma_b=sigma_b)), q
        if abs(q - before) <= 1e-15 * q:
            break
    return q


@pytest.mark.parametrize(("key", "printed"), CRITICAL_WEIGHT_VARIANCE.items(), ids=str)
def test_critical_weight_variances_are_those_in_print(key, printed):
    """σ_w² with χ₁(q*) = 1 at a given σ_b²: ten decimals of the table."""
    activation, bias = key
    assert printed.agrees(mean_field.critical_point(activation, sigma_b=bias**0.5).sigma_w ** 2)


@pytest.mark.parametrize(("key", "printed"), CRITICAL_LENGTH.items(), ids=str)
def test_critical_lengths_are_those_in_print(key, printed):
    """q* on the critical line."""
    activation, bias = key
    assert printed.agrees(mean_field.critical_point(activation, sigma_b=bias**0.5).q)


@pytest.mark.parametrize("activation", HALF_STABLE)
def test_critical_points_of_gelu_and_silu_turn_stable_where_the_table_says(activation):
    """At the half-stable point χ₁ = χ_q = 1; below it the critical q* repels, above it attracts."""
    weight, bias, q = HALF_STABLE[activation]
    point = mean_field.critical_point(activation, sigma_b=bias.value**0.5)
    assert weight.agrees(point.sigma_w**2)
    assert point.q == pytest.approx(q.value, rel=1e-8)
    assert float(mean_field.length_slope(point.q, activation, sigma_w=point.sigma_w)) == pytest.approx(1, abs=1e-9)
    for factor, repels in ((0.9, True), (1.1, False)):
        there = mean_field.critical_point(activation, sigma_b=(factor * bias.value) ** 0.5)
        assert (mean_field.length_slope(there.q, activation, sigma_w=there.sigma_w) > 1) == repels
        reached = mean_field.fixed_point(activation, sigma_w=there.sigma_w, sigma_b=there.sigma_b).q
        assert math.isclose(reached, there.q, rel_tol=1e-6) != repels


@pytest.mark.parametrize("activation", OTHERS)
@pytest.mark.parametrize("bias", [1e-6, 1e-3, 0.05, 0.4, 3.0])
def test_chi1_is_one_on_the_critical_line(activation, bias):
    """χ₁(q*) = 1 to 1e-8 with q* a fixed point of the map: both defining equations at once."""
    point = mean_field.critical_point(activation, sigma_b=bias**0.5)
    assert float(mean_field.chi1(point.q, activation, sigma_w=point.sigma_w)) == pytest.approx(1, abs=1e-8)
    mapped = mean_field.length_map(point.q, activation, sigma_w=point.sigma_w, sigma_b=point.sigma_b)
    assert float(mapped) == pytest.approx(point.q, rel=1e-8)


@pytest.mark.parametrize("activation", ["tanh", "erf", "hard_tanh"])
@pytest.mark.parametrize("bias", [1e-3, 0.05, 0.4])
def test_the_line_parts_order_from_chaos(activation, bias):
    """χ₁ < 1 for a smaller σ_w and > 1 for a larger one, at the fixed point of each."""
    point = mean_field.critical_point(activation, sigma_b=bias**0.5)
    for factor, ordered in ((0.98, True), (1.02, False)):
        found = mean_field.fixed_point(activation, sigma_w=factor * point.sigma_w, sigma_b=point.sigma_b)
        assert (found.chi1 < 1) == ordered


@pytest.mark.parametrize("activation", OTHERS)
def test_critical_bias_grows_along_the_line(activation):
    """σ_b²(q) = q - E φ²/E φ′² increases, so that each σ_b has one critical point."""
    q = np.geomspace(0.05, 1e6, 400)  # below, the kinks of hard_tanh are out of reach and σ_b² is 0 to rounding
    moments = mean_field.phi_second_moment(q, activation), mean_field.dphi_second_moment(q, activation)
    assert (np.diff(q - moments[0] / moments[1]) > 0).all()


def test_critical_line_of_tanh_near_zero_is_its_expansion():
    """σ_w² = 1 + 2q - 3q² + O(q³) and σ_b² = (4/3) q³ + O(q⁴)."""
    q = 1e-3
    point = mean_field.critical_point("tanh", sigma_b=math.sqrt(4 / 3 * q**3))
    assert point.q == pytest.approx(q, rel=0.01)
    assert point.sigma_w**2 == pytest.approx(1 + 2 * point.q - 3 * point.q**2, abs=20 * q**3)


@pytest.mark.parametrize("activation", HOMOGENEOUS)
def test_homogeneous_activations_are_critical_without_bias_only(activation):
    """φ(ah) = aφ(h): σ_w² = 2/(1 + a²), every q is fixed, and 1 is reported."""
    slope = {"linear": 1.0, "relu": 0.0, "leaky_relu": 0.01}[activation]
    point = mean_field.critical_point(activation)
    assert point.sigma_w**2 == pytest.approx(2 / (1 + slope**2), rel=1e-15)
    found = mean_field.fixed_point(activation, sigma_w=point.sigma_w)
    assert (found.q, found.stable) == (1.0, False)
    assert (found.chi1, found.chi_q) == pytest.approx((1.0, 1.0))
    with pytest.raises(InvalidArgumentError, match=f"`sigma_b` must be 0 for '{activation}'.*; got 0.1"):
        mean_field.critical_point(activation, sigma_b=0.1)
    own = mean_field.critical_point(leaky_relu(0.5))
    assert own.sigma_w**2 == pytest.approx(2 / 1.25)


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
def test_fixed_point_is_where_iteration_ends(activation):
    """q* = lim of the map from q = 1, and its slope χ_q < 1 says so."""
    sigma_w, sigma_b = STABLE[activation]
    found = mean_field.fixed_point(activation, sigma_w=sigma_w, sigma_b=sigma_b)
    assert found.stable
    assert found.q == pytest.approx(iterated(activation, sigma_w=sigma_w, sigma_b=sigma_b), rel=1e-10)


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
def test_fixed_point_of_any_network_is_where_iteration_ends(activation):
    """The same over a grid of σ_w from 0.3 to 2.5 and σ_b from 0.05 to 1.5; inf where iteration runs away."""
    sigma_w, sigma_b = (a.ravel() for a in np.meshgrid(np.linspace(0.31, 2.47, 5), [0.05, 0.4, 1.5]))
    q = np.ones(sigma_w.size)
    for _ in range(600):
        q = np.minimum(mean_field.length_map(q, activation, sigma_w=sigma_w, sigma_b=sigma_b), 1e12)
    pairs = zip(sigma_w.tolist(), sigma_b.tolist(), strict=True)
    found = np.array([mean_field.fixed_point(activation, sigma_w=w, sigma_b=b).q for w, b in pairs])
    np.testing.assert_allclose(q, np.minimum(found, 1e12), rtol=1e-6)


@pytest.mark.parametrize(("activation", "weight"), [("gelu", 1.985), ("gelu", 2.0), ("silu", 2.0), ("silu", 2.2)])
@pytest.mark.parametrize("below", [1e-2, 1e-4, 1e-7])
def test_fixed_points_about_to_merge_are_found(activation, weight, below):
    """Just below the σ_b² at which an attracting and a repelling fixed point meet, the attracting one is reached."""
    q = np.exp(np.linspace(0, 4, 40_001))
    bias = q - weight * mean_field.phi_second_moment(q, activation)
    top = np.flatnonzero((bias[1:-1] > bias[:-2]) & (bias[1:-1] > bias[2:]))[0] + 1
    asked = bias[top] * (1 - below)
    expected = np.interp(asked, bias[: top + 1], q[: top + 1])
    found = mean_field.fixed_point(activation, sigma_w=weight**0.5, sigma_b=asked**0.5)
    assert found.q == pytest.approx(expected, rel=1e-3)
    assert found.stable


def test_relu_has_the_fixed_point_of_an_affine_map():
    """q* = σ_b²/(1 - σ_w²/2) for σ_w² < 2; without bias 0 below and inf above."""
    found = mean_field.fixed_point("relu", sigma_w=1.0, sigma_b=0.5)
    assert (found.q, found.chi1, found.chi_q) == pytest.approx((0.5, 0.5, 0.5), rel=1e-12)
    assert mean_field.fixed_point("relu", sigma_w=1.4).q == 0.0
    assert mean_field.fixed_point("relu", sigma_w=1.42).q == math.inf
    assert mean_field.fixed_point("relu", sigma_w=1.42, sigma_b=0.1).q == math.inf


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
@pytest.mark.parametrize("q", [1e-4, 0.3, 2.0, 50.0])
def test_chi_q_is_the_slope_of_the_map(activation, q):
    """χ_q = dq′/dq, by a fourth-order finite difference; it needs no φ″ and so holds for kinked φ."""
    step, sigma_w = 1e-3 * q, 1.3
    weights = np.array([1, -8, 8, -1]) / (12 * step)
    values = mean_field.length_map(q + step * np.array([-2, -1, 1, 2]), activation, sigma_w=sigma_w, sigma_b=0.2)
    slope = float(mean_field.length_slope(q, activation, sigma_w=sigma_w))
    assert slope == pytest.approx(float(weights @ values), rel=1e-8)


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
@pytest.mark.parametrize("q", [0.3, 2.0])
def test_chi1_is_how_fast_close_inputs_part(activation, q):
    """σ_w² E (φ(h + δ) - φ(h))²/δ² → χ₁: the definition, by finite difference, kinks shifted along."""
    delta, record, sigma_w = 1e-5, ACTIVATIONS[activation], 1.3
    kinks = tuple(sorted({*record.kinks, *(kink - delta for kink in record.kinks)}))
    parted = expectation(lambda h: ((record.phi(h + delta) - record.phi(h)) / delta) ** 2, q, kinks=kinks)
    expected = float(mean_field.chi1(q, activation, sigma_w=sigma_w))
    assert sigma_w**2 * float(parted) == pytest.approx(expected, rel=1e-4)


def test_length_of_critical_tanh_decays_as_one_over_depth():
    """q_l ~ 1/(2l) at σ_w = 1, σ_b = 0; the correction is of order log l/l."""
    q = mean_field.lengths(1.0, "tanh", depth=3000, sigma_w=1.0)
    assert q[-1] * 2 * 3000 == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
def test_lengths_iterate_the_map_from_the_input(activation):
    """q¹ = σ_w² q⁰ + σ_b² (the input passes no φ), q^l = σ_w² E φ² + σ_b²."""
    sigmas = {"sigma_w": 1.3, "sigma_b": 0.2}
    q = mean_field.lengths(0.7, activation, depth=5, **sigmas)
    assert q.shape == (5,)
    assert q[0] == pytest.approx(1.69 * 0.7 + 0.04, rel=1e-12)
    np.testing.assert_allclose(q[1:], mean_field.length_map(q[:-1], activation, **sigmas), rtol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("seed", SEEDS)
def test_wide_networks_have_the_predicted_lengths(activation, seed):
    """Mean of q over 60 networks of N = 128 within 4 standard errors, at each of 5 layers, from a given input."""
    sigmas, x = dict(zip(("sigma_w", "sigma_b"), STABLE[activation], strict=True)), inputs(1, 128, seed=seed)
    measured = measured_lengths(activation, x, networks=60, depth=5, seed=seed, **sigmas)
    predicted = mean_field.lengths(float(x.square().mean()), activation, depth=5, **sigmas)
    error = measured.std(axis=0, ddof=1) / math.sqrt(len(measured))
    assert (np.abs(measured.mean(axis=0) - predicted) < 4 * error).all()
    assert (error < 0.1 * predicted).all()


def test_finite_width_shifts_the_length_by_one_over_width():
    """E q^4 - q_∞^4 of tanh falls as 1/N, log–log slope -1 ± 0.25 over N = 4 … 32; E q¹ and E q² have no shift."""
    widths, sigma_w = np.array([4, 8, 16, 32]), 1.3
    predicted = mean_field.lengths(1.0, "tanh", depth=4, sigma_w=sigma_w)
    drawn = [drawn_lengths(int(width), networks=100_000, depth=4, sigma_w=sigma_w) for width in widths]
    shift = np.array([q.mean(axis=0) - predicted for q in drawn])
    error = np.array([q.std(axis=0) / math.sqrt(len(q)) for q in drawn])
    assert (np.abs(shift[:, :2]) < 4 * error[:, :2]).all()
    relative = error[:, 3] / np.abs(shift[:, 3])
    slope, _ = np.polyfit(np.log(widths), np.log(np.abs(shift[:, 3])), 1, w=1 / relative)
    assert slope == pytest.approx(-1.0, abs=0.25)
    assert relative[:3].max() < 0.15


def drawn_lengths(width, *, networks, depth, sigma_w):
    """q^1 … q^depth of tanh networks without bias at the input (1, …, 1); given x, W x is N(0, σ_w² |x|²/N) i.i.d."""
    generator = rng.generator(1, "finite width", width)
    x, q = np.ones((networks, width)), []
    for _ in range(depth):
        spread = sigma_w * np.sqrt(np.mean(x**2, axis=1, keepdims=True))
        h = spread * generator.standard_normal((networks, width))
        q.append(np.mean(h**2, axis=1))
        x = np.tanh(h)
    return np.array(q).T


def measured_lengths(activation, x, *, networks, depth, seed, sigma_w, sigma_b):
    """q^l of each network, shape (networks, depth)."""
    found = [
        activation_moments(
            network(activation=activation, depth=depth, width=x.shape[1], seed=k, sigma_w=sigma_w, sigma_b=sigma_b),
            x,
        )
        for k in range(10_000 * seed, 10_000 * seed + networks)
    ]
    return np.exp([[layer.log_second_moment for layer in layers] for layers in found])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_field.length_map(-1.0, "relu", sigma_w=1.0), "`q` must be a finite number >= 0.0; got -1.0"),
        (lambda: mean_field.length_map(1.0, "Relu", sigma_w=1.0), r"`activation` must be one of .*; got 'Relu'"),
        (
            lambda: mean_field.length_map(1.0, "relu", sigma_w=-1.0),
            "`sigma_w` must be a finite number >= 0.0; got -1.0",
        ),
        (lambda: mean_field.chi1(math.nan, "relu", sigma_w=1.0), "`q` must be a finite number >= 0.0; got nan"),
        (lambda: mean_field.chi1([1.0, math.inf], "erf", sigma_w=1.0), "`q` must be numbers without NaN .*; got inf"),
        (lambda: mean_field.lengths(1.0, "relu", depth=0, sigma_w=1.0), "`depth` must be an integer >= 1; got 0"),
        (lambda: mean_field.fixed_point("relu", sigma_w=math.nan), "`sigma_w` must be a finite number .*; got nan"),
        (lambda: mean_field.fixed_point("relu", sigma_w=1.0, sigma_b=-0.1), "`sigma_b` must be a finite .*; got -0.1"),
        (lambda: mean_field.critical_point("tanh", sigma_b=math.inf), "`sigma_b` must be a finite number .*; got inf"),
    ],
)
def test_impossible_networks_are_refused(call, message):
    """Unknown names, negative or non-finite numbers."""
    with pytest.raises(InvalidArgumentError, match=message):
        call()
