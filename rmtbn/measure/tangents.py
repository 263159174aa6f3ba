"""Push tangents through one layer: its differential at a point, applied to many directions at once."""

import math
from collections.abc import Callable, Iterable
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap
from torch.nn.functional import linear
from torch.nn.modules.batchnorm import _BatchNorm

from rmtbn._modules import is_altered

# (layer, point) -> derivative of an activation, which acts on each entry alone
Slope: TypeAlias = Callable[[nn.Module, Tensor], Tensor]


def push_tangents(
    layer: nn.Module, point: Tensor, tangents: Tensor, *, memory_budget: int, overwrite: bool = False
) -> Tensor:
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
        Directions at the point, shape (r, B, ...features); of its dtype, or of another where `has_rule`.
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
    if is_stock_batch_norm(layer):
        return normalised_tangents(cast(_BatchNorm, layer), point, tangents)
    # the input, the output and about as much again in between, of tangents and of their gradients
    each = 4 * point.element_size() * max(point.numel(), layer(point).numel())
    push = vmap(lambda tangent: jvp(layer, (point,), (tangent,))[1], chunk_size=max(1, memory_budget // each))
    return push(tangents)


def image(layer: nn.Module, point: Tensor) -> Tensor:
    """Apply a layer to a point; a linear layer in the dtype of the point, if that is another one."""
    if type(layer) is not nn.Linear or layer.weight.dtype == point.dtype:
        return cast(Tensor, layer(point))
    bias = None if layer.bias is None else layer.bias.to(point.dtype)
    return linear(point, layer.weight.to(point.dtype), bias)


def has_rule(layer: nn.Module) -> bool:
    """Tell whether the differential is known here: a linear layer, or an activation, which acts on each entry alone."""
    return type(layer) in _KNOWN and not is_altered(layer)


def in_double(layers: Iterable[nn.Module], x: Tensor) -> bool:
    """Tell whether a float32 chain is pushed in float64: where all its rules are known, on the CPU.

    Its products then need re-factorising less often; and rounding of the points on the way, which a chaotic network
    amplifies to whole units of ln σ, would be in no stated error.
    """
    return x.dtype == torch.float32 and x.device.type == "cpu" and all(map(has_rule, layers))


def acts_on_entries(layer: nn.Module) -> bool:
    """Tell whether a layer is known to act on each entry alone."""
    return has_rule(layer) and type(layer) is not nn.Linear


def slope(layer: nn.Module, point: Tensor) -> Tensor:
    """Return the derivative of a layer that `acts_on_entries`, shape of the point, boolean where it is 0 or 1."""
    return _SLOPES[type(layer)](layer, point)


def is_stock_batch_norm(layer: nn.Module) -> bool:
    """Tell whether a layer is torch's batch normalisation, without hooks, and not a class derived from it."""
    return isinstance(layer, _BatchNorm) and type(layer).forward is _BatchNorm.forward and not is_altered(layer)


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
