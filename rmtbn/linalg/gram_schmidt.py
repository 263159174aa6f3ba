"""QR of a regular matrix by block Gram–Schmidt: nearly all of it matrix products, and Q comes with R.

Columns are combined and rows never, so that a row of Q R is that of Y up to rounding in proportion to the row itself,
however much smaller than the others it is. Q is orthonormal up to eps times the condition number of Y, as Y R^-1 is
for the R of a Householder QR, which takes up to half as long again. docs/derivations/graded_products.md, section 1.
"""

import torch
from jaxtyping import Float
from torch import Tensor

# Columns in a panel, in matrices up to so many columns and beyond; of 32 to 256 these were the fastest (N = 512 in both
# precisions, 1,920 in float64).
_PANEL, _SMALL, _PANEL_OF_LARGE = 48, 1024, 96
# So few columns at the end are left to Householder's method: the space that is left to them is no larger than they are.
_TAIL = 32
# Condition number of a panel with unit columns, in the mean over its columns, up to which its inverse is formed: it
# multiplies the rounding error of the panel's share of a row.
_MILD = 16.0
# Smaller ones are as fast by Householder's method; one and two threads, wall time.
_LEAST = {torch.float64: 384, torch.float32: 1024}


def pays(n: int, dtype: torch.dtype) -> bool:
    """Tell whether matrices of so many columns are factorised faster in this way."""
    return n >= _LEAST[dtype]


def factorised(y: Float[Tensor, "*batch m n"]) -> tuple[Float[Tensor, "*batch m n"], Float[Tensor, "*batch n n"]]:
    """Factorise Y = Q R, m >= n.

    From the first panel on that is too ill conditioned to be orthonormalised by its Gram matrix, the rest is left to
    Householder's method.

    Parameters
    ----------
    y
        Of full column rank, shape (..., m, n).

    Returns
    -------
    q, r
        Shapes (..., m, n) and (..., n, n), R upper triangular.
    """
    n = y.shape[-1]
    width = _PANEL if n <= _SMALL else _PANEL_OF_LARGE
    q = y.mT.clone(memory_format=torch.contiguous_format).reshape(-1, n, y.shape[-2]).mT
    r = torch.zeros_like(q[..., :n, :])
    done = _by_panels(q, r, range(0, n - _TAIL - width + 1, width), width=width)
    if done + _TAIL + width <= n:  # later panels are spoilt
        torch.sub(y.reshape(q.shape)[..., done:], q[..., :done] @ r[..., :done, done:], out=q[..., done:])
    rest = q[..., done:]
    corner = torch.geqrf(rest)[0][..., : n - done, :].triu()
    rest.copy_(torch.linalg.solve_triangular(corner, rest, upper=True, left=False))
    r[..., done:, done:] = corner
    r[..., done:, :done] = 0.0
    return q.reshape(y.shape), r.reshape(*y.shape[:-2], n, n)


def _by_panels(q: Tensor, r: Tensor, firsts: range, *, width: int) -> int:
    """Orthonormalise Q panel by panel, writing R, and return how many columns came out well."""
    eye = torch.eye(width, dtype=q.dtype, device=q.device).expand(len(q), width, width)
    lowers, inverses = [], []
    for first in firsts:
        last = first + width
        panel, rest = q[..., first:last], q[..., last:]
        lower = torch.linalg.cholesky_ex(panel.mT @ panel).L
        inverse = torch.linalg.solve_triangular(lower.mT, eye, upper=True)
        panel.copy_(panel @ inverse)
        shares = panel.mT @ rest
        rest.baddbmm_(panel, shares, alpha=-1.0)
        r[..., first:last, first:last], r[..., first:last, last:] = lower.mT, shares
        lowers.append(lower)
        inverses.append(inverse)
    return width * _mild(torch.stack(lowers), torch.stack(inverses)) if lowers else 0


def _mild(lowers: Float[Tensor, "panels batch k k"], inverses: Float[Tensor, "panels batch k k"]) -> int:
    """Count the panels before the first in which R = L', its columns made unit, is not well conditioned.

    That is ‖R‖_F ‖R^-1‖_F / k of more than `_MILD`, or not a number where a pivot was not positive.
    """
    inverse = inverses.square() * lowers.square().sum(dim=-1)[..., None]
    mild = (inverse.sum(dim=(-2, -1)).sqrt() <= _MILD * inverses.shape[-1] ** 0.5).all(dim=-1)
    return int(mild.to(torch.uint8).cumprod(dim=0).sum())
