"""Long products of matrices held as J = U diag(exp(log_d)) T, and all their log singular values.

U has orthonormal columns, T has unit rows and is well conditioned, and the scales d are logarithms, so that a product
of any depth neither overflows nor loses its small singular values: each comes out with high relative accuracy.
The statements and their proofs are in docs/derivations/graded_products.md.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from rmtbn import _checks
from rmtbn.linalg import graded, graded_ratios, triangular
from rmtbn.linalg.batched import norms, take
from rmtbn.linalg.sorted_qr import SortedQR, sorted_qr

# An estimate: 40 times the error measured in the median; 1 chain in 120 is worse (graded_products.md, section 5).
_SAFETY = 4.0
# Errors of pushes add up as (Σ error^p)^(1/p): less than one by one, more than squares would, as a single push can
# weigh far more than the others (section 5).
_POWER = 4.0 / 3.0
# Of the error, what the last step may add.
_SHARE = 0.01
# Matrices are scaled, by powers of 2, where their largest entry leaves this power of the floating range.
FAR = 0.2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """A product J = U diag(exp(log_d)) T of matrices, shape (..., m, n), of rank at most r.

    Parameters
    ----------
    u
        Orthonormal columns, shape (..., m, r); a column whose `log_d` is -inf is zero. If not `exact`, orthonormal up
        to eps times the condition number of what was pushed last.
    log_d
        Natural logarithms of the scales, shape (..., r), float64; -inf where the rank of a batch entry is below r.
    t
        Unit rows, well conditioned, shape (..., r, n).
    column_error
        Rounding error of the columns of u, in units of eps, >= 1, shape (..., r), estimated.
    error
        Relative error of the singular values that the factors pushed so far have caused, shape (...), estimated.
    log_amplification
        How much the factor pushed last amplifies rounding, shape (...): about the log of its condition number on the
        space it met, ½ ln(r/2) for an orthogonal factor; infinite if rounding alone says it is singular, NaN if it was
        pushed without looking and should have been looked at.
    pushes
        Number of re-factorisations so far.
    exact
        Whether U is orthonormal to rounding; J = U diag(exp(log_d)) T is right to rounding all the same.
    triangular
        Whether T is known to be block upper triangular, in panels of `rmtbn.linalg.triangular`.
    """

    u: Float[Tensor, "*batch m r"]
    log_d: Float[Tensor, "*batch r"]
    t: Float[Tensor, "*batch r n"]
    column_error: Float[Tensor, "*batch r"]
    error: Float[Tensor, "*batch"]
    log_amplification: Float[Tensor, "*batch"]
    pushes: int = 0
    exact: bool = True
    triangular: bool = False


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
    return Product(
        u=eye,
        log_d=zero[..., None].expand(*batch, n),
        t=eye,
        column_error=torch.ones((*batch, n), dtype=dtype, device=device),
        error=zero,
        log_amplification=zero,
        triangular=triangular.pays(n),
    )


def push(
    product: Product,
    y: Float[Tensor, "*batch m r"],
    *,
    row_scale: Float[Tensor, "*batch m"] | None = None,
    outside_scale: Float[Tensor, "*batch m"] | None = None,
    look: bool = True,
    exact: bool = True,
    limit: float = math.inf,
) -> Product:
    """Multiply by a matrix A from the left, given Y = A U.

    Y is factorised with its columns in the order of their scales, Y = Q R, and J = Q D' (D'^-1 R D) T with
    D' = |diag R| D; the ratios in D'^-1 R D are formed from logarithms. A pivot of R at the level of its own rounding
    error is an exact zero: its direction is dropped.

    Parameters
    ----------
    product
        The product so far.
    y
        A U, shape (..., m, r).
    row_scale
        Norms of the rows of A, to which the rounding errors of Y are in proportion; those of Y if None, which is the
        same thing where U spans the whole space.
    outside_scale
        Size of the rows of A g for a random vector g of size 1 orthogonal to U: what becomes of errors that stick out
        of the range of the product. Taken as 0 if None.
    look
        Whether the host looks at the numbers and spares what they allow. If not, it never waits for the device, and
        `log_amplification` is NaN where it should have looked, or where `y` is not finite.
    exact
        Whether the new U must be orthonormal to rounding.
    limit
        Of the log amplification, if the host looks.

    Returns
    -------
    Product
        A J, of rank at most min(m, r). Where A would amplify rounding beyond the limit in some batch entry, J as it
        was, with the `log_amplification` of A.

    Raises
    ------
    InvalidArgumentError
        If `y` is looked at and not finite.

    References
    ----------
    Bai, Lee, Li, Xu, Linear Algebra Appl. 435 (2011) 659: the graded form of long products.
    """
    y, log_scale, scale = rescaled(y, look=look)
    if look and not bool(torch.isfinite(scale).all()):
        raise _checks.fail("y", "finite; rescale the factor or push it in more steps", "inf or nan")
    outside = torch.zeros_like(y[..., 0]) if outside_scale is None else outside_scale * scale[..., None]
    row_scale = None if row_scale is None else row_scale * scale[..., None]
    inherited = (product.column_error, outside)
    factors = sorted_qr(y, product.log_d, row_scale=row_scale, inherited=inherited, look=look, exact=exact, limit=limit)
    if factors.q is None:
        return replace(product, log_amplification=_log_amplification(factors))
    pushed = _absorb(product, factors, factors.q, log_scale, look=look)
    if look:
        return _compress(pushed)
    return replace(pushed, log_amplification=torch.where(scale.isfinite(), pushed.log_amplification, torch.nan))


def orthonormalised(product: Product) -> Product:
    """Return the same product with U orthonormal to rounding."""
    return product if product.exact else push(product, product.u)


def rescaled(
    y: Float[Tensor, "*batch m r"], *, look: bool = True
) -> tuple[Float[Tensor, "*batch m r"], Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Bring matrices back that are far from size 1, exactly: the matrices, the logs to be added, the factors."""
    scale, log_scale = power_of_two(y)
    if look and not bool((log_scale.abs() > FAR * math.log(torch.finfo(y.dtype).max)).any() | scale.isnan().any()):
        return y, torch.zeros_like(log_scale), torch.ones_like(scale)
    return y * scale[..., None, None], -log_scale, scale


