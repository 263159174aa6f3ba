"""Layers that work in place: the same numbers, and neither the inputs nor the layers are changed."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.linalg.push_forward import TangentMap
from rmtbn.measure import batch_statistics, jacobian, moments, network, stacked_tangents
from rmtbn.measure.ensemble_jacobian import ensemble_spectrum
from rmtbn.measure.growth import growth
from rmtbn.measure.jacobian_operator import jacobian_operator
from rmtbn.measure.layer_maps import steps
from rmtbn.measure.singular_vectors import surviving_directions
from rmtbn.measure.stacked_tangents import stacked_map, stacked_steps

ACTIVATIONS = [nn.ReLU, nn.ELU, nn.SiLU, nn.LeakyReLU, nn.Hardtanh, nn.CELU]


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=rng.torch_generator(4, "in place", *shape), dtype=torch.float64)


def chain(activation: type[nn.Module]) -> nn.Sequential:
    """Begins with an activation, which in place would write on the inputs; and has one behind another."""
    weights = [nn.Linear(6, 6, dtype=torch.float64) for _ in range(2)]
    for i, layer in enumerate(weights):
        layer.weight.data, layer.bias.data = draw(6, 6) + i * torch.eye(6), draw(6)
    acts = [activation() for _ in range(4)]
    return nn.Sequential(acts[0], weights[0], acts[1], acts[2], weights[1], acts[3])


def in_place(module: nn.Sequential) -> nn.Sequential:
    changed = copy.deepcopy(module)
    for layer in changed:
        if not isinstance(layer, nn.Linear):
            layer.inplace = True
    return changed


def by_operator(module: nn.Module, x: Tensor) -> np.ndarray:
    with jacobian_operator(module, x) as operator:
        return operator.apply(torch.eye(6, dtype=torch.float64)).numpy()


MEASURES = {
    **{
        method: lambda module, x, method=method: jacobian.spectrum(module, x, method=method).by_network
        for method in ("product", "dense", "slq", "lanczos")
    },
    "prefixes": lambda module, x: jacobian.prefix_spectra(module, x, after=[2])[2].by_network,
    "ensemble": lambda module, x: ensemble_spectrum([module, module], x).by_network,
    "growth": lambda module, x: growth([module], x).log_singular_values,
    "directions": lambda module, x: surviving_directions(module, x, count=1).inputs.numpy(),
    "operator": by_operator,
    "moments": lambda module, x: np.concatenate(
        [one.example_log_second_moment for one in moments.activation_moments(module, x, layers=["2", "3", "5"])]
    ),
}


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_numbers_are_those_of_layers_that_make_a_new_tensor(activation, measure):
    """And the inputs are what they were, and the layers work in place again."""
    module, x = chain(activation), draw(1, 6)
    changed, before = in_place(module), x.clone()
    expected = MEASURES[measure](module, x)
    found = MEASURES[measure](changed, x)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-300)
    assert torch.equal(x, before)
    assert all(layer.inplace for layer in changed if not isinstance(layer, nn.Linear))


def test_layers_work_in_place_again_after_an_exception():
    """Only those that did before."""
    module = nn.Sequential(nn.ReLU(inplace=1), nn.ReLU())

    def fail() -> None:
        with network.layer_by_layer(module, None):
            assert [layer.inplace for layer in module] == [False, False]
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        fail()
    assert [layer.inplace for layer in module] == [1, False]


class Shortcut(nn.Module):
    """A block whose shortcut is what the activation in place has made of its input's copy."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(6, dtype=torch.float64), nn.Linear(6, 6, dtype=torch.float64)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return h + self.linear(self.activation(h))


@pytest.mark.parametrize("method", ["product", "dense", "lanczos"])
def test_blocks_mean_what_they_do_in_place(method):
    """Inside of a block the tensor that was changed may be used again: J is reverse mode's."""
    module, x = nn.Sequential(nn.Linear(6, 6).double(), Shortcut(), nn.Linear(6, 6).double()), draw(1, 6)
    for i, parameter in enumerate(module.parameters()):
        parameter.data += 0.5 * draw(*parameter.shape, i + 1)[..., 0]
    expected = torch.linalg.svdvals(torch.func.jacrev(lambda v: module(v[None])[0])(x[0]))
    found = jacobian.spectrum(module, x, method=method, floor=1e-12 if method == "lanczos" else None)
    expected = expected.detach()
    known = expected > 1e-6 * expected[0]
    assert 2 <= int(known.sum()) < 6
    np.testing.assert_allclose(np.exp(found.by_network[0])[known], expected[known], rtol=1e-5)


