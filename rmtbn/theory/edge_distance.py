"""Functions of the distance to the upper edge, for laws whose bulk reaches from λ = 0 to an edge."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtbn import _checks

Array = NDArray[np.float64]

FARTHEST = 1e280  # farther than this below ln(edge), λ counts as 0


def by_edge_distance(
    log_lam: ArrayLike, edge: tuple[float, float], function: Callable[[Array], Array], *, below: float, above: float
) -> Array:
    """Evaluate a function of ln(edge/λ) inside the bulk, and the given constants outside it.

    Parameters
    ----------
    log_lam
        ln λ, any shape.
    edge
        ln(edge) as the unevaluated sum of two floats: next to it a distance keeps its digits.
    function
        ln(edge/λ) > 0 ↦ the value, elementwise.
    below, above
        Values at λ = 0 and from the edge on.
    """
    x = _checks.array("log_lam", log_lam)
    fall = (edge[0] - x) + edge[1]
    inside = (fall > 0) & (fall < FARTHEST)
    values = np.where(fall > 0, below, above)
    values[inside] = function(fall[inside])
    return values
