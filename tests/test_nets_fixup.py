"""Fixup: what is scaled, where the numbers stand, and that a network starts at logits 0 and loss ln 10."""

import math
from itertools import pairwise

import pytest
import torch
from cases import inputs
from torch import nn
from torch.nn import functional

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.inits import initialise
from rmtbn.nets.fixup import ScalarBias, fixup
from rmtbn.nets.residual import Residual
from rmtbn.nets.residual_mlp import residual_mlp
from rmtbn.nets.resnet import paper_layers, resnet_cifar

SMALL = {"residual": "fixup", "in_channels": 2, "widths": (4, 6, 8)}
FORMS = [(placement, shortcut) for placement in ("post", "pre") for shortcut in ("pad", "projection")]


def started(**options):
    net = resnet_cifar(**SMALL | {"depth": 14} | options).double()
    return fixup(initialise(net, "he_normal", generator=rng.torch_generator(1, "fixup")))


@pytest.mark.parametrize(("placement", "shortcut"), FORMS)
@pytest.mark.parametrize("depth", [8, 20, 110])
def test_logits_start_at_zero_and_the_loss_at_ln_10(depth, placement, shortcut):
    """Exactly, for any input; under He's scheme alone neither holds."""
    x, y = inputs(6, 2, 8, 8), torch.arange(6)
    net = started(depth=depth, placement=placement, shortcut=shortcut)
    logits = net(x).detach()
    assert torch.equal(logits, torch.zeros(6, 10, dtype=torch.float64))
    assert float(functional.cross_entropy(logits, y)) == pytest.approx(math.log(10), abs=1e-14)
    initialise(net, "he_normal", generator=rng.torch_generator(1))
    assert abs(float(functional.cross_entropy(net(x).detach(), y)) - math.log(10)) > 0.02


@pytest.mark.parametrize("placement", ["post", "pre"])
def test_every_branch_starts_at_zero_and_can_leave_it(placement):
    """Blocks pass their input on; the last convolution of each has a gradient once the readout is not 0."""
    net = started(placement=placement)
    x = inputs(3, 2, 8, 8)
    signal = net[:3](x) if placement == "pre" else net[:4](x)
    block = net.block_1
    torch.testing.assert_close(block(signal), torch.relu(signal) if placement == "post" else signal)
    with torch.no_grad():
        net.readout.weight.normal_(generator=rng.torch_generator(2))
    functional.cross_entropy(net(x), torch.arange(3)).backward()
    for part in net.modules():
        if isinstance(part, Residual):
            assert part.branch.conv_2.weight.grad.abs().max() > 0
            assert part.branch.conv_1.weight.grad.abs().max() == 0  # behind a convolution that is 0


@pytest.mark.parametrize(("placement", "shortcut"), FORMS)
def test_a_number_stands_before_every_convolution_activation_and_the_readout(placement, shortcut):
    """Rule 3 of section 3: scalar biases at 0, one multiplier at 1 a branch, no biases in convolutions."""
    net = started(placement=placement, shortcut=shortcut)
    blocks = [part for part in net.modules() if isinstance(part, Residual)]
    assert all(block.alpha == 1 and "alpha" in dict(block.named_parameters(recurse=False)) for block in blocks)
    order = [part for part in net.modules() if not list(part.children()) or isinstance(part, Residual)]
    kinds = (nn.Conv2d, nn.Linear, nn.ReLU)
    for before, part in pairwise(order):
        if isinstance(part, kinds):
            assert isinstance(before, ScalarBias), part
    shifts = [part for part in order if isinstance(part, ScalarBias)]
    assert len(shifts) == sum(isinstance(part, kinds) for part in order)
    assert all(part.bias.ndim == 0 and part.bias == 0 for part in shifts)
    assert all(part.bias is None for part in net.modules() if isinstance(part, nn.Conv2d))


def test_all_convolutions_of_a_branch_but_the_last_are_scaled():
    """L = 6 blocks of m = 2: the first by 6^{-1/2}, stem and projections not at all."""
    net = resnet_cifar(**SMALL, depth=14, shortcut="projection").double()
    initialise(net, "he_normal", generator=rng.torch_generator(1))
    before = {name: parameter.clone() for name, parameter in net.named_parameters()}
    fixup(net)
    for name, parameter in net.named_parameters():
        zero = "branch.conv_2" in name or name.startswith("readout")
        factor = 0.0 if zero else 6**-0.5 if "branch.conv_1" in name else 1.0
        torch.testing.assert_close(parameter, factor * before[name])


def test_steps_of_sgd_change_the_logits_by_an_amount_free_of_depth():
    """Three steps of rate 0.3: as much at depth 56 as at 8; the zeros alone, without L^{-1/2}, do not achieve it."""
    x, y = inputs(8, 2, 8, 8), torch.arange(8)

    def change(depth, *, scaled):
        net = started(depth=depth)
        for name, parameter in net.named_parameters():
            if not scaled and "branch.conv_1.weight" in name:
                parameter.data.mul_(((depth - 2) / 2) ** 0.5)
        for _ in range(3):
            net.zero_grad()
            functional.cross_entropy(net(x), y).backward()
            for parameter in net.parameters():
                parameter.data.sub_(parameter.grad, alpha=0.3)
        return float(net(x).detach().norm())  # from logits 0

    assert 0.7 < change(56, scaled=True) / change(8, scaled=True) < 1.6
    assert change(56, scaled=False) / change(8, scaled=False) > 2


def test_fixup_scales_all_matrices_but_the_last():
    """L = 4, m = 3: the first two by 4^{-1/4}, the last is 0, so the network is the identity; m = 1 is refused."""
    net = residual_mlp(depth=4, width=6, branch_layers=3).double()
    initialise(net, "he_normal", generator=rng.torch_generator(1, "net"))
    before = net[1].branch.linear_2.weight.clone()
    assert fixup(net) is net
    torch.testing.assert_close(net[1].branch.linear_2.weight, before * 4**-0.25)
    assert not net[3].branch.linear_3.weight.any()
    x = torch.randn(2, 6, dtype=torch.float64, generator=rng.torch_generator(2, "x"))
    assert torch.equal(net(x), x)
    for other in (residual_mlp(depth=1, width=2), nn.Sequential(nn.Linear(2, 2))):
        with pytest.raises(InvalidArgumentError, match="`net` must be a residual network of two or more"):
            fixup(other)


def test_weight_normalisation_is_refused():
    """A length times a direction cannot be 0."""
    net = residual_mlp(depth=2, width=4, branch_layers=2, norm="weight")
    with pytest.raises(InvalidArgumentError, match="`net` must be free of weight normalisation"):
        fixup(net)


def test_a_readout_starts_at_zero_in_fully_connected_networks_too():
    """Rule 1: the last layer, weights and biases."""
    net = residual_mlp(depth=2, width=4, branch_layers=2, in_features=3, out_features=5)
    fixup(initialise(net, "torch_default", generator=rng.torch_generator(1)))
    assert not net(torch.ones(2, 3)).any()
    assert net.stem.weight.any()
    assert len(paper_layers(net)) == 6
