"""Singular values of a matrix at hand: LAPACK's or the device's, and a second algorithm where the first fails."""

import numpy as np
import torch
from jaxtyping import Float
from scipy import linalg
from torch import Tensor


def singular_values(matrix: Float[Tensor, "*batch m n"]) -> tuple[Float[Tensor, "*batch k"], bool]:
    """Compute all singular values of assembled matrices.

    By `torch.linalg.svdvals` where the matrix is (LAPACK gesdd, or cuSOLVER). Where that fails, does not converge, runs
    out of the device's memory or returns what is not finite, by QR iteration on the CPU (LAPACK gesvd), which is slower
    and shares no code with it.

    Parameters
    ----------
    matrix
        Finite, shape (..., m, n).

    Returns
    -------
    values, fell_back
        Descending, float64, shape (..., min(m, n)), on the CPU, and whether the second algorithm was needed.

    Raises
    ------
    numpy.linalg.LinAlgError
        If that does not converge either.
    """
    try:
        values = torch.linalg.svdvals(matrix).double().cpu()
    except RuntimeError:  # torch.linalg.LinAlgError and torch.OutOfMemoryError are such
        values = torch.full((1,), torch.nan, dtype=torch.float64)
    if bool(torch.isfinite(values).all()):
        return values, False
    flat = matrix.reshape(-1, *matrix.shape[-2:]).double().cpu().numpy()
    found = [linalg.svd(one, compute_uv=False, lapack_driver="gesvd") for one in flat]
    return torch.from_numpy(np.stack(found)).reshape(*matrix.shape[:-2], -1), True


def decomposition(
    matrix: Float[Tensor, "m n"],
) -> tuple[Float[Tensor, "m k"], Float[Tensor, " k"], Float[Tensor, "k n"]]:
    """Compute the thin decomposition U diag(s) Vh where the matrix is, with the same second algorithm as fallback.

    Parameters
    ----------
    matrix
        Finite, shape (m, n).

    Returns
    -------
    u, s, vh
        Of the matrix's dtype and on its device, s descending.

    Raises
    ------
    numpy.linalg.LinAlgError
        If neither algorithm converges.
    """
    try:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    except RuntimeError:
        s = torch.full((1,), torch.nan)
    if bool(torch.isfinite(s).all()):
        return u, s, vh
    host = matrix.double().cpu().numpy()
    found = linalg.svd(host, full_matrices=False, lapack_driver="gesvd")
    u, s, vh = (torch.from_numpy(np.ascontiguousarray(part)).to(matrix) for part in found)
    return u, s, vh


def unresolved_below(matrix: Float[Tensor, "*batch m n"]) -> float:
    """Return max(m, n) ε, the share of the largest singular value below which rounding hides the others."""
    return max(matrix.shape[-2:]) * torch.finfo(matrix.dtype).eps
