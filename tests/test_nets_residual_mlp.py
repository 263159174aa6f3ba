"""Fully connected residual networks: their layers, what a block computes, and what is refused."""

import pytest
import torch
from torch import nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.inits import initialise
from rmtbn.nets.residual import Residual
from rmtbn.nets.residual_mlp import residual_mlp


def names(module):
    return [name for name, _ in module.named_children()]


def test_children_are_stem_blocks_and_readout():
    """Pre-activation branches; the last norm and φ only in front of a readout."""
    net = residual_mlp(depth=2, width=4, norm="batch", branch_layers=2, in_features=3, out_features=2)
    assert names(net) == ["stem", "block_1", "block_2", "last_norm", "last_phi", "readout"]
    assert names(net.block_1.branch) == ["norm_1", "phi_1", "linear_1", "norm_2", "phi_2", "linear_2"]
    first = residual_mlp(depth=1, width=4, branch_layers=2, linear_first=True)
    assert names(first[0].branch) == ["linear_1", "phi_2", "linear_2"]


def test_a_block_adds_alpha_times_its_branch():
    """x + α f(x), with the branch relu → linear."""
    net = residual_mlp(depth=1, width=5, alpha=0.3).double()
    initialise(net, "he_normal", generator=rng.torch_generator(1, "net"))
    x = torch.randn(7, 5, dtype=torch.float64, generator=rng.torch_generator(2, "x"))
    linear = net[0].branch.linear_1
    expected = x + 0.3 * (torch.relu(x) @ linear.weight.T + linear.bias)
    torch.testing.assert_close(net(x), expected, rtol=1e-7, atol=1e-7)  # α is a float32 constant made double


def test_skipinit_starts_as_the_identity_and_learns():
    """α = 0 is a parameter with a gradient."""
    net = residual_mlp(depth=3, width=4, alpha=0.0, learnable_alpha=True)
    x = torch.ones(2, 4)
    assert torch.equal(net(x), x)
    net(x).sum().backward()
    assert all(block.alpha.grad is not None and block.alpha.grad != 0 for block in net)
    assert "alpha" in dict(net[0].named_parameters())
    assert "alpha" not in dict(Residual(nn.Identity()).named_parameters())


@pytest.mark.parametrize(
    ("change", "named"),
    [({"depth": 0}, r"`depth`.*0"), ({"width": 0}, r"`width`.*0"), ({"norm": "bn"}, r"`norm`.*'bn'"),
     ({"activation": "swish"}, r"`activation`.*'swish'"), ({"branch_layers": 0}, r"`branch_layers`.*0"),
     ({"in_features": 0}, r"`in_features`.*0"), ({"alpha": float("nan")}, r"`alpha`.*nan")],
)  # fmt: skip
def test_impossible_networks_are_refused(change, named):
    """Each message names the argument and the value."""
    with pytest.raises(InvalidArgumentError, match=named):
        residual_mlp(**{"depth": 1, "width": 2, **change})
