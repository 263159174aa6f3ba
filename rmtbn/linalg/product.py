"""Long products of matrices held as J = U diag(exp(log_d)) T, from which all singular values can be read.

U has orthonormal columns, T has unit rows and is well conditioned, and the scales d are logarithms, so that a product
of any depth neither overflows nor loses its small singular values (`rmtbn.linalg.product_values`).
The statements and their proofs are in docs/derivations/graded_products.md.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from rmtbn import _checks
from rmtbn.linalg import graded_ratios, triangular
from rmtbn.linalg.batched import columns, norms, take
from rmtbn.linalg.floating_range import rescaled
from rmtbn.linalg.live_rows import live_rows, put_back
from rmtbn.linalg.sorted_qr import SortedQR, sorted_qr

# An estimate: 40 times the error measured in the median; 1 chain in 240 is worse (graded_products.md, section 5).
SAFETY = 4.0
# Errors of pushes add up as (Σ error^p)^(1/p): less than one by one, more than squares would, as a single push can
# weigh far more than the others (section 5).
_POWER = 4.0 / 3.0
# Rows of T are made unit after so many pushes where the host looks: in between their norms change by few nats.
_UNIT_AFTER = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """A product J = U diag(exp(log_d)) T of matrices, shape (..., m, n), of rank at most r.

    Parameters
    ----------
    u
        Orthonormal columns, shape (..., m, r); a column whose `log_d` is -inf is zero. If not `exact`, orthonormal up
        to eps times the condition number of what was pushed last. NaN if it was not wanted.
    log_d
        Natural logarithms of the scales, shape (..., r), float64; -inf where the rank of a batch entry is below r.
    t
        Well conditioned once its rows are unit (`with_unit_rows`), as they are nearly, shape (..., r, n).
    column_error
        Rounding error of the columns of u, in units of eps, >= 1, shape (..., r), estimated.
    error
        Relative error of the singular values that the factors pushed so far have caused, shape (...), estimated.
    log_amplification
        How much the factor pushed last amplifies rounding, shape (...): about the log of its condition number on the
        space it met, ½ ln(r/2) for an orthogonal factor; infinite if rounding alone says it is singular, NaN if it was
        pushed without looking and should have been looked at.
    pushes
        Number of re-factorisations so far; before the first T is the identity.
    exact
        Whether U is orthonormal to rounding; J = U diag(exp(log_d)) T is right to rounding all the same.
    triangular
        Whether T is known to be block upper triangular, in panels of `rmtbn.linalg.triangular`.
    single
        Whether values are asked to single precision only, from longer blocks.
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
    single: bool = False


def identity(
    n: int,
    *,
    batch: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    single: bool = False,
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
    single
        Whether single precision will do for the values.

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
        single=single,
    )


def with_unit_rows(product: Product, *, look: bool = True) -> Product:
    """Return the same product with rows of T of norm 1, and of norm 0 where the scale is."""
    lengths = torch.where(product.log_d > -torch.inf, norms(product.t, dim=-1, look=look), 1.0)
    return replace(product, log_d=product.log_d + lengths.double().log(), t=product.t / lengths[..., None])


