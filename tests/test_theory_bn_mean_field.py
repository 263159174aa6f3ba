"""Mean field of batch normalisation: closed forms against the sphere, printed numbers, and real BN networks."""

import math
import time

import numpy as np
import pytest
import torch
from cases import ACTIVATION_NAMES, inputs, network
from golden import EXPLOSION_RATE

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS, leaky_relu
from rmtbn.measure.gradients import log_gradient_norms
from rmtbn.theory import bn_mean_field
from rmtbn.theory.batch_norm import gegenbauer

INFINITE = math.inf


@pytest.mark.parametrize(("key", "printed"), EXPLOSION_RATE.items(), ids=str)
def test_rates_are_those_in_print(key, printed):
    """λ_G of linear, ReLU and tanh at B = 8, 32, 128, and the limits, to six decimals."""
    activation, batch_size = key
    assert printed.agrees(bn_mean_field.fixed_point(activation, batch_size=batch_size).explosion_rate)


def test_rate_of_relu_tends_to_pi_over_pi_minus_one():
    """λ_G → π/(π - 1) ≈ 1.466942 from above, by 0.0136·(128/B) or so."""
    limit = math.pi / (math.pi - 1)
    assert bn_mean_field.fixed_point("relu", batch_size=INFINITE).explosion_rate == pytest.approx(limit, rel=1e-13)
    sizes = np.array([64, 256, 1024, 4096])
    excess = [bn_mean_field.fixed_point("relu", batch_size=int(size)).explosion_rate - limit for size in sizes]
    slope, _ = np.polyfit(np.log(sizes), np.log(excess), 1)
    assert slope == pytest.approx(-1.0, abs=0.03)


@pytest.mark.parametrize("batch_size", [4, 5, 8, 17, 100, 1000])
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_closed_forms_are_the_quadrature_on_the_sphere(activation, batch_size):
    """(B-2)/(B-3) and (B-2+J₀+J₁)/((B-3)(1-J₁)), with c* = -1/(B-1) and J₁: two derivations of one number."""
    closed = bn_mean_field.fixed_point(activation, batch_size=batch_size)
    sphere = bn_mean_field.from_quadrature(activation, batch_size=batch_size)
    for name in ("q", "c", "explosion_rate"):
        assert getattr(sphere, name) == pytest.approx(getattr(closed, name), rel=1e-13)


SMOOTH = ("tanh", "erf", "gelu", "silu")
TWO_SLOPES = ("linear", "relu", "leaky_relu")
BATCHES = (6, 12, 24, 48, 96, 200)


@pytest.mark.parametrize("batch_size", [4, *BATCHES, 1000])
@pytest.mark.parametrize("activation", [*SMOOTH, *TWO_SLOPES])
def test_routes_to_the_rate_agree(activation, batch_size):
    """λ_G by quadrature on the sphere is that by Gegenbauer sums (smooth φ) or in closed form, to 1e-11."""
    sphere = bn_mean_field.from_quadrature(activation, batch_size=batch_size).explosion_rate
    if activation in SMOOTH:
        other = gegenbauer.explosion_rate(activation, batch_size=batch_size)
    else:
        other = bn_mean_field.fixed_point(activation, batch_size=batch_size).explosion_rate
    assert sphere == pytest.approx(other, rel=1e-11)


def test_a_hundred_rates_take_less_than_five_seconds():
    """102 pairs of B and φ by quadrature on the sphere: 1.3 s of one core where it was measured; asked: 5 s."""
    start = time.process_time()
    for batch_size in (4, 5, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 200, 256, 384, 512, 1000):
        for activation in ("linear", "relu", "tanh", "erf", "gelu", "leaky_relu"):
            assert bn_mean_field.from_quadrature(activation, batch_size=batch_size).explosion_rate > 1
    assert time.process_time() - start < 5.0


