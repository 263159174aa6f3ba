"""Which pivots of a QR are zero up to rounding, and which columns depend on those before them.

The statements behind the numbers are in docs/derivations/graded_products.md, section 3.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rmtbn.linalg.batched import norms

# A pivot below this many of its own rounding errors is zero. Over low-rank products, projections, batch normalisation
# and row-graded matrices of dimension 8 ... 1024, zero pivots came out below 10, others above 100 in float32 and
# 1e11 in float64.
_NULL = 16.0
# Columns that are themselves known to few digits raise that to eps^0.6 of the rows at most (4e-10 in float64): a pivot
# above is a value, however uncertain, and not a zero.
_RESOLVED = 0.6


def structural_zeros(rest: Float[Tensor, "*batch k"], log_scale: Float[Tensor, "*batch n"]) -> Bool[Tensor, "*batch k"]:
    """Tell which pivots are zero because only zero rows are left, or a column of scale zero is met."""
    return (rest == 0) | torch.isneginf(log_scale[..., : rest.shape[-1]])


def rank(
    r: Float[Tensor, "*batch k n"],
    rest: Float[Tensor, "*batch k"],
    structural: Bool[Tensor, "*batch k"],
    *,
    inherited: tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch k"]],
    look: bool,
) -> tuple[Bool[Tensor, "*batch k"], Bool[Tensor, "*batch n"]]:
    """Tell which pivots are not zero, and which columns hold more than rounding in the rows of those that are.

    Parameters
    ----------
    r
        Upper triangular.
    rest
        Size of the rows that are left when each pivot is taken.
    structural
        Which pivots are known to be zero.
    inherited
        Errors that the columns had before, in units of eps, and how large such an error of size 1 comes out in the
        rows that are left.
    look
        Whether the host may look at the numbers and spare what they allow.

    Returns
    -------
    live, leftover
        Shapes (..., k) and (..., n).
    """
    pivots = r.diagonal(dim1=-2, dim2=-1).abs()
    eps = torch.finfo(r.dtype).eps
    suspect = structural | (pivots <= eps**0.5 * rest)
    if look and not bool((suspect & ~structural).any()):
        return ~structural, torch.zeros_like(r[..., 0, :], dtype=torch.bool)
    regular = without(r, suspect, look=look)
    weights = torch.linalg.solve_triangular(regular, r[..., : r.shape[-2]] * ~suspect[..., None], upper=True)
    own = _NULL * eps * (1.0 + weights.square().sum(dim=-2)).sqrt()
    error, outside = inherited[0][..., : pivots.shape[-1]], inherited[1]
    combined = (error.square() + (weights * error[..., None]).square().sum(dim=-2)).sqrt()
    carried = (_NULL * eps * combined * outside).minimum(eps**_RESOLVED * rest)
    live = ~suspect | (~structural & (pivots > own * torch.maximum(rest, norms(r, dim=-1, look=look)) + carried))
    leftover = r.abs() > (own * rest + carried)[..., None]
    return live, (leftover & ~(live | structural)[..., None]).any(dim=-2)


def without(
    r: Float[Tensor, "*batch k n"], dropped: Bool[Tensor, "*batch k"], *, look: bool
) -> Float[Tensor, "*batch k k"]:
    """Return the square part of R with the rows and columns dropped replaced by those of the identity."""
    if look and not bool(dropped.any()):
        return r[..., : r.shape[-2]]
    kept = ~dropped
    square = r[..., : r.shape[-2]] * kept[..., None] * kept[..., None, :]
    return square + torch.diag_embed(dropped.to(r.dtype))
