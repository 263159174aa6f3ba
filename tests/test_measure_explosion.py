"""Explosion rates: exact where every layer is a scaled rotation, λ_G of batch-normalised networks, χ₁ without norm."""

import math

import numpy as np
import pytest
import torch
from bn_networks import bn_network, exact_inputs
from cases import inputs, network
from torch import nn
from torch.func import jacrev

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.inits import initialise
from rmtbn.measure.explosion import Explosion, explosion
from rmtbn.measure.gradients import log_gradient_norms
from rmtbn.nets.resnet import residual_mlp
from rmtbn.theory import bn_mean_field, mean_field
from rmtbn.theory.residual_moments import batch_norm_residual_moments

ACTIVATIONS = ("linear", "relu", "tanh", "erf", "gelu", "leaky_relu")
BATCHES = (6, 12, 24, 48, 96, 200)


def draws(*labels):
    return rng.torch_generator(1, "explosion", *labels)


def measured(activation, *, batch_size, width, networks, depth=10):
    """Batch-normalised networks of torch whose inputs are at the fixed point of the batch covariance."""
    point = bn_mean_field.fixed_point(activation, batch_size=batch_size)
    modules = [bn_network(activation, depth=depth, width=width, seed=seed) for seed in range(networks)]
    x = exact_inputs(batch_size, width, spread=point.q * (1 - point.c), seed=1)
    return explosion(modules, x, generator=draws(activation, batch_size, width))


def scaled_rotations(factors, *, seed=1):
    """A linear network whose layer l turns and multiplies by factors[l]."""
    module = network(activation="linear", scheme="orthogonal", depth=len(factors), width=6, seed=seed, sigma_w=1.0)
    with torch.no_grad():
        for layer, factor in zip([part for part in module if isinstance(part, nn.Linear)], factors, strict=True):
            layer.weight *= factor
    return module


def test_scaled_rotations_grow_by_the_square_of_their_factor():
    """J = ∏ a_l Q_l: every rate is the mean of a² over the inner layers, in every network, and the typical one is
    exp of the mean of ln a²; cotangent steps belong to W_3 … W_5, tangent steps too."""
    factors = [7.0, 5.0, 2.0, 3.0, 0.5, 11.0]
    found = explosion([scaled_rotations(factors, seed=s) for s in (1, 2)], inputs(3, 6), generator=draws(), edge=1)
    inner = np.array(factors[2:5]) ** 2
    np.testing.assert_allclose(found.gradient_steps, np.tile(np.log(inner), (2, 1)), atol=1e-12)
    np.testing.assert_allclose(found.jacobian_steps, np.tile(np.log(inner), (2, 1)), atol=1e-12)
    for rate in (found.gradient_rate(), found.jacobian_rate()):
        assert (rate.value, rate.networks) == (pytest.approx(inner.mean(), rel=1e-12), 2)
        assert rate.se < 1e-12
    for rate in (found.typical_gradient_rate(), found.typical_jacobian_rate()):
        assert rate.value == pytest.approx(np.exp(np.log(inner).mean()), rel=1e-12)
    assert found.gradient_power().value == pytest.approx(np.log(inner).sum() / math.log(5 / 2), rel=1e-12)


def test_squared_norms_are_those_of_the_jacobian():
    """Over 2,000 draws of v the mean of ‖Jᵀv‖² is ‖∂x^L/∂h^l‖_F² over the outputs, of ‖Jv‖² ‖∂h^l/∂x‖_F² over the
    inputs: 4 s.e. of the dense Jacobians of a BN network, layer by layer."""
    module, x = network(activation="tanh", norm="batch", depth=4, width=5), inputs(4, 5)
    found = explosion([module] * 2_000, x, generator=draws(), edge=1, batch_stats="batch")
    assert found.layers == ("linear_1", "linear_2", "linear_3", "linear_4")
    for layer in range(1, 5):
        head, tail = module[: 3 * layer - 2], module[3 * layer - 2 :]
        for values, part, start in ((found.log_jacobian, head, x), (found.log_gradient, tail, head(x).detach())):
            with torch.no_grad():
                expected = float(jacrev(without_statistics(part))(start).square().sum()) / 20
            squares = np.exp(values[:, layer - 1])
            assert squares.mean() == pytest.approx(expected, abs=4 * squares.std() / math.sqrt(squares.size))


def without_statistics(module):
    """The module in train mode, its running statistics off."""
    for part in module:
        if isinstance(part, nn.BatchNorm1d):
            part.track_running_stats, part.running_mean, part.running_var = False, None, None
    return module


