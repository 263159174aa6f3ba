"""R with its columns and rows scaled by exponentials that need not fit the floating range: D'^-1 R D of a push."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rmtbn.linalg import triangular


def ratios(
    r: Float[Tensor, "*batch k n"], old: Float[Tensor, "*batch n"], new: Float[Tensor, "*batch k"], *, look: bool
) -> Float[Tensor, "*batch k n"]:
    """Scale the columns of R by exp(old) and its rows by exp(-new), in R itself if the host looks.

    Large ratios occur below the diagonal only, where R is zero.

    Parameters
    ----------
    r
        Upper triangular.
    old, new
        Natural logarithms in float64, old ones descending, or nearly; -inf allowed.
    look
        Whether the host may look at the numbers and spare what they allow.

    Returns
    -------
    Tensor
        Zero where a scale is, or where the ratio is below eps by far.
    """
    if not look:
        return _by_logs(r, old, new)
    top, pieces = 0, triangular.PANELS if triangular.pays(r.shape[-2]) else 1
    while top < r.shape[-2]:
        part, columns, rows = r[..., top:, top:], old[..., top:], new[..., top:]
        middle = columns.amax(dim=-1, keepdim=True)
        bottom = _leading(middle - rows < _reach(r.dtype))
        if bottom == 0 or (pieces == 1 and bottom < rows.shape[-1]):
            part.copy_(_by_logs(part, columns, rows))
            break
        part = part[..., :bottom, :]  # one factor for each row and column; the small ones vanish
        part *= (columns - middle).exp().to(r.dtype)[..., None, :]
        part *= (middle - rows[..., :bottom]).exp().to(r.dtype)[..., None]
        top, pieces = top + bottom, pieces - 1
    return r


def _leading(true: Bool[Tensor, "*batch k"]) -> int:
    """Count the entries before the first that is not true in some batch entry."""
    return int(true.reshape(-1, true.shape[-1]).all(dim=0).to(torch.uint8).cumprod(dim=0).sum())


def _by_logs(r: Tensor, old: Float[Tensor, "*batch n"], new: Float[Tensor, "*batch k"]) -> Tensor:
    """Ratios of any size in two steps: one beyond the floating range may meet an entry as far below it."""
    exponent = (old[..., None, :] - torch.where(new.isneginf(), torch.inf, new)[..., :, None]).to(r.dtype)
    reach = _reach(r.dtype)
    root = exponent.mul_(0.5).clamp_(-0.5 * reach, 1.04 * reach).exp_()  # the smallest stand for zero
    return r * root * root


def _reach(dtype: torch.dtype) -> float:
    """Log of half the floating range."""
    return 0.5 * math.log(torch.finfo(dtype).max)
