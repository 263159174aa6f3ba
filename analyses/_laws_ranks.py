"""Where activations with φ′ = 0 somewhere leave the free law: the ranks of their layers differ by chance.

A layer of ReLU or hard-tanh units passes a number of directions that is binomial, n_l ~ Bin(N, p), and the Jacobian
has the rank of its narrowest layer, min n_l. The free law has rank p N. The difference is of order √(p(1-p)/N), not
1/N, and so is the distance of the two distribution functions. The law for the ranks as they are is a free product too,
and from it networks are 1/N away. Derivation: docs/derivations/layer_ranks.md.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rmtbn.compare.spectra import GRID, jackknife_se, rotation_pvalue
from rmtbn.result import EmpiricalSpectrum, SpectralMeasure
from rmtbn.theory.free import factors
from rmtbn.theory.free.chain import Placed
from rmtbn.theory.free_probability import FreeProductLaw, parts

Array = NDArray[np.float64]

BESIDE = 1e-9  # of ln λ: on either side of what rounding puts at an atom


def law_of_ranks(shares: Sequence[float], *, weights: str, sigma_w: float) -> FreeProductLaw:
    """Compute the law of λ of a square network, φ′ ∈ {0, 1}, for given shares n_l/N > 0 of active units.

    Parameters
    ----------
    shares
        n_l/N per layer.
    weights
        "orthogonal"; all else is Gaussian.
    sigma_w
        σ_w.
    """
    weight = factors.constant(sigma_w**2) if weights == "orthogonal" else factors.gaussian(sigma_w**2)
    chain = [Placed(factor=weight, count=len(shares))]
    chain += [Placed(factor=factors.bernoulli(share), count=count) for share, count in Counter(shares).items()]
    curve, bulk, log_atoms = parts(chain, start=1.0)
    return FreeProductLaw(curve=curve, bulk=bulk, log_atoms=log_atoms)


def zero_share(p: float, *, width: int, depth: int) -> float:
    """E[1 - min_l n_l/N] for independent n_l ~ Bin(N, p), exactly: Σ_k P(Bin >= k)^L is the mean of the minimum."""
    survival = stats.binom.sf(np.arange(width), width, p)
    return float(1 - np.sum(survival**depth) / width)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenLaws:
    """Networks against laws of their own: KS distance of the means, its jackknife error, its p-value over networks."""

    ks: float
    ks_se: float
    ks_pvalue: float


def compare_given(laws: Sequence[SpectralMeasure], spectrum: EmpiricalSpectrum) -> GivenLaws:
    """Compare two or more networks with laws of their own, one each: the mean distribution functions of both."""
    rows = 2 * spectrum.by_network[:, ::-1]
    atoms = [math.log(lam) if lam > 0 else -math.inf for law in laws for lam, _ in law.atoms]
    points = np.unique(np.concatenate([rows.ravel(), atoms]))
    ks = max(float(np.abs(_gaps(laws, rows, points, side).mean(axis=0)).max()) for side in (-1, 1))
    thin = _gaps(laws, rows, points[np.unique(np.linspace(0, points.size - 1, GRID).astype(int))], 1)
    accuracy = max(law.accuracy for law in laws)
    return GivenLaws(ks=ks, ks_se=jackknife_se(thin), ks_pvalue=rotation_pvalue(thin, accuracy))


def _gaps(laws: Sequence[SpectralMeasure], rows: Array, points: Array, side: int) -> Array:
    """Measured minus predicted distribution functions just below (-1) or above (1) the points, (networks, points)."""
    at = points + side * np.where(np.isfinite(points), BESIDE, 0.0)
    measured = np.stack([np.searchsorted(row, at, side="right") for row in rows]) / rows.shape[1]
    gaps = measured - np.stack([law.cdf_log(at) for law in laws])
    return np.where(np.isneginf(points) & (side < 0), 0.0, gaps)
