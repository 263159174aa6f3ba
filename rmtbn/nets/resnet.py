"""Residual networks of He et al. for small images, with and without normalisation.

Depth 6n + 2: a 3×3 stem, three stages of n blocks of two 3×3 convolutions, average pooling and a linear readout (He et
al. 2015, arXiv:1512.03385, section 4.2). Stages after the first begin with stride 2. A block is, post-activation,
y = φ(s(x) + f(x)) with f conv → [norm] → φ → conv → [norm]; pre-activation (He et al. 2016, arXiv:1603.05027),
y = s(x) + f(x) with f twice [norm] → φ → conv, and φ once more in front of the pooling.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from rmtbn import _checks
from rmtbn.nets.basic_block import PLACEMENTS, RESIDUALS, SHORTCUTS, activated, basic_block, convolution
from rmtbn.nets.fixup import ScalarBias, fixup
from rmtbn.nets.norms import NORMS, norm_layer
from rmtbn.nets.numbering import paper_layer, paper_layers
from rmtbn.nets.residual import Residual
from rmtbn.nets.residual_mlp import residual_mlp

__all__ = ["Residual", "fixup", "paper_layer", "paper_layers", "residual_mlp", "resnet", "resnet_cifar"]


def resnet(*, depth: int = 110, norm: str = "batch", final_bn: bool = True, num_classes: int = 10) -> nn.Sequential:
    """Build the network of Bjorck et al. 2018 (arXiv:1806.02375): `resnet_cifar` that normalises at its end too.

    Parameters
    ----------
    depth, norm, final_bn
        As in `resnet_cifar`; the defaults are the network whose gradients match their table 1.
    num_classes
        Logits, >= 1.
    """
    return resnet_cifar(depth=depth, norm=norm, final_bn=final_bn, classes=num_classes)


def resnet_cifar(
    *,
    depth: int,
    norm: str = "none",
    placement: str = "post",
    final_bn: bool = False,
    only_final_bn: bool = False,
    residual: str = "plain",
    shortcut: str = "pad",
    activation: str = "relu",
    classes: int = 10,
    in_channels: int = 3,
    widths: Sequence[int] = (16, 32, 64),
) -> nn.Sequential:
    """Build a residual network for images of 32 pixels, or another size.

    Without normalisation there is none anywhere, and every convolution has a bias; with one that removes the mean of
    each channel a convolution has none.

    Parameters
    ----------
    depth
        Layers with weights: 2 more than two for each block, 8, 14, 20 … 1202 for three stages.
    norm
        A name in `rmtbn.nets.norms.NORMS`.
    placement
        "post" or "pre": blocks have their activations after or before the convolutions.
    final_bn
        Whether to normalise after the last block too, by the same norm (so, without norm, not at all). Post-activation
        networks as published do not; pre-activation ones do.
    only_final_bn
        One batch normalisation after the last block and none elsewhere; `norm` must be "none".
    residual
        What scales a branch. "plain": nothing. "skipinit" (De & Smith 2020, arXiv:2002.10444) and "rezero" (Bachlechner
        et al. 2020, arXiv:2003.04887), two names of one network: a learnable number that starts at 0. "fixup" (Zhang et
        al. 2019, arXiv:1901.09321): a learnable number that starts at 1 and, in place of the biases of convolutions, a
        learnable number that starts at 0 before every convolution, every φ and the readout; `norm` must be "none", and
        after drawing the weights `rmtbn.nets.fixup.fixup` scales them.
    shortcut
        Where sizes change. "pad": every second pixel, zeros for the new channels (option A of He et al. 2015, without
        weights). "projection": a 1×1 convolution and norm (option B).
    activation
        A name in `rmtbn.activations.ACTIVATIONS`.
    classes
        Logits, >= 1.
    in_channels
        Channels of the images, >= 1.
    widths
        Channels of each stage, >= 1, not falling where the shortcut is "pad".

    Returns
    -------
    nn.Sequential
        With children stem_conv, [stem_norm, stem_phi], block_1, …, [last_norm, last_phi], pool, flatten, readout, in
        torch's default initialisation.

    Raises
    ------
    InvalidArgumentError
        For an unknown name, sizes that do not fit, or a norm beside what replaces it.

    Examples
    --------
    >>> net = resnet_cifar(depth=110, norm="batch", final_bn=True)
    >>> paper_layer(net, 55)
    Conv2d(32, 32, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
    """
    stages = _widths(widths, shortcut=_checks.one_of("shortcut", shortcut, SHORTCUTS))
    blocks = _blocks_per_stage(depth, len(stages))
    post = _checks.one_of("placement", placement, PLACEMENTS) == "post"
    _check_norm(norm, residual=residual, only_final_bn=only_final_bn)
    last_norm = "batch" if only_final_bn else norm if final_bn else "none"
    size = _checks.integer("in_channels", in_channels, at_least=1)
    layers = _prefixed("stem", convolution(size, stages[0], norm=norm, residual=residual))
    if post:
        layers |= _prefixed("stem", activated(stages[0], norm=norm, activation=activation, residual=residual))
    size = stages[0]
    for place in range(blocks * len(stages)):
        width, stride = stages[place // blocks], 2 if place and place % blocks == 0 else 1
        layers[f"block_{place + 1}"] = basic_block(
            size, width, stride=stride, norm=norm, placement=placement, residual=residual, shortcut=shortcut,
            activation=activation,
        )  # fmt: skip
        size = width
    layers |= _prefixed("last", _last(size, norm=last_norm, post=post, activation=activation, residual=residual))
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    if residual == "fixup":
        layers["readout_shift"] = ScalarBias()
    layers["readout"] = nn.Linear(size, _checks.integer("classes", classes, at_least=1))
    return nn.Sequential(layers)


def _last(size: int, *, norm: str, post: bool, activation: str, residual: str) -> dict[str, nn.Module]:
    if not post:
        return activated(size, norm=norm, activation=activation, residual=residual)
    normed = norm_layer(norm, size, spatial=2)
    return {} if normed is None else {"norm": normed}


def _prefixed(prefix: str, parts: dict[str, nn.Module]) -> OrderedDict[str, nn.Module]:
    return OrderedDict((f"{prefix}_{name}", part) for name, part in parts.items())


def _widths(widths: Sequence[int], *, shortcut: str) -> list[int]:
    sizes = [_checks.integer("widths", width, at_least=1) for width in widths]
    if not sizes or (shortcut == "pad" and sizes != sorted(sizes)):
        raise _checks.fail("widths", "one or more numbers, not falling where `shortcut` is 'pad'", list(widths))
    return sizes


def _blocks_per_stage(depth: int, stages: int) -> int:
    blocks, rest = divmod(_checks.integer("depth", depth) - 2, 2 * stages)
    if rest or blocks < 1:
        raise _checks.fail("depth", f"{2 * stages} n + 2 for {stages} stages, n >= 1", depth)
    return blocks


def _check_norm(norm: str, *, residual: str, only_final_bn: bool) -> None:
    _checks.one_of("norm", norm, NORMS)
    _checks.one_of("residual", residual, RESIDUALS)
    if norm != "none" and only_final_bn:
        raise _checks.fail("norm", "'none' where `only_final_bn` is set", norm)
    if norm != "none" and residual == "fixup":
        raise _checks.fail("norm", "'none' where `residual` is 'fixup', which does without", norm)
