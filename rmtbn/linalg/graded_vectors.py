"""Leading singular vectors of a graded matrix diag(exp(log_d)) T, over any span of scales.

One-sided Jacobi with vectors (LAPACK dgejsv) on windows of the scales. Beyond a window, entries of a vector are smaller
by the ratio of the scales and are left zero; docs/derivations/graded_products.md, section 6.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from threadpoolctl import threadpool_limits

from rmtbn.linalg.graded import condition_number

Array = NDArray[np.float64]

# Windows reach ln(1/eps) nats, plus ln of the condition number of T, beyond the values whose vectors are read, and are
# so wide that their scales stay far within the floating range.
_MARGIN, _CORE = 36.0, 200.0
# As in `graded`, but with jobu 'U' and jobv 'V': both sets of vectors.
_OPTIONS = {"joba": 0, "jobu": 0, "jobv": 0, "jobr": 0, "jobt": 0, "jobp": 0}


def leading_vectors(log_d: Array, t: Array, count: int) -> tuple[Array, Array, Array]:
    """Compute the leading singular triples of diag(exp(log_d)) T.

    Parameters
    ----------
    log_d
        Natural logarithms of the scales, shape (r,), finite, r >= 1.
    t
        Matrix of full rank r, shape (r, n), r <= n.
    count
        How many, from 1 to r.

    Returns
    -------
    log_values, left, right
        Descending, shape (count,); orthonormal columns, shapes (r, count) and (n, count).

    Raises
    ------
    numpy.linalg.LinAlgError
        If the Jacobi sweeps do not converge.
    """
    order = np.argsort(-log_d, kind="stable")
    with threadpool_limits(limits=1, user_api="blas"):
        basis, factor = np.linalg.qr(t[order].T)
        values, inner_left, inner_right = _triangular(log_d[order], factor, count)
        left = np.zeros_like(inner_left)
        left[order] = inner_left
        return values, left, basis @ inner_right


def _triangular(scales: Array, factor: Array, count: int) -> tuple[Array, Array, Array]:
    """Leading triples of diag(d) R' for descending scales: window by window until there are enough."""
    margin = _MARGIN + float(np.log(condition_number(factor)))
    values = np.empty(scales.size)
    left, right = np.zeros((scales.size, scales.size)), np.zeros((scales.size, scales.size))
    first = 0
    while first < count:
        last = int(np.searchsorted(-scales, -scales[first] + _CORE, side="right"))
        low, high = np.searchsorted(-scales, [-scales[first] - margin, -scales[last - 1] + margin])
        found, outer, inner = _jacobi(factor[low:high, low:high] * np.exp(scales[low:high] - scales[first]))
        wanted = slice(first - low, last - low)
        values[first:last] = found[wanted] + scales[first]
        right[low:high, first:last], left[low:high, first:last] = outer[:, wanted], inner[:, wanted]
        first = last
    return values[:count], left[:, :count], right[:, :count]


def _jacobi(matrix: Array) -> tuple[Array, Array, Array]:
    """Log singular values of B diag(s), descending, and both sets of singular vectors, by one-sided Jacobi."""
    values, left, right, work, _, info = lapack.dgejsv(matrix, **_OPTIONS)
    if info:
        raise np.linalg.LinAlgError(f"one-sided Jacobi did not converge (dgejsv info = {info})")
    return np.log(values) + np.log(work[1] / work[0]), left, right
