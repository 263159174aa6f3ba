"""QR of a matrix with its rows and columns sorted first, its numerical rank, and how far rounding is amplified in it.

The statements behind the numbers are in docs/derivations/graded_products.md, sections 2 and 3.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# A pivot below this many of its own rounding errors is zero. Over low-rank products, projections, batch normalisation
# and row-graded matrices of dimension 8 ... 1024, zero pivots came out below 10, others above 100 in float32 and
# 1e11 in float64.
_NULL = 16.0
# Columns that are themselves known to few digits raise that to eps^0.6 of the rows at most (4e-10 in float64): a pivot
# above is a value, however uncertain, and not a zero.
_RESOLVED = 0.6
# Rows that differ by less are as well factorised in any order: an eighth of the budget of `push_forward` in float64.
_ALIKE = 32.0
_PROBES = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SortedQR:
    """Y[:, columns] = Q R for Y of shape (..., m, n), with k = min(m, n).

    Parameters
    ----------
    q
        Orthonormal columns, shape (..., m, k); zero where not `live`.
    r
        Upper triangular, shape (..., k, n); rows that are not `live` are rounding noise.
    columns
        Order of the columns of Y, shape (..., n).
    live
        Which pivots of R are not zero up to rounding, shape (..., k); their number is the rank.
    cut
        Whether rounding alone says that some pivot is zero, shape (...): no zero row or zero scale explains it.
    loss
        Rounding error of each column of Q in units of eps, shape (..., k), >= 1: that of its rows over its pivot.
    amplification
        Frobenius norm of (rounding error of Y, in units of eps) times the pseudo-inverse of Y, over the rank, shape
        (...), >= 1: relative errors of singular values are eps times a moderate multiple of it. Where a small pivot may
        come from the errors its column had before, their ratio, if larger.
    """

    q: Float[Tensor, "*batch m k"]
    r: Float[Tensor, "*batch k n"]
    columns: Int[Tensor, "*batch n"]
    live: Bool[Tensor, "*batch k"]
    cut: Bool[Tensor, "*batch"]
    loss: Float[Tensor, "*batch k"]
    amplification: Float[Tensor, "*batch"]


def sorted_qr(
    y: Float[Tensor, "*batch m n"],
    log_scale: Float[Tensor, "*batch n"],
    *,
    row_scale: Float[Tensor, "*batch m"] | None = None,
    inherited: tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch m"]] | None = None,
) -> SortedQR:
    """Factorise Y with its columns sorted by scale and its rows by size.

    Columns are sorted by `log_scale` plus their log norm, in place of pivoting within the factorisation; rows by size,
    which makes Householder QR accurate row by row. If columns turn out to depend on those before them while later ones
    may not, they are put last and the factorisation is done again.

    Parameters
    ----------
    y
        Finite entries, of absolute value near 1 at most.
    log_scale
        Logs of the scales that multiply the columns; -inf allowed.
    row_scale
        To which the rounding errors in the rows of Y are in proportion; the norms of the rows if None or smaller.
    inherited
        Errors that the columns had before Y was formed, in units of eps, and how large such an error of size 1 comes
        out in each row of Y; none if None.

    Returns
    -------
    SortedQR

    References
    ----------
    Tomas, Chang, Scalettar, Bai, IPDPS 2012: columns sorted before the QR in place of pivoting within it.
    Cox, Higham, in Numerical Analysis 1997, Longman 1998: Householder QR is stable row by row.
    """
    sizes = norms(y, dim=-1) if row_scale is None else torch.maximum(norms(y, dim=-1), row_scale)
    rows = _by_size(sizes)
    sorted_y = y if rows is None else take(y, rows, dim=-2)
    rest = _tail_norms(sizes if rows is None else sizes.gather(-1, rows))[..., : min(y.shape[-2:])]
    error, outside = inherited or (torch.zeros_like(y[..., 0, :]), torch.zeros_like(sizes))
    outside = _tail_norms(outside if rows is None else outside.gather(-1, rows))[..., : rest.shape[-1]]
    columns, q, r, live, structural = _factorise(sorted_y, log_scale, rest, (error, outside))
    if not bool(live.all()):
        q = q * live[..., None, :]
    if rows is not None:
        q = torch.empty_like(q).scatter_(-2, rows[..., None].expand_as(q), q)
    rounding = torch.maximum(rest, norms(r, dim=-1)) * live
    pivots = torch.where(live, r.diagonal(dim1=-2, dim2=-1).abs(), 1.0)
    brought = error.gather(-1, columns)[..., : rest.shape[-1]] * outside / pivots
    doubtful = live & (pivots <= torch.finfo(r.dtype).eps ** 0.5 * rest)
    doubt = torch.where(doubtful, brought, 0.0).amax(dim=-1).double()
    return SortedQR(
        q=q,
        r=r,
        columns=columns,
        live=live,
        cut=~(live | structural).all(dim=-1),
        loss=torch.where(live, rounding / pivots, 1.0).clamp_min(1.0),
        amplification=torch.maximum(_amplification(r, rounding, live), doubt),
    )


def _factorise(
    y: Tensor, log_scale: Tensor, rest: Tensor, inherited: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Factorise with columns sorted, those that depend on others last: columns, q, r, live and structural pivots."""
    by_size = (log_scale + norms(y, dim=-2).double().log()).argsort(dim=-1, descending=True, stable=True)
    dependent = torch.zeros_like(log_scale, dtype=torch.bool)
    while True:
        columns = by_size.gather(-1, dependent.gather(-1, by_size).to(torch.int8).argsort(dim=-1, stable=True))
        q, r = torch.linalg.qr(take(y, columns, dim=-1))
        structural = _structural(rest, log_scale.gather(-1, columns))
        live, leftover = _rank(r, rest, structural, (inherited[0].gather(-1, columns), inherited[1]))
        if not bool(leftover.any()):
            return columns, q, r, live, structural
        # a column that a zero pivot's noise stands for is not known to depend on anything
        zero = ~(live | structural | leftover[..., : live.shape[-1]])
        found = torch.zeros_like(dependent).scatter_(-1, columns[..., : live.shape[-1]], zero)
        if not bool((found & ~dependent).any()):
            return columns, q, r, live, structural
        dependent = dependent | found


