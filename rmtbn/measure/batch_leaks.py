"""The leaks of a batch Jacobian apart from its other singular values, so that these ask for fewer re-factorisations.

ε > 0 lets the scale of a feature through a normalisation, by ε/(v + ε)^{3/2}: as many singular values of J as features
are many orders of magnitude below all others. They are the largest of J⁻¹, which is a product of inverses of layers,
and few: subspace iteration with J⁻¹ finds them, and the directions in which J has them. Orthogonal to these, J has the
other values, and no normalisation is nearly singular any more. Derivation: docs/derivations/batch_norm_jacobian.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from rmtbn.linalg import product as products
from rmtbn.linalg import product_values
from rmtbn.linalg.push_forward import TangentMap, push_forward
from rmtbn.measure.column_maps import Blocks, ColumnMap, Mixing
from rmtbn.measure.contrasts import Chain

# Least distance of leaks and other values, in nats: after three passes the directions are right to e^(-3·12) times what
# the random start brings in, some e^8; values feel that times e^-12.
GAP = 12.0
# From this distance on the directions are right to e^(-24 + 8) after the first pass, and values, which feel the square
# of that, to 1e-14 after the second.
_FAR = 24.0
_MORE = 8  # columns beside those of the leaks: they tell the gap, and make a bad random start improbable


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Leaks:
    """The smallest singular values of a chain, and the space orthogonal to their directions.

    Parameters
    ----------
    log_values
        Descending, shape (k,), float64.
    relative_error
        Of the values, estimated.
    others
        Orthonormal columns orthogonal to the right singular vectors of the leaks, shape (start, start - k).
    """

    log_values: Float[Tensor, " k"]
    relative_error: float
    others: Float[Tensor, "start others"]


def leaks(links: Chain, *, like: Tensor) -> Leaks | None:
    """Find the leaks of a chain of full rank, if they lie apart: k of them cost k/d of a product of d columns.

    Parameters
    ----------
    links
        The chain; k is its rank less that without ε.
    like
        Of its dtype and device.

    Returns
    -------
    Leaks or None
        None if some layer has no inverse, there are no leaks, or they do not lie e^-12 below the other values.
    """
    count, back = links.rank - links.rank_without_eps, inverses(links)
    if back is None or not 0 < count < links.start_rows:
        return None
    draws = torch.Generator().manual_seed(0)
    columns = min(count + _MORE, links.start_rows)
    start = torch.randn(links.start_rows, columns, generator=draws, dtype=like.dtype).to(like.device)
    first = _pushed(torch.linalg.qr(start).Q, back)
    scales, order = products.with_unit_rows(first).log_d[0].sort(descending=True)
    if len(scales) < columns or (gap := float(scales[count - 1] - scales[count])) < GAP:
        return None
    directions = first.u[0][:, order[:count]]
    last = _pushed(directions, [move.transposed() for move in reversed(back)], wanted=gap < _FAR)
    if gap < _FAR:
        last = _pushed(last.u[0], back)
        directions = last.u[0]
    if last.u.shape[-1] < count:
        return None
    found = product_values.log_singular_values(last)
    return Leaks(
        log_values=-found.values[0].flip(0),
        relative_error=float(found.relative_error[0]),
        others=_beyond(directions),
    )


def inverses(links: Chain) -> list[Mixing | Blocks] | None:
    """Return the inverses of the maps of a chain, the last map's first; None if one has none.

    Parameters
    ----------
    links
        The chain. Its last map may have more rows than columns: an isometry after it changes no singular value.

    Returns
    -------
    list or None
    """
    *before, last = links.maps
    moves = [*before, last.without_isometry() if isinstance(last, Blocks) else last]
    found = [move.inverse() if isinstance(move, Mixing | Blocks) else None for move in reversed(moves)]
    return None if any(move is None for move in found) else cast("list[Mixing | Blocks]", found)


def on(columns: Float[Tensor, "m r"]) -> products.Product:
    """Return the empty product on the span of orthonormal columns."""
    start = products.identity(columns.shape[1], batch=(1,), dtype=columns.dtype, device=columns.device)
    return replace(start, u=columns[None])


def _pushed(columns: Float[Tensor, "m r"], maps: Sequence[Mixing | Blocks], *, wanted: bool = True) -> products.Product:
    """Push the span of orthonormal columns through maps, to be re-factorised after weights at most."""
    steps: list[list[TangentMap]] = [[]]
    for move in maps:
        steps[-1].append(tangent_map(move))
        if isinstance(move, Mixing):
            steps.append([])
    return push_forward(on(columns), columns, [step for step in steps if step], wanted=wanted)[0]


def tangent_map(move: ColumnMap) -> TangentMap:
    """Return the map with a point beside its columns, which it does not look at, and a leading dimension of 1."""
    return lambda point, columns: (point, move(columns[0])[None])


def _beyond(columns: Float[Tensor, "m k"]) -> Float[Tensor, "m others"]:
    """Orthonormal columns that complete orthonormal columns to a basis."""
    m, k = columns.shape
    reflectors, factors = torch.geqrf(columns)
    rest = torch.eye(m, dtype=columns.dtype, device=columns.device)[:, k:]
    return torch.ormqr(reflectors, factors, rest)
