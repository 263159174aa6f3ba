"""Push tangents through one layer: its differential at a point, applied to many directions at once."""

import math
from collections.abc import Callable
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap
from torch.nn.modules.batchnorm import _BatchNorm

# (layer, point, tangents) -> images of the tangents; tangents have one leading dimension more than the point.
Rule: TypeAlias = Callable[[nn.Module, Tensor, Tensor], Tensor]


def push_tangents(layer: nn.Module, point: Tensor, tangents: Tensor, *, memory_budget: int) -> Tensor:
    """Apply the differential of a layer at a point to tangents.

    By forward-mode differentiation (`torch.func.jvp` under `vmap`), except for the layers of which the rule is known
    here: one matrix product for a linear layer, a few passes for batch normalisation, and for saturating activations
    the slope to full relative accuracy, where autodiff's 1 - tanh² keeps only the digits left above rounding.

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
    if is_stock_batch_norm(layer):
        return normalised_tangents(cast(_BatchNorm, layer), point, tangents)
    # the input, the output and about as much again in between, of tangents and of their gradients
    each = 4 * point.element_size() * max(point.numel(), layer(point).numel())
    push = vmap(lambda tangent: jvp(layer, (point,), (tangent,))[1], chunk_size=max(1, memory_budget // each))
    return push(tangents)


def has_rule(layer: nn.Module) -> bool:
    """Tell whether the differential is known here: a linear layer, or an activation, which acts on each entry alone."""
    return type(layer) in _RULES and not (layer._forward_hooks or layer._forward_pre_hooks)


def acts_on_entries(layer: nn.Module) -> bool:
    """Tell whether a layer is known to act on each entry alone."""
    return has_rule(layer) and type(layer) is not nn.Linear


def is_stock_batch_norm(layer: nn.Module) -> bool:
    """Tell whether a layer is torch's batch normalisation, without hooks, and not a class derived from it."""
    stock = isinstance(layer, _BatchNorm) and type(layer).forward is _BatchNorm.forward
    return stock and not (layer._forward_hooks or layer._forward_pre_hooks)


def normalised_tangents(layer: _BatchNorm, point: Tensor, tangents: Tensor) -> Tensor:
    """Apply the differential of batch normalisation to tangents; it is symmetric, so this is its transpose too.

    With batch statistics γ (t - mean t - ρ u mean(u t))/√(v + ε), u = (h - mean h)/√v, ρ = v/(v + ε), means over the
    examples and over space; with running ones γ t/√(v + ε).

    Parameters
    ----------
    layer
        The layer, inside `batch_statistics.fixed`.
    point
        Its input h, shape (B, features, ...space).
    tangents
        Shape (r, B, features, ...space).
    """
    column = (1, -1) + (1,) * (point.ndim - 2)
    gamma = 1.0 if layer.weight is None else layer.weight.view(column)
    if not layer.training and layer.running_var is not None:
        return tangents * (gamma * (layer.running_var.view(column) + layer.eps).rsqrt())
    dims = [dim for dim in range(point.ndim) if dim != 1]
    h = point - point.mean(dim=dims, keepdim=True)
    scale = (h.square().mean(dim=dims, keepdim=True) + layer.eps).rsqrt()
    direction = h * scale  # √ρ u
    inner = [dim + 1 for dim in dims]
    centred = tangents - tangents.mean(dim=inner, keepdim=True)
    return (centred - direction * (direction * centred).mean(dim=inner, keepdim=True)) * (gamma * scale)


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
