"""Units whose slope is not 0, and weight matrices without the rows and columns of the others.

Behind a ReLU half of the rows of a weight matrix and half of the columns of the next one do nothing: a quarter is left.
"""

from collections.abc import Iterator, Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn

from rmtbn.linalg import batched
from rmtbn.measure.tangents import acts_on_entries, has_rule


def together(layers: Sequence[nn.Module]) -> Iterator[Sequence[nn.Module]]:
    """Group a linear layer with the activation behind it, if there is one."""
    at = 0
    while at < len(layers):
        pair = type(layers[at]) is nn.Linear and at + 1 < len(layers) and acts_on_entries(layers[at + 1])
        yield layers[at : at + 1 + pair]
        at += 1 + pair


def is_matrix(layer: nn.Module, point: Tensor) -> bool:
    """Tell whether the differential at a point is the weight matrix: a plain linear layer at one example (1, n)."""
    return type(layer) is nn.Linear and has_rule(layer) and point.ndim == 2 and len(point) == 1


def live_units(diagonal: Tensor | None) -> Int[Tensor, " live"] | None:
    """Find which slopes are not 0; None if that is all or none of them, or if the host would wait for a device."""
    if diagonal is None or diagonal.device.type != "cpu":
        return None
    live = diagonal.nonzero()[:, 0]
    return live if 0 < len(live) < len(diagonal) else None


def restricted(
    weight: Float[Tensor, "m n"], *, rows: Int[Tensor, " k"] | None, columns: Int[Tensor, " l"] | None
) -> Float[Tensor, "p q"]:
    """Return some rows and columns of a matrix, all where None; itself if all."""
    weight = weight if rows is None else weight[rows]
    return weight if columns is None else batched.columns(weight, columns)


def filled(
    block: Float[Tensor, "*batch live"], live: Int[Tensor, " live"] | None, size: int
) -> Float[Tensor, "*batch all"]:
    """Return the entries of all units, 0 for those that are not live."""
    return block if live is None else batched.spread(block, live, size)
