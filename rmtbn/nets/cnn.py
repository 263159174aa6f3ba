"""Convolutional networks without shortcuts: x^l = φ(norm(K^l * x^{l-1} + b^l)), l = 1 … L."""

from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from torch import nn

from rmtbn import _checks
from rmtbn.nets.activations import CReLU, activation_module
from rmtbn.nets.norms import NORMS, norm_layer, normalised_weight, removes_mean

Padding = Literal["zeros", "circular"]
PADDINGS: Mapping[str, Padding] = MappingProxyType({"zeros": "zeros", "circular": "circular"})


def plain_cnn(
    *,
    depth: int,
    channels: int,
    activation: str = "relu",
    norm: str = "none",
    padding: str = "zeros",
    in_channels: int = 3,
    classes: int | None = None,
    kernel_size: int = 3,
) -> nn.Sequential:
    """Build a convolutional network of `depth` layers convolution → [norm] → φ that keep the size of the image.

    With circular padding and φ linear its singular values are those of `rmtbn.theory.convolution`.

    Parameters
    ----------
    depth
        Convolutions L, >= 1.
    channels
        Of every layer's output, >= 1.
    activation
        A name in `rmtbn.activations.ACTIVATIONS`, or "crelu", which doubles the channels that the next layer sees.
    norm
        A name in `rmtbn.nets.norms.NORMS`, in front of φ. A convolution whose bias the norm would remove has none.
    padding
        "zeros" or "circular": what lies beyond the border.
    in_channels
        Channels of the images, >= 1.
    classes
        Logits of a linear readout after average pooling; no pooling and readout if left out.
    kernel_size
        Odd, >= 1.

    Returns
    -------
    nn.Sequential
        With children conv_1, [norm_1,] phi_1, …, [pool, flatten, readout], in torch's default initialisation.

    Raises
    ------
    InvalidArgumentError
        For an unknown name or a size that is not allowed.

    Examples
    --------
    >>> [name for name, _ in plain_cnn(depth=1, channels=4, norm="batch", classes=10).named_children()]
    ['conv_1', 'norm_1', 'phi_1', 'pool', 'flatten', 'readout']
    """
    depth, channels = _checks.integer("depth", depth, at_least=1), _checks.integer("channels", channels, at_least=1)
    _checks.one_of("norm", norm, NORMS)
    mode = PADDINGS[_checks.one_of("padding", padding, PADDINGS)]
    taps = _checks.integer("kernel_size", kernel_size, at_least=1)
    if taps % 2 == 0:
        raise _checks.fail("kernel_size", "odd", kernel_size)
    size = _checks.integer("in_channels", in_channels, at_least=1)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for layer in range(1, depth + 1):
        conv = nn.Conv2d(size, channels, taps, padding=taps // 2, padding_mode=mode, bias=not removes_mean(norm))
        layers[f"conv_{layer}"] = normalised_weight(norm, conv)
        normed = norm_layer(norm, channels, spatial=2)
        if normed is not None:
            layers[f"norm_{layer}"] = normed
        layers[f"phi_{layer}"] = CReLU() if activation == "crelu" else activation_module(activation)
        size = 2 * channels if activation == "crelu" else channels
    if classes is not None:
        layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
        layers["readout"] = nn.Linear(size, _checks.integer("classes", classes, at_least=1))
    return nn.Sequential(layers)
