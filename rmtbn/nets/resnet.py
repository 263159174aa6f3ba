"""Residual networks, fully connected: x^l = x^{l-1} + α f^l(x^{l-1}), the branch f being pre-activation layers."""

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.nets.activations import activation_module
from rmtbn.nets.norms import NORMS, norm_layer, normalised_weight, removes_mean


class Residual(nn.Module):
    """A block x + α f(x).

    Parameters
    ----------
    branch
        f, which keeps the shape of x.
    alpha
        Factor of the branch.
    learnable
        Whether α is a parameter (SkipInit: De & Smith 2020, arXiv:2002.10444) rather than a constant.
    """

    def __init__(self, branch: nn.Module, *, alpha: float = 1.0, learnable: bool = False) -> None:
        super().__init__()
        self.branch = branch
        self.alpha: Tensor
        if learnable:
            self.alpha = nn.Parameter(torch.tensor(float(alpha)))
        else:
            self.register_buffer("alpha", torch.tensor(float(alpha)))

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Add the branch."""
        return x + self.alpha * self.branch(x)


def residual_mlp(
    *,
    depth: int,
    width: int,
    activation: str = "relu",
    norm: str = "none",
    branch_layers: int = 1,
    linear_first: bool = False,
    alpha: float = 1.0,
    learnable_alpha: bool = False,
    in_features: int | None = None,
    out_features: int | None = None,
) -> nn.Sequential:
    """Build a fully connected residual network: [stem], `depth` blocks, [last norm → φ → readout].

    A branch is `branch_layers` times [norm] → φ → linear, or, `linear_first`, linear → [norm] → φ → linear …, as the
    theory of `rmtbn.theory.residual_moments` describes it.

    Parameters
    ----------
    depth
        Number of blocks L, >= 1.
    width
        Units N of the stream and of the branches, >= 1.
    activation
        A name in `rmtbn.activations.ACTIVATIONS`.
    norm
        A name in `rmtbn.nets.norms.NORMS` but "instance", which needs space: in front of every φ. Branches have no
        biases if it is one that removes them.
    branch_layers
        Weight matrices in a branch, >= 1.
    linear_first
        Whether a branch begins with its weight matrix.
    alpha, learnable_alpha
        Factor of the branches, and whether it is a parameter.
    in_features
        Size of the input of a linear stem; no stem if left out.
    out_features
        Size of the linear readout; no readout if left out.

    Returns
    -------
    nn.Sequential
        With children named [stem], block_1, …, [last_norm, last_phi, readout].

    Raises
    ------
    InvalidArgumentError
        For an unknown name or a size below 1.

    Examples
    --------
    >>> [name for name, _ in residual_mlp(depth=2, width=4, in_features=3, out_features=2).named_children()]
    ['stem', 'block_1', 'block_2', 'last_phi', 'readout']
    """
    depth, width = _checks.integer("depth", depth, at_least=1), _checks.integer("width", width, at_least=1)
    weights = _checks.integer("branch_layers", branch_layers, at_least=1)
    _checks.one_of("norm", norm, NORMS)
    scale = _checks.real("alpha", alpha)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if in_features is not None:
        layers["stem"] = nn.Linear(_checks.integer("in_features", in_features, at_least=1), width, bias=False)
    for block in range(1, depth + 1):
        branch = _branch(width, activation, norm=norm, weights=weights, linear_first=linear_first)
        layers[f"block_{block}"] = Residual(branch, alpha=scale, learnable=learnable_alpha)
    if out_features is not None:
        layers |= {f"last_{name}": layer for name, layer in _activated(width, activation, norm).items()}
        layers["readout"] = nn.Linear(width, _checks.integer("out_features", out_features, at_least=1))
    return nn.Sequential(layers)


@torch.no_grad()
def fixup(net: nn.Sequential) -> nn.Sequential:
    """Scale the branches as Fixup does, in place and after drawing (Zhang et al. 2019, arXiv:1901.09321, section 3).

    With L blocks of m weight matrices each, the last matrix of a branch is set to 0 and the others are multiplied by
    L^{-1/(2m-2)}; so the network starts as the identity, and a step of SGD changes it by an amount free of L.

    Parameters
    ----------
    net
        As `residual_mlp` builds it, of two or more weight matrices in a branch, drawn at He's scale.

    Returns
    -------
    nn.Sequential
        The same network.

    Raises
    ------
    InvalidArgumentError
        If there is no block, or a branch of one weight matrix.
    """
    branches = [block.branch for block in net if isinstance(block, Residual)]
    matrices = [[part for part in branch.modules() if isinstance(part, nn.Linear)] for branch in branches]
    fewest = min((len(found) for found in matrices), default=0)
    if fewest < 2:
        raise _checks.fail("net", "a residual network of two or more weight matrices in a branch", fewest)
    for found in matrices:
        for layer in found[:-1]:
            layer.weight *= len(matrices) ** (-1 / (2 * len(found) - 2))
        found[-1].weight.zero_()
    return net


def _branch(width: int, activation: str, *, norm: str, weights: int, linear_first: bool) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for layer in range(1, weights + 1):
        if not (linear_first and layer == 1):
            layers |= {f"{name}_{layer}": module for name, module in _activated(width, activation, norm).items()}
        layers[f"linear_{layer}"] = normalised_weight(norm, nn.Linear(width, width, bias=not removes_mean(norm)))
    return nn.Sequential(layers)


def _activated(width: int, activation: str, norm: str) -> dict[str, nn.Module]:
    normed = norm_layer(norm, width)
    return ({} if normed is None else {"norm": normed}) | {"phi": activation_module(activation)}
