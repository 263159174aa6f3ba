"""A measured spectrum against a law, and two laws against each other.

Eigenvalues of one matrix repel, so their empirical CDF fluctuates by about √(log N)/N and not by 1/√N: the critical
values of the Kolmogorov–Smirnov test for independent draws never reject. Here the unit is the network: the null
distribution of the distance comes from the covariance of the empirical CDF over networks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmtbn import rng
from rmtbn.compare.verdict import LEVEL, Deviation, Verdict, deviation, judge
from rmtbn.result import EmpiricalSpectrum, SpectralMeasure

Array = NDArray[np.float64]

NULL_DRAWS = 2000  # the p-value then resolves 5e-4
GRID = 1024  # points that carry the null distribution and the Wasserstein integral
# Coefficient κ of the finite-size allowance κ/N on the KS distance. N·KS of products of L Gaussian matrices to their
# own N → ∞ law was measured between 0.3 and 2.4 for N = 16 … 512, L = 4 … 16 (benchmarks/finite_size_ks.py);
# neighbouring laws (L and L + 1) stand at 20 and more for N = 512.
FINITE_SIZE = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumComparison:
    """A measured spectrum against a law.

    Parameters
    ----------
    ks
        Largest distance between the empirical CDF (networks pooled) and the law's.
    ks_se
        Its standard error: jackknife over networks; inf for one network.
    ks_pvalue
        Probability of a distance as large if the law were the mean law at this very N, with networks as the unit; None
        for one network.
    wasserstein_log
        Wasserstein-1 distance in log λ between the non-zero parts.
    zeros, moments, edge
        Share of exact zeros, first two moments of λ, and largest log λ (the law's is its upper edge, which the largest
        value approaches from below as N grows).
    networks, dimension
        What was compared.
    verdict
        Is there a difference (ks_pvalue < 0.01), and does it exceed the finite-size allowance (ks - 3 ks_se > κ/N)?
        Both: "rejected". The first alone: "agrees to order 1/N", for the law is that of N → ∞. Neither: "agrees". The
        second alone, or one network: "undecided".
    """

    ks: float
    ks_se: float
    ks_pvalue: float | None
    wasserstein_log: float
    zeros: Deviation
    moments: tuple[Deviation, Deviation]
    edge: Deviation
    networks: int
    dimension: int
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class LawDistance:
    """Two laws: largest distance between their CDFs, and Wasserstein-1 in log λ between their non-zero parts."""

    ks: float
    wasserstein_log: float


def compare_spectrum(law: SpectralMeasure, spectrum: EmpiricalSpectrum, allowance: float) -> SpectrumComparison:
    """Compare a measured spectrum with a law; `allowance` is the KS distance left to finite size."""
    rows = _snapped(law, spectrum)
    points = np.unique(np.concatenate([rows.ravel(), _atom_logs(law)]))
    by_network = _ecdf(rows, points)
    ks = float(np.max(np.abs(_gaps(law, points, by_network.mean(axis=0)))))
    ks_se, pvalue = float("inf"), None
    if spectrum.networks > 1:
        thin = points[np.unique(np.linspace(0, points.size - 1, GRID).astype(int))]
        by_network = _ecdf(rows, thin)
        gaps = by_network - law.cdf_log(thin)
        ks_se = _jackknife_se(gaps)
        pvalue = _pvalue(gaps)
    exceeds = ks - 3 * ks_se > allowance
    return SpectrumComparison(
        ks=ks,
        ks_se=ks_se,
        ks_pvalue=pvalue,
        wasserstein_log=_wasserstein(law, spectrum),
        zeros=deviation(np.isneginf(spectrum.by_network).mean(axis=1), _zero_mass(law)),
        moments=(_moment(law, spectrum, 1), _moment(law, spectrum, 2)),
        edge=deviation(2 * spectrum.by_network[:, 0], _log(law.support[1])),
        networks=spectrum.networks,
        dimension=spectrum.dimension,
        verdict="undecided" if exceeds and (pvalue is None or pvalue >= LEVEL) else judge(pvalue, exceeds=exceeds),
    )


def compare_laws(first: SpectralMeasure, second: SpectralMeasure) -> LawDistance:
    """Measure how far two laws are apart."""
    u = np.linspace(0.0, 1.0, 4 * GRID + 1)[1:-1]
    points = np.concatenate([law.log_ppf(u) for law in (first, second)] + [_atom_logs(law) for law in (first, second)])
    points = np.unique(points)
    right = np.abs(first.cdf_log(points) - second.cdf_log(points))
    below = np.nextafter(points[np.isfinite(points)], -np.inf)
    left = np.abs(first.cdf_log(below) - second.cdf_log(below))
    return LawDistance(ks=float(max(right.max(), left.max())), wasserstein_log=_wasserstein(first, second))


def _snapped(law: SpectralMeasure, spectrum: EmpiricalSpectrum) -> Array:
    """Log λ per network, ascending; what lies at an atom of the law up to the measurement's accuracy is put on it."""
    rows = 2 * spectrum.by_network[:, ::-1]
    tolerance = 4 * spectrum.accuracy + 1e-9
    for atom in _atom_logs(law)[np.isfinite(_atom_logs(law))]:
        rows = np.where(np.abs(rows - atom) <= tolerance, atom, rows)
    return rows