def power_of_two(y: Float[Tensor, "*batch m r"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Return the power of 2 that brings the largest entry of each matrix to [1/2, 1), exactly, and its log."""
    largest = y.abs().amax(dim=(-2, -1)).clamp_min(torch.finfo(y.dtype).tiny)
    mantissa, exponent = largest.frexp()
    return mantissa / largest, -exponent.double() * math.log(2.0)


def _log_amplification(factors: SortedQR) -> Float[Tensor, "*batch"]:
    """Take the log; infinite where a pivot was cut, NaN where columns should have been put last."""
    found = torch.where(factors.cut, torch.inf, factors.amplification.log())
    return torch.where(factors.unresolved, torch.nan, found)


def _absorb(
    product: Product, factors: SortedQR, q: Tensor, log_scale: Float[Tensor, "*batch"], *, look: bool
) -> Product:
    """Return exp(log_scale) Q R P' D T as a product."""
    r, live = factors.r, factors.live
    old = product.log_d.gather(-1, factors.columns) + log_scale[..., None]
    pivots = r.diagonal(dim1=-2, dim2=-1).abs().double().log()
    log_d = torch.where(live, old[..., : live.shape[-1]] + pivots, -torch.inf)
    t, in_panels = _multiplied(graded_ratios.ratios(r, old, log_d, look=look), product, factors, look=look)
    lengths = torch.where(live, norms(t, dim=-1, look=look), 1.0)
    inherited = product.column_error.gather(-1, factors.columns)
    added = _SAFETY * torch.finfo(r.dtype).eps * live.sum(dim=-1).sqrt() * factors.amplification
    return Product(
        u=q,
        log_d=log_d + lengths.double().log(),
        t=t / lengths[..., None],
        column_error=torch.maximum(factors.loss, inherited[..., : live.shape[-1]]),
        error=(product.error**_POWER + added**_POWER) ** (1.0 / _POWER),
        log_amplification=_log_amplification(factors),
        pushes=product.pushes + 1,
        exact=factors.exact,
        triangular=in_panels,
    )


def _multiplied(ratios: Tensor, product: Product, factors: SortedQR, *, look: bool) -> tuple[Tensor, bool]:
    """Multiply the ratios, upper triangular, by T with its rows in order; and tell whether the panels stay."""
    square = ratios.shape[-1] == ratios.shape[-2] == product.t.shape[-1]
    stays = factors.in_order or (look and triangular.keeps_panels(factors.columns))
    in_panels = product.triangular and square and look and stays
    t = product.t if factors.in_order else take(product.t, factors.columns, dim=-2)
    if not square or not look:
        return ratios @ t, False
    return triangular.multiply(ratios, t, triangular=in_panels), in_panels


def _compress(product: Product) -> Product:
    """Drop the directions that are zero in every batch entry, but keep one."""
    live = product.log_d > -torch.inf
    if bool(live.all()):
        return product
    order = (~live).to(torch.int8).argsort(dim=-1, stable=True)[..., : max(1, int(live.sum(dim=-1).max()))]
    return replace(
        product,
        u=take(product.u, order, dim=-1),
        log_d=product.log_d.gather(-1, order),
        t=take(product.t, order, dim=-2),
        column_error=product.column_error.gather(-1, order),
    )


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
    accuracy = (_SHARE * product.error).clamp(1e-13, 1e-3).reshape(-1).tolist()
    for i, live in enumerate(log_d > -float("inf")):
        if live.any():
            found, condition[i] = graded.log_singular_values(log_d[i][live], t[i][live], accuracy=accuracy[i])
            values[i, : found.size] = torch.from_numpy(found)
    largest = product.log_d.nan_to_num(neginf=0.0).abs().amax(dim=-1).cpu()
    of_t = _SAFETY * torch.finfo(product.t.dtype).eps * condition.reshape(batch) / r  # T is rounded anew in each push
    rounding = torch.finfo(torch.float64).eps * (condition.reshape(batch) + largest)
    error = product.error.cpu() + math.sqrt(max(product.pushes, 1)) * of_t + rounding
    return LogSingularValues(values=values.reshape(*batch, -1), relative_error=error)