def test_gradients_are_those_of_autograd_layer_by_layer():
    """Steps of ln ‖∂ℓ/∂h^l‖² for ℓ = ⟨y, v⟩ against torch.autograd with the same v."""
    module, x = network(activation="relu", norm="batch", depth=5, width=8), inputs(6, 8)
    found = explosion([module], x, generator=draws(), edge=0)
    seed = int(torch.randint(2**62, (1,), generator=draws()))
    v = torch.randn(6, 8, generator=torch.Generator().manual_seed(2 * seed + 1), dtype=torch.float64)
    logs = log_gradient_norms(module, x, lambda y: (y * v).sum() / v.norm())
    np.testing.assert_allclose(found.log_gradient[0], logs, rtol=1e-9)


def test_numbers_do_not_depend_on_how_many_networks_go_together():
    """One network at a time or all at once: the same draws, the same logarithms."""
    modules = [network(activation="gelu", norm="batch", depth=5, width=7, seed=s) for s in range(3)]
    together, alone = (
        explosion(modules, inputs(5, 7), generator=draws(), memory_budget=budget) for budget in (2**30, 1)
    )
    np.testing.assert_allclose(alone.log_gradient, together.log_gradient, rtol=1e-10)
    np.testing.assert_allclose(alone.log_jacobian, together.log_jacobian, rtol=1e-10)
    assert np.ptp(together.log_gradient[:, 0]) > 1e-3


def test_ends_are_left_out():
    """A fifth of the layers at each end by default, at least one."""
    for depth, edge in ((4, 1), (10, 2), (14, 2), (20, 4)):
        module = network(activation="linear", depth=depth, width=3)
        found = explosion([module], inputs(2, 3), generator=draws())
        assert (found.edge, found.gradient_steps.shape) == (edge, (1, depth - 2 * edge - 1))


def test_typical_networks_grow_less_than_the_mean():
    """exp E ln r < E r by half the variance of ln r: to second order at width 128."""
    found = measured("relu", batch_size=8, width=128, networks=24)
    rate, typical = found.gradient_rate().value, found.typical_gradient_rate().value
    variance = found.gradient_steps.var()
    assert math.log(rate / typical) == pytest.approx(variance / 2, rel=0.3)
    assert rate > typical


@pytest.mark.parametrize(("activation", "sigma_w"), [("linear", 1.0), ("relu", 2**0.5), ("tanh", 1.3), ("tanh", 1.8)])
def test_without_normalisation_the_rate_is_chi(activation, sigma_w):
    """σ_w² E φ′² at the fixed point: 1 for linear and He's ReLU, 0.64 and 1.37 for tanh; 4 s.e. and 3/N."""
    sigma_b = 0.4 if activation == "tanh" else 0.0
    options = {"scheme": "gaussian", "sigma_w": sigma_w, "sigma_b": sigma_b, "depth": 12, "width": 96}
    modules = [network(activation=activation, seed=s, **options) for s in range(24)]
    point = mean_field.fixed_point(activation, sigma_w=sigma_w, sigma_b=sigma_b) if sigma_b else None
    q, chi1 = (point.q, point.chi1) if point else (1.0, 1.0)
    x = inputs(4, 96)
    first = (q - sigma_b**2) / sigma_w**2  # the mean square of the input that puts the first layer at q*
    x *= (first / x.square().mean(1, keepdim=True)).sqrt()
    found = explosion(modules, x, generator=draws(activation))
    for rate in (found.gradient_rate(), found.jacobian_rate()):
        assert rate.value == pytest.approx(chi1, abs=4 * rate.se + 3 * chi1 / 96)
        assert rate.se < 0.04


@pytest.mark.parametrize("batch_size", [12, pytest.param(32, marks=pytest.mark.slow)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_networks_of_torch_explode_at_the_predicted_rate(activation, batch_size):
    """λ_G within 3 s.e. and 2.5/N, which finite width adds at most (`rmtbn bn-explosion`); gradients and ‖J‖² alike."""
    predicted = bn_mean_field.fixed_point(activation, batch_size=batch_size).explosion_rate
    found = measured(activation, batch_size=batch_size, width=192, networks=16, depth=8)
    for rate in (found.gradient_rate(), found.jacobian_rate()):
        assert rate.value == pytest.approx(predicted, abs=3 * rate.se + 2.5 / 192 * predicted)
        assert rate.se < 0.015 * predicted


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "batch_size"), [(name, size) for name in ACTIVATIONS for size in BATCHES])
def test_all_networks_of_torch_explode_at_the_predicted_rate(activation, batch_size):
    """λ_G at B = 6 … 200 within 3 s.e., 2 r(512) - r(256), of gradients and of ‖J‖²."""
    predicted = bn_mean_field.fixed_point(activation, batch_size=batch_size).explosion_rate
    networks = (96, 48) if batch_size <= 24 else (48, 24)
    for value, error in extrapolated(activation, batch_size=batch_size, widths=(256, 512), networks=networks):
        assert value == pytest.approx(predicted, abs=3 * error)
        assert error < (0.04 if batch_size == 6 else 0.015) * predicted


