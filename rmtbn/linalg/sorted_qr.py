"""QR of a matrix with its rows and columns sorted first, its numerical rank, and how far rounding is amplified in it.

The statements behind the numbers are in docs/derivations/graded_products.md, sections 2 and 3.
"""

import math
from dataclasses import dataclass, replace

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
# Rows that differ by less are as well factorised in any order, and so are columns out of order by less: it can cost as
# much in the condition of T, which multiplies a single rounding error.
_ALIKE = 32.0
_PROBES = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SortedQR:
    """Y[:, columns] = Q R for Y of shape (..., m, n), with k = min(m, n).

    Parameters
    ----------
    q
        Orthonormal columns, shape (..., m, k); zero where not `live`. To within eps times the condition number of Y
        only, if not `exact`; Q R is right to rounding all the same.
    r
        Upper triangular, shape (..., k, n); rows that are not `live` are rounding noise.
    columns
        Order of the columns of Y, shape (..., n).
    in_order
        Whether the columns are known to have kept their order.
    exact
        Whether Q is orthonormal to rounding.
    live
        Which pivots of R are not zero up to rounding, shape (..., k); their number is the rank.
    unresolved
        Whether columns that depend on others were not put last though they should be, shape (...): only if not looked.
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
    in_order: bool
    exact: bool
    live: Bool[Tensor, "*batch k"]
    unresolved: Bool[Tensor, "*batch"]
    cut: Bool[Tensor, "*batch"]
    loss: Float[Tensor, "*batch k"]
    amplification: Float[Tensor, "*batch"]


def sorted_qr(
    y: Float[Tensor, "*batch m n"],
    log_scale: Float[Tensor, "*batch n"],
    *,
    row_scale: Float[Tensor, "*batch m"] | None = None,
    inherited: tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch m"]] | None = None,
    look: bool = True,
    exact: bool = True,
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
    look
        Whether to look at the numbers for what can be spared, and for columns to be put last. If not, the host never
        waits for the device, and `unresolved` tells what was missed.
    exact
        Whether Q must be orthonormal to rounding. If not, a regular Y is solved for it, Q = Y R^-1, in half the time.

    Returns
    -------
    SortedQR

    References
    ----------
    Tomas, Chang, Scalettar, Bai, IPDPS 2012: columns sorted before the QR in place of pivoting within it.
    Cox, Higham, in Numerical Analysis 1997, Longman 1998: Householder QR is stable row by row.
    """
    sizes = norms(y, dim=-1, look=look)
    sizes = sizes if row_scale is None else torch.maximum(sizes, row_scale)
    rows = _by_size(sizes, look=look)
    rest = _tail_norms(sizes if rows is None else sizes.gather(-1, rows))[..., : min(y.shape[-2:])]
    error, outside = inherited or (torch.zeros_like(y[..., 0, :]), torch.zeros_like(sizes))
    outside = _tail_norms(outside if rows is None else outside.gather(-1, rows))[..., : rest.shape[-1]]
    found = _factorise(y, log_scale, rest, rows=rows, inherited=(error, outside), look=look, exact=exact)
    r, live = found.r, found.live
    rounding = torch.maximum(rest, norms(r, dim=-1, look=look)) * live
    pivots = torch.where(live, r.diagonal(dim1=-2, dim2=-1).abs(), 1.0)
    brought = error.gather(-1, found.columns)[..., : rest.shape[-1]] * outside / pivots
    doubtful = live & (pivots <= torch.finfo(r.dtype).eps ** 0.5 * rest)
    doubt = torch.where(doubtful, brought, 0.0).amax(dim=-1).double()
    return replace(
        found,
        loss=torch.where(live, rounding / pivots, 1.0).clamp_min(1.0),
        amplification=torch.maximum(_amplification(r, rounding, live, look=look), doubt),
    )


def _factorise(
    y: Tensor,
    log_scale: Tensor,
    rest: Tensor,
    *,
    rows: Tensor | None,
    inherited: tuple[Tensor, Tensor],
    look: bool,
    exact: bool,
) -> SortedQR:
    """Factorise with rows and columns sorted, columns that depend on others last; what is said of rounding is left."""
    sorted_y = y if rows is None else take(y, rows, dim=-2)
    size = log_scale + norms(y, dim=-2, look=look).double().log()
    in_order = look and rows is None and _in_order(size)
    by_size = _unsorted(size) if in_order else size.argsort(dim=-1, descending=True, stable=True)
    dependent = torch.zeros_like(log_scale, dtype=torch.bool)
    columns = by_size
    while True:
        permuted = sorted_y if in_order else take(sorted_y, columns, dim=-1)
        packed, tau = torch.geqrf(permuted)
        r = packed[..., : rest.shape[-1], :].mT.tril().mT  # in the order it lies in, several times faster
        structural = _structural(rest, log_scale.gather(-1, columns))
        live, leftover = _rank(r, rest, structural, (inherited[0].gather(-1, columns), inherited[1]), look=look)
        # a column that a zero pivot's noise stands for is not known to depend on anything
        zero = ~(live | structural | leftover[..., : live.shape[-1]])
        last = torch.zeros_like(dependent).scatter_(-1, columns[..., : live.shape[-1]], zero)
        unresolved = leftover.any(dim=-1) & (last & ~dependent).any(dim=-1)
        if not look or not bool(unresolved.any()):
            break
        dependent, in_order = dependent | torch.where(leftover.any(), last, False), False
        columns = by_size.gather(-1, dependent.gather(-1, by_size).to(torch.int8).argsort(dim=-1, stable=True))
    solved = look and not exact and rows is None and _regular(r, rest, live)
    return SortedQR(
        q=torch.linalg.solve_triangular(r, permuted, upper=True, left=False)
        if solved
        else _orthonormal(packed, tau, live, rows=rows, look=look),
        r=r,
        columns=columns,
        in_order=in_order,
        exact=not solved,
        live=live,
        unresolved=unresolved,
        cut=~(live | structural).all(dim=-1),
        loss=rest,
        amplification=rest[..., 0].double(),
    )


