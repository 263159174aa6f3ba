"""Looks-linear initialisation: weights mirrored so that a network of rectifiers starts as a linear one.

(relu(z), relu(-z)) holds z, for relu(z) - relu(-z) = z, and [A, -A] applied to it is A z. With CReLU, which keeps both
halves, that is the whole of it (Balduzzi et al. 2017, arXiv:1702.08591, section 4). With ReLU the layer in front makes
the halves, being [A; -A], or [[A, -A], [-A, A]] between two rectifiers: 2N units carry N numbers.
"""

from typing import cast

import torch
from torch import nn

from rmtbn import _checks
from rmtbn.inits import draws
from rmtbn.inits.laws import weight_law

Weighted = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d

_RECTIFIERS = ("ReLU", "CReLU")
# Layers that a linear network may hold besides; each treats all channels alike.
_LINEAR = (nn.Identity, nn.Flatten, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)


@torch.no_grad()
def looks_linear(module: nn.Sequential, *, generator: draws.Generator, sigma_w: float = 1.0) -> nn.Sequential:
    """Draw the mirrored weights of a chain of layers in place, and set its biases to 0.

    Every A is σ_w times a Haar matrix with orthonormal rows or columns, at the central tap of a convolution. A network
    that ends in a layer with weights is then linear at initialisation, whatever its depth, and an isometry where σ_w
    is 1 and layers do not narrow.

    Parameters
    ----------
    module
        Linear or convolutional layers, ReLU or CReLU, average pooling and flattening, in order; may be nested.
    generator
        Source of the draws.
    sigma_w
        Gain of each A, >= 0.

    Returns
    -------
    nn.Sequential
        The same network.

    Raises
    ------
    InvalidArgumentError
        If the network holds anything else, or a layer that meets a rectifier has an odd number of units on that side.
        Nothing has been drawn then.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> net = looks_linear(net, generator=torch.Generator().manual_seed(1))
    >>> x = torch.tensor([[3.0, -4.0]])
    >>> bool(torch.allclose(net(-x), -net(x)))
    True
    """
    _checks.real("sigma_w", sigma_w, at_least=0.0)
    chain = _chain(module)
    layers = [(layer, *_mirrored(chain, place)) for place, layer in enumerate(chain) if isinstance(layer, Weighted)]
    shapes = [_core_shape(layer, first=first, last=last) for layer, first, last in layers]
    source = draws.torch_generator(generator)
    for (layer, first, last), shape in zip(layers, shapes, strict=True):
        law = weight_law("delta_orthogonal", "linear", fan_in=shape[1], fan_out=shape[0], sigma_w=sigma_w)
        core = draws.weights(torch.empty(shape, device="meta"), law, source)
        core = torch.cat([core, -core], dim=1) if first else core
        core = torch.cat([core, -core]) if last else core
        # the assignment sets what a weight is computed from under weight normalisation
        layer.weight = cast("nn.Parameter", layer.weight.copy_(core))
        if layer.bias is not None:
            layer.bias.zero_()
    return module


def _chain(module: nn.Module) -> list[nn.Module]:
    """Flatten nested sequential containers; refuse what is no part of a linear chain."""
    if isinstance(module, nn.Sequential):
        return [layer for child in module for layer in _chain(child)]
    plain = isinstance(module, Weighted) and getattr(module, "groups", 1) == 1
    if not plain and type(module).__name__ not in _RECTIFIERS and not isinstance(module, _LINEAR):
        raise _checks.fail("module", "a chain of linear or convolutional layers and rectifiers", str(module))
    return [module]


def _mirrored(chain: list[nn.Module], place: int) -> tuple[bool, bool]:
    """Whether a layer's inputs come in two halves, from a rectifier, and whether its outputs must, for a ReLU."""
    before = [type(layer).__name__ for layer in chain[:place] if not isinstance(layer, _LINEAR)]
    after = [type(layer).__name__ for layer in chain[place + 1 :] if not isinstance(layer, _LINEAR)]
    return bool(before) and before[-1] in _RECTIFIERS, bool(after) and after[0] == "ReLU"


def _core_shape(layer: Weighted, *, first: bool, last: bool) -> tuple[int, ...]:
    outputs, inputs, *taps = layer.weight.shape
    for units, halved in ((inputs, first), (outputs, last)):
        if halved and units % 2:
            raise _checks.fail("module", "of layers with an even number of units where they meet a rectifier", units)
    return (outputs // (1 + last), inputs // (1 + first), *taps)
