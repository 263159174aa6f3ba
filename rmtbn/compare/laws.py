"""Two laws against each other: the largest gap between their distribution functions, and what it costs to move one.

The Kolmogorov–Smirnov distance is sup |F - G|, reached between quantiles, at an edge, or on one side of an atom. The
Wasserstein-1 distance is ∫ |F⁻¹ - G⁻¹| du over 0 < u < 1, in λ or in log λ (there between the non-zero parts). Both are
computed to about 1e-10: the integrand is smooth between the levels of the atoms and the levels at which the two
quantiles cross, where the double-exponential rule (Takahasi & Mori 1974) takes any power or logarithm at the ends.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rmtbn.compare.atoms import atom_logs, margin, zero_mass
from rmtbn.result import EmpiricalSpectrum, SpectralMeasure

Array = NDArray[np.float64]

_QUANTILES = 257  # of either law, between which the largest gap and the crossings are looked for
_ROUNDS, _SPLIT, _CANDIDATES = 4, 17, 3  # of the search for the largest gap: each round narrows it to an eighth
_BISECTIONS = 30  # of a crossing; the error of the integral is the square of that of the crossing
_SAME = 1e-13  # relative difference of quantiles below which they count as equal
_STEP = 1 / 8
_T = np.arange(-30, 31) * _STEP  # u - low goes from 1e-27 of a segment to its whole
_NODES, _WEIGHTS = special.expit(np.pi * np.sinh(_T)), _STEP * np.pi * np.cosh(_T)
_WEIGHTS = _WEIGHTS * _NODES * special.expit(-np.pi * np.sinh(_T))
_MANY = 256  # segments beyond which they are short, and few nodes do on each
_FEW_NODES, _FEW_WEIGHTS = (np.polynomial.legendre.leggauss(5)[i] / 2 + (0.5, 0.0)[i] for i in (0, 1))
_TOLERANCE, _HALVINGS = 1e-6, 40  # difference from the rule of every other node, which the error is the square of
_DIVERGES = 1e-4  # share of the first node above which an integral has no limit


@dataclass(frozen=True, slots=True, kw_only=True)
class LawDistance:
    """How far two laws are apart.

    Parameters
    ----------
    ks
        Largest distance between their distribution functions, zeros included.
    wasserstein
        Wasserstein-1 distance in λ, zeros included; inf beyond the floating range.
    wasserstein_log
        Wasserstein-1 distance in log λ between their non-zero parts; inf if one of them has none, or no mean.
    """

    ks: float
    wasserstein: float
    wasserstein_log: float


def compare_laws(first: SpectralMeasure, second: SpectralMeasure) -> LawDistance:
    """Measure how far two laws are apart; a measured spectrum is the law of its values, with equal mass."""
    return LawDistance(
        ks=_largest_gap(first, second), wasserstein=_wasserstein(first, second), wasserstein_log=_in_log(first, second)
    )


def _largest_gap(first: SpectralMeasure, second: SpectralMeasure) -> float:
    def gap(x: Array) -> Array:
        return np.asarray(np.abs(first.cdf_log(x) - second.cdf_log(x)))

    laws = (first, second)
    jumps = np.concatenate([_jumps(law) for law in laws])
    beside = np.concatenate([jumps + margin(jumps), (jumps - margin(jumps))[np.isfinite(jumps)]])
    ends = [end for law in laws for end in law.log_bulk or () if math.isfinite(end)]
    u = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    between = np.concatenate([*(law.log_ppf(u) for law in laws), ends])
    grid = np.unique(np.concatenate([between[~_on_a_jump(between, jumps)], beside]))
    found = gap(grid)
    best = float(found.max())
    for peak in np.argsort(found)[-_CANDIDATES:] if any(law.log_bulk for law in laws) else ():
        low, high = grid[max(peak - 1, 0)], grid[min(peak + 1, grid.size - 1)]
        for _ in range(_ROUNDS):
            if not np.isfinite([low, high]).all() or np.any((jumps > low) & (jumps < high)):
                break
            x = np.linspace(low, high, _SPLIT)
            values = gap(x)
            top = int(values.argmax())
            best, low, high = max(best, float(values[top])), x[max(top - 1, 0)], x[min(top + 1, _SPLIT - 1)]
    return best


def _wasserstein(first: SpectralMeasure, second: SpectralMeasure) -> float:
    def difference(u: Array) -> Array:
        a, b = first.log_ppf(u), second.log_ppf(u)
        top, bottom = np.maximum(a, b), np.minimum(a, b)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            apart = np.where(np.isneginf(top), 0.0, np.exp(top) * -np.expm1(bottom - top))
        return np.where(_equal(a, b), 0.0, np.where(a > b, apart, -apart))

    return _mean_size(difference, np.concatenate([_levels(law) for law in (first, second)]))


def _in_log(first: SpectralMeasure, second: SpectralMeasure) -> float:
    zeros = zero_mass(first), zero_mass(second)
    if max(zeros) >= 1:
        return 0.0 if min(zeros) >= 1 else math.inf

    def quantiles(law: SpectralMeasure, zero: float, u: Array) -> Array:
        return law.log_ppf(np.clip(zero + (1 - zero) * u, np.nextafter(zero, 1.0) if zero else 0.0, 1.0))

    def difference(u: Array) -> Array:
        a, b = quantiles(first, zeros[0], u), quantiles(second, zeros[1], u)
        with np.errstate(invalid="ignore"):
            return np.where(_equal(a, b), 0.0, a - b)

    levels = [(_levels(law) - zero) / (1 - zero) for law, zero in zip((first, second), zeros, strict=True)]
    return _mean_size(difference, np.concatenate(levels))


def _equal(a: Array, b: Array) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray((a == b) | (np.abs(a - b) <= _SAME * (1 + np.minimum(np.abs(a), np.abs(b)))))


def _on_a_jump(x: Array, jumps: Array) -> NDArray[np.bool_]:
    """Whether a point is within rounding of a jump, where it counts on neither side."""
    places = np.unique(jumps[np.isfinite(jumps)])
    if places.size == 0:
        return np.zeros(x.shape, dtype=bool)
    after = np.clip(np.searchsorted(places, x), 1, places.size) - 1
    nearest = np.minimum(np.abs(x - places[after]), np.abs(x - places[np.minimum(after + 1, places.size - 1)]))
    return np.asarray(nearest < margin(x))


def _jumps(law: SpectralMeasure) -> Array:
    """Return log λ where the distribution function jumps."""
    return np.unique(2 * law.by_network) if isinstance(law, EmpiricalSpectrum) else atom_logs(law)


def _levels(law: SpectralMeasure) -> Array:
    """Return the values of the distribution function on both sides of its jumps."""
    if isinstance(law, EmpiricalSpectrum):
        return np.arange(law.by_network.size + 1) / law.by_network.size
    places, masses = atom_logs(law), np.array([mass for _, mass in law.atoms])
    above = law.cdf_log(np.where(np.isneginf(places), places, places + margin(places)))
    return np.concatenate([above, above - masses])


def _mean_size(difference: Callable[[Array], Array], levels: Array) -> float:
    """Integrate |difference| over 0 < u < 1, with jumps at the levels."""
    cuts = np.unique(np.concatenate([[0.0, 1.0], levels[(levels > 1e-15) & (levels < 1 - 1e-15)]]))
    cuts = np.concatenate([[0.0], cuts[1:][np.diff(cuts) > 1e-14]])
    if cuts.size > _MANY:
        u = cuts[:-1, None] + np.diff(cuts)[:, None] * _FEW_NODES
        return float(np.diff(cuts) @ (np.abs(difference(u.ravel()).reshape(u.shape)) @ _FEW_WEIGHTS))
    crossings = [_crossings(difference, *ends) for ends in pairwise(cuts)]
    cuts = np.sort(np.concatenate([cuts, *crossings]))
    low, high, total = cuts[:-1], cuts[1:], 0.0
    for _ in range(_HALVINGS):
        u = low[:, None] + (high - low)[:, None] * _NODES
        with np.errstate(over="ignore"):
            terms = (high - low)[:, None] * _WEIGHTS * np.abs(difference(u.ravel()).reshape(u.shape))
            fine, coarse = terms.sum(axis=1), 2 * terms[:, ::2].sum(axis=1)
        if not np.isfinite(fine).all() or (low[0] == 0 and terms[0, 0] > _DIVERGES * fine[0]):
            return math.inf
        rough = np.abs(fine - coarse) > _TOLERANCE * (total + fine.sum())
        total += float(fine[~rough].sum())
        low, high = low[rough], high[rough]
        if low.size == 0:
            break
        middle = (low + high) / 2
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
    return total


def _crossings(difference: Callable[[Array], Array], low: float, high: float) -> Array:
    """Find where the difference changes sign between two levels."""
    u = low + (high - low) * (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    sign = np.sign(difference(u))
    u, sign = u[sign != 0], sign[sign != 0]
    turns = np.flatnonzero(sign[1:] != sign[:-1])
    left, right, before = u[turns], u[turns + 1], sign[turns]
    for _ in range(_BISECTIONS if turns.size else 0):
        middle = (left + right) / 2
        same = np.sign(difference(middle)) == before
        left, right = np.where(same, middle, left), np.where(same, right, middle)
    return np.asarray((left + right) / 2)
