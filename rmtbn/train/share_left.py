"""How much of its running statistics a network keeps through something that is done with it, measured."""

import copy
from collections.abc import Callable

import torch
from torch import nn

from rmtbn import _checks
from rmtbn.train.channel_moments import tracking_norms

OFFSET = 1.0  # of the running means; the answer is linear in it


def share_left(module: nn.Module, action: Callable[[nn.Module], object]) -> dict[str, float]:
    """Do something with two copies of a network, of which one starts with other running means, and compare the ends.

    Running averages are linear in where they start, and train mode does not read them: what is left of the difference
    is the share of the old statistics, whatever passes through the network, weights that move included. One update of
    momentum m leaves 1 - m.

    Parameters
    ----------
    module
        The network, left as it is.
    action
        Given a copy, for example trains it. It must do the same each time: draws of its own from a generator that it
        makes itself, and no reading of the running statistics.

    Returns
    -------
    dict
        Name of a layer to the mean share over its channels.

    Raises
    ------
    InvalidArgumentError
        If the network keeps no running means.

    Examples
    --------
    >>> norm, x = nn.BatchNorm1d(2), torch.randn(8, 2)
    >>> round(share_left(norm, lambda module: [module(x) for _ in range(3)])[""], 4)
    0.729
    """
    plain, moved = copy.deepcopy(module), copy.deepcopy(module)
    found = {name: norm for name, norm in tracking_norms(moved).items() if norm.running_mean is not None}
    if not found:
        raise _checks.fail("module", "a network with running means", type(module).__name__)
    with torch.no_grad():
        for norm in found.values():
            norm.running_mean.add_(OFFSET)  # type: ignore[union-attr]
    for one in (plain, moved):
        action(one)
    ends = tracking_norms(plain)
    return {
        name: float((norm.running_mean - ends[name].running_mean).double().mean()) / OFFSET  # type: ignore[operator]
        for name, norm in found.items()
    }
