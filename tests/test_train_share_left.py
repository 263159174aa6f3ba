"""The measured share of old running statistics is (1 - m)^updates."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.train.batchnorm import checkpointed, statistics_kept
from rmtbn.train.share_left import share_left

X = torch.randn(24, 3, generator=rng.torch_generator(1, "x"), dtype=torch.float64)


def network(momentum=0.1):
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=momentum), nn.Tanh(), nn.Linear(4, 2)).double()


def sgd_steps(net, *, call=lambda net, x: net(x), steps=1):
    optimiser = torch.optim.SGD(net.parameters(), lr=0.3)
    for step in range(steps):
        optimiser.zero_grad()
        call(net, X[8 * step : 8 * step + 8].requires_grad_()).square().sum().backward()
        optimiser.step()


def kept(net):
    with statistics_kept(net):
        net(X)


@pytest.mark.parametrize(
    ("action", "share"),
    [
        (lambda net: net(X), 0.9),
        (lambda net: net.eval()(X), 1.0),
        (lambda net: sgd_steps(net, steps=3), 0.9**3),
        (lambda net: sgd_steps(net, call=lambda n, x: checkpoint(n, x, use_reentrant=False)), 0.81),
        (lambda net: sgd_steps(net, call=checkpointed), 0.9),
        (kept, 1.0),
    ],
    ids=["pass", "eval", "training", "checkpoint", "checkpointed", "kept"],
)
def test_each_update_leaves_one_minus_the_momentum(action, share):
    """(1 - m)^updates, while weights move too; the network itself stays."""
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert share_left(net, action)["1"] == pytest.approx(share, abs=1e-12)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_cumulative_averages_keep_the_rest():
    """momentum None: one more batch after three leaves 3/4."""
    net = network(None)
    for _ in range(3):
        net(X)
    assert share_left(net, lambda one: one(X))["1"] == pytest.approx(0.75)


def test_networks_without_running_means_are_refused():
    """By name."""
    with pytest.raises(InvalidArgumentError, match="`module` must be a network with running means; got 'Linear'"):
        share_left(nn.Linear(2, 2), lambda net: net)
