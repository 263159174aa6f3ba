"""A measured spectrum against a law.

Eigenvalues of one matrix repel, so their empirical CDF fluctuates by about √(log N)/N and not by 1/√N: the critical
values of the Kolmogorov–Smirnov test for independent draws never reject. Here the unit is the network: the null
distribution of the distance comes from what the empirical CDFs of the networks scatter among themselves.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rmtbn import rng
from rmtbn.compare.atoms import atom_logs, margin, zero_mass
from rmtbn.compare.floored import Floored
from rmtbn.compare.verdict import LEVEL, Deviation, Verdict, deviation, judge
from rmtbn.result import EmpiricalSpectrum, SpectralMeasure

Array = NDArray[np.float64]

NULL_DRAWS = 2000  # the p-value then resolves 5e-4
GRID = 1024  # points that carry the null distribution and the Wasserstein integral
# Coefficient κ of the finite-size allowance κ/N on the KS distance: what the mean law of networks of width N is off the
# law of N → ∞, times N. Measured over thousands of networks (benchmarks/finite_size_bias.py) it is 0.2 … 0.7 for
# linear, tanh and erf networks and 0.2 … 1.2 for GELU, SiLU and SELU, L = 1, 4, 16. Where units switch off it grows as
# √N instead (docs/derivations/layer_ranks.md), and no constant covers it. The noise of a few networks is not in κ but
# in 3 ks_se. What κ gives away is what it hides: laws of L ± 1 Gaussian factors are 0.065 (L = 4) and 0.02 (L = 16)
# apart, so that 20 networks tell them apart from N of about 40 and 120 on; with κ = 4 it would take twice the width.
FINITE_SIZE = 1.5
_BESIDE = 0.01  # in log λ: farther from an atom nothing is taken for it, however inaccurate the smallest values are


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
        Wasserstein-1 distance in log λ between the non-zero parts; above the floor, ∫ |F - G| d log λ.
    zeros, moments, edge
        Share of exact zeros, first two moments of λ, and largest log λ (the law's is its upper edge, which the largest
        value approaches from below as N grows).
    networks, dimension
        What was compared.
    censored, log_floor
        Share of censored values, and the log λ above which all are known: distances are then those above it and of the
        mass below it, and the zeros cannot be judged. 0 and -inf where nothing is censored.
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
    censored: float
    log_floor: float
    verdict: Verdict


def compare_spectrum(law: SpectralMeasure, spectrum: EmpiricalSpectrum, allowance: float) -> SpectrumComparison:
    """Compare a measured spectrum with a law; `allowance` is the KS distance left to finite size."""
    floor = spectrum.log_lam_floor
    whole, law = law, law if floor == -np.inf else Floored(law, floor=floor)
    rows = np.maximum(_snapped(law, spectrum), floor)
    points = np.unique(np.concatenate([rows.ravel(), atom_logs(law)]))
    ks = float(np.max(np.abs(_gaps(law, points, _ecdf(rows, points).mean(axis=0)))))
    ks_se, pvalue = float("inf"), None
    if spectrum.networks > 1:
        thin = points[np.unique(np.linspace(0, points.size - 1, GRID).astype(int))]
        gaps = _ecdf(rows, thin) - law.cdf_log(thin + margin(thin))
        ks_se, pvalue = jackknife_se(gaps), rotation_pvalue(gaps, law.accuracy)
    exceeds = ks - 3 * ks_se > allowance
    return SpectrumComparison(
        ks=ks,
        ks_se=ks_se,
        ks_pvalue=pvalue,
        wasserstein_log=_distance(law, spectrum, floor),
        zeros=_zeros(whole, spectrum),
        moments=(_moment(whole, spectrum, 1), _moment(whole, spectrum, 2)),
        edge=deviation(2 * spectrum.by_network[:, 0], _log_edge(whole)),
        networks=spectrum.networks,
        dimension=spectrum.dimension,
        censored=spectrum.censored_fraction,
        log_floor=floor,
        verdict="undecided" if exceeds and (pvalue is None or pvalue >= LEVEL) else judge(pvalue, exceeds=exceeds),
    )


def _distance(law: SpectralMeasure, spectrum: EmpiricalSpectrum, floor: float) -> float:
    """W₁ in log λ of the non-zero parts, or above the floor."""
    measured = spectrum if floor == -np.inf else Floored(spectrum, floor=floor)
    return _wasserstein(_nonzero_quantiles(law), _nonzero_quantiles(measured))


def _zeros(law: SpectralMeasure, spectrum: EmpiricalSpectrum) -> Deviation:
    """Compare the share of zeros; no z-score where censored values may be zeros too."""
    found = deviation(np.isneginf(spectrum.by_network).mean(axis=1), zero_mass(law))
    return replace(found, z=None) if spectrum.censored_fraction else found


def _snapped(law: SpectralMeasure, spectrum: EmpiricalSpectrum) -> Array:
    """Log λ per network, ascending; what lies at an atom of the law up to the measurement's accuracy is put on it."""
    rows = 2 * spectrum.by_network[:, ::-1]
    tolerance = min(4 * spectrum.accuracy, _BESIDE) + 1e-9
    for atom in atom_logs(law)[np.isfinite(atom_logs(law))]:
        rows = np.where(np.abs(rows - atom) <= tolerance, atom, rows)
    return rows