class Overwrites(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.tanh_()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_layers_that_overwrite_their_input_are_refused(place):
    """By name, before anything is computed; the user's inputs are what they were."""
    layers: list[nn.Module] = [nn.Linear(6, 6).double(), nn.Linear(6, 6).double()]
    layers.insert(place, Overwrites())
    x = draw(1, 6)
    before = x.clone()
    for measure in ("product", "dense", "growth", "ensemble", "operator"):
        with pytest.raises(InvalidArgumentError, match=f"`module` must be made of layers .*; got '{place}, Overwrites"):
            MEASURES[measure](nn.Sequential(*layers), x)
        assert torch.equal(x, before)
    with pytest.raises(InvalidArgumentError, match="got 'itself, Overwrites, which works on it in place'"):
        jacobian.spectrum(Overwrites(), x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("layers", [[nn.Tanh()], [nn.Identity(), nn.ReLU()], [nn.LayerNorm(6).double(), nn.Tanh()]])
def test_columns_that_are_pushed_are_left_alone(layers):
    """They are kept for when a block is cut."""
    columns = draw(1, 6, 5)
    before = columns.clone()
    with torch.no_grad():
        _, found = steps(layers, 2**20)[0][0](draw(1, 6), columns)
    assert torch.equal(columns, before)
    assert not torch.equal(found, before)


def passes(hooked: nn.Module) -> nn.Module:
    """A linear layer of which a hook makes the identity: what comes out is what went in."""
    hooked.register_forward_hook(lambda _layer, inputs, _output: inputs[0])
    return hooked


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize(
    "layers",
    [
        [nn.Tanh()],
        [nn.Identity(), nn.ReLU()],
        [nn.Flatten(), nn.Tanh()],
        [nn.Dropout().eval(), nn.Identity(), nn.Tanh()],
        [passes(nn.Linear(6, 6).double()), nn.Tanh()],
    ],
)
def test_columns_that_are_pushed_through_ensembles_are_left_alone(layers, coupled):
    """Activations overwrite a product of matrices, which nobody else holds, and nothing that may be a view."""
    columns = draw(1, 6, 5).mT.contiguous().mT
    before = columns.clone()
    with torch.no_grad():
        point, found = draw(1, 1, 6), columns
        for step in stacked_steps([[layer] for layer in layers], coupled=coupled, memory_budget=2**20):
            for move in step:
                point, found = move(point, found)
    assert torch.equal(columns, before)
    assert not torch.equal(found, before)


def test_activations_take_the_place_of_a_product(monkeypatch):
    """Linear layers, and what acts on their entries, are one map; what looks at several entries is one by itself."""
    layers = [nn.Tanh(), nn.Linear(6, 6), nn.ReLU(), nn.Identity(), nn.LayerNorm(6), nn.Tanh()]
    seen = []

    def spy(same: list[nn.Module], *, overwrite: bool, **options: object) -> TangentMap:
        seen.append(overwrite)
        return stacked_map(same, overwrite=overwrite, **options)

    monkeypatch.setattr(stacked_tangents, "stacked_map", spy)
    chain = stacked_tangents.stacked_steps([[layer] for layer in layers], coupled=False, memory_budget=2**20)
    assert [len(step) for step in chain] == [1, 2]
    assert seen == [False, False, True, True, True, False]


def test_activations_may_overwrite_columns_of_ensembles():
    columns, point = draw(2, 6, 5).mT.contiguous().mT, draw(2, 1, 6)
    expected = (1 - point.tanh().square()).mT * columns
    _, found = stacked_map([nn.Tanh(), nn.Tanh()], coupled=False, memory_budget=1, overwrite=True)(point, columns)
    assert found.data_ptr() == columns.data_ptr()
    torch.testing.assert_close(found, expected)


class Remembers(nn.Module):
    """A layer that keeps its input and a table, counts, and puts another buffer in the place of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6, dtype=torch.float64)
        self.register_buffer("mean", torch.zeros(6, dtype=torch.float64))
        self.table, self.calls = None, 0

    def forward(self, x: Tensor) -> Tensor:
        self.table = torch.arange(6.0, dtype=torch.float64) if self.table is None else self.table
        self.last, self.calls, self.mean = x, self.calls + 1, self.mean + 1.0
        return (self.linear(x) + self.table).tanh()


@pytest.mark.parametrize("measure", MEASURES)
def test_what_a_layer_remembers_is_forgotten(measure):
    """Tensors within `torch.func` mean nothing afterwards; and networks that were alike still are."""
    names = ["0", "1", "2", "3", "4", "5"]
    module = nn.Sequential(*(Remembers() if name == "2" else nn.Linear(6, 6).double() for name in names))
    before = (vars(module[2]).copy(), module[2].mean)
    first, second = (MEASURES[measure](module, draw(1, 6)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert vars(module[2]) == before[0]
    assert module[2].mean is before[1]
    assert not before[1].any()


def test_lazy_layers_that_meet_their_first_input_know_it_for_good():
    """And measurements ask for layers that do."""
    lazy = nn.Sequential(nn.LazyLinear(4), nn.Tanh())
    with pytest.raises(InvalidArgumentError, match=r"`module` must be of layers that know their shapes"):
        jacobian.spectrum(lazy, torch.ones(1, 6))
    with batch_statistics.fixed(lazy, None):
        lazy(torch.ones(1, 6))
    assert type(lazy[0]) is nn.Linear
    assert lazy[0].in_features == 6
