"""QR of a regular matrix by block Gram–Schmidt: nearly all of it matrix products, and Q comes with R.

Columns are combined and rows never, so that a row of Q R is that of Y up to rounding in proportion to the row itself,
however much smaller than the others it is. Q is orthonormal up to eps times the condition number of Y, as Y R^-1 is
for the R of a Householder QR, which takes half as long again. docs/derivations/graded_products.md, section 1.
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


def factorised(
    y: Float[Tensor, "*batch m n"],
) -> tuple[Float[Tensor, "*batch m n"], Float[Tensor, "*batch n n"]] | None:
    """Factorise Y = Q R, m >= n.

    Parameters
    ----------
    y
        Of full column rank, shape (..., m, n).

    Returns
    -------
    q, r
        Shapes (..., m, n) and (..., n, n), R upper triangular with a diagonal that is positive but for the last few; or
        None if some panel is too ill conditioned to be orthonormalised by its Gram matrix.
    """
    n = y.shape[-1]
    width = _PANEL if n <= _SMALL else _PANEL_OF_LARGE
    tail = n - (n - _TAIL) // width * width
    q = y.mT.clone(memory_format=torch.contiguous_format).reshape(-1, n, y.shape[-2]).mT
    r = torch.zeros_like(q[..., :n, :])
    eye = torch.eye(width, dtype=y.dtype, device=y.device).expand(len(q), width, width)
    lowers, inverses, infos = [], [], []
    for first in range(0, n - tail, width):
        last = first + width
        panel, rest = q[..., first:last], q[..., last:]
        lower, info = torch.linalg.cholesky_ex(panel.mT @ panel)
        inverse = torch.linalg.solve_triangular(lower.mT, eye, upper=True)
        panel.copy_(panel @ inverse)
        shares = panel.mT @ rest
        rest.baddbmm_(panel, shares, alpha=-1.0)
        r[..., first:last, first:last], r[..., first:last, last:] = lower.mT, shares
        lowers.append(lower)
        inverses.append(inverse)
        infos.append(info)
    if bool(torch.stack(infos).any()) or not _mild(torch.stack(lowers), torch.stack(inverses)):
        return None
    panel = q[..., n - tail :]
    corner = torch.geqrf(panel)[0][..., :tail, :].triu()
    panel.copy_(torch.linalg.solve_triangular(corner, panel, upper=True, left=False))
    r[..., n - tail :, n - tail :] = corner
    return q.reshape(y.shape), r.reshape(*y.shape[:-2], n, n)


def _mild(lowers: Float[Tensor, "*many k k"], inverses: Float[Tensor, "*many k k"]) -> bool:
    """Tell whether every R = L', its columns made unit, is well conditioned: ‖R‖_F ‖R^-1‖_F / k is small."""
    inverse = inverses.square() * lowers.square().sum(dim=-1)[..., None]
    return bool((inverse.sum(dim=(-2, -1)).sqrt() <= _MILD * inverses.shape[-1] ** 0.5).all())
