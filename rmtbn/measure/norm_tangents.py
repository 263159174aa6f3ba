"""Push tangents through batch and layer normalisation, which subtract means and divide by standard deviations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rmtbn._modules import is_altered

# (layer, point, tangents, state=None) -> tangents behind a norm: see `batch_norm_tangents`
NormRule: TypeAlias = Callable[..., Tensor]


def norm_rule(layer: nn.Module) -> NormRule | None:
    """Return the rule of torch's batch or layer normalisation, None for other layers, derived classes and hooks."""
    if is_stock_batch_norm(layer):
        return batch_norm_tangents
    return layer_norm_tangents if type(layer) is nn.LayerNorm and not is_altered(layer) else None


def is_stock_batch_norm(layer: nn.Module) -> bool:
    """Tell whether a layer is torch's batch normalisation, without hooks, and not a class derived from it."""
    return isinstance(layer, _BatchNorm) and type(layer).forward is _BatchNorm.forward and not is_altered(layer)


def batch_norm_tangents(
    layer: nn.Module, point: Tensor, tangents: Tensor, *, state: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Apply the differential of batch normalisation to tangents; it is symmetric, so this is its transpose too.

    With batch statistics `normalised`, means over the examples and over space; with running ones γ t/√(v + ε).

    Parameters
    ----------
    layer
        The layer, inside `batch_statistics.fixed`.
    point
        Its input, shape (B, features, ...space).
    tangents
        Shape (r, B, features, ...space).
    state
        Parameters and buffers by name, of which the layer has none: as under `vmap`. None: the layer's own.
    """
    return _applied(_of_batch(cast(_BatchNorm, layer), point, _held(layer, state)), tangents)


def layer_norm_tangents(
    layer: nn.Module, point: Tensor, tangents: Tensor, *, state: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Apply the differential of layer normalisation to tangents: `normalised`, means over the features.

    Parameters
    ----------
    layer, state
        As in `batch_norm_tangents`.
    point
        Shape (B, ...features).
    tangents
        Shape (r, B, ...features).
    """
    return _applied(_of_layer(cast(nn.LayerNorm, layer), point, _held(layer, state)), tangents)


def cancelling_sizes(
    layer: nn.Module, point: Tensor, sizes: Tensor, *, state: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Return sizes of the entries that a norm subtracts from one another, given those of the tangents.

    Where one feature of an example holds nearly all of the variance, next to nothing of a tangent is left, and rounding
    is in proportion to what there was.

    Parameters
    ----------
    layer, point, state
        As in `batch_norm_tangents`; a norm that has a rule.
    sizes
        Shape of the point.
    """
    of = _of_layer if isinstance(layer, nn.LayerNorm) else _of_batch
    return sizes * of(cast(Any, layer), point, _held(layer, state)).outer.abs()


def normalised(
    point: Tensor, tangents: Tensor, *, dims: Sequence[int], eps: float, gamma: Tensor | None = None
) -> Tensor:
    """Apply the differential of h -> γ (h - mean h)/√(v + ε) to tangents, v the variance of h.

    That is γ (t - mean t - ρ u mean(u t))/√(v + ε), u = (h - mean h)/√v, ρ = v/(v + ε). Of two values, t - mean t lies
    along u, and what is left is (1 - ρ)(t - mean t)/√(v + ε): what ε lets pass, which as a difference would be lost.

    Parameters
    ----------
    point
        h, any shape.
    tangents
        t, of the same shape and one more in front.
    dims
        Over which means are taken, counted from the last.
    eps, gamma
        ε, and γ to be multiplied with h; None: 1.
    """
    return _applied(_differential(point, dims=dims, eps=eps, gamma=gamma), tangents)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Differential:
    """outer (t - mean t - direction mean(direction t)); without dims outer t, without direction outer (t - mean t)."""

    outer: Tensor
    dims: list[int]
    direction: Tensor | None


def _differential(point: Tensor, *, dims: Sequence[int], eps: float, gamma: Tensor | None) -> _Differential:
    dims = list(dims)
    h = point - point.mean(dim=dims, keepdim=True)
    scale = (h.square().mean(dim=dims, keepdim=True) + eps).rsqrt()
    outer = scale if gamma is None else gamma * scale
    if h.numel() == 2 * scale.numel():
        return _Differential(outer=outer * eps * scale.square(), dims=dims, direction=None)
    return _Differential(outer=outer, dims=dims, direction=h * scale)  # √ρ u


def _of_batch(norm: _BatchNorm, point: Tensor, held: Mapping[str, Tensor | None]) -> _Differential:
    column = (1, -1) + (1,) * (point.ndim - 2)
    weight, running = held.get("weight"), held.get("running_var")
    gamma = None if weight is None else weight.view(column)
    if not norm.training and running is not None:
        scale = (running.view(column) + norm.eps).rsqrt()
        return _Differential(outer=scale if gamma is None else gamma * scale, dims=[], direction=None)
    return _differential(point, dims=[-point.ndim, *range(2 - point.ndim, 0)], eps=norm.eps, gamma=gamma)


def _of_layer(norm: nn.LayerNorm, point: Tensor, held: Mapping[str, Tensor | None]) -> _Differential:
    return _differential(point, dims=range(-len(norm.normalized_shape), 0), eps=norm.eps, gamma=held.get("weight"))


def _applied(differential: _Differential, tangents: Tensor) -> Tensor:
    dims, direction = differential.dims, differential.direction
    centred = tangents - tangents.mean(dim=dims, keepdim=True) if dims else tangents
    if direction is not None:
        centred = centred - direction * (direction * centred).mean(dim=dims, keepdim=True)
    return centred * differential.outer


def _held(layer: nn.Module, state: Mapping[str, Tensor] | None) -> Mapping[str, Tensor | None]:
    return {**layer._parameters, **layer._buffers} if state is None else state
