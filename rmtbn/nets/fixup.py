"""Fixup: residual networks that train without normalisation (Zhang, Dauphin & Ma 2019, arXiv:1901.09321)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rmtbn import _checks
from rmtbn.nets.residual import Residual

Weighted = nn.Linear | nn.Conv2d


class ScalarBias(nn.Module):
    """x + b with one number b, which starts at 0 (section 3, rule 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Add the number."""
        return x + self.bias


@torch.no_grad()
def fixup(net: nn.Sequential) -> nn.Sequential:
    """Scale a network as Fixup does, in place and after drawing (section 3, rules 1 and 2).

    With L blocks of m weight matrices each, the last matrix of a branch is set to 0 and the others are multiplied by
    L^{-1/(2m-2)}; what reads out after the last block is set to 0. So every branch starts at 0, the logits too, the
    cross-entropy of C classes at ln C, and a step of SGD changes the network by an amount free of L.

    Parameters
    ----------
    net
        As `rmtbn.nets.resnet.resnet_cifar` or `rmtbn.nets.residual_mlp.residual_mlp` builds it, of two or more weight
        matrices in a branch, drawn at He's scale.

    Returns
    -------
    nn.Sequential
        The same network.

    Raises
    ------
    InvalidArgumentError
        If there is no block, a branch of one weight matrix, or weight normalisation, which cannot be set to 0.
    """
    blocks = [block for block in net.modules() if isinstance(block, Residual)]
    matrices = [_weighted(block.branch) for block in blocks]
    fewest = min((len(found) for found in matrices), default=0)
    if fewest < 2:
        raise _checks.fail("net", "a residual network of two or more weight matrices in a branch", fewest)
    if any(parametrize.is_parametrized(layer) for layer in _weighted(net)):
        raise _checks.fail("net", "free of weight normalisation", "a layer with it")
    for found in matrices:
        for layer in found[:-1]:
            layer.weight *= len(matrices) ** (-1 / (2 * len(found) - 2))
        found[-1].weight.zero_()
    for layer in _after(net, blocks[-1]):
        for parameter in layer.parameters():
            parameter.zero_()
    return net


def _weighted(module: nn.Module) -> list[Weighted]:
    return [part for part in module.modules() if isinstance(part, Weighted)]


def _after(net: nn.Module, block: nn.Module) -> list[Weighted]:
    """Weighted layers that are registered after a block and lie outside it."""
    order, inside = list(net.modules()), set(block.modules())
    return [part for part in order[order.index(block) :] if isinstance(part, Weighted) and part not in inside]
