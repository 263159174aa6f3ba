"""The loss as a function of the parameters: values and gradients by plain autograd, none of the network's touched."""

import math

import numpy as np
import pytest
import torch
from cases import conv_net, inputs, network
from torch import nn

from rmtbn._checks import InvalidArgumentError
from rmtbn.measure.loss import check_batch, cross_entropy, gradient_at, loss_at, moved, parameters_of

X, Y = inputs(6, 3, 6, 6), torch.arange(6) % 5


def test_gradients_are_those_of_autograd():
    """Value and ∂L/∂w of every parameter, by backward() on the network itself."""
    net = conv_net().double()
    loss, found = gradient_at(net, X, Y, parameters=parameters_of(net))
    expected = nn.functional.cross_entropy(net(X), Y)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-14)
    assert found.keys() == dict(net.named_parameters()).keys()
    for name, p in net.named_parameters():
        np.testing.assert_allclose(found[name], p.grad, atol=1e-15)


def test_gradients_are_directional_derivatives():
    """(L(w + h v) - L(w - h v))/2h = ⟨∇L, v⟩ for v = ∇L, to the order h²."""
    net = network(activation="tanh", out_features=3)
    x, y, start = inputs(5, 12), torch.tensor([0, 1, 2, 1, 0]), parameters_of(network(activation="tanh"))
    start = parameters_of(net)
    _, gradient = gradient_at(net, x, y, parameters=start)
    squares = sum(float(g.square().sum()) for g in gradient.values())
    up, down = (loss_at(net, x, y, parameters=moved(start, gradient, step)) for step in (-1e-5, 1e-5))
    assert (up - down) / 2e-5 == pytest.approx(squares, rel=1e-6)


def test_some_parameters_can_be_named():
    """The others keep the module's own values, and parameters that the loss does not depend on have gradient 0."""
    net = conv_net().double()
    chosen = parameters_of(net, ["6.weight"])
    _, every = gradient_at(net, X, Y, parameters=parameters_of(net))
    _, some = gradient_at(net, X, Y, parameters=chosen)
    assert list(some) == ["6.weight"]
    torch.testing.assert_close(some["6.weight"], every["6.weight"])
    net.add_module("7", nn.Identity())
    net[7].unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    _, found = gradient_at(net, X, Y, parameters=parameters_of(net))
    assert (found["7.unused"] == 0).all()


def test_frozen_networks_have_gradients_too():
    """requires_grad of the module's own parameters does not matter, nor does no_grad around the call."""
    net = conv_net().double()
    _, expected = gradient_at(net, X, Y, parameters=parameters_of(net))
    with torch.no_grad():
        _, found = gradient_at(net.requires_grad_(False), X, Y, parameters=parameters_of(net))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_losses_that_are_not_finite_are_infinite():
    """NaN and inf count as inf where a loss is asked for, and have no gradient."""
    net = network(out_features=3)
    weights = parameters_of(net)
    with torch.no_grad():
        weights["linear_1.weight"].fill_(math.nan)
    x, y = inputs(5, 12), torch.zeros(5, dtype=torch.long)
    assert loss_at(net, x, y, parameters=weights) == math.inf
    with pytest.raises(InvalidArgumentError, match=r"`module` must be of a finite loss at x; got nan"):
        gradient_at(net, x, y, parameters=weights)


def test_losses_are_taken_in_double_precision():
    """Logits of 1e4 in float32: a change of 1e-3 in the loss is lost in float32, not in float64."""
    logits = torch.tensor([[1e4, 0.0]])
    found = cross_entropy(logits, torch.tensor([1]))
    assert found.dtype == torch.float64
    assert float(found) == 1e4


@pytest.mark.parametrize(
    ("net", "x", "y", "message"),
    [
        (conv_net().double(), X * math.nan, Y, "`x` must be finite; got 'inf or nan'"),
        (conv_net().double(), X, Y[:4], r"`y` must be one class for each of the 6 examples; got \(4,\)"),
        (conv_net().double(), X[:0], Y[:0], r"`x` must be a non-empty batch \(B, ...features\); got "),
        (conv_net(), X, Y, r"`x` must be of the module's dtype and device .*; got .*float64"),
        (nn.ReLU(), X, Y, "`module` must be a network with parameters; got 'ReLU'"),
    ],
)
def test_batches_without_a_loss_are_refused(net, x, y, message):
    """One line that names argument, rule and value."""
    with pytest.raises(InvalidArgumentError, match=message):
        check_batch(net, x, y)


def test_unknown_parameters_and_classes_are_refused():
    """By name and by range."""
    with pytest.raises(InvalidArgumentError, match=r"`parameters` must be one of .*; got '9.weight'"):
        parameters_of(conv_net(), ["9.weight"])
    with pytest.raises(InvalidArgumentError, match=r"`y` must be classes 0 to 1; got \(0, 2\)"):
        cross_entropy(torch.zeros(2, 2), torch.tensor([0, 2]))
