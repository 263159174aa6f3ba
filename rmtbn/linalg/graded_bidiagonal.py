"""Singular values of a graded triangular matrix by ordinary bidiagonalisation, where that keeps the small ones.

Householder bidiagonalisation of R diag(s), R upper triangular and well conditioned and s descending, meets large
columns first, and each small value then comes out to its own precision, at a fifth to a tenth of the price of Jacobi.
Not always: equal values in front of a gap can bring a small column forward. The determinant tells: it is the product of
the values and of the diagonal. Measured in docs/derivations/graded_products.md, section 4.
"""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Nats between the largest and smallest scale up to which squares of values stay in the floating range.
_REACH = 300.0
# Agreement of the two sums of logs, per value: rounding of the sums themselves is a tenth of that.
_AGREE = 1e-13


def log_singular_values(scales: Array, factor: Array) -> Array | None:
    """Compute the log singular values of factor · diag(exp(scales)), or say that they cannot be had in this way.

    Parameters
    ----------
    scales
        Logarithms, descending and finite, shape (r,).
    factor
        Upper triangular and invertible, shape (r, r); the better conditioned, the likelier an answer.

    Returns
    -------
    ndarray or None
        Descending, shape (r,), if Σ ln σ is Σ ln |diagonal| to 1e-13 per value; else None.
    """
    if scales[0] - scales[-1] > _REACH:
        return None
    try:
        values = np.linalg.svd(factor * np.exp(scales - scales[0]), compute_uv=False)
    except np.linalg.LinAlgError:
        return None
    if not values[-1] > 0:
        return None
    logs = np.log(values) + scales[0]
    missed = math.fsum(logs) - math.fsum(scales + np.log(np.abs(np.diag(factor))))
    return logs if abs(missed) <= _AGREE * scales.size else None
