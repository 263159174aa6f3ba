"""Networks in float32, whose values are those of the same network in float64 to what is stated."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import jacrev

from rmtbn import rng
from rmtbn.measure import jacobian
from rmtbn.measure.ensemble_jacobian import ensemble_spectrum
from rmtbn.measure.growth import growth
from rmtbn.measure.singular_vectors import surviving_directions
from rmtbn.measure.tangents import in_double
from rmtbn.nets.resnet import residual_mlp


def network(width: int, depth: int, *, gain: float, activation: type[nn.Module], seed: int = 0) -> nn.Sequential:
    draws = rng.torch_generator(seed, "single", width)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layer = nn.Linear(width, width)
        layer.weight.data = gain * torch.randn(width, width, generator=draws) / width**0.5
        layer.bias.data = 0.1 * torch.randn(width, generator=draws)
        layers += [layer, activation()]
    return nn.Sequential(*layers).requires_grad_(False)


def chaotic(seed: int) -> nn.Sequential:
    """Tanh, σ_w = 3, 40 layers: rounding of the points in float32 would be amplified to whole nats of ln σ."""
    return network(64, 40, gain=3.0, activation=nn.Tanh, seed=seed)


def doubled(modules: list[nn.Sequential]) -> list[nn.Sequential]:
    return [copy.deepcopy(module).double() for module in modules]


X = torch.randn(1, 64, generator=rng.torch_generator(1, "single", "x"))


def of_one(modules: list[nn.Sequential], x: Tensor) -> tuple[np.ndarray, float]:
    found = jacobian.spectrum(modules[0], x, method="product")
    return found.log_singular_values, found.relative_error


def of_many(modules: list[nn.Sequential], x: Tensor) -> tuple[np.ndarray, float]:
    found = ensemble_spectrum(modules, x)
    return found.by_network, found.relative_error


def at_the_end(modules: list[nn.Sequential], x: Tensor) -> tuple[np.ndarray, float]:
    found = growth(modules, x)
    return found.log_singular_values[:, -1], float(found.relative_error[-1])


def of_directions(modules: list[nn.Sequential], x: Tensor) -> tuple[np.ndarray, float]:
    found = surviving_directions(modules[0], x, count=5)
    assert found.inputs.dtype == found.outputs.dtype == x.dtype
    return found.log_singular_values.numpy(), 1e-3


@pytest.mark.parametrize("measure", [of_one, of_many, at_the_end, of_directions])
def test_chaotic_networks_are_right_to_what_is_stated(measure):
    """By every way to the values, for one network and for three together."""
    modules = [chaotic(seed) for seed in range(3)]
    single, stated = measure(modules, X)
    double, _ = measure(doubled(modules), X.double())
    assert np.abs(single - double).max() <= stated < 1e-2


@pytest.mark.parametrize("measure", [of_one, of_many, at_the_end])
def test_relu_networks_have_the_zeros_of_double(measure):
    """He initialisation, 30 layers: ranks fall from layer to layer, and what is left is right to 1e-3."""
    modules = [network(64, 30, gain=2**0.5, activation=nn.ReLU, seed=seed) for seed in range(3)]
    single, stated = measure(modules, X)
    double, _ = measure(doubled(modules), X.double())
    zeros = np.isneginf(double)
    assert np.array_equal(np.isneginf(single), zeros)
    assert zeros.mean() > 0.5
    assert np.abs(single[~zeros] - double[~zeros]).max() <= stated < 1e-3


def test_zeros_of_points_are_dead_units_behind_a_relu_only():
    """At x = 0 tanh passes zeros on and its slope is 1: J is the product of the weights."""
    layers = [module for module in network(12, 3, gain=1.0, activation=nn.Tanh) if isinstance(module, nn.Linear)]
    for layer in layers:
        layer.bias.data.zero_()
    module = nn.Sequential(*(part for layer in layers for part in (layer, nn.Tanh())))
    product = layers[2].weight.double() @ layers[1].weight.double() @ layers[0].weight.double()
    for dtype in (torch.float32, torch.float64):
        for method in ("product", "dense"):
            found = jacobian.spectrum(module.to(dtype), torch.zeros(1, 12, dtype=dtype), method=method)
            np.testing.assert_allclose(found.by_network[0], torch.linalg.svdvals(product).log(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["product", "dense"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zeros_of_the_inputs_are_no_dead_units(dtype, method):
    """Before the first ReLU directions with x_i = 0 count like others: J = W₂ D₁ W₁ at x with zeros, D₂ = 1."""
    module, x = network(12, 2, gain=1.0, activation=nn.ReLU).to(dtype), torch.ones(1, 12, dtype=dtype)
    x[0, ::2] = 0.0
    module[2].bias.data.fill_(1e2)
    live = (module[0](x) > 0).double()
    product = module[2].weight.double() @ (live.mT * module[0].weight.double())
    rank = int(live.sum())
    assert 6 > 12 - rank > 0
    found = jacobian.spectrum(module, x, method=method).by_network[0]
    np.testing.assert_allclose(found[:rank], torch.linalg.svdvals(product).log()[:rank], rtol=0, atol=1e-4)


class ThroughSingle(nn.Module):
    """A norm that goes through float32 inside, and back."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        return (y / y.square().mean(-1, keepdim=True).sqrt()).to(x.dtype)


