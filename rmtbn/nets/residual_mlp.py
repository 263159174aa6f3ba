"""Residual networks, fully connected: x^l = x^{l-1} + α f^l(x^{l-1}), the branch f being pre-activation layers."""

from collections import OrderedDict

from torch import nn

from rmtbn import _checks
from rmtbn.nets.activations import activation_module
from rmtbn.nets.norms import NORMS, norm_layer, normalised_weight, removes_mean
from rmtbn.nets.residual import Residual


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
