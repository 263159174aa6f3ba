"""QR of a matrix with its rows and columns sorted first, its numerical rank, and how far rounding is amplified in it.

The statements behind the numbers are in docs/derivations/graded_products.md, sections 2 and 3.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rmtbn.linalg import gram_schmidt, pivots
from rmtbn.linalg.batched import norms, take
from rmtbn.linalg.probes import normals

# Rows that differ by less are as well factorised in any order, and so are columns out of order by less: it can cost as
# much in the condition of T, which multiplies a single rounding error.
_ALIKE = 32.0
# Q = Y R^-1 is orthonormal up to eps times the condition number of Y, for which the ratio of the pivots stands: at
# eps^(2/3) the columns are still as good as orthonormal, in float32 too (section 1).
_SOLVABLE = 2.0 / 3.0
# Pivots that stand for zeros come out below so many eps of the rows that are left (section 3).
_NOISE = 3000.0
_PROBES = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SortedQR:
    """Y[:, columns] = Q R for Y of shape (..., m, n), with k = min(m, n).

    Parameters
    ----------
    q
        Orthonormal columns, shape (..., m, k); zero where not `live`. To within eps times the condition number of Y
        only, if not `exact`; Q R is right to rounding all the same. None if it was not wanted, or is `beyond`.
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
    beyond
        Whether the log amplification is seen to be above the limit, or a pivot to be cut, in some batch entry.
    loss
        Rounding error of each column of Q in units of eps, shape (..., k), >= 1: that of its rows over its pivot.
    amplification
        Frobenius norm of (rounding error of Y, in units of eps) times the pseudo-inverse of Y, over the root of the
        rank, shape (...), >= 1. Where a small pivot may come from the errors its column had before, their ratio, if
        larger.
    """

    q: Float[Tensor, "*batch m k"] | None
    r: Float[Tensor, "*batch k n"]
    columns: Int[Tensor, "*batch n"]
    in_order: bool
    exact: bool
    live: Bool[Tensor, "*batch k"]
    unresolved: Bool[Tensor, "*batch"]
    cut: Bool[Tensor, "*batch"]
    beyond: bool
    loss: Float[Tensor, "*batch k"]
    amplification: Float[Tensor, "*batch"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Triangle:
    """What `SortedQR` says of R, the rounding error in each of its rows over eps, and how Q is formed."""

    r: Tensor
    rounding: Tensor
    columns: Tensor
    in_order: bool
    exact: bool
    live: Tensor
    unresolved: Tensor
    cut: Tensor
    form_q: Callable[[], Tensor]


def sorted_qr(
    y: Float[Tensor, "*batch m n"],
    log_scale: Float[Tensor, "*batch n"],
    *,
    row_scale: Float[Tensor, "*batch m"] | None = None,
    inherited: tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch m"]] | None = None,
    look: bool = True,
    exact: bool = True,
    wanted: bool = True,
    limit: float = math.inf,
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
        To which the rounding errors in the rows of Y are in proportion: their norms, which it is if None, or more.
    inherited
        Errors that the columns had before Y was formed, in units of eps, and how large such an error of size 1 comes
        out in each row of Y; none if None.
    look
        Whether to look at the numbers for what can be spared, and for columns to be put last. If not, the host never
        waits for the device, and `unresolved` tells what was missed.
    exact
        Whether Q must be orthonormal to rounding. If not, and the host looks, a regular Y is solved for it,
        Q = Y R^-1: in half the time, and its rows may lie in any order.
    wanted
        Whether Q is to be formed.
    limit
        Of the log amplification: above it, or where a pivot is cut, Q is not formed, if the host looks.

    Returns
    -------
    SortedQR

    References
    ----------
    Tomas, Chang, Scalettar, Bai, IPDPS 2012: columns sorted before the QR in place of pivoting within it.
    Cox, Higham, in Numerical Analysis 1997, Longman 1998: Householder QR is stable row by row.
    """
    sizes = norms(y, dim=-1, look=look) if row_scale is None else row_scale
    rows = _by_size(sizes, look=look)
    rest = _tail_norms(sizes if rows is None else sizes.gather(-1, rows))[..., : min(y.shape[-2:])]
    if inherited is not None:
        outside = inherited[1] if rows is None else inherited[1].gather(-1, rows)
        inherited = (inherited[0], _tail_norms(outside)[..., : rest.shape[-1]])
    solved = _solved(y, log_scale, rest, limit=limit) if look and not exact else None
    found = solved or _reflected(y, log_scale, rest, rows=rows, inherited=inherited, look=look)
    r, live = found.r, found.live
    rounding = found.rounding * live
    diagonal = torch.where(live, r.diagonal(dim1=-2, dim2=-1).abs(), 1.0)
    amplification = _amplification(r, rounding, live, look=look)
    if inherited is not None:
        brought = inherited[0].gather(-1, found.columns)[..., : rest.shape[-1]] * inherited[1] / diagonal
        doubtful = live & (diagonal <= torch.finfo(r.dtype).eps ** 0.5 * rest)
        amplification = torch.maximum(amplification, torch.where(doubtful, brought, 0.0).amax(dim=-1).double())
    beyond = look and math.isfinite(limit) and bool((found.cut | (amplification.log() > limit)).any())
    return SortedQR(
        q=found.form_q() if wanted and not beyond else None,
        r=r,
        columns=found.columns,
        in_order=found.in_order,
        exact=found.exact,
        live=live,
        unresolved=found.unresolved,
        cut=found.cut,
        beyond=beyond,
        loss=torch.where(live, rounding / diagonal, 1.0).clamp_min(1.0),
        amplification=amplification,
    )


