"""Networks against laws of their own: each network's law is given what its layers are by chance.

The law of infinite width is the same for all networks. Where the layers of one network deviate from it, by their ranks
or their lengths, by the order of 1/√N, the law for the layers as they are may be known; what is left is of the order
of 1/N (docs/derivations/layer_ranks.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmtbn import _checks
from rmtbn.compare.spectra import GRID, jackknife_se, rotation_pvalue
from rmtbn.result import EmpiricalSpectrum, SpectralMeasure

Array = NDArray[np.float64]

BESIDE = 1e-9  # of ln λ: on either side of what rounding puts at an atom


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenLaws:
    """Networks against laws of their own: KS distance of the means, its jackknife error, its p-value over networks."""

    ks: float
    ks_se: float
    ks_pvalue: float


def compare_given(laws: Sequence[SpectralMeasure], spectrum: EmpiricalSpectrum) -> GivenLaws:
    """Compare networks with laws of their own, one each: the means of both distribution functions.

    Parameters
    ----------
    laws
        One per network, in their order.
    spectrum
        Two or more networks.

    Raises
    ------
    InvalidArgumentError
        If there are fewer than two networks, or another number of laws.
    """
    if spectrum.networks < 2 or len(laws) != spectrum.networks:
        raise _checks.fail("laws", f"one for each of two or more networks, here {spectrum.networks}", len(laws))
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
