"""Fully connected networks: x^l = φ(norm(W^l x^{l-1} + b^l)), or norm(φ(W^l x^{l-1} + b^l)), l = 1 … L."""

from collections import OrderedDict

from torch import nn

from rmtbn import _checks
from rmtbn.nets.activations import activation_module
from rmtbn.nets.norms import norm_layer, normalised_weight, removes_mean

PLACEMENTS = ("pre", "post")


def mlp(
    *,
    depth: int,
    width: int,
    activation: str = "relu",
    norm: str = "none",
    norm_placement: str = "pre",
    in_features: int | None = None,
    out_features: int | None = None,
) -> nn.Sequential:
    """Build a fully connected network of `depth` blocks linear → [norm] → φ, or linear → φ → [norm], and a readout.

    Without a readout and with `in_features` = `width` its Jacobian is the product D_L W_L … D_1 W_1 of the theory.

    Parameters
    ----------
    depth
        Number of blocks L, >= 1 (the readout is not counted).
    width
        Units N of every block, >= 1.
    activation
        A name in `rmtbn.activations.ACTIVATIONS`.
    norm
        A name in `rmtbn.nets.norms.NORMS` but "instance", which needs space. A layer whose bias the norm would remove
        has none.
    norm_placement
        "pre" or "post": the norm before or after φ.
    in_features
        Size of the input; `width` if left out.
    out_features
        Size of the linear readout; no readout if left out.

    Returns
    -------
    nn.Sequential
        With children named linear_1, [norm_1,] phi_1, …, [readout], in the order in which they act, in torch's default
        initialisation (see `rmtbn.inits.initialise`).

    Raises
    ------
    InvalidArgumentError
        For an unknown name or a size below 1.

    Examples
    --------
    >>> [name for name, _ in mlp(depth=1, width=4, norm="batch", out_features=2).named_children()]
    ['linear_1', 'norm_1', 'phi_1', 'readout']
    """
    depth, width = _checks.integer("depth", depth, at_least=1), _checks.integer("width", width, at_least=1)
    after = _checks.one_of("norm_placement", norm_placement, PLACEMENTS) == "post"
    size = width if in_features is None else _checks.integer("in_features", in_features, at_least=1)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for layer in range(1, depth + 1):
        linear = nn.Linear(size, width, bias=after or not removes_mean(norm))
        normed, phi = norm_layer(norm, width), activation_module(activation)
        rest = {"phi": phi, "norm": normed} if after else {"norm": normed, "phi": phi}
        block = {"linear": normalised_weight(norm, linear), **rest}
        layers |= {f"{kind}_{layer}": module for kind, module in block.items() if module is not None}
        size = width
    if out_features is not None:
        layers["readout"] = nn.Linear(size, _checks.integer("out_features", out_features, at_least=1))
    return nn.Sequential(layers)