@pytest.mark.parametrize("batch_size", [4, 33])
def test_gegenbauer_sums_of_kinked_activations_stay_short(batch_size):
    """240 terms of ReLU's sum are 0.1 to 5 % below λ_G, for m_l falls as a power of l; the function refuses them."""
    mass, at_c0 = gegenbauer.masses(ACTIVATIONS["relu"], batch_size=batch_size)
    degree, share = np.arange(mass.size), mass * (1 - at_c0)
    rate = np.sum(degree * (degree + batch_size - 3) * share) / ((batch_size - 3) * np.sum(share))
    found = bn_mean_field.fixed_point("relu", batch_size=batch_size).explosion_rate
    assert 0.95 * found < rate < 0.999 * found
    with pytest.raises(InvalidArgumentError, match="`activation` must be one without kinks; got 'relu'"):
        gegenbauer.explosion_rate("relu", batch_size=batch_size)


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "gelu", "hard_tanh", "selu"])
@pytest.mark.parametrize("batch_size", [6, 16])
def test_fixed_point_is_the_mean_over_the_sphere(activation, batch_size):
    """q* = E φ(u₁)², q*c* = E φ(u₁)φ(u₂), u = √B × a uniform direction orthogonal to 1: 200,000 draws, 4 s.e."""
    found = bn_mean_field.fixed_point(activation, batch_size=batch_size)
    draws = rng.generator(1, "sphere", activation, batch_size).standard_normal((200_000, batch_size))
    draws -= draws.mean(axis=1, keepdims=True)
    values = ACTIVATIONS[activation].phi(draws / np.sqrt(np.mean(draws**2, axis=1, keepdims=True)))
    square = np.mean(values**2, axis=1)
    pairs = (values.sum(axis=1) ** 2 - batch_size * square) / (batch_size * (batch_size - 1))
    for drawn, expected in ((square, found.q), (pairs, found.q * found.c)):
        assert drawn.mean() == pytest.approx(expected, abs=4 * drawn.std() / math.sqrt(len(drawn)) + 1e-12)


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
def test_large_batches_tend_to_independent_examples(activation):
    """λ_G → E φ′²/Var φ, q* → E φ², c* → (E φ)²/E φ²; all with corrections of order 1/B."""
    limit = bn_mean_field.fixed_point(activation, batch_size=INFINITE)
    for name in ("q", "c", "explosion_rate"):
        gaps = [
            getattr(bn_mean_field.fixed_point(activation, batch_size=size), name) - getattr(limit, name)
            for size in (1000, 2000)
        ]
        assert abs(gaps[0]) < 0.01
        assert gaps[1] == pytest.approx(gaps[0] / 2, rel=0.02, abs=1e-11)


@pytest.mark.parametrize("batch_size", [4, 6, 32, INFINITE])
def test_affine_activations_explode_least(batch_size):
    """λ_G >= (B-2)/(B-3), reached by linear φ only; it falls as a leaky ReLU becomes linear."""
    least = bn_mean_field.fixed_point("linear", batch_size=batch_size).explosion_rate
    assert least == pytest.approx(1.0 if batch_size == INFINITE else (batch_size - 2) / (batch_size - 3), rel=1e-13)
    for activation in set(ACTIVATION_NAMES) - {"linear"}:
        assert bn_mean_field.fixed_point(activation, batch_size=batch_size).explosion_rate > least * (1 + 1e-6)
    rates = [
        bn_mean_field.fixed_point(leaky_relu(a), batch_size=batch_size).explosion_rate for a in (0, 0.3, 0.6, 0.9, 1)
    ]
    assert (np.diff(rates) < 0).all()
    assert rates[-1] == pytest.approx(least, rel=1e-10)
    relu = bn_mean_field.fixed_point("relu", batch_size=batch_size).explosion_rate
    assert rates[0] == pytest.approx(relu, rel=1e-10)


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
@pytest.mark.parametrize("batch_size", [4, 8])
def test_batch_covariance_of_networks_is_the_fixed_point(activation, batch_size):
    """Mean squares and products of x^l over 12 BN networks of N = 512 are q* and q*c* within 3 standard errors."""
    deviation, error = covariance_deviation(activation, batch_size=batch_size, width=512, networks=12)
    assert (np.abs(deviation) < 3 * error + 1e-9).all()
    assert error.max() < 0.005


