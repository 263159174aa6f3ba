"""Rows of a matrix that are zero, left out of its factorisation: units that are dead leave many."""

from jaxtyping import Float, Int
from torch import Tensor

from rmtbn.linalg.batched import spread

# Where more than this share of the rows is left, the copy costs what the factorisation saves.
_SPARE = 0.9


def live_rows(sizes: Float[Tensor, "*batch m"]) -> Int[Tensor, " left"] | None:
    """Find the rows whose norm is not zero; None if that is most of them, or none, or for several matrices."""
    if sizes.numel() > sizes.shape[-1]:
        return None
    rows = sizes.flatten().nonzero()[:, 0]
    return rows if 0 < len(rows) <= _SPARE * sizes.shape[-1] else None


def put_back(q: Float[Tensor, "*batch left k"], rows: Int[Tensor, " left"] | None, m: int) -> Float[Tensor, "*b m k"]:
    """Return Q with the m rows that there were, each column in one piece of memory."""
    return q if rows is None else spread(q.mT, rows, m).mT
