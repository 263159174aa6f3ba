"""Many networks of one architecture pushed at once, layer by layer, to any depth.

The parameters are stacked and each layer runs for all networks in one call (`vmap`).
Activations may leave the floating range with depth. Where they are about to, and the next layer is homogeneous between
there and the middle of the range (it is tried on both), they are divided by a power of two whose logarithm is kept. So
linear, ReLU and other networks that grow or fade can be followed to any depth; what is not homogeneous is left alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import vmap

from rmtbn import _checks, _modules
from rmtbn.measure import batch_statistics, network

Layer = Callable[[Tensor], Tensor]

RANGE = {torch.float64: 1e100, torch.float32: 1e15}  # activations are kept between its inverse and it
ROUNDING = 64  # in units of eps: by how much a layer's output may differ from the scaled one and count as homogeneous


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class State:
    """What goes into and comes out of one layer of all networks.

    Parameters
    ----------
    name
        Dotted name of the layer.
    apply
        The layer of all networks: (networks, examples, ...) → (networks, examples, ...).
    inputs, outputs
        Divided by exp(log_scale).
    log_scale
        Logarithm of what they were divided by, shape (networks,).
    has_weight
        Whether the layer holds a weight matrix or kernel.
    """

    name: str
    apply: Layer
    inputs: Float[Tensor, "networks examples ..."]
    outputs: Float[Tensor, "networks examples ..."]
    log_scale: Float[Tensor, " networks"]
    has_weight: bool


@contextmanager
def pushed(
    modules: Sequence[nn.Module], x: Float[Tensor, "examples ..."], *, batch_stats: str | None = None
) -> Iterator[Iterator[State]]:
    """Push inputs through all networks: within the context, iterate over what goes in and out of each layer, in order.

    Within it batch normalisation uses the statistics named and updates none, and no gradients are recorded.

    Parameters
    ----------
    modules
        Networks of one architecture, dtype and device, left as found. A `Sequential` (nested ones too) is pushed layer
        by layer, anything else is one layer.
    x
        Inputs (examples, ...features), the same for all networks.
    batch_stats
        "batch", "running", or None for the modules' own mode.

    Yields
    ------
    Iterator of State
        To be consumed within the context.

    Raises
    ------
    InvalidArgumentError
        If there is no module, they differ in their layers, or `x` is not as they take it.
    """
    layers = aligned(modules)
    network.check_input(modules[0], x)
    with network.layer_by_layer(modules[0], batch_statistics.resolve(modules[0], batch_stats)):
        yield _states(layers, x.expand(len(modules), *x.shape).clone())  # jvp refuses memory that is shared


def _states(layers: list[tuple[str, list[nn.Module]]], values: Tensor) -> Iterator[State]:
    log_scale = torch.zeros(len(values), dtype=torch.float64, device=values.device)
    for name, same in layers:
        apply = _stacked(same)
        values, log_scale = _within_range(values, log_scale, apply)
        outputs = apply(values)
        yield State(
            name=name,
            apply=apply,
            inputs=values,
            outputs=outputs,
            log_scale=log_scale,
            has_weight=any(parameter.ndim > 1 for parameter in same[0].parameters()),
        )
        values = outputs


def unit(values: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Divide each network's values by their largest entry, and add its logarithm to `log_scale`; zeros stay."""
    peak = values.abs().flatten(1).amax(1)
    peak = torch.where(peak > 0, peak, torch.ones_like(peak))
    return values / peak.reshape(-1, *(1,) * (values.ndim - 1)), log_scale + peak.double().log()


def aligned(modules: Sequence[nn.Module]) -> list[tuple[str, list[nn.Module]]]:
    """Return (name, that layer of each network) for every layer.

    Raises
    ------
    InvalidArgumentError
        If there is no network, or they differ in their layers or modes.
    """
    if not hasattr(modules, "__len__") or not modules or not all(isinstance(module, nn.Module) for module in modules):
        raise _checks.fail("modules", "one or more networks, in a sequence", modules)
    columns = [_modules.layers(module) for module in modules]
    names = [name for name, _ in columns[0]]
    if any([name for name, _ in column] != names for column in columns):
        raise _checks.fail("modules", "networks of one architecture", sorted({len(column) for column in columns}))
    found = [(name, [column[i][1] for column in columns]) for i, name in enumerate(names)]
    for name, same in found:
        _modules.check_alike(name, same)
    return found


def _stacked(layers: list[nn.Module]) -> Layer:
    """Return one layer of all networks as a function of the stacked inputs."""
    base = layers[0]
    if not any(True for _ in base.parameters()) and not any(True for _ in base.buffers()):
        return vmap(base)
    parameters, buffers = _modules.stacked_state(layers)

    def one(p: dict[str, Tensor], b: dict[str, Tensor], h: Tensor) -> Tensor:
        return _modules.call(base, p | b, h)

    return lambda values: vmap(one)(parameters, buffers, values)


def _within_range(values: Tensor, log_scale: Tensor, apply: Layer) -> tuple[Tensor, Tensor]:
    """Divide the networks that are about to leave the floating range, if the next layer allows it."""
    peak = values.detach().abs().flatten(1).amax(1).double()
    limit = RANGE.get(values.dtype, 1e15)
    high, low = peak > limit, (peak < 1 / limit) & (peak > 0)
    if not bool((high | low).any()):
        return values, log_scale
    away = peak.log2() - torch.where(high, 0.5, -0.5) * math.log2(limit)  # from the middle of that half of the range
    exponent = torch.where(high | low, away.round(), torch.zeros_like(peak))
    factor = torch.exp2(-exponent)
    homogeneous = _agree(_scaled(apply(values), factor), apply(_scaled(values, factor)))
    exponent = torch.where(homogeneous, exponent, torch.zeros_like(exponent))
    return _scaled(values, torch.exp2(-exponent)), log_scale + exponent * math.log(2)


def _scaled(values: Tensor, factor: Tensor) -> Tensor:
    return values * factor.to(values.dtype).reshape(-1, *(1,) * (values.ndim - 1))


def _agree(first: Tensor, second: Tensor) -> Tensor:
    """Whether two outputs are equal up to rounding of their largest entry, network by network."""
    difference = (first - second).abs().flatten(1).amax(1)
    return difference <= ROUNDING * torch.finfo(first.dtype).eps * second.abs().flatten(1).amax(1)
