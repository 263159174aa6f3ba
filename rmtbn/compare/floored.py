"""A law seen from above a floor: what lies below counts by its mass, at the floor."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtbn import _checks
from rmtbn.result import SpectralMeasure

Array = NDArray[np.float64]


class Floored(SpectralMeasure):
    """The law of max(log λ, floor).

    Two laws so seen have the Kolmogorov–Smirnov distance sup |F - G| over log λ >= floor, the masses below it included,
    and the Wasserstein-1 distance ∫ |F - G| d log λ above it: what can be said of measurements that are censored there.
    The atom at the floor, whose λ may be out of the floating range, is not listed among the atoms.
    """

    __slots__ = ("_floor", "_law")

    def __init__(self, law: SpectralMeasure, *, floor: float) -> None:
        self._law, self._floor = law, floor

    @property
    def accuracy(self) -> float:
        """That of the law."""
        return self._law.accuracy

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Those of the law above the floor."""
        return tuple((lam, mass) for lam, mass in self._law.atoms if lam > 0 and math.log(lam) > self._floor)

    @property
    def log_bulk(self) -> tuple[float, float] | None:
        """That of the law above the floor; None where it ends below."""
        bulk = self._law.log_bulk
        return None if bulk is None or bulk[1] <= self._floor else (max(bulk[0], self._floor), bulk[1])

    def log_pdf_log(self, log_lam: ArrayLike) -> Array:
        """Log density of log λ above the floor."""
        x = _checks.array("log_lam", log_lam)
        return np.where(x > self._floor, self._law.log_pdf_log(x), -np.inf)

    def cdf_log(self, log_lam: ArrayLike) -> Array:
        """P(log λ <= log_lam); 0 below the floor, where all of what is below is counted."""
        x = _checks.array("log_lam", log_lam)
        return np.where(x >= self._floor, self._law.cdf_log(x), 0.0)

    def log_ppf(self, p: ArrayLike) -> Array:
        """Quantiles of max(log λ, floor)."""
        return np.maximum(self._law.log_ppf(p), self._floor)

    def moment(self, k: int) -> float:
        """E λ^k of the law itself: what is below the floor adds less than floor^k."""
        return self._law.moment(k)

    def log_moment(self, k: int = 1) -> float:
        """Refuse: it would depend on where the floor is.

        Raises
        ------
        InvalidArgumentError
            Always.
        """
        raise _checks.fail("law", "one without a floor for E (log λ)^k", k)