def _solved(y: Tensor, log_scale: Tensor, rest: Tensor, *, limit: float) -> _Triangle | None:
    """Factorise a regular Y as its rows lie, with Q to be solved for; None if it is not, but may be below the limit.

    The rows of Q R are those of Y to rounding, each in proportion to its own size, whatever the rounding of R.
    """
    eps = torch.finfo(y.dtype).eps
    if y.shape[-2] < y.shape[-1] or not bool((rest[..., -1] > eps**_SOLVABLE * rest[..., 0]).all()):
        return None
    size = log_scale + norms(y, dim=-2).double().log()
    if not bool(size.isfinite().all()):
        return None
    in_order = _in_order(size)
    columns = _unsorted(size) if in_order else size.argsort(dim=-1, descending=True, stable=True)
    permuted = y if in_order else take(y, columns, dim=-1)
    if gram_schmidt.pays(y.shape[-1], y.dtype):
        q, r = gram_schmidt.factorised(permuted)
    else:
        q, r = None, torch.geqrf(permuted)[0][..., : y.shape[-1], :].mT.tril_().mT
    diagonal = r.diagonal(dim1=-2, dim2=-1).abs()
    regular = (diagonal > max(eps**_SOLVABLE, _NOISE * eps) * rest) & (
        diagonal > eps**_SOLVABLE * diagonal.amax(dim=-1, keepdim=True)
    )
    rounding = torch.maximum(rest, norms(r, dim=-1))
    if not bool(regular.all()) and not bool(_amplification(r, rounding, diagonal > 0, look=True).log().max() > limit):
        return None
    none = torch.zeros_like(rest[..., 0], dtype=torch.bool)
    return _Triangle(
        r=r,
        rounding=rounding,
        columns=columns,
        in_order=in_order,
        exact=False,
        live=diagonal > 0,
        unresolved=none,
        cut=none,
        form_q=lambda: torch.linalg.solve_triangular(r, permuted, upper=True, left=False) if q is None else q,
    )