class Single(nn.Module):
    """A layer of float32 only."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.eye(x.shape[-1], dtype=torch.float32)


OTHERS = {
    "layer norm": lambda: nn.LayerNorm(16),
    "batch norm": lambda: nn.BatchNorm1d(16),
    "softplus": nn.Softplus,
    "block": lambda: residual_mlp(depth=1, width=16, in_features=16, out_features=16, norm="batch")[1],
    "two batch norms": lambda: nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 16), nn.BatchNorm1d(16)),
}


@pytest.mark.parametrize("statistics", ["batch", "running"])
@pytest.mark.parametrize("other", OTHERS)
def test_networks_with_other_layers_are_right_to_what_is_stated(other, statistics):
    """Layers with parameters in float32 are applied in float64: zeros are those of float64, and all other values."""
    layers = network(16, 2, gain=3.0, activation=nn.Tanh)
    module = nn.Sequential(layers[0], OTHERS[other](), *layers[1:])
    x = 10 * torch.randn(3, 16, generator=rng.torch_generator(1, "single", "others"))
    before = copy.deepcopy(module.state_dict())
    for measure in (of_one, of_many, at_the_end):
        module.train(statistics == "batch")
        single, stated = measure([module] if measure is of_one else [module, module], x)
        double, _ = measure(doubled([module] if measure is of_one else [module, module]), x.double())
        zeros = np.isneginf(double)
        assert np.array_equal(np.isneginf(single), zeros)
        assert np.abs(single[~zeros] - double[~zeros]).max() <= stated < 1e-3
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Asserting(nn.Module):
    """A layer that asks for float32 by an assertion of its own."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        return x.sin()


@pytest.mark.parametrize("layer", [ThroughSingle, Single, Asserting])
def test_layers_that_go_through_float32_are_measured_in_float32(layer):
    """Longer blocks would amplify their rounding: the error is that of float32, and is stated."""
    module = nn.Sequential(*network(16, 2, gain=1.0, activation=nn.Tanh), layer())
    x = torch.randn(3, 16, generator=rng.torch_generator(1, "single", "others"))
    assert not in_double(list(module), x)
    single, stated = of_one([module], x)
    assert stated > 1e-6
    if layer is ThroughSingle:
        jacobians = torch.stack([jacrev(module)(row[None])[0, :, 0] for row in x])
        expected = torch.linalg.svdvals(jacobians).flatten().sort(descending=True).values
        np.testing.assert_allclose(np.exp(single), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("examples", [2, 3, 8])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_what_eps_lets_pass_is_right(dtype, examples, scale):
    """Batch normalisation of values v ≫ ε: B - 2 values 1/s for each feature, one ε/s³ and one zero; s² = v + ε."""
    x = scale * torch.randn(examples, 4, generator=rng.torch_generator(examples, "eps"), dtype=torch.float64).to(dtype)
    modules = [nn.BatchNorm1d(4).to(dtype) for _ in range(2)]
    s = (x.double().var(dim=0, correction=0) + modules[0].eps).sqrt()
    values = torch.cat([(1 / s).repeat(examples - 2), modules[0].eps / s**3]).sort(descending=True).values.log()
    found = jacobian.spectrum(modules[0], x, method="product")
    several = ensemble_spectrum(modules, x)
    for row, stated in ((found.by_network[0], found.relative_error), (several.by_network[1], several.relative_error)):
        assert int(np.isneginf(row).sum()) == 4
        assert np.abs(row[:-4] - values.numpy()).max() <= stated < 1e-3


@pytest.mark.parametrize("gap", [1e-3, 1e-6])
def test_nearly_equal_columns_lose_nothing(gap):
    """Two columns of the first layer that differ by 1e-6: values to what single precision states, 1e-3."""
    module = network(64, 6, gain=1.0, activation=nn.Tanh)
    weight = module[0].weight.data
    weight[:, 1] = weight[:, 0] + gap * weight[:, 1]
    single, stated = of_one([module], X)
    double, _ = of_one(doubled([module]), X.double())
    assert np.abs(single - double).max() <= stated < 1e-3


@pytest.mark.parametrize("method", ["dense", "slq", "lanczos"])
@pytest.mark.parametrize("examples", [1, 2])
def test_slopes_that_underflow_are_no_zeros(method, examples):
    """tanh' < 1e-45 at half of the units in float32: their values are censored, and the others are float64's."""
    module, x = network(16, 2, gain=1.0, activation=nn.Tanh), X[:, :16].repeat(examples, 1)
    module[2].bias.data[:8] = 60.0
    found = jacobian.spectrum(module, x, method=method, floor=1e-5)
    exact = jacobian.spectrum(doubled([module])[0], x.double(), method="product")
    assert (found.zero_fraction, exact.zero_fraction) == (0.0, 0.0)
    assert found.censored_fraction >= 0.5
    top = 1 if method == "slq" else 4
    np.testing.assert_allclose(found.by_network[0, :top], exact.by_network[0, :top], rtol=0, atol=0.05)


def test_slopes_that_all_underflow_are_divided_by_the_largest():
    """tanh' of 1e-52 to 1e-60 in a layer of 3 units: the dense route's values above its floor are float64's."""
    module, x = network(3, 2, gain=1.0, activation=nn.Tanh), X[:, :3]
    module[0].bias.data = torch.tensor([60.0, -62.0, 69.0])
    found = jacobian.spectrum(module, x, method="dense")
    exact = jacobian.spectrum(doubled([module])[0], x.double(), method="product")
    assert exact.by_network[0, 0] < -100
    np.testing.assert_allclose(found.by_network[0, :2], exact.by_network[0, :2], rtol=0, atol=1e-4)
    assert (found.zero_fraction, found.censored_fraction) == (0.0, 1 / 3)