def push(
    product: Product,
    y: Float[Tensor, "*batch m r"],
    *,
    row_scale: Float[Tensor, "*batch m"] | None = None,
    outside_scale: Float[Tensor, "*batch m"] | None = None,
    look: bool = True,
    exact: bool = True,
    wanted: bool = True,
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
    wanted
        Whether the new U is needed: singular values and right singular vectors do without.
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
    sizes = norms(y, dim=-1, look=look)
    sizes = sizes if row_scale is None else torch.maximum(sizes, row_scale * scale[..., None])
    outside = None if outside_scale is None else outside_scale * scale[..., None]
    start = replace(product, log_d=product.log_d + log_scale[..., None])
    pushed = push_in_range(start, y, sizes, outside=outside, look=look, exact=exact, wanted=wanted, limit=limit)
    if look:
        taken = pushed.pushes > product.pushes
        return pushed if taken else replace(product, log_amplification=pushed.log_amplification)
    return replace(pushed, log_amplification=torch.where(scale.isfinite(), pushed.log_amplification, torch.nan))


def push_in_range(
    product: Product,
    y: Float[Tensor, "*batch m r"],
    sizes: Float[Tensor, "*batch m"],
    *,
    outside: Float[Tensor, "*batch m"] | None,
    look: bool,
    exact: bool,
    wanted: bool,
    limit: float,
) -> Product:
    """Do what `push` does with a Y that is finite and of size near 1.

    Parameters
    ----------
    product, y, look, exact, wanted, limit
        As there.
    sizes
        Norms of the rows of Y, or those of A where they are larger.
    outside
        The `outside_scale` there.
    """
    m, rows = y.shape[-2], live_rows(sizes) if look else None
    if rows is not None:
        y, sizes = columns(y.mT, rows).mT, sizes[..., rows]
        outside = None if outside is None else outside[..., rows]
    factors = sorted_qr(
        y,
        product.log_d,
        row_scale=sizes,
        inherited=None if outside is None else (product.column_error, outside),
        look=look,
        exact=exact,
        wanted=wanted,
        limit=limit,
    )
    if factors.beyond:
        return replace(product, log_amplification=_log_amplification(factors))
    none = y.new_full((), math.nan).expand(*y.shape[:-2], m, factors.r.shape[-2])
    u = none if factors.q is None else put_back(factors.q, rows, m)
    pushed = _absorb(product, factors, u, look=look)
    return _compress(pushed) if look else pushed


def orthonormalised(product: Product) -> Product:
    """Return the same product with U orthonormal to rounding."""
    return product if product.exact else push(product, product.u)


def _log_amplification(factors: SortedQR) -> Float[Tensor, "*batch"]:
    """Take the log; infinite where a pivot was cut, NaN where columns should have been put last."""
    found = torch.where(factors.cut, torch.inf, factors.amplification.log())
    return torch.where(factors.unresolved, torch.nan, found)


def _absorb(product: Product, factors: SortedQR, q: Tensor, *, look: bool) -> Product:
    """Return Q R P' D T as a product."""
    r, live = factors.r, factors.live
    old = product.log_d.gather(-1, factors.columns)
    pivots = r.diagonal(dim1=-2, dim2=-1).abs().double().log()
    log_d = torch.where(live, old[..., : live.shape[-1]] + pivots, -torch.inf)
    ratios = graded_ratios.ratios(r, old, log_d, look=look).to(product.t.dtype)
    t, in_panels = _multiplied(ratios, product, factors, look=look)
    inherited = product.column_error.gather(-1, factors.columns)
    added = SAFETY * torch.finfo(r.dtype).eps * live.sum(dim=-1).sqrt() * factors.amplification
    pushed = Product(
        u=q,
        log_d=log_d,
        t=t,
        column_error=torch.maximum(factors.loss, inherited[..., : live.shape[-1]]),
        error=(product.error**_POWER + added**_POWER) ** (1.0 / _POWER),
        log_amplification=_log_amplification(factors),
        pushes=product.pushes + 1,
        exact=factors.exact,
        triangular=in_panels,
        single=product.single,
    )
    return pushed if look and pushed.pushes % _UNIT_AFTER else with_unit_rows(pushed, look=look)


def _multiplied(ratios: Tensor, product: Product, factors: SortedQR, *, look: bool) -> tuple[Tensor, bool]:
    """Multiply the ratios, upper triangular, by T with its rows in order; and tell whether the panels stay."""
    square = ratios.shape[-1] == ratios.shape[-2]
    stays = factors.in_order or (look and triangular.keeps_panels(factors.columns))
    in_panels = product.triangular and square and product.t.shape[-1] == ratios.shape[-1] and look and stays
    if product.pushes == 0 and factors.in_order:
        return ratios, in_panels
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
