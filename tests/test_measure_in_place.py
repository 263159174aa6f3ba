"""Layers that work in place: the same numbers, and neither the inputs nor the layers are changed."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rmtbn import rng
from rmtbn.measure import batch_statistics, jacobian, moments
from rmtbn.measure.ensemble_jacobian import ensemble_spectrum
from rmtbn.measure.growth import growth
from rmtbn.measure.jacobian_operator import jacobian_operator
from rmtbn.measure.singular_vectors import surviving_directions

ACTIVATIONS = [nn.ReLU, nn.ELU, nn.SiLU, nn.LeakyReLU, nn.Hardtanh, nn.CELU]


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=rng.torch_generator(4, "in place", *shape), dtype=torch.float64)


def network(activation: type[nn.Module]) -> nn.Sequential:
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
    module, x = network(activation), draw(1, 6)
    changed, before = in_place(module), x.clone()
    expected = MEASURES[measure](module, x)
    found = MEASURES[measure](changed, x)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-300)
    assert torch.equal(x, before)
    assert all(layer.inplace for layer in changed if not isinstance(layer, nn.Linear))


def test_layers_work_in_place_again_after_an_exception():
    """Only those that did before."""
    module = nn.Sequential(nn.ReLU(inplace=True), nn.ReLU())

    def fail() -> None:
        with batch_statistics.fixed(module, None):
            assert [layer.inplace for layer in module] == [False, False]
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        fail()
    assert [layer.inplace for layer in module] == [True, False]
