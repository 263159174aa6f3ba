"""Singular values of a graded matrix diag(exp(log_d)) T, every one to high relative accuracy.

By bidiagonalisation where the determinant and a second one confirm it (`rmtbn.linalg.graded_bidiagonal`), else by
one-sided Jacobi (LAPACK dgejsv) on windows of the scales: values of one window are not changed by scales far from it,
so that scales may span any range. The bound is in docs/derivations/graded_products.md, section 4.
"""

import functools
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from threadpoolctl import ThreadpoolController

from rmtbn import rng
from rmtbn.linalg import graded_bidiagonal, host_lapack

Array = NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)
# Windows better conditioned than this (in nats) are left to the ordinary SVD: it loses this factor at most, 1e-12 in
# all, as much as a few re-factorisations do, and takes a tenth of the time.
_MILD = 9.0
# Where no better is asked, the determinant alone confirms a bidiagonalisation: of 12,500 that were wrong by more than
# 1e-3 it let none pass, of 20,000 between 1e-6 and 1e-3 five (section 4).
_COARSE = 1e-4
_PROBES = 8
# dgejsv's options by number: joba 'C' (A = B diag with B well conditioned), jobu and jobv 'N' (no vectors), jobr 'N'
# (no column is taken for noise), jobt 'N' (no transposition), jobp 'N' (no perturbation of denormals).
_JACOBI_OPTIONS = {"joba": 0, "jobu": 3, "jobv": 3, "jobr": 0, "jobt": 0, "jobp": 0}


def log_singular_values(log_d: Array, t: Array, *, accuracy: float = 1e-13) -> tuple[Array, float]:
    """Compute the log singular values of diag(exp(log_d)) T.

    Parameters
    ----------
    log_d
        Natural logarithms of the scales, shape (r,), finite, r >= 1.
    t
        Matrix of full rank r, shape (r, n), r <= n; the better conditioned, the more accurate the values.
    accuracy
        By how much, relatively, a value may be changed by leaving out scales far from it: what is left out is at least
        ln(1/accuracy)/2 nats away, plus ln of a condition number. The smaller, the longer it takes.

    Returns
    -------
    values, condition
        Log singular values, descending, shape (r,), and the condition number that multiplies their rounding errors:
        that of T (Frobenius norm), or that of diag(exp(log_d)) T where it is small itself; more where two
        bidiagonalisations differ by more.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the Jacobi sweeps do not converge.

    References
    ----------
    Drmač, Veselić, SIAM J. Matrix Anal. Appl. 29 (2008) 1322 and 1343: the algorithm of dgejsv and its accuracy.
    """
    with _blas().limit(limits=1, user_api="blas"):  # numpy's and scipy's: a second thread of theirs only waits
        return _values(log_d, t, accuracy=accuracy)


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _values(log_d: Array, t: Array, *, accuracy: float) -> tuple[Array, float]:
    """Do what `log_singular_values` says."""
    scales, factor = _lower(log_d, t)
    spread = float(scales[0] - scales[-1] + np.log(condition_number(factor)))
    if spread < _MILD:
        plain = host_lapack.singular_values(factor * np.exp(scales - scales[0]))
        return np.log(plain) + scales[0], float(np.exp(spread))
    condition = _frobenius_condition(factor)
    if accuracy >= _COARSE:
        at_once, error = graded_bidiagonal.log_singular_values(scales, factor), 0.0
    else:
        at_once, error = graded_bidiagonal.confirmed(scales, factor)
    if at_once is not None:
        return at_once, max(condition, error / _EPS)
    return _by_windows(*_swept(scales, factor), accuracy=accuracy), condition


def _by_windows(scales: Array, factor: Array, *, accuracy: float) -> Array:
    """Log singular values, descending, by Jacobi on windows that reach beyond the values read from them."""
    margin = float(np.log(condition_number(factor))) - 0.5 * math.log(2.0 * accuracy)
    values = np.empty_like(scales)
    for first, last in _cores(scales, width=max(1.0, margin)):
        low, high = np.searchsorted(-scales, [-scales[first] - margin, -scales[last - 1] + margin])
        window = factor[low:high, low:high] * np.exp(scales[low:high] - scales[first])
        values[first:last] = (_jacobi(window) + scales[first])[first - low : last - low]
    return -np.sort(-values)


def _lower(log_d: Array, t: Array) -> tuple[Array, Array]:
    """Descending scales and R, with diag(d) T = diag(scales) R' Q': a lower triangular times an orthogonal matrix."""
    order = np.argsort(-log_d, kind="stable")
    return log_d[order], host_lapack.triangular_factor(t[order].T)


def condition_number(factor: Array) -> float:
    """Condition number of a triangular matrix, in the 1-norm: within r of that in the 2-norm."""
    return 1.0 / max(float(lapack.dtrcon(factor)[0]), _EPS)


def _frobenius_condition(factor: Array) -> float:
    """Estimate that in the Frobenius norm, which is the one in the 2-norm or up to r times more.

    ‖R⁻¹‖_F² is the mean of ‖R⁻¹ g‖² over Gaussian g: of eight, at 1/r of the price of the inverse.
    """
    probes = rng.generator(0, "condition", len(factor)).standard_normal((len(factor), _PROBES))
    solved, info = lapack.dtrtrs(factor, probes)
    return 1.0 / _EPS if info else float(np.linalg.norm(factor) * np.linalg.norm(solved) / _PROBES**0.5)


def _swept(scales: Array, factor: Array) -> tuple[Array, Array]:
    """Do one step of the QR iteration, which leaves a factor that is far better conditioned: windows can be narrower.

    With L = R' lower triangular, diag(d) L = (D L D^-1) D = Q S D = Q D' (D'^-1 S D), in brackets the next T.
    """
    ratios = np.exp(np.minimum(scales[:, None] - scales, 0.0))
    upper = host_lapack.triangular_factor(factor.T * ratios)
    rows = upper * ratios.T / np.abs(np.diag(upper))[:, None]
    lengths = np.sqrt(np.square(rows).sum(axis=1))
    return _lower(scales + np.log(np.abs(np.diag(upper)) * lengths), rows / lengths[:, None])


def _cores(scales: Array, *, width: float) -> Iterator[tuple[int, int]]:
    """Cut descending scales into runs [first, last) that span at most `width` nats."""
    first = 0
    while first < scales.size:
        last = int(np.searchsorted(-scales, -scales[first] + width, side="right"))
        yield first, last
        first = last


def _jacobi(matrix: Array) -> Array:
    """Log singular values of B diag(s), descending, by one-sided Jacobi."""
    values, _, _, work, _, info = lapack.dgejsv(matrix, **_JACOBI_OPTIONS)
    if info:
        raise np.linalg.LinAlgError(f"one-sided Jacobi did not converge (dgejsv info = {info})")
    return np.asarray(np.log(values) + np.log(work[1] / work[0]))