def _reflected(
    y: Tensor,
    log_scale: Tensor,
    rest: Tensor,
    *,
    rows: Tensor | None,
    inherited: tuple[Tensor, Tensor] | None,
    look: bool,
) -> _Triangle:
    """Factorise with rows and columns sorted, columns that depend on others last; Q is to be formed of reflections."""
    sorted_y = y if rows is None else take(y, rows, dim=-2)
    size = log_scale + norms(y, dim=-2, look=look).double().log()
    in_order = look and _in_order(size)
    by_size = _unsorted(size) if in_order else size.argsort(dim=-1, descending=True, stable=True)
    dependent = torch.zeros_like(log_scale, dtype=torch.bool)
    columns, (error, outside) = by_size, inherited or (torch.zeros_like(y[..., 0, :]), torch.zeros_like(rest))
    while True:
        packed, tau = torch.geqrf(sorted_y if in_order else take(sorted_y, columns, dim=-1))
        r = _upper(packed, rest.shape[-1])
        structural = pivots.structural_zeros(rest, log_scale.gather(-1, columns))
        carried = (error.gather(-1, columns), outside)
        live, leftover = pivots.rank(r, rest, structural, inherited=carried, look=look)
        # a column that a zero pivot's noise stands for is not known to depend on anything
        zero = ~(live | structural | leftover[..., : live.shape[-1]])
        last = torch.zeros_like(dependent).scatter_(-1, columns[..., : live.shape[-1]], zero)
        unresolved = leftover.any(dim=-1) & (last & ~dependent).any(dim=-1)
        if not look or not bool(unresolved.any()):
            break
        dependent, in_order = dependent | torch.where(leftover.any(), last, False), False
        columns = by_size.gather(-1, dependent.gather(-1, by_size).to(torch.int8).argsort(dim=-1, stable=True))
    return _Triangle(
        r=r,
        rounding=torch.maximum(rest, norms(r, dim=-1, look=look)),
        columns=columns,
        in_order=in_order,
        exact=True,
        live=live,
        unresolved=unresolved,
        cut=~(live | structural).all(dim=-1),
        form_q=lambda: _orthonormal(packed, tau, live, rows=rows, look=look),
    )


def _orthonormal(packed: Tensor, tau: Tensor, live: Tensor, *, rows: Tensor | None, look: bool) -> Tensor:
    """Form Q from its reflections, its rows put back, columns that are not live zero."""
    q = torch.linalg.householder_product(packed[..., : live.shape[-1]], tau)
    if not look or not bool(live.all()):
        q = q * live[..., None, :]
    return q if rows is None else torch.empty_like(q).scatter_(-2, rows[..., None].expand_as(q), q)


def _upper(packed: Tensor, k: int) -> Tensor:
    """Take R from where geqrf put it; in the order it lies in, which is several times faster."""
    return packed[..., :k, :].mT.tril().mT


def _in_order(size: Float[Tensor, "*batch n"]) -> bool:
    """Tell whether the logs descend, or nearly so."""
    return bool((size - size.cummin(dim=-1).values <= math.log(_ALIKE)).all())


def _unsorted(size: Float[Tensor, "*batch n"]) -> Int[Tensor, "*batch n"]:
    return torch.arange(size.shape[-1], device=size.device).expand(size.shape)


def _by_size(sizes: Float[Tensor, "*batch m"], *, look: bool) -> Int[Tensor, "*batch m"] | None:
    """Order of the rows by size, descending; None where they are alike, and their order does not matter."""
    if look and bool((_ALIKE * sizes.amin(dim=-1) >= sizes.amax(dim=-1)).all()):
        return None
    return sizes.argsort(dim=-1, descending=True, stable=True)


def _tail_norms(sizes: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
    """Norm of the entries from each on: the size of the rows that are left when a pivot is taken."""
    tails = sizes.double().flip(-1).square().cumsum(-1).sqrt().flip(-1).to(sizes.dtype)
    return torch.maximum(tails, sizes)


def _amplification(
    r: Tensor, rounding: Tensor, live: Bool[Tensor, "*batch k"], *, look: bool
) -> Float[Tensor, "*batch"]:
    """Estimate ||R^-1 diag(rounding)||_F / √rank from random vectors."""
    regular = pivots.without(r, ~live, look=look)
    probes = normals(0, r.shape[-2], _PROBES, like=r)
    solved = torch.linalg.solve_triangular(regular, rounding[..., None] * probes, upper=True)
    square = solved.double().square().sum(dim=(-2, -1)) / (_PROBES * live.sum(dim=-1).clamp_min(1))
    return square.sqrt().clamp_min(1.0)
