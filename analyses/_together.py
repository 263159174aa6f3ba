"""Networks measured in one vectorised call although each has inputs of its own."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

BUDGET = 4 * 10**9  # bytes of weights in a call, a small part of a GPU: more networks no longer make it faster
MOST = 64  # cells in a call: a driver that is killed loses no more


class At(nn.Module):
    """The layer h -> h + x, whose Jacobian is 1: a network behind it, at h = 0, is the network at x."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.register_buffer("x", x)

    def forward(self, h: Tensor) -> Tensor:
        """Add the inputs."""
        return h + self.get_buffer("x")


def at(network: nn.Sequential, x: Tensor) -> nn.Sequential:
    """Return the network behind a layer that holds its inputs; the names of its layers stay."""
    return nn.Sequential(OrderedDict([("at", At(x)), *network.named_children()]))


def cells_in_a_call(parameters: Mapping[str, Any], *, weights: int) -> int:
    """Return how many cells with so many weights are worth a call: one on the CPU, where it is bound by arithmetic."""
    if not str(parameters["device"]).startswith("cuda"):
        return 1
    each = weights * torch.finfo(getattr(torch, parameters["dtype"])).bits // 8
    return max(1, min(MOST, BUDGET // each))
