"""The pieces that residual networks for images are built of: convolutions, normalised activations, blocks of two."""

from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType

from torch import nn

from rmtbn.nets.activations import activation_module
from rmtbn.nets.fixup import ScalarBias
from rmtbn.nets.norms import norm_layer, normalised_weight, removes_mean
from rmtbn.nets.residual import PadShortcut, Residual

# What scales a branch: where its number α starts, and whether it is learnt.
RESIDUALS: Mapping[str, tuple[float, bool]] = MappingProxyType(
    {"plain": (1.0, False), "skipinit": (0.0, True), "rezero": (0.0, True), "fixup": (1.0, True)}
)
PLACEMENTS = ("post", "pre")
SHORTCUTS = ("pad", "projection")


def convolution(
    inputs: int, outputs: int, *, norm: str, residual: str, stride: int = 1, kernel_size: int = 3
) -> dict[str, nn.Module]:
    """Make a convolution with what Fixup puts in front of it.

    Parameters
    ----------
    inputs, outputs
        Channels.
    norm, residual
        Of the network. The convolution has a bias unless the norm would remove it or Fixup's numbers replace it.
    stride, kernel_size
        Of the convolution; the padding keeps the size at stride 1.
    """
    bias = residual != "fixup" and not removes_mean(norm)
    layer = nn.Conv2d(inputs, outputs, kernel_size, stride=stride, padding=kernel_size // 2, bias=bias)
    return _shift("conv", residual) | {"conv": normalised_weight(norm, layer)}


def activated(features: int, *, norm: str, activation: str, residual: str) -> dict[str, nn.Module]:
    """Make [norm] → φ, or Fixup's number and φ.

    Parameters
    ----------
    features
        Channels.
    norm, activation, residual
        Of the network.
    """
    normed = norm_layer(norm, features, spatial=2)
    before = _shift("phi", residual) if normed is None else {"norm": normed}
    return before | {"phi": activation_module(activation)}


def basic_block(
    inputs: int,
    outputs: int,
    *,
    stride: int,
    norm: str,
    placement: str,
    residual: str,
    shortcut: str,
    activation: str,
) -> nn.Module:
    """Make a block of two 3×3 convolutions and a shortcut.

    Parameters
    ----------
    inputs, outputs
        Channels.
    stride
        Of the first convolution and the shortcut.
    norm, placement, residual, shortcut, activation
        As in `rmtbn.nets.resnet.resnet_cifar`.
    """
    post = placement == "post"
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (a, b, step) in enumerate(((inputs, outputs, stride), (outputs, outputs, 1)), 1):
        conv = convolution(a, b, norm=norm, residual=residual, stride=step)
        phi = activated(b if post else a, norm=norm, activation=activation, residual=residual)
        parts |= {f"{name}_{number}": part for name, part in (conv | phi if post else phi | conv).items()}
    after = {name: parts.pop(name) for name in ("phi_shift_2", "phi_2") if post and name in parts}
    alpha, learnable = RESIDUALS[residual]
    same = stride == 1 and inputs == outputs
    skip = None if same else _shortcut(inputs, outputs, kind=shortcut, stride=stride, norm=norm, residual=residual)
    block = Residual(nn.Sequential(parts), alpha=alpha, learnable=learnable, shortcut=skip)
    return nn.Sequential(OrderedDict(residual=block, **after)) if post else block


def _shortcut(inputs: int, outputs: int, *, kind: str, stride: int, norm: str, residual: str) -> nn.Module:
    if kind == "pad":
        return PadShortcut(outputs, stride=stride)
    parts = convolution(inputs, outputs, norm=norm, residual=residual, stride=stride, kernel_size=1)
    # NOTE: pre-activation too projects x and then normalises, where He et al. 2016 project φ(norm(x)).
    normed = norm_layer(norm, outputs, spatial=2)
    return nn.Sequential(OrderedDict(parts if normed is None else parts | {"norm": normed}))


def _shift(where: str, residual: str) -> dict[str, nn.Module]:
    return {f"{where}_shift": ScalarBias()} if residual == "fixup" else {}
