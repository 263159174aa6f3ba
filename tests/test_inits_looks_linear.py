"""Looks-linear networks are linear, exactly, at any depth; others are refused."""

import pytest
import torch
from cases import inputs
from torch import nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.inits import initialise
from rmtbn.inits.looks_linear import looks_linear
from rmtbn.nets.activations import CReLU
from rmtbn.nets.cnn import plain_cnn
from rmtbn.nets.mlp import mlp


@pytest.fixture(autouse=True)
def without_gradients():
    """Numbers are read off outputs."""
    with torch.no_grad():
        yield


def networks():
    """Network, and the shape of one input."""
    cnn = {"depth": 12, "channels": 6, "in_channels": 3, "classes": 4}
    return {
        "relu mlp": (mlp(depth=30, width=12, in_features=5, out_features=3), (5,)),
        "crelu cnn": (plain_cnn(activation="crelu", **cnn), (3, 5, 5)),
        "relu cnn": (plain_cnn(**cnn), (3, 5, 5)),
        "circular": (plain_cnn(padding="circular", **cnn), (3, 5, 5)),
        "flattened": (_flattened(), (2, 6, 6)),
        "nested, one relu": (_nested(), (4,)),
    }


def _flattened():
    front = (nn.Conv2d(2, 4, 3), nn.AvgPool2d(2), nn.ReLU(), nn.Flatten())
    return nn.Sequential(*front, nn.Linear(16, 6), CReLU(), nn.Linear(12, 2))


def _nested():
    relu = nn.ReLU()
    return nn.Sequential(nn.Sequential(nn.Linear(4, 8), relu), nn.Sequential(nn.Linear(8, 8), relu), nn.Linear(8, 4))


def drawn(name, **options):
    net, shape = networks()[name]
    return looks_linear(net.double(), generator=rng.torch_generator(1, name), **options), inputs(4, *shape)


@pytest.mark.parametrize("name", networks())
def test_networks_are_exactly_linear_at_initialisation(name):
    """f(ax + by) = a f(x) + b f(y), for any a and b, to rounding; under He's scheme it is far from that."""
    net, x = drawn(name)
    other = x.flip(0)
    left, right = net(2.0 * x - 3.0 * other), 2.0 * net(x) - 3.0 * net(other)
    assert float(right.abs().max()) > 1e-3
    torch.testing.assert_close(left, right, rtol=0, atol=1e-12)
    initialise(net, "he_normal", generator=rng.torch_generator(1))
    gap = (net(2.0 * x - 3.0 * other) - 2.0 * net(x) + 3.0 * net(other)).abs().max()
    assert float(gap) > 1e-2


def test_the_linear_map_is_the_product_of_the_halves():
    """ReLU blocks [[A, -A], [-A, A]]: the network is A_L … A_1, an isometry where it does not narrow."""
    net = looks_linear(mlp(depth=20, width=8, in_features=4, out_features=4).double(), generator=rng.torch_generator(3))
    halves = [net.linear_1.weight[:4]]
    halves += [net.get_submodule(f"linear_{layer}").weight[:4, :4] for layer in range(2, 21)]
    product = torch.eye(4, dtype=torch.float64)
    for half in [*halves, net.readout.weight[:, :4]]:
        product = half @ product
    torch.testing.assert_close(net(torch.eye(4, dtype=torch.float64)).T, product)
    torch.testing.assert_close(product @ product.T, torch.eye(4, dtype=torch.float64))


def test_convolutions_of_a_crelu_network_keep_the_norm():
    """Each [A, -A] on (relu(z), relu(-z)) is an isometry of z, at the central tap, with zero padding."""
    net = plain_cnn(depth=9, channels=6, in_channels=6, activation="crelu").double()
    looks_linear(net, generator=rng.torch_generator(1))
    x = inputs(1, 6, 5, 5)
    before_last_rectifier = net[:-1](x)
    assert float(before_last_rectifier.norm() / x.norm()) == pytest.approx(1.0, abs=1e-12)


def test_gain_multiplies_every_layer():
    """σ_w^L: 31 layers of gain 1.1."""
    (one, x), (other, _) = drawn("relu mlp"), drawn("relu mlp", sigma_w=1.1)
    torch.testing.assert_close(other(x), 1.1**31 * one(x), rtol=1e-11, atol=1e-12)


def test_biases_are_zero():
    """f(0) = 0, whatever the biases were."""
    net, x = drawn("relu cnn")
    assert torch.equal(net(torch.zeros_like(x)), torch.zeros(4, 4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.Tanh()), r"`module` must be a chain.*Tanh"),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()), r"`module` must be a chain.*BatchNorm1d"),
        (nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)), r"even number of units.*5"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.ReLU()), r"`module` must be a chain.*groups=2"),
        (nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.MaxPool2d(2)), r"`module` must be a chain.*MaxPool2d"),
    ],
)
def test_networks_that_cannot_look_linear_are_refused(net, said):
    """The message names what stands in the way; nothing has been drawn."""
    before = [parameter.clone() for parameter in net.parameters()]
    with pytest.raises(InvalidArgumentError, match=said):
        looks_linear(net, generator=rng.torch_generator(1))
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    with pytest.raises(InvalidArgumentError, match=r"`sigma_w`.*-1"):
        looks_linear(_nested(), generator=rng.torch_generator(1), sigma_w=-1.0)
