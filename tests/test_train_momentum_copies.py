"""Running statistics with several momenta from one run are those of runs of their own."""

import copy

import pytest
import torch
from torch import nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.nets.norms import UncentredBatchNorm
from rmtbn.train.momentum_copies import MomentumCopies

MOMENTA = (0.05, 0.3, 1.0)
X = torch.randn(60, 3, 4, 4, generator=rng.torch_generator(1, "x"), dtype=torch.float64)


def network(momentum):
    """Two layers of batch normalisation, of this momentum."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=momentum), nn.ReLU(), nn.Flatten(),
                        nn.BatchNorm1d(16, momentum=momentum), nn.Linear(16, 2)).double()  # fmt: skip
    generator = rng.torch_generator(1, "weights")
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return net


def trained(net):
    """Three steps of SGD and, in between, an evaluation, which moves nothing."""
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for x in X.split(20):
        net.train()
        optimiser.zero_grad()
        net(x).square().mean().backward()
        optimiser.step()
        net.eval()(x)
    return net


def test_copies_are_the_statistics_of_runs_with_those_momenta():
    """Buffers of three trainings, each with its momentum, against one training that followed all; up to rounding."""
    net = network(0.1)
    copies = MomentumCopies(net, MOMENTA)
    with copies.following():
        trained(net)
    own = copy.deepcopy(net.state_dict())
    for momentum in MOMENTA:
        copies.put(momentum)
        expected = trained(network(momentum)).state_dict()
        for name, value in net.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-12)
    copies.put(0.05)
    assert not torch.allclose(own["1.running_mean"], net.state_dict()["1.running_mean"])


def test_nothing_moves_outside_the_block():
    """Passes before and after do not count."""
    net = network(0.1)
    copies = MomentumCopies(net, [0.5])
    net(X)
    with copies.following():
        pass
    net(X)
    assert torch.equal(copies.statistics[0.5]["1"][0], torch.zeros(4, dtype=torch.float64))


def test_wrong_arguments_are_named():
    """Momenta out of range or unknown, networks without norm or with another."""
    with pytest.raises(InvalidArgumentError, match=r"`momenta` must be a finite number > 0\.0 and <= 1\.0; got 0\.0"):
        MomentumCopies(network(0.1), [0.0])
    with pytest.raises(InvalidArgumentError, match=r"`momentum` must be one of 0\.5; got 0\.1"):
        MomentumCopies(network(0.1), [0.5]).put(0.1)
    with pytest.raises(InvalidArgumentError, match="`module` must be a network with running statistics"):
        MomentumCopies(nn.Linear(2, 2), [0.5])
    with pytest.raises(InvalidArgumentError, match="UncentredBatchNorm"):
        MomentumCopies(UncentredBatchNorm(3), [0.5])
