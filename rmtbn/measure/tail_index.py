"""The index α of a tail P(|X| > x) ∝ x^-α: Hill's estimator, at a given number of values or where it fits best.

Hill (1975): with the k largest values and the next one as threshold, α = k/Σ ln(x_(i)/x_(k+1)), standard error α/√k.
The threshold of least Kolmogorov-Smirnov distance between the tail and its power law is that of Clauset, Shalizi &
Newman 2009 (arXiv:0706.1062), whose exponent of the density is α + 1. Small α is a heavy tail; a Gaussian sample has no
power law, and at the share p of its largest values Hill gives about 1/E[ln(x/x_p) | x > x_p], that is 9.0 at p = 1 %.
Proofs: docs/derivations/gradient_tails.md.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rmtbn import _checks

# Thresholds looked at, evenly in ln k: the distance changes slowly with k. All of them would take quadratic time.
_THRESHOLDS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class TailIndex:
    """A tail index with its error.

    Parameters
    ----------
    alpha
        Index α of P(|X| > x) ∝ x^-α; inf where the largest values are all equal.
    se
        α/√(count): for independent values, and the threshold as given. Entries of a gradient are not independent; over
        networks, average `alpha` by `rmtbn.result.Scalar.over_networks`.
    threshold
        |X| from which on the tail is looked at.
    count
        Number k of values above it.
    ks
        Kolmogorov-Smirnov distance of these values from the power law.
    """

    alpha: float
    se: float
    threshold: float
    count: int
    ks: float


def hill(values: ArrayLike, *, count: int) -> TailIndex:
    """Estimate the tail index from the largest values.

    Parameters
    ----------
    values
        Numbers of any shape and sign; their absolute values are looked at, exact zeros left out.
    count
        Number k of largest values, from 2 to the number of non-zero values less 1.

    Returns
    -------
    TailIndex

    Raises
    ------
    InvalidArgumentError
        For values that are not finite, or too few of them.

    Examples
    --------
    >>> round(hill([1.0, 2.0, 4.0, -8.0], count=3).alpha, 4)  # 3/(ln 2 + ln 4 + ln 8)
    0.7213
    """
    logs = _descending_logs(values)
    k = _checks.integer("count", count, at_least=2, at_most=max(len(logs) - 1, 1))
    return _index(logs, k)


def power_law(values: ArrayLike, *, fewest: int = 50, largest_share: float = 0.5) -> TailIndex:
    """Estimate the tail index at the threshold where the tail is closest to a power law.

    Parameters
    ----------
    values
        Numbers of any shape and sign; their absolute values are looked at, exact zeros left out.
    fewest
        Fewest values that make a tail; 50, the smallest number that arXiv:0706.1062, section 3.1, found enough.
    largest_share
        Largest share of the values that counts as tail, in (0, 1).

    Returns
    -------
    TailIndex
        Of 200 thresholds, evenly in the logarithm of the number of values above, the one of least `ks`. Its `se` does
        not count the choice.

    Raises
    ------
    InvalidArgumentError
        For values that are not finite, or too few of them.
    """
    logs = _descending_logs(values)
    share = _checks.real("largest_share", largest_share, above=0.0, below=1.0)
    most = int(share * (len(logs) - 1))
    fewest = _checks.integer("fewest", fewest, at_least=2, at_most=max(most, 1))
    counts = np.unique(np.geomspace(fewest, most, _THRESHOLDS).round().astype(int))
    return min((_index(logs, int(k)) for k in counts), key=lambda found: found.ks)


def _descending_logs(values: ArrayLike) -> Float[np.ndarray, " values"]:
    numbers = np.abs(_checks.array("values", np.asarray(values))).ravel()
    if np.isinf(numbers).any():
        raise _checks.fail("values", "finite", np.inf)
    return np.sort(np.log(numbers[numbers > 0]))[::-1]


def _index(logs: Float[np.ndarray, " values"], k: int) -> TailIndex:
    excess = logs[:k] - logs[k]
    total = float(excess.sum())
    alpha = k / total if total > 0 else np.inf
    above = np.arange(1, k + 1) / k  # share of the tail at or above the i-th largest value
    with np.errstate(invalid="ignore"):
        law = np.exp(-alpha * excess) if total > 0 else np.ones(k)
    ks = np.maximum(np.abs(above - law), np.abs(above - 1 / k - law)).max()
    return TailIndex(alpha=alpha, se=float(alpha / np.sqrt(k)), threshold=float(np.exp(logs[k])), count=k, ks=float(ks))
