"""Singular values of a graded triangular matrix by ordinary bidiagonalisation, where that keeps the small ones.

Householder bidiagonalisation of R diag(s), R upper triangular and well conditioned and s descending, meets large
columns first, and each small value then comes out to its own precision, at a fifth to a tenth of the price of Jacobi.
Not always: equal values in front of a gap can bring a small column forward. The determinant, the product of the values
and of the diagonal, tells most of it. Errors that cancel in it are told by bidiagonalising a multiple of the matrix,
which is rounded in another way throughout. Measured in docs/derivations/graded_products.md, section 4.
"""

import math

import numpy as np
from numpy.typing import NDArray

from rmtbn.linalg import host_lapack

Array = NDArray[np.float64]

# Nats between the largest and smallest scale up to which squares of values stay in the floating range.
_REACH = 300.0
# Agreement of the two sums of logs, per value: rounding of the sums themselves is a tenth of that.
_AGREE = 1e-13
# Two bidiagonalisations may differ by so much in a value, and the error is stated as so many times that difference, or
# what the determinant misses (section 4).
_DIFFER, _TIMES = 1e-12, 10.0
# The multiple: no power of 2, which would repeat every rounding error.
_MULTIPLE = math.sqrt(0.5)


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
        values = host_lapack.singular_values(factor * np.exp(scales - scales[0]))
    except np.linalg.LinAlgError:
        return None
    if not values[-1] > 0:
        return None
    logs = np.log(values) + scales[0]
    return logs if _missed(logs, scales, factor) <= _AGREE * scales.size else None


def _missed(logs: Array, scales: Array, factor: Array) -> float:
    """Return |Σ ln σ - Σ ln |diagonal||."""
    return abs(math.fsum(logs) - math.fsum(scales + np.log(np.abs(np.diag(factor)))))


def confirmed(scales: Array, factor: Array) -> tuple[Array | None, float]:
    """Compute the log singular values twice, as `log_singular_values` and `error_by_second` do.

    Parameters
    ----------
    scales, factor
        The matrix, as there.

    Returns
    -------
    values, error
        None and infinity if they cannot be had, or differ.
    """
    values = log_singular_values(scales, factor)
    error = None if values is None else error_by_second(values, scales, factor)
    return (None, math.inf) if error is None else (values, error)


def error_by_second(values: Array, scales: Array, factor: Array) -> float | None:
    """Estimate the error of log singular values from those of a multiple of the matrix, which differ in rounding.

    It is no bound: two bidiagonalisations may err alike.

    Parameters
    ----------
    values
        As `log_singular_values` found them, shape (r,).
    scales, factor
        The matrix, as there.

    Returns
    -------
    float or None
        Ten times the largest difference, or ten times what the determinant misses; None if the difference is beyond
        1e-12, or the second values cannot be had.
    """
    second = log_singular_values(scales, _MULTIPLE * factor)
    if second is None:
        return None
    difference = float(np.abs(values - second + math.log(_MULTIPLE)).max())
    return _TIMES * max(difference, _missed(values, scales, factor)) if difference <= _DIFFER else None
