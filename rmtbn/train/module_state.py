"""The state of a network: its tensors, the extra state and the mode of its layers, and what it must fit."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def inner(module: nn.Module) -> nn.Module:
    """Look through the wrappers of `torch.compile` and of data parallelism, whose names come and go."""
    if isinstance(module, DataParallel | DistributedDataParallel):
        return inner(module.module)
    compiled = getattr(module, "_orig_mod", None)
    return inner(compiled) if isinstance(compiled, nn.Module) else module


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers, those that are not persistent too, by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def training(module: nn.Module) -> dict[str, bool]:
    """Return the mode of each layer."""
    return {name: part.training for name, part in module.named_modules()}


def extra(module: nn.Module) -> dict[str, Any]:
    """Return what layers keep beside tensors, by name."""
    stock = nn.Module.get_extra_state
    own = ((name, part) for name, part in module.named_modules() if type(part).get_extra_state is not stock)
    return {name: part.get_extra_state() for name, part in own}


def layers(module: nn.Module) -> dict[str, str]:
    """Name the class of every layer, for norms with what decides how their averages go on."""
    return {name: _layer(part) for name, part in module.named_modules()}


def _layer(part: nn.Module) -> str:
    numbers = [f"{key}={getattr(part, key)}" for key in ("eps", "momentum") if hasattr(part, key)]
    return f"{type(part).__name__}({', '.join(numbers)})" if numbers else type(part).__name__


@torch.no_grad()
def write(module: nn.Module, *, values: dict[str, Tensor], extra_state: dict[str, Any], modes: dict[str, bool]) -> None:
    """Write values, extra state and modes that fit into a network, in place.

    Parameters
    ----------
    module
        The network.
    values, extra_state, modes
        As `tensors`, `extra` and `training` return them.
    """
    for name, tensor in tensors(module).items():
        tensor.copy_(values[name])
    for name, part in module.named_modules():
        part.training = modes[name]
        if name in extra_state:
            part.set_extra_state(extra_state[name])
