"""How many of the B normalised values of a feature are positive.

The u_i are B independent Gaussians given that they sum to 0. With the condition as a Fourier integral and E[e^{iαz}; z
> 0] = w(α/√2)/2, w the Faddeeva function,

    P(k positive) = C(B, k) √(B/2π) ∫ [w(α/√2)/2]^k [w(-α/√2)/2]^{B-k} dα.

P(1) = P(B - 1), the volume of B simplicial cones, counts the zeros of ReLU's Jacobian.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rmtbn import _checks

Array = NDArray[np.float64]

_REACH, _POINTS = 14.0, 1401  # the trapezoidal rule in asinh α; the integrand falls as α^-B


def positive_counts(batch_size: int) -> Array:
    """Compute P(k positive), k = 0 … B, to 1e-12 absolute, for B >= 3.

    Examples
    --------
    >>> float(positive_counts(4)[1].round(5))
    0.17548
    """
    size = _checks.integer("batch_size", batch_size, at_least=3)
    inner = _chances(size, np.arange(1, size))
    return np.concatenate([[0.0], np.maximum((inner + inner[::-1]) / 2, 0.0), [0.0]])


def one_negative(batch_size: int) -> float:
    """Compute P₁ = P(B - 1), the probability that exactly one of B >= 3 values is negative."""
    size = _checks.integer("batch_size", batch_size, at_least=3)
    return max(0.0, float(_chances(size, np.array([1, size - 1])).mean()))


def _chances(size: int, k: NDArray[np.int64]) -> Array:
    t = np.linspace(-_REACH, _REACH, _POINTS)
    alpha = np.sinh(t)
    half = np.log(special.wofz(alpha / np.sqrt(2)) / 2)
    log_choices = special.gammaln(size + 1) - special.gammaln(k + 1) - special.gammaln(size - k + 1)
    log_terms = k[:, None] * half + (size - k[:, None]) * half[::-1] + log_choices[:, None]
    return np.asarray(np.exp(log_terms).real @ np.cosh(t) * (t[1] - t[0]) * np.sqrt(size / (2 * np.pi)))
