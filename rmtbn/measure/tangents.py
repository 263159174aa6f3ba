"""Push tangents through one layer: its differential at a point, applied to many directions at once."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap
from torch.nn.functional import linear

from rmtbn._modules import call, is_altered
from rmtbn.measure.norm_tangents import norm_rule

# Relative change of a point that shows whether a layer works in double precision.
_NUDGE = 2.0**-48
# (layer, point) -> derivative of an activation, which acts on each entry alone
Slope: TypeAlias = Callable[[nn.Module, Tensor], Tensor]


def push_tangents(
    layer: nn.Module, point: Tensor, tangents: Tensor, *, memory_budget: int, overwrite: bool = False
) -> Tensor:
    """Apply the differential of a layer at a point to tangents.

    By forward-mode differentiation (`torch.func.jvp` under `vmap`), except for the layers of which the rule is known
    here: one matrix product for a linear layer, a few passes for batch and layer norm, and for saturating activations
    the slope to full relative accuracy, where autodiff's 1 - tanh² keeps only the digits left above rounding.

    Parameters
    ----------
    layer
        Any module that maps a tensor to a tensor.
    point
        Its input, shape (B, ...features).
    tangents
        Directions at the point, shape (r, B, ...features); of its dtype, or of another where `has_rule`. Parameters are
        brought to that of the point.
    memory_budget
        Bytes that the intermediate results of one chunk of tangents may take.
    overwrite
        Whether the result may take the place of the tangents, as it does for activations.

    Returns
    -------
    Tensor
        Directions at the output, shape (r, *output).
    """
    if has_rule(layer):
        return _by_rule(layer, point, tangents, overwrite=overwrite)
    norm = norm_rule(layer)
    if norm is not None:
        return norm(layer, point, tangents)
    apply = in_dtype(layer, point.dtype)
    # the input, the output and about as much again in between, of tangents and of their gradients
    each = 4 * point.element_size() * max(point.numel(), apply(point).numel())
    push = vmap(lambda tangent: jvp(apply, (point,), (tangent,))[1], chunk_size=max(1, memory_budget // each))
    return push(tangents)


def image(layer: nn.Module, point: Tensor) -> Tensor:
    """Apply a layer to a point, in the dtype of the point if that is another one than the layer's."""
    if type(layer) is nn.Linear and layer.weight.dtype != point.dtype and not is_altered(layer):
        bias = None if layer.bias is None else layer.bias.to(point.dtype)
        return linear(point, layer.weight.to(point.dtype), bias)
    return in_dtype(layer, point.dtype)(point)


def in_dtype(layer: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return a layer as a function in a dtype, its parameters and buffers brought there; itself if they are."""
    if not (layer._parameters or layer._buffers or layer._modules):
        return layer
    held = (*layer.named_parameters(), *layer.named_buffers())
    moved = {name: x.to(dtype) for name, x in held if x.is_floating_point() and x.dtype != dtype}
    return partial(call, layer, moved) if moved else layer


def has_rule(layer: nn.Module) -> bool:
    """Tell whether the differential is known here: a linear layer, or an activation, which acts on each entry alone."""
    return type(layer) in _KNOWN and not is_altered(layer)


def in_double(layers: Iterable[nn.Module], x: Tensor) -> bool:
    """Tell whether a float32 chain is pushed in float64: on the CPU, where its layers can be applied in float64.

    Its products then need re-factorising less often; and rounding of the points on the way, which a chaotic network
    amplifies to whole units of ln σ, would be in no stated error. Neither would be what cancels within a layer, as in
    batch normalisation of values far above √ε.

    Parameters
    ----------
    layers
        In the order of the forward pass, inside `rmtbn.measure.network.layer_by_layer`.
    x
        Inputs of the first.
    """
    if x.dtype != torch.float32 or x.device.type != "cpu":
        return False
    chain = list(layers)
    if all(map(has_rule, chain)):
        return True
    point = x.double()
    for layer in chain:
        if not (has_rule(layer) or norm_rule(layer) is not None or _keeps_double(layer, point)):
            return False
        point = image(layer, point)
    return True


def _keeps_double(layer: nn.Module, point: Tensor) -> bool:
    """Tell whether a layer can be applied in float64 and does not go through single precision inside.

    Of a change of the point by 2^-48 nothing would come out, or a step of 2^-24.
    """
    draws = torch.randn(point.shape, generator=torch.Generator().manual_seed(0), dtype=point.dtype)
    point = point if bool(point.any()) else draws
    moved = point * (1 + _NUDGE * draws)
    try:
        here, there = image(layer, point), image(layer, moved)
    except Exception:  # whatever a layer says that asks for float32, as it gets then
        return False
    if here.dtype != point.dtype:
        return False
    change = float((there - here).abs().max() / here.abs().max().clamp_min(torch.finfo(here.dtype).tiny))
    return 0 < change < _NUDGE * 2**20


def acts_on_entries(layer: nn.Module) -> bool:
    """Tell whether a layer is known to act on each entry alone."""
    return has_rule(layer) and type(layer) is not nn.Linear


def slope(layer: nn.Module, point: Tensor) -> Tensor:
    """Return the derivative of a layer that `acts_on_entries`, shape of the point, boolean where it is 0 or 1."""
    return _SLOPES[type(layer)](layer, point)


def _by_rule(layer: nn.Module, point: Tensor, tangents: Tensor, *, overwrite: bool) -> Tensor:
    if type(layer) is nn.Identity:
        return tangents
    if type(layer) is nn.Linear:
        # as one matrix: of tangents that do not lie in order, `tangents @ weight.mT` makes a product for each tangent
        moved = tangents.reshape(-1, layer.weight.shape[1]) @ layer.weight.to(tangents.dtype).mT
        return moved.reshape(*tangents.shape[:-1], layer.weight.shape[0])
    diagonal = slope(layer, point)
    diagonal = diagonal.to(tangents.dtype) if diagonal.is_floating_point() else diagonal
    return tangents.mul_(diagonal) if overwrite else tangents * diagonal


def _identity(layer: nn.Module, point: Tensor) -> Tensor:  # noqa: ARG001
    return torch.ones_like(point, dtype=torch.bool)


def _relu(layer: nn.Module, point: Tensor) -> Tensor:  # noqa: ARG001
    return point > 0


def _tanh(layer: nn.Module, point: Tensor) -> Tensor:  # noqa: ARG001
    """1/cosh²."""
    return point.cosh().reciprocal().square()


def _sigmoid(layer: nn.Module, point: Tensor) -> Tensor:  # noqa: ARG001
    """σ(x) σ(-x)."""
    return point.sigmoid() * (-point).sigmoid()


def _gelu(layer: nn.Module, point: Tensor) -> Tensor:
    """Φ(x) + x Φ'(x); by autodiff for the approximate form."""
    if cast(nn.GELU, layer).approximate != "none":
        return jvp(layer, (point,), (torch.ones_like(point),))[1]
    density = (-0.5 * point.square()).exp() / math.sqrt(2.0 * math.pi)
    return 0.5 * torch.special.erfc(-point / math.sqrt(2.0)) + point * density


_SLOPES: dict[type[nn.Module], Slope] = {
    nn.GELU: _gelu,
    nn.Identity: _identity,
    nn.ReLU: _relu,
    nn.Sigmoid: _sigmoid,
    nn.Tanh: _tanh,
}
_KNOWN = {nn.Linear, *_SLOPES}
