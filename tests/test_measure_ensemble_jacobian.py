"""Spectra of ensembles: the same numbers as network by network, in one pass."""

import copy
import inspect

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.inits import initialise
from rmtbn.measure import jacobian, stacked_tangents
from rmtbn.measure.ensemble import aligned
from rmtbn.measure.ensemble_jacobian import ensemble_spectrum
from rmtbn.nets.cnn import plain_cnn
from rmtbn.nets.mlp import mlp
from rmtbn.nets.resnet import residual_mlp


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=rng.torch_generator(1, "ensemble", *shape), dtype=torch.float64)


def perturbed(module: nn.Module, seed: int) -> nn.Module:
    """A copy with parameters moved, and running statistics that are not the standard ones."""
    module = copy.deepcopy(module).double()
    generator = rng.torch_generator(seed, "perturbed")
    for tensor in [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]:
        tensor.data += 0.1 * torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
    return module


def networks(name: str, count: int = 3) -> list[nn.Module]:
    made = []
    for seed in range(count):
        base = ARCHITECTURES[name]()
        generator = rng.torch_generator(seed, "net")
        made.append(perturbed(initialise(base.double(), "he_normal", generator=generator, activation="relu"), seed))
    return made


class Twice(nn.Module):
    """A block that applies one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        linear = nn.Linear(7, 7)
        self.layers = nn.Sequential(linear, nn.Tanh(), linear)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


ARCHITECTURES = {
    "shared": lambda: nn.Sequential(Twice(), nn.ReLU(), nn.Linear(7, 5)),
    "tanh": lambda: mlp(depth=5, width=7, activation="tanh"),
    "relu": lambda: mlp(depth=5, width=9, activation="relu", in_features=7),
    "softplus and norm": lambda: nn.Sequential(nn.Linear(7, 6), nn.Softplus(), nn.LayerNorm(6), nn.Linear(6, 8)),
    "batch norm": lambda: mlp(depth=3, width=7, activation="tanh", norm="batch"),
    "residual": lambda: residual_mlp(depth=2, width=6, in_features=7, out_features=3, norm="batch"),
    "one block": lambda: residual_mlp(depth=1, width=6, in_features=7, out_features=3)[1],
}


@pytest.mark.parametrize("method", ["product", "dense"])
@pytest.mark.parametrize("batch_stats", ["batch", "running"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_spectra_are_those_of_each_network_alone(name, batch_stats, method):
    """One row per network, equal to `jacobian.spectrum` of that network, zeros in the same places."""
    modules, x = networks(name), draw(4, 6 if name == "one block" else 7)
    together = ensemble_spectrum(modules, x, batch_stats=batch_stats, method=method)
    assert (together.networks, together.method) == (3, method)
    for row, module in zip(together.by_network, modules, strict=True):
        alone = jacobian.spectrum(module, x, batch_stats=batch_stats, method="product")
        known = alone.by_network[0] > (-20.0 if method == "product" else -10.0)
        np.testing.assert_allclose(row[known], alone.by_network[0][known], rtol=0, atol=1e-9)
        if method == "product":
            np.testing.assert_array_equal(np.isneginf(row), np.isneginf(alone.by_network[0]))
            assert together.batch_stats == alone.batch_stats
    values = np.exp(together.by_network)
    assert np.abs(values[0] - values[1]).max() > 1e-3


def test_images_are_pushed_too():
    """Convolution, pooling and batch normalisation over images, 3 networks at once."""

    def build() -> nn.Module:
        layers = (nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3, 2))
        return nn.Sequential(*layers)

    modules, x = [perturbed(build(), seed) for seed in range(3)], draw(3, 2, 4, 4)
    for stats in ("batch", "running"):
        together = ensemble_spectrum(modules, x, batch_stats=stats)
        for row, module in zip(together.by_network, modules, strict=True):
            alone = jacobian.spectrum(module, x, batch_stats=stats, method="product").by_network[0]
            np.testing.assert_allclose(np.exp(row), np.exp(alone), rtol=0, atol=1e-10)


def test_memory_cuts_the_ensemble_and_changes_nothing():
    """One network at a time, and tangents in chunks, give the same."""
    modules, x = networks("batch norm", count=4), draw(4, 7)
    whole, cut = (ensemble_spectrum(modules, x, memory_budget=budget) for budget in (2**30, 1))
    stated = whole.relative_error + cut.relative_error
    assert stated < 2e-7
    np.testing.assert_allclose(np.exp(cut.by_network), np.exp(whole.by_network), rtol=stated, atol=0)


@pytest.mark.parametrize("name", ["batch norm", "shared"])
def test_networks_are_left_as_they_were(name):
    """Parameters, running statistics and modes."""
    modules, x = networks(name), draw(4, 7)
    before = copy.deepcopy([module.state_dict() for module in modules])
    ensemble_spectrum(modules, x, batch_stats="batch")
    for module, state in zip(modules, before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
        assert module.training


def test_dense_values_below_the_floor_are_censored():
    """At depth 60 the dense route knows the top values and says which it does not; products know all."""
    modules = [
        initialise(mlp(depth=60, width=12, activation="linear").double(), "he_normal", generator=rng.torch_generator(s))
        for s in (1, 2)
    ]
    wrong, right = (ensemble_spectrum(modules, draw(1, 12), method=method) for method in ("dense", "product"))
    assert right.log_floor is None
    assert right.relative_error < 1e-8
    above = right.by_network > wrong.log_floor[:, None] + 10.0
    np.testing.assert_allclose(wrong.by_network[above], right.by_network[above], rtol=0, atol=1e-3)
    assert (right.by_network < wrong.log_floor[:, None]).any()


def saturated(size: float, *, dtype: torch.dtype) -> list[nn.Module]:
    """Networks whose Jacobians fade by about the size of the weights in each layer, at points that do not."""
    made = [mlp(depth=70, width=4, activation="tanh").double() for _ in range(2)]
    for seed, module in enumerate(made):
        for i, parameter in enumerate(module.parameters()):
            generator = rng.torch_generator(seed, "saturated", i)
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data = (size if parameter.ndim > 1 else 0.1) * drawn
    return [module.to(dtype) for module in made]


@pytest.mark.parametrize(("size", "dtype"), [(1e-6, torch.float64), (1e-7, torch.float32), (1e-4, torch.float64)])
def test_dense_jacobians_that_fade_fast_are_no_zeros(size, dtype):
    """ln σ₁ = Σ ln, down to -1100: as by products, also where entries fade by more than e^9 in each step."""
    modules, x = saturated(size, dtype=dtype), draw(1, 4).to(dtype)
    found, right = (ensemble_spectrum(modules, x, method=method).by_network[:, 0] for method in ("dense", "product"))
    assert (right < 50 * np.log(size)).all()
    np.testing.assert_allclose(found, right, rtol=0, atol=1e-11 if dtype == torch.float64 else 1e-4)


def test_dense_jacobians_that_grow_fast_at_points_that_do_not_are_followed():
    """At x = 0 without biases, J = W_L … W_1, here of ln σ₁ near 900."""
    modules = saturated(1e6, dtype=torch.float64)
    for parameter in (p for module in modules for p in module.parameters() if p.ndim == 1):
        parameter.data.zero_()
    x = torch.zeros(1, 4, dtype=torch.float64)
    found, right = (ensemble_spectrum(modules, x, method=method).by_network[:, 0] for method in ("dense", "product"))
    assert (right > 900).all()
    np.testing.assert_allclose(found, right, rtol=0, atol=1e-11)


def test_networks_that_fade_are_looked_at_again_without_the_others():
    """One that fades among ones that do not: all are followed step by step, and none changes."""
    slow, fast = saturated(1.0, dtype=torch.float64)[0], saturated(1e-7, dtype=torch.float64)[1]
    x = draw(1, 4)
    found = ensemble_spectrum([slow, fast], x, method="dense")
    alone = [ensemble_spectrum([module], x, method="dense").by_network[0] for module in (slow, fast)]
    np.testing.assert_allclose(found.by_network[:, 0], [row[0] for row in alone], rtol=0, atol=1e-11)


def test_impossible_ensembles_are_refused():
    """No network, two architectures, a network that is not finite, an unknown route."""
    modules, x = networks("tanh"), draw(2, 7)
    for none in ([], iter(modules), [*modules, "a network"]):
        with pytest.raises(InvalidArgumentError, match="`modules` must be one or more networks, in a sequence"):
            inspect.unwrap(aligned)(none)
    with pytest.raises(InvalidArgumentError, match="`modules` must be one or more networks"):
        ensemble_spectrum([], x)
    with pytest.raises(InvalidArgumentError, match="`modules` must be networks of one architecture"):
        ensemble_spectrum([*modules, *networks("batch norm")], x)
    with pytest.raises(InvalidArgumentError, match="`method` must be one of 'product', 'dense'; got 'slq'"):
        ensemble_spectrum(modules, x, method="slq")
    modules[1][0].weight.data[0, 0] = torch.inf
    with pytest.raises(InvalidArgumentError, match="`modules` must be finite at x"):
        ensemble_spectrum(modules, x, method="dense")


@pytest.mark.parametrize("method", ["product", "dense"])
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_one_output_that_is_not_finite_is_refused(value, method):
    """Of another network than the first, at a finite Jacobian."""
    modules, x = networks("softplus and norm"), draw(2, 7)
    modules[1][-1].bias.data[0] = value
    with pytest.raises(InvalidArgumentError, match="`modules` must be finite at x"):
        ensemble_spectrum(modules, x, method=method)


@pytest.mark.parametrize("small", [0, 2**16])
def test_float32_networks_are_pushed_in_double_at_any_size(small, monkeypatch):
    """Weights side by side or one by one: values of float64, to single precision."""
    monkeypatch.setattr(stacked_tangents, "_SMALL", small)
    modules, x = networks("tanh"), draw(1, 7)
    singles = [copy.deepcopy(module).float() for module in modules]
    doubles = [copy.deepcopy(module).double() for module in singles]
    found = ensemble_spectrum(singles, x.float())
    expected = ensemble_spectrum(doubles, x.float().double())
    np.testing.assert_allclose(found.by_network, expected.by_network, rtol=0, atol=found.relative_error)
    assert found.relative_error < 1e-3


def test_the_dense_route_of_float32_networks_is_in_float32():
    """Its floor is that of the dtype of the inputs: m ε of the largest value."""
    modules, x = [module.float() for module in networks("tanh")], draw(1, 7).float()
    found = ensemble_spectrum(modules, x, method="dense")
    alone = jacobian.spectrum(modules[0], x, method="dense")
    assert float(found.log_floor[0]) == pytest.approx(float(alone.log_floor[0]), abs=1e-3)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("network", [0, 2])
def test_hooks_and_patched_forwards_of_one_network_are_refused(network, place):
    """One call serves all networks: what a single one does besides would be lost. Alone it is measured."""
    modules, x = networks("tanh"), draw(1, 7)
    handle = modules[network][place].register_forward_hook(lambda _layer, _inputs, output: 2.0 * output)
    with pytest.raises(InvalidArgumentError, match="`modules` must be networks with the same hooks"):
        ensemble_spectrum(modules, x)
    alone = ensemble_spectrum([modules[network]], x).by_network
    np.testing.assert_allclose(alone, jacobian.spectrum(modules[network], x).by_network, rtol=0, atol=1e-10)
    handle.remove()
    modules[network][place].forward = torch.sinh
    with pytest.raises(InvalidArgumentError, match="`modules` must be networks with the same hooks"):
        ensemble_spectrum(modules, x)


@pytest.mark.parametrize("method", ["product", "dense"])
@pytest.mark.parametrize("place", [0, 1])
def test_the_same_hook_on_all_networks_is_run_for_all(place, method):
    """As those of norms for images, which look at what they are given."""
    modules, x = networks("tanh"), draw(1, 7)
    for module in modules:
        module[place].register_forward_hook(lambda _layer, _inputs, output: 2.0 * output)
    found = ensemble_spectrum(modules, x, method=method)
    plain = ensemble_spectrum(networks("tanh"), x, method=method)
    alone = [jacobian.spectrum(module, x, method=method).by_network[0] for module in modules]
    np.testing.assert_allclose(found.by_network, alone, rtol=0, atol=1e-9)
    assert (abs(found.by_network[:, 0] - plain.by_network[:, 0]) > 0.01).all()


def test_networks_for_images_with_a_norm_over_space():
    """Their layers of norm look at the space they are given, by a hook."""
    modules = [plain_cnn(depth=2, channels=2, norm="group", in_channels=1).double() for _ in range(3)]
    x = draw(1, 1, 4, 4)
    alone = [jacobian.spectrum(module, x).by_network[0] for module in modules]
    found = ensemble_spectrum(modules, x)
    np.testing.assert_allclose(np.exp(found.by_network), np.exp(alone), rtol=0, atol=1e-9)


def test_a_dead_network_among_others_spoils_no_error():
    """J = 0 in one of them: exact zeros there, and the error is that of the others."""
    modules, x = networks("relu"), draw(1, 7)
    for parameter in modules[1].parameters():
        parameter.data.zero_()
    found = ensemble_spectrum(modules, x, method="dense")
    assert bool(np.isneginf(found.by_network[1]).all())
    assert 0 < found.relative_error < 1
    dead = ensemble_spectrum(modules[1:2], x, method="dense")
    assert dead.relative_error == 0.0
