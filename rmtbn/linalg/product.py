"""Long products of matrices held as J = U diag(exp(log_d)) T, and all their log singular values.

U has orthonormal columns, T has unit rows and is well conditioned, and the scales d are logarithms, so that a product
of any depth neither overflows nor loses its small singular values: each comes out with high relative accuracy.
The statements and their proofs are in docs/derivations/graded_products.md.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rmtbn import _checks
from rmtbn.linalg import graded

# A pivot below this many rounding errors of its rows is zero. Pivots that are zero in exact arithmetic came out below
# 0.4 in float32 and float64 for ranks 8 ... 512 (docs/derivations/graded_products.md, section 3).
_NULL = 4.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """A product J = U diag(exp(log_d)) T of matrices, shape (..., m, n), of rank at most r.

    Parameters
    ----------
    u
        Orthonormal columns, shape (..., m, r); a column whose `log_d` is -inf is zero.
    log_d
        Natural logarithms of the scales, shape (..., r), float64; -inf where the rank of a batch entry is below r.
    t
        Unit rows, well conditioned, shape (..., r, n).
    error
        Relative error of the singular values that the factors pushed so far have caused, shape (...), estimated.
    log_condition
        Log condition number of the factor pushed last, on the space it met, shape (...).
    pushes
        Number of re-factorisations so far.
    """

    u: Float[Tensor, "*batch m r"]
    log_d: Float[Tensor, "*batch r"]
    t: Float[Tensor, "*batch r n"]
    error: Float[Tensor, "*batch"]
    log_condition: Float[Tensor, "*batch"]
    pushes: int = 0


def identity(
    n: int, *, batch: tuple[int, ...] = (), dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> Product:
    """Return the empty product, the n x n identity.

    Parameters
    ----------
    n
        Dimension, >= 1.
    batch
        Leading dimensions (networks, samples).
    dtype, device
        Of the factors to come; the scales are float64 always.

    Returns
    -------
    Product

    Raises
    ------
    InvalidArgumentError
        If `n` < 1 or `dtype` is not float32 or float64.
    """
    n = _checks.integer("n", n, at_least=1)
    if dtype not in (torch.float32, torch.float64):
        raise _checks.fail("dtype", "torch.float32 or torch.float64", dtype)
    eye = torch.eye(n, dtype=dtype, device=device).expand(*batch, n, n)
    zero = torch.zeros(batch, dtype=torch.float64, device=device)
    return Product(u=eye, log_d=zero[..., None].expand(*batch, n), t=eye, error=zero, log_condition=zero)


def push(
    product: Product, y: Float[Tensor, "*batch m r"], *, row_scale: Float[Tensor, "*batch m"] | None = None
) -> Product:
    """Multiply by a matrix A from the left, given Y = A U.

    The columns of Y are put in the order of their scales and its rows in the order of their size, Y = Q R, and
    J = Q D' (D'^-1 R D) T with D' = |diag R| D; the ratios in D'^-1 R D are formed from logarithms.
    A pivot of R at the level of rounding of the rows that are left is an exact zero: its direction is dropped.

    Parameters
    ----------
    product
        The product so far.
    y
        A U, shape (..., m, r).
    row_scale
        Norms of the rows of A, to which the rounding errors of Y are in proportion; those of Y if None, which is the
        same thing where U spans the whole space.

    Returns
    -------
    Product
        A J, of rank at most min(m, r).

    Raises
    ------
    InvalidArgumentError
        If `y` is not finite.

    References
    ----------
    Bai, Lee, Li, Xu, Linear Algebra Appl. 435 (2011) 659: the graded form of long products.
    Gogolenko, Bai, Scalettar, LNCS 8632 (2014) 438: columns sorted before the QR in place of pivoting within it.
    Cox, Higham, in Numerical Analysis 1997: rows sorted by size make Householder QR accurate row by row.
    """
    if not bool(torch.isfinite(y).all()):
        raise _checks.fail("y", "finite; rescale the factor or push it in more steps", "inf or nan")
    scale = y.abs().amax(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(y.dtype).tiny)
    y = y / scale
    sizes = y.norm(dim=-1) if row_scale is None else torch.maximum(y.norm(dim=-1), row_scale / scale[..., 0])
    rows = sizes.argsort(dim=-1, descending=True, stable=True)
    y = _take(y, rows, dim=-2)
    rounding = torch.finfo(y.dtype).eps * _tail_norms(sizes.gather(-1, rows))[..., : min(y.shape[-2:])]
    columns = (product.log_d + y.norm(dim=-2).double().log()).argsort(dim=-1, descending=True, stable=True)
    q, r = torch.linalg.qr(_take(y, columns, dim=-1))
    live = _live(r, rounding)
    if _leftover(r, rounding, live):  # a zero pivot before non-zero ones: its column depends on those before it
        columns = columns.gather(-1, _dependent_last(live, r.shape[-1]))
        q, r = torch.linalg.qr(_take(y, columns, dim=-1))
        live = _live(r, rounding)
    pivots = r.diagonal(dim1=-2, dim2=-1)
    old = product.log_d.gather(-1, columns) + scale[..., 0].double().log()
    log_d = torch.where(live, old[..., : live.shape[-1]] + pivots.abs().double().log(), -torch.inf)
    t = _ratios(r, old, log_d) @ _take(product.t, columns, dim=-2)
    lengths = t.norm(dim=-1)
    t = t / torch.where(live, lengths, 1.0)[..., None]
    log_d = torch.where(live, log_d + lengths.double().log(), -torch.inf)
    u = torch.zeros_like(q).scatter_(-2, rows[..., None].expand_as(q), q * live[..., None, :])
    loss = torch.where(live, rounding / pivots.abs(), 0.0).amax(dim=-1).double()
    pushed = Product(
        u=u, log_d=log_d, t=t, error=product.error + loss, pushes=product.pushes + 1,
        log_condition=(loss / torch.finfo(y.dtype).eps).clamp_min(1.0).log(),
    )  # fmt: skip
    return _compress(pushed, live)


def _take(x: Tensor, index: Int[Tensor, "*batch k"], *, dim: int) -> Tensor:
    """Permute the rows (dim -2) or columns (dim -1) of x."""
    return x.take_along_dim(index[..., None] if dim == -2 else index[..., None, :], dim=dim)


def _tail_norms(sizes: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
    """Norm of the entries from each on: of what is left of the rows when a pivot is taken."""
    return sizes.flip(-1).square().cumsum(-1).sqrt().flip(-1)


def _live(r: Float[Tensor, "*batch k n"], rounding: Float[Tensor, "*batch k"]) -> Bool[Tensor, "*batch k"]:
    """Which pivots are not zero up to rounding."""
    return r.diagonal(dim1=-2, dim2=-1).abs() > _NULL * rounding


def _leftover(r: Tensor, rounding: Tensor, live: Tensor) -> bool:
    """Whether the row of a zero pivot holds anything above rounding, which dropping it would lose."""
    return bool(((r.abs() > _NULL * rounding[..., None]) & ~live[..., None]).any())


def _dependent_last(live: Bool[Tensor, "*batch k"], columns: int) -> Int[Tensor, "*batch n"]:
    """Order of the columns with those of zero pivots last, all else as it was."""
    late = torch.cat([~live, live.new_zeros(*live.shape[:-1], columns - live.shape[-1])], dim=-1)
    return late.to(torch.int8).argsort(dim=-1, stable=True)


def _ratios(r: Tensor, old: Float[Tensor, "*batch n"], new: Float[Tensor, "*batch k"]) -> Tensor:
    """D'^-1 R D, zero where a scale is; large ratios occur below the diagonal only, where R is zero."""
    exponent = (old[..., None, :] - new[..., :, None]).nan_to_num(nan=-torch.inf, posinf=-torch.inf)
    return r * exponent.clamp_max(0.5 * math.log(torch.finfo(r.dtype).max)).exp().to(r.dtype)