def _atom_logs(law: SpectralMeasure) -> Array:
    return np.array([_log(lam) for lam, _ in law.atoms])


def _log(lam: float) -> float:
    return float(np.log(lam)) if lam > 0 else -np.inf


def _zero_mass(law: SpectralMeasure) -> float:
    return sum(mass for lam, mass in law.atoms if lam == 0)


def _ecdf(rows: Array, points: Array) -> Array:
    """Empirical CDF of each network at the points, shape (networks, points)."""
    return np.stack([np.searchsorted(row, points, side="right") for row in rows]) / rows.shape[1]


def _gaps(law: SpectralMeasure, points: Array, right: Array) -> Array:
    """Empirical minus predicted CDF at the points and just below them."""
    left = np.concatenate([[0.0], right[:-1]])
    below = np.where(np.isneginf(points), 0.0, law.cdf_log(np.nextafter(points, -np.inf)))
    return np.concatenate([right - law.cdf_log(points), left - below])


def _jackknife_se(gaps: Array) -> float:
    """Estimate the standard error of the KS distance over networks, from leaving out one at a time."""
    count = len(gaps)
    without = np.max(np.abs((gaps.sum(axis=0) - gaps) / (count - 1)), axis=1)
    return float(np.sqrt((count - 1) / count * np.sum((without - without.mean()) ** 2)))


def _pvalue(gaps: Array) -> float:
    """P(sup |mean gap| as large) if its mean were zero, from the covariance of the gaps over networks.

    Gaussian multipliers on the centred networks reproduce that covariance; the factor √((M-1)/χ²) turns each coordinate
    into Student's t, which makes the test exact at a single point for any number M of networks.
    """
    count = len(gaps)
    generator = rng.generator(0, "compare", "null distribution")
    centred = (gaps - gaps.mean(axis=0)) / np.sqrt(count * (count - 1))
    student = np.sqrt((count - 1) / generator.chisquare(count - 1, size=NULL_DRAWS))
    null = np.max(np.abs(generator.standard_normal((NULL_DRAWS, count)) @ centred), axis=1) * student
    observed = np.max(np.abs(gaps.mean(axis=0)))
    return float((1 + np.sum(null >= observed)) / (1 + NULL_DRAWS))


def _wasserstein(first: SpectralMeasure, second: SpectralMeasure) -> float:
    u = (np.arange(GRID) + 0.5) / GRID
    zeros = [_zero_mass(law) for law in (first, second)]
    if max(zeros) >= 1:
        return 0.0 if min(zeros) >= 1 else float("inf")
    low, high = (law.log_ppf(zero + (1 - zero) * u) for law, zero in zip((first, second), zeros, strict=True))
    return float(np.mean(np.abs(low - high)))


def _moment(law: SpectralMeasure, spectrum: EmpiricalSpectrum, k: int) -> Deviation:
    with np.errstate(over="ignore", under="ignore"):
        return deviation(np.exp(2 * k * spectrum.by_network).mean(axis=1), law.moment(k))
