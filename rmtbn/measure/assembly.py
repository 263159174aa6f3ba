"""The Jacobian of layers as one matrix: the tangents of all input directions, pushed through layer by layer.

One example in linear layers and activations is pushed by weight matrices, without the units whose slope is 0
(`rmtbn.measure.live_units`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rmtbn.linalg.floating_range import rescaled
from rmtbn.measure.jacobian_operator import rank_bound
from rmtbn.measure.live_units import filled, is_matrix, live_units, restricted, together
from rmtbn.measure.tangents import acts_on_entries, has_rule, push_tangents, slope

# Steps between two looks at the size of the tangents: a look takes a twentieth of the time of a product.
_LOOK = 8
# Slopes that are all smaller are divided by the largest of them.
_TINY = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assembled:
    """The Jacobian of the layers so far.

    Parameters
    ----------
    point
        What comes out of them.
    tangents
        What has become of the input directions over exp(log_scale), shape (n, B, ...features); None before the first
        layer.
    bound
        Of the rank, shape (groups,): one group, or each example its own.
    log_scale
        A logarithm, shape (1,), float64.
    lost
        Whether slopes of smooth activations have come out as 0, shape (): they underflowed, and zeros may be none.
    live
        Which outputs of the one example the tangents hold, where the others have no slope; None: all.
    own
        Whether nobody else holds the memory of the tangents.
    """

    point: Tensor
    tangents: Tensor | None
    bound: Int[Tensor, " groups"]
    log_scale: Float[Tensor, " 1"]
    lost: Bool[Tensor, ""]
    live: Int[Tensor, " k"] | None = None
    own: bool = False

    def matrix(self) -> Float[Tensor, "groups k n"]:
        """Return the rows of the outputs that are live, over exp(log_scale)."""
        groups = len(self.bound)
        tangents = _whole(self) if self.tangents is None else self.tangents
        return tangents.reshape(len(tangents), groups, -1).movedim(0, -1)


def begun(x: Tensor, *, coupled: bool) -> Assembled:
    """Start at inputs (B, ...features), whose examples form one group if `coupled`."""
    groups = 1 if coupled else x.shape[0]
    bound = torch.full((groups,), x.numel() // groups, device=x.device)
    zero = torch.zeros(1, dtype=torch.float64, device=x.device)
    return Assembled(point=x, tangents=None, bound=bound, log_scale=zero, lost=zero[0].bool())


def pushed(start: Assembled, layers: Sequence[nn.Module], points: Sequence[Tensor], *, budget: int) -> Assembled:
    """Push the Jacobian through further layers.

    Parameters
    ----------
    start
        The Jacobian so far.
    layers
        One after the other, inside `network.layer_by_layer`.
    points
        What comes out of them, as far as it is known.
    budget
        Bytes that the intermediate results of one chunk of tangents may take in layers without a rule of their own.
    """
    now, known = start, iter(points)
    for count, step in enumerate(together(layers), 1):
        images = [now.point]
        for layer in step:
            point = next(known, None)
            images.append(layer(images[-1]) if point is None else point)
        if is_matrix(step[0], now.point):
            now = _by_weights(now, step, images)
        else:
            for layer, image in zip(step, images[1:], strict=True):
                now = _by_tangents(now, layer, image, budget=budget)
        now = now if count % _LOOK else _in_range(now)
    return _in_range(now)


def _in_range(now: Assembled) -> Assembled:
    """Bring the tangents back from the ends of the floating range, unless they are 0, without waiting for a device."""
    if now.tangents is None:
        return now
    host = now.tangents.device.type == "cpu"
    found, log, _ = rescaled(now.tangents.reshape(1, len(now.tangents), -1), look=host)
    if host and not bool(log.any()):
        return now
    log = torch.where(found.any(), log, 0.0)
    return replace(now, tangents=found.reshape(now.tangents.shape), log_scale=now.log_scale + log)


def _by_weights(now: Assembled, step: Sequence[nn.Module], images: Sequence[Tensor]) -> Assembled:
    """Multiply by a weight matrix and slopes, less the rows and columns that are 0 because a slope is."""
    weight = cast(nn.Linear, step[0]).weight
    diagonal, log = _slopes(step[1], images[1]) if len(step) > 1 else (None, 0.0)
    live = live_units(diagonal)
    weight = restricted(weight, rows=live, columns=now.live)
    tangents = weight.mT[:, None].clone() if now.tangents is None else (now.tangents[:, 0] @ weight.mT)[:, None]
    if diagonal is not None and (live is None or diagonal.is_floating_point()):
        tangents *= diagonal if live is None else diagonal[live]
    bound = now.bound.clamp_max(images[1].shape[1])
    if diagonal is not None and not diagonal.is_floating_point():
        bound = torch.minimum(bound, diagonal.count_nonzero())
    lost, log_scale = _lost(now, diagonal), now.log_scale + log
    return replace(
        now, point=images[-1], tangents=tangents, bound=bound, log_scale=log_scale, lost=lost, live=live, own=True
    )


def _slopes(layer: nn.Module, point: Tensor) -> tuple[Tensor, float]:
    """Slopes of an activation at one example over exp of a logarithm, which is not 0 where all of them might underflow.

    That is looked for on the CPU only, where the host need not wait.
    """
    diagonal = slope(layer, point)[0]
    if diagonal.device.type != "cpu" or not diagonal.is_floating_point() or float(diagonal.abs().amax()) > _TINY:
        return diagonal, 0.0
    exact = slope(layer, point.double())[0]
    largest = float(exact.abs().amax())
    return (diagonal, 0.0) if largest == 0.0 else ((exact / largest).to(diagonal.dtype), math.log(largest))


def _by_tangents(now: Assembled, layer: nn.Module, image: Tensor, *, budget: int) -> Assembled:
    """Apply the differential of any layer."""
    tangents = push_tangents(layer, now.point, _whole(now), memory_budget=budget, overwrite=now.own)
    bound = torch.minimum(now.bound, rank_bound(layer, now.point, image, groups=len(now.bound)))
    own = type(layer) is nn.Linear and has_rule(layer)  # a product of matrices
    diagonal = slope(layer, now.point) if acts_on_entries(layer) else None
    lost = _lost(now, diagonal)
    return replace(now, point=image, tangents=tangents, bound=bound, live=None, own=own, lost=lost)


def _lost(now: Assembled, diagonal: Tensor | None) -> Bool[Tensor, ""]:
    """Tell whether a smooth slope has underflowed so far, or has now."""
    if diagonal is None or not diagonal.is_floating_point():
        return now.lost
    return now.lost | torch.eq(diagonal, 0).any()


def _whole(now: Assembled) -> Tensor:
    """Return the tangents with the zeros that were left out, or the unit vectors that they begin with."""
    x = now.point
    if now.tangents is None:
        groups = len(now.bound)
        n = x.numel() // groups
        eye = torch.eye(n, dtype=x.dtype, device=x.device)[:, None].expand(n, groups, n)
        return eye.reshape(n, *x.shape)
    return filled(now.tangents, now.live, x.shape[-1])
