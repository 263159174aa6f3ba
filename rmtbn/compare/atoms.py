"""Where a law has its atoms in log λ, and how near a point counts as on one."""

import numpy as np
from numpy.typing import NDArray

from rmtbn.result import SpectralMeasure

Array = NDArray[np.float64]

_ULPS = 4  # units in the last place: a law may hold ln λ of an atom, whose λ rounds and comes back beside it


def atom_logs(law: SpectralMeasure) -> Array:
    """Return log λ of the atoms, ascending; -inf for one at zero."""
    return np.array([float(np.log(lam)) if lam > 0 else -np.inf for lam, _ in law.atoms])


def zero_mass(law: SpectralMeasure) -> float:
    """Return the mass at zero."""
    return float(sum(mass for lam, mass in law.atoms if lam == 0))


def margin(points: Array) -> Array:
    """Return steps of a few units in the last place."""
    return np.asarray(_ULPS * np.spacing(np.maximum(np.abs(np.where(np.isfinite(points), points, 0.0)), 1.0)))
