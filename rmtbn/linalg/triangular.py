"""Products of block upper triangular matrices, without the blocks that are zero."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

# Four panels leave out 3/8 of a product with a full matrix, 11/16 with another triangular one; smaller matrices are
# multiplied whole, as one call is faster than ten (N = 128 … 1,024, one core).
PANELS = 4
_LARGE = 256


def pays(n: int) -> bool:
    """Tell whether matrices of this size are worth taking apart."""
    return n >= _LARGE


def multiply(
    a: Float[Tensor, "*batch n n"], b: Float[Tensor, "*batch n k"], *, triangular: bool
) -> Float[Tensor, "*batch n k"]:
    """Multiply A, block upper triangular in `PANELS` panels, by B.

    Parameters
    ----------
    a
        Shape (..., n, n); what is below its diagonal panels is not looked at where n is large.
    b
        Shape (..., n, k).
    triangular
        Whether B, square then, is block upper triangular as well, as the result then is.

    Returns
    -------
    Tensor
        A B, shape (..., n, k).
    """
    n = a.shape[-1]
    if not pays(n):
        return a @ b
    found = torch.empty_like(b, memory_format=torch.contiguous_format)
    single = found.numel() == found.shape[-2] * found.shape[-1]
    parts = [part[(0,) * (part.ndim - 2)] for part in (found, a, b)] if single else [found, a, b]
    _multiply_panels(*parts, triangular=triangular)
    return found


def _multiply_panels(found: Tensor, a: Tensor, b: Tensor, *, triangular: bool) -> None:
    """Write the product panel by panel; a single matrix without copies."""
    edges = [a.shape[-1] * i // PANELS for i in range(PANELS + 1)]
    multiply_into = torch.mm if found.ndim == 2 else torch.matmul
    for i, (top, bottom) in enumerate(pairwise(edges)):
        rows, place = a[..., top:bottom, :], found[..., top:bottom, :]
        if not triangular:
            multiply_into(rows[..., top:], b[..., top:, :], out=place)
            continue
        place[..., :top] = 0.0
        for left, right in zip(edges[i:], edges[i + 1 :], strict=False):
            multiply_into(rows[..., top:right], b[..., top:right, left:right], out=place[..., left:right])


def keeps_panels(columns: Tensor) -> bool:
    """Tell whether an order of columns, shape (..., n), leaves each in its panel."""
    n = columns.shape[-1]
    edges = torch.tensor([n * i // PANELS for i in range(1, PANELS)], device=columns.device)
    here = torch.arange(n, device=columns.device)
    return bool((torch.bucketize(columns, edges, right=True) == torch.bucketize(here, edges, right=True)).all())
