"""Layers by the numbers of the literature, which count those with weights from 1."""

from collections.abc import Mapping
from types import MappingProxyType

from torch import nn

from rmtbn import _checks


def paper_layers(net: nn.Module) -> Mapping[int, str]:
    """Return the linear and convolutional layers in the order of the forward pass, but for those in shortcuts.

    For ResNet-110 that is the count of Bjorck et al. 2018 (arXiv:1806.02375): 1 the stem, 2 to 37, 38 to 73 and 74 to
    109 the stages, 110 the classifier. A network whose layers are registered in another order than they run has other
    numbers; those of `rmtbn.nets` have not.

    Returns
    -------
    mapping
        Number -> dotted name, as in `named_modules`.
    """
    names = [
        name
        for name, part in net.named_modules()
        if isinstance(part, nn.Linear | nn.Conv2d) and "shortcut" not in name.split(".")
    ]
    return MappingProxyType(dict(enumerate(names, 1)))


def paper_layer(net: nn.Module, number: int) -> nn.Module:
    """Return the layer of a number of `paper_layers`.

    Raises
    ------
    InvalidArgumentError
        If there is none.
    """
    names = paper_layers(net)
    return net.get_submodule(names[_checks.integer("number", number, at_least=1, at_most=len(names))])
