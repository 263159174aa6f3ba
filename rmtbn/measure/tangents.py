"""Push tangents through one layer: its differential at a point, applied to many directions at once."""

import math
from collections.abc import Callable
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

# (layer, point, tangents) -> images of the tangents; tangents have one leading dimension more than the point.
Rule: TypeAlias = Callable[[nn.Module, Tensor, Tensor], Tensor]


def push_tangents(layer: nn.Module, point: Tensor, tangents: Tensor, *, memory_budget: int) -> Tensor:
    """Apply the differential of a layer at a point to tangents.

    By forward-mode differentiation (`torch.func.jvp` under `vmap`), except for the layers of which the rule is known
    here: one matrix product for a linear layer, and for saturating activations the slope to full relative accuracy,
    where autodiff's 1 - tanh² keeps only the digits that are left above rounding.

    Parameters
    ----------
    layer
        Any module that maps a tensor to a tensor.
    point
        Its input, shape (B, ...features).
    tangents
        Directions at the point, shape (r, B, ...features).
    memory_budget
        Bytes that the intermediate results of one chunk of tangents may take.

    Returns
    -------
    Tensor
        Directions at the output, shape (r, *output).
    """
    if has_rule(layer):
        return _RULES[type(layer)](layer, point, tangents)
    # the input, the output and about as much again in between, of tangents and of their gradients
    each = 4 * point.element_size() * max(point.numel(), layer(point).numel())
    push = vmap(lambda tangent: jvp(layer, (point,), (tangent,))[1], chunk_size=max(1, memory_budget // each))
    return push(tangents)


def has_rule(layer: nn.Module) -> bool:
    """Tell whether the differential is known here: a linear layer, or an activation, which acts on each entry alone."""
    return type(layer) in _RULES and not (layer._forward_hooks or layer._forward_pre_hooks)


def _identity(layer: nn.Module, point: Tensor, tangents: Tensor) -> Tensor:  # noqa: ARG001
    return tangents


def _linear(layer: nn.Module, point: Tensor, tangents: Tensor) -> Tensor:  # noqa: ARG001
    weight = cast(nn.Linear, layer).weight
    # as one matrix: of tangents that do not lie in order, `tangents @ weight.mT` makes a product for each tangent
    return (tangents.reshape(-1, weight.shape[1]) @ weight.mT).reshape(*tangents.shape[:-1], weight.shape[0])


def _relu(layer: nn.Module, point: Tensor, tangents: Tensor) -> Tensor:  # noqa: ARG001
    return tangents * (point > 0)


def _tanh(layer: nn.Module, point: Tensor, tangents: Tensor) -> Tensor:  # noqa: ARG001
    """Multiply by 1/cosh²."""
    return tangents * point.cosh().reciprocal().square()


def _sigmoid(layer: nn.Module, point: Tensor, tangents: Tensor) -> Tensor:  # noqa: ARG001
    """Multiply by σ(x) σ(-x)."""
    return tangents * (point.sigmoid() * (-point).sigmoid())


def _gelu(layer: nn.Module, point: Tensor, tangents: Tensor) -> Tensor:
    """Multiply by Φ(x) + x Φ'(x); by autodiff for the approximate form."""
    if layer.approximate != "none":
        slope = jvp(layer, (point,), (torch.ones_like(point),))[1]
    else:
        density = (-0.5 * point.square()).exp() / math.sqrt(2.0 * math.pi)
        slope = 0.5 * torch.special.erfc(-point / math.sqrt(2.0)) + point * density
    return tangents * slope


_RULES: dict[type[nn.Module], Rule] = {
    nn.GELU: _gelu,
    nn.Identity: _identity,
    nn.Linear: _linear,
    nn.ReLU: _relu,
    nn.Sigmoid: _sigmoid,
    nn.Tanh: _tanh,
}
