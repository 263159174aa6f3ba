"""Cotangents are pulled back by the transpose of what pushes tangents, for every kind of layer."""

import pytest
import torch
from torch import nn

from rmtbn import rng
from rmtbn.measure import batch_statistics
from rmtbn.measure.cotangents import pull_cotangents
from rmtbn.measure.tangents import push_tangents

LAYERS = {
    "linear": nn.Linear(6, 4),
    "identity": nn.Identity(),
    "relu": nn.ReLU(),
    "leaky relu": nn.LeakyReLU(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "gelu": nn.GELU(),
    "gelu tanh": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(),
    "layer norm": nn.LayerNorm(6),
    "batch norm": nn.BatchNorm1d(6),
    "block": nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 5)),
    "conv": nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.Flatten()),
}


def draw(*shape, seed=1):
    return torch.randn(shape, generator=rng.torch_generator(seed, "cotangents", *shape), dtype=torch.float64)


@pytest.mark.parametrize("budget", [1, 2**30])
@pytest.mark.parametrize("name", LAYERS)
def test_pulling_is_adjoint_to_pushing(name, budget):
    """<u, J v> = <Jᵀ u, v> to rounding, in chunks or at once; J of the whole batch under batch statistics."""
    layer, x = LAYERS[name].double(), draw(5, 6)
    with batch_statistics.fixed(layer, batch_statistics.resolve(layer, None)):
        image = layer(x)
        v, u = draw(3, *x.shape, seed=2), draw(4, *image.shape, seed=3)
        pushed = push_tangents(layer, x, v, memory_budget=budget)
        pulled = pull_cotangents(layer, x, u, memory_budget=budget)
    forward = u.flatten(1) @ pushed.flatten(1).mT
    back = pulled.flatten(1) @ v.flatten(1).mT
    torch.testing.assert_close(forward, back, rtol=1e-12, atol=1e-12)
    assert float(forward.abs().max()) > 0.1


def test_layers_with_hooks_are_differentiated_as_they_are():
    """A hook that doubles the output doubles what is pulled back: no rule of ours knows it."""
    layer, x = nn.Tanh(), draw(2, 3)
    u = draw(1, 2, 3, seed=2)
    plain = pull_cotangents(layer, x, u, memory_budget=2**20)
    layer.register_forward_hook(lambda _module, _arguments, output: 2 * output)
    torch.testing.assert_close(pull_cotangents(layer, x, u, memory_budget=2**20), 2 * plain)