def take(x: Float[Tensor, "*batch m n"], index: Int[Tensor, "*batch k"], *, dim: int) -> Float[Tensor, "*batch p q"]:
    """Select rows (dim -2) or columns (dim -1) of each matrix by its own index."""
    if index.numel() == index.shape[-1]:  # a single matrix: several times faster
        flat = index.flatten()
        return x.index_select(-2, flat) if dim == -2 else x.mT.index_select(-2, flat).mT
    return x.take_along_dim(index[..., None] if dim == -2 else index[..., None, :], dim=dim)


def norms(x: Tensor, *, dim: int) -> Tensor:
    """2-norms along a dimension; a tiny vector whose squares underflow gets its largest entry, not zero."""
    found = x.double().square().sum(dim=dim).sqrt().to(x.dtype)  # several times faster than vector_norm on the CPU
    return torch.maximum(found, x.abs().amax(dim=dim)) if bool((found == 0).any()) else found


def _by_size(sizes: Float[Tensor, "*batch m"]) -> Int[Tensor, "*batch m"] | None:
    """Order of the rows by size, descending; None where they are alike, and their order does not matter."""
    if bool((_ALIKE * sizes.amin(dim=-1) >= sizes.amax(dim=-1)).all()):
        return None
    return sizes.argsort(dim=-1, descending=True, stable=True)


def _tail_norms(sizes: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
    """Norm of the entries from each on: the size of the rows that are left when a pivot is taken."""
    tails = sizes.double().flip(-1).square().cumsum(-1).sqrt().flip(-1).to(sizes.dtype)
    return torch.maximum(tails, sizes)


def _structural(rest: Float[Tensor, "*batch k"], log_scale: Float[Tensor, "*batch n"]) -> Bool[Tensor, "*batch k"]:
    """Tell which pivots are zero because only zero rows are left, or a column of scale zero is met."""
    return (rest == 0) | torch.isneginf(log_scale[..., : rest.shape[-1]])


def _rank(
    r: Float[Tensor, "*batch k n"],
    rest: Float[Tensor, "*batch k"],
    structural: Bool[Tensor, "*batch k"],
    inherited: tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch k"]],
) -> tuple[Bool[Tensor, "*batch k"], Bool[Tensor, "*batch n"]]:
    """Tell which pivots are not zero, and which columns hold more than rounding in the rows of those that are."""
    pivots = r.diagonal(dim1=-2, dim2=-1).abs()
    eps = torch.finfo(r.dtype).eps
    suspect = structural | (pivots <= eps**0.5 * rest)
    if not bool((suspect & ~structural).any()):
        return ~structural, torch.zeros_like(r[..., 0, :], dtype=torch.bool)
    regular = _without(r, suspect)
    weights = torch.linalg.solve_triangular(regular, r[..., : r.shape[-2]] * ~suspect[..., None], upper=True)
    own = _NULL * eps * (1.0 + weights.square().sum(dim=-2)).sqrt()
    error, outside = inherited[0][..., : pivots.shape[-1]], inherited[1]
    combined = (error.square() + (weights * error[..., None]).square().sum(dim=-2)).sqrt()
    carried = (_NULL * eps * combined * outside).minimum(eps**_RESOLVED * rest)
    live = ~suspect | (~structural & (pivots > own * torch.maximum(rest, norms(r, dim=-1)) + carried))
    leftover = r.abs() > (own * rest + carried)[..., None]
    return live, (leftover & ~(live | structural)[..., None]).any(dim=-2)


def _without(r: Float[Tensor, "*batch k n"], dropped: Bool[Tensor, "*batch k"]) -> Float[Tensor, "*batch k k"]:
    """Square part of R with the rows and columns dropped replaced by those of the identity."""
    if not bool(dropped.any()):
        return r[..., : r.shape[-2]]
    kept = ~dropped
    square = r[..., : r.shape[-2]] * kept[..., None] * kept[..., None, :]
    return square + torch.diag_embed(dropped.to(r.dtype))


def _amplification(r: Tensor, rounding: Tensor, live: Bool[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
    """Estimate ||R^-1 diag(rounding)||_F / rank from random vectors."""
    generator = torch.Generator().manual_seed(0)
    probes = torch.randn(r.shape[-2], _PROBES, dtype=r.dtype, generator=generator).to(r.device)
    solved = torch.linalg.solve_triangular(_without(r, ~live), rounding[..., None] * probes, upper=True)
    square = solved.double().square().sum(dim=(-2, -1)) / _PROBES
    return (square.sqrt() / live.sum(dim=-1).clamp_min(1)).clamp_min(1.0)