def _orthonormal(packed: Tensor, tau: Tensor, live: Tensor, *, rows: Tensor | None, look: bool) -> Tensor:
    """Form Q from its reflections, its rows put back, columns that are not live zero."""
    q = torch.linalg.householder_product(packed[..., : live.shape[-1]], tau)
    if not look or not bool(live.all()):
        q = q * live[..., None, :]
    return q if rows is None else torch.empty_like(q).scatter_(-2, rows[..., None].expand_as(q), q)


def _regular(r: Tensor, rest: Tensor, live: Tensor) -> bool:
    """Tell whether R can be solved with: square, every pivot well above the square root of rounding."""
    pivots = r.diagonal(dim1=-2, dim2=-1).abs()
    return r.shape[-1] == r.shape[-2] and bool((live & (pivots > torch.finfo(r.dtype).eps ** 0.5 * rest)).all())


def _in_order(size: Float[Tensor, "*batch n"]) -> bool:
    """Tell whether the logs descend, or nearly so."""
    return bool((size - size.cummin(dim=-1).values <= math.log(_ALIKE)).all())


def _unsorted(size: Float[Tensor, "*batch n"]) -> Int[Tensor, "*batch n"]:
    return torch.arange(size.shape[-1], device=size.device).expand(size.shape)


def take(x: Float[Tensor, "*batch m n"], index: Int[Tensor, "*batch k"], *, dim: int) -> Float[Tensor, "*batch p q"]:
    """Select rows (dim -2) or columns (dim -1) of each matrix by its own index."""
    if index.numel() == index.shape[-1]:  # a single matrix: several times faster
        flat = index.flatten()
        return x.index_select(-2, flat) if dim == -2 else x.mT.index_select(-2, flat).mT
    return x.take_along_dim(index[..., None] if dim == -2 else index[..., None, :], dim=dim)


def norms(x: Tensor, *, dim: int, look: bool = True) -> Tensor:
    """2-norms along a dimension; a tiny vector whose squares underflow gets its largest entry, not zero."""
    found = torch.linalg.vecdot(x, x, dim=dim).sqrt()  # several times faster than vector_norm on the CPU
    small = torch.finfo(x.dtype).tiny ** 0.5 / torch.finfo(x.dtype).eps
    return found if look and bool((found > small).all()) else torch.maximum(found, x.abs().amax(dim=dim))


def _by_size(sizes: Float[Tensor, "*batch m"], *, look: bool) -> Int[Tensor, "*batch m"] | None:
    """Order of the rows by size, descending; None where they are alike, and their order does not matter."""
    if look and bool((_ALIKE * sizes.amin(dim=-1) >= sizes.amax(dim=-1)).all()):
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
    *,
    look: bool,
) -> tuple[Bool[Tensor, "*batch k"], Bool[Tensor, "*batch n"]]:
    """Tell which pivots are not zero, and which columns hold more than rounding in the rows of those that are."""
    pivots = r.diagonal(dim1=-2, dim2=-1).abs()
    eps = torch.finfo(r.dtype).eps
    suspect = structural | (pivots <= eps**0.5 * rest)
    if look and not bool((suspect & ~structural).any()):
        return ~structural, torch.zeros_like(r[..., 0, :], dtype=torch.bool)
    regular = _without(r, suspect, look=look)
    weights = torch.linalg.solve_triangular(regular, r[..., : r.shape[-2]] * ~suspect[..., None], upper=True)
    own = _NULL * eps * (1.0 + weights.square().sum(dim=-2)).sqrt()
    error, outside = inherited[0][..., : pivots.shape[-1]], inherited[1]
    combined = (error.square() + (weights * error[..., None]).square().sum(dim=-2)).sqrt()
    carried = (_NULL * eps * combined * outside).minimum(eps**_RESOLVED * rest)
    live = ~suspect | (~structural & (pivots > own * torch.maximum(rest, norms(r, dim=-1, look=look)) + carried))
    leftover = r.abs() > (own * rest + carried)[..., None]
    return live, (leftover & ~(live | structural)[..., None]).any(dim=-2)


def _without(
    r: Float[Tensor, "*batch k n"], dropped: Bool[Tensor, "*batch k"], *, look: bool
) -> Float[Tensor, "*batch k k"]:
    """Square part of R with the rows and columns dropped replaced by those of the identity."""
    if look and not bool(dropped.any()):
        return r[..., : r.shape[-2]]
    kept = ~dropped
    square = r[..., : r.shape[-2]] * kept[..., None] * kept[..., None, :]
    return square + torch.diag_embed(dropped.to(r.dtype))


def _amplification(
    r: Tensor, rounding: Tensor, live: Bool[Tensor, "*batch k"], *, look: bool
) -> Float[Tensor, "*batch"]:
    """Estimate ||R^-1 diag(rounding)||_F / rank from random vectors."""
    generator = torch.Generator(r.device).manual_seed(0)
    probes = torch.randn(r.shape[-2], _PROBES, dtype=r.dtype, device=r.device, generator=generator)
    solved = torch.linalg.solve_triangular(_without(r, ~live, look=look), rounding[..., None] * probes, upper=True)
    square = solved.double().square().sum(dim=(-2, -1)) / _PROBES
    return (square.sqrt() / live.sum(dim=-1).clamp_min(1)).clamp_min(1.0)
