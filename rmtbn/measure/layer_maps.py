"""A basis pushed through layers: which of them go together, and their differentials applied to its columns."""

from collections.abc import Sequence
from functools import partial
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from rmtbn.linalg.push_forward import TangentMap
from rmtbn.measure.tangents import acts_on_entries, has_rule, image, push_tangents, push_through_pair


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
    return [[partial(_push_layers, together, budget, behind_relu=next(behind)) for together in step] for step in found]


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
        linear, activation, *rest = layers
        point, tangents = push_through_pair(
            (cast(nn.Linear, linear), activation), point, tangents, behind_relu=behind_relu
        )
    own = False  # what comes out of a product of matrices nobody else holds
    for layer in rest:
        tangents = push_tangents(layer, point, tangents, memory_budget=memory_budget, overwrite=own)
        point, own = image(layer, point), type(layer) is nn.Linear and has_rule(layer)
    return point, tangents.reshape(len(tangents), u.shape[0], -1).movedim(0, -1)


def _are_pair(layers: Sequence[nn.Module], point: Tensor, tangents: Tensor) -> bool:
    """Tell whether weights may be brought to another dtype and multiplied by slopes in passing, or left out."""
    if len(layers) < 2 or point.ndim != 2 or len(point) > 1 or tangents.dtype != point.dtype:
        return False
    linear, activation = layers[:2]
    known = type(linear) is nn.Linear and has_rule(linear) and has_rule(activation)
    if not known or type(activation) in (nn.Linear, nn.Identity):
        return False
    return type(activation) is nn.ReLU or cast(nn.Linear, linear).weight.dtype != point.dtype
