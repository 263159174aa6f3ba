"""Norm of the loss gradient per layer: dense autograd, backpropagation by hand, mean field, and nothing moved."""

import math

import numpy as np
import pytest
import torch
from cases import ACTIVATION_NAMES, NORM_NAMES, SEEDS, Residual, conv_net, inputs, network
from torch import nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS
from rmtbn.inits import initialise
from rmtbn.measure.gradients import log_gradient_norms
from rmtbn.theory import mean_field


def classify(y):
    """Cross-entropy with made-up targets."""
    return nn.functional.cross_entropy(y, torch.arange(len(y)) % y.shape[1])


@pytest.mark.parametrize("norm", NORM_NAMES)
@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
def test_norms_are_those_of_the_dense_jacobian(norm, activation):
    """∂ℓ/∂h^l = Jᵀ ∂ℓ/∂y with J the dense Jacobian of the layers above h^l, batch and all."""
    shape = {"activation": activation, "norm": norm, "depth": 3, "width": 6, "out_features": 3}
    module, x = network(**shape), inputs(5, 6)
    found = log_gradient_norms(module, x, classify)
    layers, signal, expected = list(network(**shape)), x, []
    top = torch.autograd.functional.jacobian(classify, network(**shape)(x).detach())
    for place, layer in enumerate(layers):
        signal = layer(signal).detach()
        if isinstance(layer, nn.Linear):
            dense = torch.autograd.functional.jacobian(nn.Sequential(*layers[place + 1 :]), signal)
            gradient = torch.einsum("bk,bkcj->cj", top, dense)
            expected.append(float(gradient.square().sum().log()))
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_norms_are_those_of_backpropagation_by_hand():
    """g^{l-1} = W_lᵀ g^l ∘ φ′(h^{l-1}), g^L = (direction) ∘ φ′(h^L)."""
    module, x = network(activation="tanh", depth=4, width=9), inputs(3, 9)
    direction = inputs(3, 9, seed=2).numpy()
    signal, pre = x.numpy(), []
    weights = [module.get_submodule(f"linear_{layer}").weight.detach().numpy() for layer in (1, 2, 3, 4)]
    for layer, weight in enumerate(weights, start=1):
        pre.append(signal @ weight.T + module.get_submodule(f"linear_{layer}").bias.detach().numpy())
        signal = np.tanh(pre[-1])
    gradient, expected = direction * ACTIVATIONS["tanh"].dphi(pre[-1]), []
    for place in (3, 2, 1, 0):
        expected.append(math.log(np.sum(gradient**2)))
        gradient = gradient @ weights[place] * ACTIVATIONS["tanh"].dphi(pre[place - 1])
    found = log_gradient_norms(module, x, lambda y: (y * torch.tensor(direction)).sum())
    np.testing.assert_allclose(found, expected[::-1], atol=1e-11)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("seed", SEEDS)
def test_squared_gradients_grow_by_chi1(activation, seed):
    """E ‖g^{l-1}‖²/‖g^l‖² = σ_w² E φ′(h^{l-1})² with q from the length map: 40 networks, N = 192, 4 standard errors."""
    depth, sigmas = 5, {"sigma_w": 1.5, "sigma_b": 0.2}
    x, direction = inputs(1, 192, seed=seed), inputs(1, 192, seed=seed + 100)
    ratios = np.array(
        [
            np.exp(
                -np.diff(
                    log_gradient_norms(
                        network(activation=activation, depth=depth, width=192, seed=k, **sigmas),
                        x,
                        lambda y: (y * direction).sum(),
                    )
                )
            )
            for k in range(100 * seed, 100 * seed + 40)
        ]
    )
    q = mean_field.lengths(float(x.square().mean()), activation, depth=depth, **sigmas)
    predicted = mean_field.chi1(q[:-1], activation, sigma_w=sigmas["sigma_w"])
    error = ratios.std(axis=0, ddof=1) / math.sqrt(len(ratios))
    assert (np.abs(ratios.mean(axis=0) - predicted) < 4 * error).all()
    assert (error < 0.05 * predicted).all()


@pytest.mark.parametrize("scale", [-280, 280])
def test_norms_beyond_the_range_of_squares_are_finite(scale):
    """Gradients of 1e±280 have squares of 1e±560: held as logarithms; scaling the loss shifts by 2 log of the scale."""
    module, x = network(depth=2), inputs(4, 12)
    plain = log_gradient_norms(module, x, lambda y: y.sum())
    scaled = log_gradient_norms(module, x, lambda y: y.sum() * 10.0**scale)
    np.testing.assert_allclose(scaled, plain + 2 * scale * math.log(10), rtol=1e-12)


