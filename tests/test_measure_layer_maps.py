"""A linear layer and its activation pushed in one pass, against one after the other and autodiff."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

from rmtbn import rng
from rmtbn.measure.layer_maps import push_through_pair
from rmtbn.measure.tangents import image, push_tangents


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=rng.torch_generator(1, "layer maps", *shape), dtype=torch.float64)


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.ReLU(), nn.GELU(), nn.Sigmoid()])
def test_a_pair_of_layers_in_one_pass_is_one_after_the_other(activation):
    """φ(W x + b) and φ'(W x + b) W t for float32 layers in float64: those of the layers brought to float64."""
    draws = torch.Generator().manual_seed(1)
    linear = nn.Linear(6, 5).requires_grad_(False)
    for parameter in linear.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=draws))
    x, tangents = torch.randn(1, 6, generator=draws).double(), torch.randn(4, 1, 6, generator=draws).double()
    before = linear.weight.clone()
    point, found = push_through_pair((linear, activation), x, tangents)
    double = copy.deepcopy(linear).double()
    pushed = push_tangents(double, x, tangents, memory_budget=1)
    expected = push_tangents(activation, double(x), pushed, memory_budget=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(point, activation(double(x)), rtol=0, atol=1e-14)
    torch.testing.assert_close(image(linear, x), double(x), rtol=0, atol=1e-14)
    assert torch.equal(linear.weight, before)
    mixed = push_tangents(activation, double(x), pushed.float(), memory_budget=1)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh()])
@pytest.mark.parametrize("bias", [False, True])
def test_pairs_behind_a_relu_are_those_of_autodiff(activation, bias):
    """Columns of weights that meet zeros and rows of dead units are left out, and nothing else."""
    layer = nn.Linear(8, 7, bias=bias)
    point = draw(1, 8).relu()
    tangents = draw(5, 1, 8) * (point > 0)
    assert 0 < int(point.count_nonzero()) < 8
    with torch.no_grad():
        found, pushed = push_through_pair((layer, activation), point, tangents, behind_relu=True)
        double = nn.Sequential(copy.deepcopy(layer).double(), activation)
        expected = vmap(lambda tangent: jvp(double, (point,), (tangent,))[1])(tangents)
        torch.testing.assert_close(found, double(point), rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(pushed, expected, rtol=1e-12, atol=1e-14)
    assert (double(point) == 0).any() == isinstance(activation, nn.ReLU)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh()])
def test_a_pair_leaves_the_weights_alone(activation):
    """Slopes multiply a copy of the weights, also where these are of the dtype of the point."""
    layer = nn.Linear(6, 5).double()
    before = layer.weight.detach().clone()
    with torch.no_grad():
        push_through_pair((layer, activation), draw(1, 6), draw(4, 1, 6))
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("bias", [-100.0, 0.0, 100.0])
@pytest.mark.parametrize("behind", [0.0, 1.0])
def test_pairs_of_which_all_units_or_none_are_dead(bias, behind):
    """Where all units are dead the tangents are 0; where none is, they are W t; and none arrive behind dead units."""
    layer = nn.Linear(8, 7).double().requires_grad_(False)
    layer.bias.fill_(bias)
    point, tangents, before = behind * draw(1, 8).abs(), behind * draw(5, 1, 8), layer.weight.clone()
    found, pushed = push_through_pair((layer, nn.ReLU()), point, tangents, behind_relu=True)
    assert torch.equal(layer.weight, before)
    slopes = (layer(point) > 0).double()
    torch.testing.assert_close(found, layer(point).relu(), rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(pushed, slopes * (tangents @ layer.weight.mT), rtol=1e-12, atol=1e-14)
    assert bool((slopes == (bias > 0)).all()) == (bias != 0 or behind == 0)


def test_columns_of_weights_are_left_out_behind_a_relu_only():
    """Elsewhere a point that is 0 has tangents that are not."""
    layer, tangents = nn.Linear(8, 7).double(), draw(5, 1, 8)
    with torch.no_grad():
        point = draw(1, 8).relu()
        pushed = push_through_pair((layer, nn.ReLU()), point, tangents)[1]
        expected = (layer(point) > 0) * (tangents @ layer.weight.mT)
    torch.testing.assert_close(pushed, expected, rtol=1e-12, atol=1e-14)
