"""LAPACK on the host, by the copy of it that is faster: numpy's on one thread, torch's on several.

A bidiagonalisation is half matrix–vector products, bound by memory: numpy's OpenBLAS gains nothing by a second thread,
or by a second matrix beside the first; torch's MKL does 1.8 times as much (N = 1,792, two cores).
"""

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Matrices below are as fast on one thread.
_LARGE = 384


def singular_values(matrix: Array) -> Array:
    """Compute all singular values by bidiagonalisation, descending.

    Parameters
    ----------
    matrix
        Finite, shape (m, n).

    Raises
    ------
    numpy.linalg.LinAlgError
        If they do not converge.
    """
    if not _many_hands(matrix):
        return np.asarray(np.linalg.svd(matrix, compute_uv=False), dtype=np.float64)
    try:
        return torch.linalg.svdvals(torch.from_numpy(matrix)).numpy()
    except RuntimeError as error:  # torch.linalg.LinAlgError is one
        raise np.linalg.LinAlgError(str(error)) from error


def triangular_factor(matrix: Array) -> Array:
    """Compute R of a Householder QR, shape (min(m, n), n)."""
    if not _many_hands(matrix):
        return np.asarray(np.linalg.qr(matrix, mode="r"), dtype=np.float64)
    return torch.linalg.qr(torch.from_numpy(matrix), mode="r").R.numpy()


def _many_hands(matrix: Array) -> bool:
    return min(matrix.shape) >= _LARGE and torch.get_num_threads() > 1