def test_gradients_that_vanish_have_log_norm_minus_infinity():
    """A dead ReLU layer passes nothing back, and a layer that the output does not use gets nothing."""
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        module[0].bias.fill_(-1e6)
    found = log_gradient_norms(module, inputs(5, 3), lambda y: y.square().sum())
    assert np.isneginf(found[0])
    assert np.isfinite(found[1])
    assert np.isneginf(log_gradient_norms(Unused(), inputs(5, 3), lambda y: y.sum()))[0]


class Unused(nn.Module):
    """A module that runs a layer and throws its output away."""

    def __init__(self):
        super().__init__()
        self.idle = nn.Linear(3, 3, dtype=torch.float64)
        self.used = nn.Linear(3, 3, dtype=torch.float64)

    def forward(self, x):
        self.idle(x)
        return self.used(x)


@pytest.mark.parametrize("inplace", [False, True])
def test_layers_that_work_in_place_do_not_change_the_gradient(inplace):
    """∂ℓ/∂h of the linear layer, not of the ReLU that overwrites it: the two differ by the dead half."""
    module = nn.Sequential(nn.Linear(4, 40, dtype=torch.float64), nn.ReLU(inplace=inplace))
    initialise(module, "he_normal", generator=rng.torch_generator(1))
    (found,) = log_gradient_norms(module, inputs(30, 4), lambda y: y.sum())
    with torch.no_grad():
        alive = (module[0](inputs(30, 4)) > 0).sum()
    assert found == pytest.approx(math.log(int(alive)))


def test_layers_are_those_asked_for():
    """Any module, any layers, in their order; without names those with a weight matrix."""
    module, x = Residual(4).double(), inputs(3, 4)
    every = log_gradient_norms(module, x, lambda y: y.square().sum())
    first, second = (
        log_gradient_norms(module, x, lambda y: y.square().sum(), layers=[name]) for name in ("first", "second")
    )
    np.testing.assert_array_equal(every, [*second, *first])
    assert log_gradient_norms(conv_net(), inputs(4, 3, 6, 6, dtype=torch.float32), classify).shape == (3,)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("statistics", [None, "batch", "running"])
def test_networks_are_left_bit_for_bit(training, statistics):
    """Parameters, their gradients, running statistics, modes, the inputs and the global generator: nothing moves."""
    module, x = network(norm="batch").train(training), inputs(6, 12)
    module[0].weight.grad = torch.ones_like(module[0].weight)
    before, start = {name: tensor.clone() for name, tensor in module.state_dict().items()}, x.clone()
    generator = torch.random.get_rng_state()
    log_gradient_norms(module, x, lambda y: y.square().sum(), batch_stats=statistics)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert torch.equal(module[0].weight.grad, torch.ones_like(module[0].weight))
    assert all(p.grad is None for name, p in module.named_parameters() if name != "linear_1.weight")
    assert all(child.training == training for child in module.modules())
    assert torch.equal(x, start)
    assert not x.requires_grad
    assert torch.equal(torch.random.get_rng_state(), generator)


def test_measurement_works_where_gradients_are_off():
    """Under no_grad, and with frozen parameters, the gradient with respect to activations is the same."""
    module, x = network(), inputs(4, 12)
    expected = log_gradient_norms(module, x, lambda y: y.square().sum())
    with torch.no_grad():
        found = log_gradient_norms(module, x, lambda y: y.square().sum())
    np.testing.assert_array_equal(found, expected)
    frozen = log_gradient_norms(module.requires_grad_(False), x, lambda y: y.square().sum())
    np.testing.assert_array_equal(frozen, expected)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda y: y, r"`loss` must be a finite scalar of the module's output; got \[\["),
        (lambda y: y.sum() / 0, "`loss` must be a finite scalar of the module's output; got .*inf"),
        (lambda y: (y.sum() - y.sum()) / 0 * y.sum(), "`loss` must be a finite scalar of the module's output; got nan"),
        (lambda y: torch.ones_like(y).sum() / y.numel(), "`loss` must be a function of the module's output; got 1.0"),
        (lambda y: y.detach().sum() * 0, "`loss` must be a function of the module's output; got 0.0"),
    ],
    ids=["vector", "infinite", "nan", "constant", "detached"],
)
def test_losses_that_have_no_gradient_are_refused(loss, message):
    """A loss is a finite scalar that depends on the output."""
    with pytest.raises(InvalidArgumentError, match=message):
        log_gradient_norms(network(), inputs(3, 12), loss)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (inputs(3, 12), {"layers": ["linear_9"]}, r"`layers` must be one of .*; got 'linear_9'"),
        (inputs(3, 12) * math.inf, {}, "`x` must be finite; got "),
        (inputs(3, 12), {"batch_stats": "none"}, "`batch_stats` must be one of 'batch', 'running'; got 'none'"),
    ],
)
def test_what_cannot_be_measured_is_refused(x, options, message):
    """Unknown layers, inputs that are not finite, unknown statistics."""
    with pytest.raises(InvalidArgumentError, match=message):
        log_gradient_norms(network(), x, lambda y: y.sum(), **options)