def _ecdf(rows: Array, points: Array) -> Array:
    """Empirical CDF of each network at the points, shape (networks, points)."""
    return np.stack([np.searchsorted(row, points, side="right") for row in rows]) / rows.shape[1]


def _gaps(law: SpectralMeasure, points: Array, right: Array) -> Array:
    """Empirical minus predicted CDF just above the points and just below them: atoms count on the right side."""
    left = np.concatenate([[0.0], right[:-1]])
    step = margin(points)
    below = np.where(np.isneginf(points), 0.0, law.cdf_log(points - step))
    return np.concatenate([right - law.cdf_log(points + step), left - below])


def jackknife_se(gaps: Array) -> float:
    """Estimate the standard error of the KS distance over networks, from leaving out one at a time."""
    count = len(gaps)
    without = np.max(np.abs((gaps.sum(axis=0) - gaps) / (count - 1)), axis=1)
    return float(np.sqrt((count - 1) / count * np.sum((without - without.mean()) ** 2)))


def rotation_pvalue(gaps: Array, accuracy: float) -> float:
    """Return P(sup |mean gap| as large) if the mean of the gaps, shape (networks, points), were zero: a rotation test.

    Networks whose gaps are independent and Gaussian (as smooth statistics of eigenvalues are, in the limit N → ∞) stay
    as probable when they are mixed by a rotation; so the mean, one direction among the M networks, is compared with all
    directions (Langsrud 2005, Statistics and Computing 15, 53). At a single point that is Student's t; it is exact for
    any number of networks and of points.
    """
    count = len(gaps)
    directions = rng.generator(0, "compare", "null distribution").standard_normal((NULL_DRAWS, count))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    null = np.max(np.abs(directions @ gaps), axis=1)
    observed = np.max(np.abs(gaps.sum(axis=0))) / np.sqrt(count)
    return float((1 + np.sum(null >= observed - accuracy)) / (1 + NULL_DRAWS))


def _nonzero_quantiles(law: SpectralMeasure) -> Array:
    """Quantiles of log λ of the part without the atom at 0, at the middles of `GRID` equal shares; empty if none is."""
    zero = zero_mass(law)
    return law.log_ppf(zero + (1 - zero) * (np.arange(GRID) + 0.5) / GRID) if zero < 1 else np.empty(0)


def _wasserstein(first: Array, second: Array) -> float:
    """Mean distance of the quantiles; infinite if one of the two laws is 0 and the other is not."""
    if first.size != second.size:
        return float("inf")
    return float(np.mean(np.abs(first - second))) if first.size else 0.0


def _log_edge(law: SpectralMeasure) -> float:
    """Log of the largest λ, which may itself be beyond the floating range."""
    return float(max([*atom_logs(law), *(() if law.log_bulk is None else law.log_bulk)]))


def _moment(law: SpectralMeasure, spectrum: EmpiricalSpectrum, k: int) -> Deviation:
    with np.errstate(over="ignore", under="ignore"):
        return deviation(np.exp(2 * k * spectrum.by_network).mean(axis=1), law.moment(k))