def _compress(product: Product, live: Bool[Tensor, "*batch r"]) -> Product:
    """Drop the directions that are zero in every batch entry."""
    if bool(live.all()):
        return product
    order = (~live).to(torch.int8).argsort(dim=-1, stable=True)[..., : int(live.sum(dim=-1).max())]
    return Product(
        u=_take(product.u, order, dim=-1), log_d=product.log_d.gather(-1, order), t=_take(product.t, order, dim=-2),
        error=product.error, log_condition=product.log_condition, pushes=product.pushes,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogSingularValues:
    """All log singular values of a product.

    Parameters
    ----------
    values
        Natural logarithms, descending, shape (..., min(m, n)), float64, -inf for exact zeros; on the CPU.
    relative_error
        Estimated relative error of the singular values, the smallest non-zero one included, shape (...).
    """

    values: Float[Tensor, "*batch k"]
    relative_error: Float[Tensor, "*batch"]


def log_singular_values(product: Product) -> LogSingularValues:
    """Compute all log singular values of a product.

    Those of diag(exp(log_d)) T, by one-sided Jacobi in float64 on the CPU (`rmtbn.linalg.graded`).

    Parameters
    ----------
    product
        The product, shape (..., m, n).

    Returns
    -------
    LogSingularValues
        min(m, n) values per batch entry.
    """
    batch, r = product.log_d.shape[:-1], product.log_d.shape[-1]
    log_d = product.log_d.reshape(-1, r).cpu().numpy()
    t = product.t.reshape(-1, r, product.t.shape[-1]).double().cpu().numpy()
    values = torch.full((len(log_d), min(product.u.shape[-2], t.shape[-1])), -torch.inf, dtype=torch.float64)
    condition = torch.ones(len(log_d), dtype=torch.float64)
    for i, live in enumerate(log_d > -float("inf")):
        if live.any():
            found, condition[i] = graded.log_singular_values(log_d[i][live], t[i][live])
            values[i, : found.size] = torch.from_numpy(found)
    rounding = torch.finfo(product.t.dtype).eps * product.pushes + torch.finfo(torch.float64).eps
    error = product.error.cpu() + rounding * condition.reshape(batch)
    return LogSingularValues(values=values.reshape(*batch, -1), relative_error=error)