def test_finite_width_shifts_the_batch_covariance_by_one_over_width():
    """E x₁x₂ - q*c* of ReLU at B = 32 falls as 1/N: log–log slope -1 ± 0.25 over N = 64 … 256; q* has no such shift."""
    widths = np.array([64, 128, 256])
    found = [covariance_deviation("relu", batch_size=32, width=int(n), networks=9_600 // int(n)) for n in widths]
    deviation, error = np.array(found).transpose(1, 0, 2)
    assert (np.abs(deviation[:, 0]) < 4 * error[:, 0]).all()
    relative = error[:, 1] / np.abs(deviation[:, 1])
    slope, _ = np.polyfit(np.log(widths), np.log(np.abs(deviation[:, 1])), 1, w=1 / relative)
    assert slope == pytest.approx(-1.0, abs=0.25)
    assert relative.max() < 0.25


def covariance_deviation(activation, *, batch_size, width, networks):
    """Mean over networks of (E x², E x₁x₂) after four layers minus (q*, q*c*), and its standard error."""
    found = bn_mean_field.fixed_point(activation, batch_size=batch_size)
    measured = []
    for seed in range(networks):
        module = bn_network(activation, depth=4, width=width, seed=seed)
        with torch.no_grad():
            x = module(inputs(batch_size, width, seed=seed)).numpy()
        square = np.mean(x**2)
        pairs = (np.mean(x.sum(axis=0) ** 2) - batch_size * square) / (batch_size * (batch_size - 1))
        measured.append((square - found.q, pairs - found.q * found.c))
    return np.mean(measured, axis=0), np.std(measured, axis=0, ddof=1) / math.sqrt(networks)


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
@pytest.mark.parametrize("batch_size", [pytest.param(16, marks=pytest.mark.slow), 32])
def test_gradients_of_networks_grow_at_the_predicted_rate(activation, batch_size):
    """Mean ratio of ‖∂ℓ/∂h‖² between layers of BN networks (N = 256, both ends dropped) is λ_G within 3 s.e."""
    rates = np.array([measured_rate(activation, batch_size=batch_size, seed=seed) for seed in range(16)])
    predicted = bn_mean_field.fixed_point(activation, batch_size=batch_size).explosion_rate
    error = rates.std(ddof=1) / math.sqrt(rates.size)
    assert rates.mean() == pytest.approx(predicted, abs=3 * error)
    assert error < 0.01 * predicted


def measured_rate(activation, *, batch_size, seed, depth=10, width=256):
    """Mean of ‖∂ℓ/∂h^{l-1}‖²/‖∂ℓ/∂h^l‖² over the inner layers, for a random linear loss."""
    module, x = bn_network(activation, depth=depth, width=width, seed=seed), inputs(batch_size, width, seed=seed)
    direction = inputs(batch_size, width, seed=1000 + seed)
    logs = log_gradient_norms(module, x, lambda y: (y * direction).sum())
    return float(np.mean(np.exp(-np.diff(logs))[2:-2]))


def bn_network(activation, *, depth, width, seed):
    """A BN network in train mode whose ε is far below its variances, as in the theory."""
    module = network(activation=activation, norm="batch", scheme="he_normal", depth=depth, width=width, seed=seed)
    for layer in module:
        if isinstance(layer, torch.nn.BatchNorm1d):
            layer.eps = 1e-12
    return module


@pytest.mark.parametrize("find", [bn_mean_field.fixed_point, bn_mean_field.from_quadrature])
@pytest.mark.parametrize("batch_size", [3, 2, 1, 0, -5])
def test_batches_without_a_rate_are_refused(find, batch_size):
    """At B = 3 the rate diverges, at B = 2 the gradient vanishes: B >= 4."""
    with pytest.raises(InvalidArgumentError, match=rf"`batch_size` must be an integer >= 4 .*; got {batch_size}$"):
        find("relu", batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [8.5, math.nan, -math.inf, True])
def test_sizes_that_are_no_integers_are_refused(batch_size):
    """B is an integer or infinity; 8.0 is an integer."""
    with pytest.raises(InvalidArgumentError, match=r"`batch_size` must be an integer >= 4 .*; got "):
        bn_mean_field.fixed_point("relu", batch_size=batch_size)
    assert bn_mean_field.fixed_point("relu", batch_size=8.0) == bn_mean_field.fixed_point("relu", batch_size=8)


def test_unknown_activations_are_refused():
    """The message lists what there is."""
    with pytest.raises(InvalidArgumentError, match=r"`activation` must be one of 'linear', .*; got 'Relu'"):
        bn_mean_field.fixed_point("Relu", batch_size=8)
