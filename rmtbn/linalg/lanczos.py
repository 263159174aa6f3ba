"""Block Golub–Kahan–Lanczos bidiagonalisation with full re-orthogonalisation, and the largest singular values.

`scipy.sparse.linalg.svds` (ARPACK, PROPACK) does as much for one vector at a time on the CPU, and is the oracle of the
tests; here the work is products of matrices on the device of the operator, and the error bounds are part of the result.
Definitions and bounds are in docs/derivations/block_lanczos.md.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rmtbn import _checks
from rmtbn.linalg import dense
from rmtbn.linalg.operator import Operator

# Columns for each value that is asked for, beyond the first block: with two blocks of this many, the largest values of
# a spectrum without gaps converge in a handful of steps.
_OVERSAMPLING = 8
# Rounding leaves directions of up to 3 ε √n times the largest image in a block of matrices with few distinct values.
_NOISE = 8.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bidiagonal:
    """J seen from two Krylov spaces: Uᵀ J = B Vᵀ exactly, B = Uᵀ J V.

    Parameters
    ----------
    left
        Orthonormal rows uᵀ, shape (p, outputs): the span of J V₁, J JᵀJ V₁, ...
    right
        Orthonormal rows vᵀ, shape (q, inputs), q >= p: the span of V₁, JᵀJ V₁, ...; the start V₁ comes first.
    matrix
        B, shape (p, q), block bidiagonal up to rounding.
    start, last
        Number of rows of the first and of the newest block of `right`; `last` is 0 when the spaces are invariant.
    """

    left: Float[Tensor, "p outputs"]
    right: Float[Tensor, "q inputs"]
    matrix: Float[Tensor, "p q"]
    start: int
    last: int


def bidiagonalisations(operator: Operator, start: Float[Tensor, "k inputs"]) -> Iterator[Bidiagonal]:
    """Yield the bidiagonalisation after each step, until the Krylov spaces are invariant.

    One step applies J and Jᵀ to one block each, and orthogonalises against all blocks before, twice, and once more
    after normalisation. Directions that are lost in rounding are dropped: blocks may shrink.

    Parameters
    ----------
    operator
        J.
    start
        Orthonormal rows.
    """
    left = start.new_empty((0, operator.outputs))
    right, fresh, first = start, start, len(start)
    matrix = start.new_zeros((0, first))
    scale = start.new_zeros(())
    while len(fresh):
        image = operator.apply(fresh)
        scale = torch.maximum(scale, torch.linalg.vector_norm(image, dim=1).amax())
        inside, factor, block = _orthogonalised(image, left, scale)
        matrix = _bordered(matrix, inside.mT, factor.mT, columns=len(fresh))
        left = torch.cat([left, block])
        if not len(block):
            yield Bidiagonal(left=left, right=right, matrix=matrix, start=first, last=0)
            return
        _, factor, fresh = _orthogonalised(operator.apply_transpose(block), right, scale)
        right = torch.cat([right, fresh])
        matrix = torch.cat([matrix, _below(factor, rows=len(matrix))], dim=1)
        yield Bidiagonal(left=left, right=right, matrix=matrix, start=first, last=len(fresh))


def orthonormal_rows(count: int, dimension: int, *, like: Operator, generator: torch.Generator) -> Tensor:
    """Draw a block of orthonormal rows, uniformly (Haar).

    Parameters
    ----------
    count, dimension
        Shape of the block.
    like
        Says dtype and device.
    generator
        On the CPU, so that no draw depends on the device.
    """
    draws = torch.randn(dimension, count, dtype=like.dtype, generator=generator).to(like.device)
    q, r = torch.linalg.qr(draws)
    return (q * r.diagonal().sign()).mT.contiguous()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Extremes:
    """The largest singular values.

    Parameters
    ----------
    values
        Descending, shape (count,).
    bounds
        A singular value lies within this of each, shape (count,): the norm of the residual over √2, and rounding.
    products
        Number of vectors that J and Jᵀ were applied to, both counted.
    """

    values: Float[Tensor, " count"]
    bounds: Float[Tensor, " count"]
    products: int


def largest(
    operator: Operator,
    count: int,
    *,
    tolerance: float = 1e-10,
    block: int | None = None,
    limit: int | None = None,
    generator: torch.Generator,
) -> Extremes:
    """Compute the largest singular values with error bounds.

    Parameters
    ----------
    operator
        J.
    count
        How many, >= 1, at most min(inputs, outputs).
    tolerance
        Bounds asked for, relative to the largest value; rounding limits them to a few eps.
    block
        Vectors per step; None: count + 8, or less where J is small.
    limit
        Dimension of the Krylov space at which to stop, >= count, whatever the bounds; None: that of J.
    generator
        For the start (on the CPU).

    Returns
    -------
    Extremes

    Raises
    ------
    InvalidArgumentError
        If `count` or `block` is not between 1 and min(inputs, outputs), `limit` is less than `count`, or `tolerance`
        is not positive.
    """
    smaller = min(operator.inputs, operator.outputs)
    count = _checks.integer("count", count, at_least=1, at_most=smaller)
    tolerance = _checks.real("tolerance", tolerance, above=0.0)
    width = min(count + _OVERSAMPLING, smaller) if block is None else block
    width = _checks.integer("block", width, at_least=1, at_most=smaller)
    limit = smaller if limit is None else _checks.integer("limit", limit, at_least=count)
    found = None
    for found in bidiagonalisations(
        operator, orthonormal_rows(width, operator.inputs, like=operator, generator=generator)
    ):
        enough = len(found.left) >= count and _estimated_residual(found, count) <= tolerance
        if enough or len(found.left) >= limit:
            break
    assert found is not None
    return _extremes(operator, found, count)


def above(
    operator: Operator,
    share: float,
    *,
    tolerance: float = 1e-6,
    block: int | None = None,
    generator: torch.Generator,
) -> Extremes:
    """Compute all singular values above a share of the largest, with error bounds.

    The Krylov space grows until its values reach below that share and those above it have converged. A block of width k
    finds k copies of a value at most: where as many are equal it starts again with twice the width.

    Parameters
    ----------
    operator
        J.
    share
        σ over the largest down to which to go, 0 < share < 1; rounding sets a limit at ε √n.
    tolerance
        Bounds asked for, relative to each value; rounding limits them to a few ε of the largest.
    block
        Vectors per step; None: a 48th of the smaller dimension, at least 16.
    generator
        For the start (on the CPU).

    Returns
    -------
    Extremes

    Raises
    ------
    InvalidArgumentError
        If a number is out of its range.
    """
    smaller = min(operator.inputs, operator.outputs)
    share = _checks.real("share", share, above=0.0, below=1.0)
    tolerance = _checks.real("tolerance", tolerance, above=0.0)
    width = min(smaller, max(16, smaller // 48)) if block is None else block
    width = _checks.integer("block", width, at_least=1, at_most=smaller)
    least = math.sqrt(max(operator.inputs, operator.outputs)) * torch.finfo(operator.dtype).eps
    while True:
        start = orthonormal_rows(width, operator.inputs, like=operator, generator=generator)
        for found in bidiagonalisations(operator, start):
            values = dense.singular_values(found.matrix)[0]
            count = int((values > share * values[:1]).sum())
            if found.last and count == len(values):
                continue
            if _estimated_residual(found, count) <= max(tolerance * share, least):
                break
        if width == smaller or not bool(copied(values[:count].to(operator.dtype), width).any()):
            return _extremes(operator, found, count)
        width = min(2 * width, smaller)


def copied(values: Float[Tensor, " k"], width: int) -> Bool[Tensor, " k"]:
    """Say which are among `width` or more equal ones (to half the digits of the dtype): a block sees no more copies."""
    gaps = (values[:, None] - values[None, :]).abs() <= torch.finfo(values.dtype).eps ** 0.5 * values[:, None]
    return gaps.sum(dim=1) >= width


def _extremes(operator: Operator, found: Bidiagonal, count: int) -> Extremes:
    """Ritz values and the norms of the residuals J v - σ u, which need J once more; Jᵀ u - σ v is 0."""
    p, values, qh = dense.decomposition(found.matrix)
    values, p, qh = values[:count], p[:, :count], qh[:count]
    if not len(values):  # J = 0
        zeros = values.new_zeros(count)
        return Extremes(values=zeros, bounds=zeros, products=len(found.right))
    residual = operator.apply(qh @ found.right) - values[:, None] * (p.mT @ found.left)
    norms = torch.linalg.vector_norm(residual, dim=1) / math.sqrt(2.0)
    rounding = torch.finfo(values.dtype).eps * float(values[0]) * math.sqrt(max(operator.inputs, operator.outputs))
    products = len(found.left) + len(found.right) - found.last + count
    padded = [torch.nn.functional.pad(part, (0, count - len(part))) for part in (values, norms)]  # the rest is 0
    return Extremes(values=padded[0], bounds=padded[1] + rounding, products=products)


def _estimated_residual(found: Bidiagonal, count: int) -> float:
    """Return the largest residual of the first values of B less its newest columns, over the largest value."""
    square = found.matrix[:, : found.matrix.shape[1] - found.last]
    p, values, _ = dense.decomposition(square)
    coupling = found.matrix[:, found.matrix.shape[1] - found.last :]
    return float((torch.linalg.vector_norm(p[:, :count].mT @ coupling, dim=1) / values[0]).max()) if found.last else 0.0


def _orthogonalised(
    block: Float[Tensor, "k n"], basis: Float[Tensor, "r n"], scale: Tensor
) -> tuple[Float[Tensor, "k r"], Float[Tensor, "k j"], Float[Tensor, "j n"]]:
    """Write block = inside @ basis + factor @ fresh with fresh rows orthonormal and orthogonal to the basis.

    Rows of `fresh` whose share in the block is rounding noise of matrices of norm `scale` are left out.
    """
    inside = block @ basis.mT
    rest = block - inside @ basis
    again = rest @ basis.mT
    q, r = torch.linalg.qr((rest - again @ basis).mT)
    u, s, vh = dense.decomposition(r)
    noise = _NOISE * torch.finfo(block.dtype).eps * math.sqrt(block.shape[1]) * scale
    rank = min(int((s > noise).sum()), block.shape[1] - len(basis))
    fresh = (q @ u[:, :rank]).mT
    fresh = torch.linalg.qr((fresh - (fresh @ basis.mT) @ basis).mT)
    signs = fresh.R.diagonal().sign()
    return inside + again, vh[:rank].mT * (s[:rank] * signs), fresh.Q.mT.contiguous()


def _bordered(matrix: Tensor, above: Tensor, corner: Tensor, *, columns: int) -> Tensor:
    """Replace the newest columns of B by the coefficients of their images, and add the rows of the new block."""
    old = matrix[:, : matrix.shape[1] - columns]
    left = torch.cat([old, corner.new_zeros(len(corner), old.shape[1])])
    return torch.cat([left, torch.cat([above, corner])], dim=1)


def _below(factor: Tensor, *, rows: int) -> Tensor:
    """Place the coefficients of the newest rows of B under zeros."""
    return torch.cat([factor.new_zeros(rows - len(factor), factor.shape[1]), factor])
