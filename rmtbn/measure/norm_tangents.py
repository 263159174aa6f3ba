"""Push tangents through batch and layer normalisation, which subtract means and divide by standard deviations."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, cast

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
    norm, held = cast(_BatchNorm, layer), _held(layer, state)
    column = (1, -1) + (1,) * (point.ndim - 2)
    weight, running = held.get("weight"), held.get("running_var")
    gamma = None if weight is None else weight.view(column)
    if not norm.training and running is not None:
        scale = (running.view(column) + norm.eps).rsqrt()
        return tangents * (scale if gamma is None else gamma * scale)
    return normalised(point, tangents, dims=[-point.ndim, *range(2 - point.ndim, 0)], eps=norm.eps, gamma=gamma)


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
    norm, gamma = cast(nn.LayerNorm, layer), _held(layer, state).get("weight")
    return normalised(point, tangents, dims=range(-len(norm.normalized_shape), 0), eps=norm.eps, gamma=gamma)


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
    dims = list(dims)
    h = point - point.mean(dim=dims, keepdim=True)
    scale = (h.square().mean(dim=dims, keepdim=True) + eps).rsqrt()
    centred = tangents - tangents.mean(dim=dims, keepdim=True)
    outer = scale if gamma is None else gamma * scale
    if h.numel() == 2 * scale.numel():
        return centred * (outer * eps * scale.square())
    direction = h * scale  # √ρ u
    return (centred - direction * (direction * centred).mean(dim=dims, keepdim=True)) * outer


def _held(layer: nn.Module, state: Mapping[str, Tensor] | None) -> Mapping[str, Tensor | None]:
    return {**layer._parameters, **layer._buffers} if state is None else state
