"""A basis pushed through layers: which of them go together, and their differentials applied to its columns."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from rmtbn.linalg.push_forward import Cancelling, TangentMap
from rmtbn.measure.live_units import filled, live_units, restricted
from rmtbn.measure.norm_tangents import cancelling_sizes, norm_rule
from rmtbn.measure.tangents import acts_on_entries, has_rule, image, push_tangents, slope


def steps(layers: Sequence[nn.Module], budget: int) -> list[list[TangentMap]]:
    """Group the layers: one with a weight matrix, and what follows until the next; activations go with the one before.

    An activation scales rows, and the rounding that came with them alike: it is not worth a map of its own.
    """
    found: list[list[list[nn.Module]]] = []
    for layer in layers:
        if not found or any(parameter.ndim > 1 for parameter in layer.parameters()):
            found.append([])
        if found[-1] and acts_on_entries(layer):
            found[-1][-1].append(layer)
        else:
            found[-1].append([layer])
    before = [None, *(together[-1] for step in found for together in step)]
    behind = iter([isinstance(layer, nn.ReLU) and has_rule(layer) for layer in before])
    return [[_map(together, budget, behind_relu=next(behind)) for together in step] for step in found]


def _map(layers: Sequence[nn.Module], budget: int, *, behind_relu: bool) -> TangentMap:
    move = partial(_push_layers, layers, budget, behind_relu=behind_relu)
    cancels = norm_rule(layers[0]) is not None
    return Cancelling(move=move, inside=partial(_inside, layers)) if cancels else move


def _inside(layers: Sequence[nn.Module], point: Tensor, sizes: Float[Tensor, "groups m"]) -> Float[Tensor, "groups m"]:
    """Sizes of what cancels in a norm, behind the activations after it."""
    moved = cancelling_sizes(layers[0], point, sizes.reshape(point.shape))
    for before, activation in pairwise(layers):
        point = image(before, point)
        moved = (moved * slope(activation, point)).abs()
    return moved.reshape(sizes.shape)


def push_through_pair(
    pair: tuple[nn.Linear, nn.Module], point: Tensor, tangents: Tensor, *, behind_relu: bool = False
) -> tuple[Tensor, Tensor]:
    """Apply a linear layer, an activation and their differentials to one example, in the dtype of the point.

    The weights are brought to that dtype once, for the point, and then multiplied by the slopes in place; for a ReLU on
    the CPU, those of dead units are left out.

    Parameters
    ----------
    pair
        The linear layer and the activation, both of a known rule.
    point
        Input of the linear layer, shape (1, n).
    tangents
        Directions there, shape (r, 1, n), of the dtype of the point.
    behind_relu
        Whether tangents are 0 where the point is.

    Returns
    -------
    image, tangents
        Shapes (1, m) and (r, 1, m).
    """
    layer, activation = pair
    cuts = type(activation) is nn.ReLU
    met = live_units(point[0]) if behind_relu else None
    weight, columns, seen = (
        restricted(matrix, rows=None, columns=met) for matrix in (layer.weight, tangents[:, 0], point)
    )
    weight = weight.to(point.dtype, copy=not cuts)
    between = linear(seen, weight, None if layer.bias is None else layer.bias.to(point.dtype))
    diagonal = slope(activation, between)[0]
    live = live_units(diagonal) if cuts else None
    weight = torch.mul(weight, diagonal[:, None], out=None if cuts else weight) if live is None else weight[live]
    return cast(Tensor, activation(between)), filled(columns @ weight.mT, live, len(diagonal))[:, None]


def _push_layers(
    layers: Sequence[nn.Module],
    memory_budget: int,
    point: Tensor,
    u: Float[Tensor, "groups m r"],
    *,
    behind_relu: bool,
) -> tuple[Tensor, Float[Tensor, "groups k r"]]:
    """Apply layers to a point, and their differentials there to the columns of u."""
    tangents = u.movedim(-1, 0).reshape(-1, *point.shape)
    rest = list(layers)
    if _are_pair(layers, point, tangents):
        pair, rest = (cast(nn.Linear, layers[0]), layers[1]), list(layers[2:])
        point, tangents = push_through_pair(pair, point, tangents, behind_relu=behind_relu)
    own = False  # what comes out of a product of matrices nobody else holds
    for layer in rest:
        tangents = push_tangents(layer, point, tangents, memory_budget=memory_budget, overwrite=own)
        point, own = image(layer, point), type(layer) is nn.Linear and has_rule(layer)
    return point, tangents.reshape(len(tangents), u.shape[0], -1).movedim(0, -1)


def _are_pair(layers: Sequence[nn.Module], point: Tensor, tangents: Tensor) -> bool:
    """Tell whether weights may be brought to another dtype and multiplied by slopes in passing, or left out."""
    if len(layers) < 2 or point.ndim != 2 or len(point) > 1 or tangents.dtype != point.dtype:
        return False
    first, activation = layers[:2]
    known = type(first) is nn.Linear and has_rule(first) and has_rule(activation)
    if not known or type(activation) in (nn.Linear, nn.Identity):
        return False
    return type(activation) is nn.ReLU or cast(nn.Linear, first).weight.dtype != point.dtype