def extrapolated(activation, *, batch_size, widths, networks):
    """Rates of gradients and of ‖J‖² with the first order in 1/N taken off, and their standard errors."""
    small, large = (
        measured(activation, batch_size=batch_size, width=width, networks=count)
        for width, count in zip(widths, networks, strict=True)
    )
    ratio = widths[1] / widths[0]
    for name in ("gradient_rate", "jacobian_rate"):
        coarse, fine = getattr(small, name)(), getattr(large, name)()
        value = (ratio * fine.value - coarse.value) / (ratio - 1)
        yield value, math.hypot(ratio * fine.se, coarse.se) / (ratio - 1)


def test_residual_networks_grow_as_a_power_of_depth():
    """‖g_l‖² ∝ (L/l)^a between the inner ends, as the moments of residual networks with BN say; 4 s.e. + 2/N."""
    depth, width, batch = 40, 128, 16
    modules = [
        initialise(residual_mlp(depth=depth, width=width, norm="batch").double(), "he_normal",
                   generator=draws("weights", seed), activation="relu")
        for seed in range(8)
    ]  # fmt: skip
    found = explosion(modules, inputs(batch, width), generator=draws("residual"))
    theory = batch_norm_residual_moments("relu", depth=depth, batch_size=batch, sigma_w=math.sqrt(2)).log_gradient
    first, last = found.edge + 1, depth - found.edge
    predicted = (theory[first] - theory[last]) / math.log(last / first)
    power = found.gradient_power()
    assert power.value == pytest.approx(predicted, abs=4 * power.se + 2 / width)
    assert power.se < 0.1
    plain = bn_mean_field.fixed_point("relu", batch_size=batch).explosion_rate
    assert (last - first) * math.log(plain) / math.log(last / first) > 3 * power.value  # what it would be without skips


def test_networks_that_die_are_left_out_of_the_rates():
    """A layer of zeros in one of three networks: its steps are not finite, the rates are over two; all dead: NaN."""
    factors = [1.0, 1.0, 2.0, 2.0, 1.0]
    alive, dead = [scaled_rotations(factors, seed=s) for s in (1, 2)], scaled_rotations([*factors[:3], 0.0, 1.0])
    found = explosion([*alive, dead], inputs(3, 6), generator=draws(), edge=1)
    assert not np.isfinite(found.gradient_steps[2]).all()
    assert (found.gradient_rate().value, found.gradient_rate().networks) == (pytest.approx(4.0), 2)
    nothing = explosion([dead], inputs(3, 6), generator=draws(), edge=1).gradient_rate()
    assert math.isnan(nothing.value)
    assert (nothing.se, nothing.networks) == (math.inf, 0)


def test_profiles_are_against_the_last_layer():
    """ln ‖g_l‖²/‖g_L‖² of scaled rotations: Σ of ln a² from the end."""
    factors = [1.0, 2.0, 3.0, 5.0]
    profile = explosion([scaled_rotations(factors)] * 2, inputs(3, 6), generator=draws()).profile()
    np.testing.assert_allclose(profile.value, 2 * np.log([30, 15, 5, 1]), atol=1e-12)
    assert profile.depth.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(("options", "message"), [
    ({"edge": 2}, "`edge` must be such that 2 of the 4 layers .* are between the ends; got 2"),
    ({"edge": -1}, "`edge` must be an integer >= 0; got -1"),
    ({"memory_budget": 0}, "`memory_budget` must be an integer >= 1; got 0"),
])  # fmt: skip
def test_bad_arguments_are_refused(options, message):
    """One line that names the argument, the rule and the value."""
    with pytest.raises(InvalidArgumentError, match=message):
        explosion([network(depth=4, width=3)], inputs(2, 3), generator=draws(), **options)
    with pytest.raises(InvalidArgumentError, match="`modules` must be one or more networks"):
        explosion([], inputs(2, 3), generator=draws())


def test_results_hold_one_row_per_network():
    """Shapes (networks, layers)."""
    found = explosion([network(depth=4, width=3)] * 2, inputs(2, 3), generator=draws())
    assert isinstance(found, Explosion)
    assert found.log_gradient.shape == found.log_jacobian.shape == (2, 4)
