"""A law of the batch Jacobian as `rmtbn bn-jacobian` asks for it: its distribution function read off a table.

A page asks for the distribution function of each law at some ten thousand values, which takes a second of the law and a
some milliseconds of a cubic through 641 of its points with their exact slopes.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicHermiteSpline

from rmtbn.result import SpectralMeasure
from rmtbn.theory.bn_mean_field import BatchJacobianLaw

Array = NDArray[np.float64]

TAIL = 1e-6  # mass on either side of the table, where the law itself is asked
FOOT = 0.02  # mass at the lower end, which falls as a power of λ over many decades
BODY_NODES, FOOT_NODES = 513, 129  # over all but the foot, and over all of it
ACCURACY = 3e-5  # of the table, measured over B = 4 … 64 and 1 to 16 layers: 2.5e-5 at most, below 5e-8 for B <= 8
_INVERSE = 2**14  # points of the inverse


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LaidLaw(SpectralMeasure):
    """The law, with its distribution function interpolated.

    Parameters
    ----------
    law
        What is laid out; densities and moments are asked of it.
    table
        P(λ' <= λ), the zeros included, against ln λ.
    """

    law: BatchJacobianLaw
    table: CubicHermiteSpline

    @property
    def accuracy(self) -> float:
        """That of the law or of the table."""
        return max(self.law.accuracy, ACCURACY)

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Those of the law: zero only."""
        return self.law.atoms

    @property
    def log_bulk(self) -> tuple[float, float]:
        """From -inf to inf."""
        return self.law.log_bulk

    def log_pdf_log(self, log_lam: ArrayLike) -> Array:
        """Log density of ln λ, of the law."""
        return self.law.log_pdf_log(log_lam)

    def cdf_log(self, log_lam: ArrayLike) -> Array:
        """P(ln λ' <= log_lam)."""
        x = np.asarray(log_lam, dtype=np.float64)
        low, high = self.table.x[0], self.table.x[-1]
        found, outside = np.array(self.table(np.clip(x, low, high))), (x < low) | (x > high)
        if outside.any():
            found[outside] = self.law.cdf_log(x[outside])
        return np.asarray(found)

    def log_ppf(self, p: ArrayLike) -> Array:
        """Quantiles of ln λ."""
        p = np.asarray(p, dtype=np.float64)
        x = np.linspace(self.table.x[0], self.table.x[-1], _INVERSE)
        values = np.maximum.accumulate(self.table(x))
        found, outside = np.array(np.interp(p, values, x)), (p < values[0]) | (p > values[-1])
        if outside.any():
            found[outside] = self.law.log_ppf(p[outside])
        return np.asarray(found)

    def moment(self, k: int) -> float:
        """E λ^k, of the law."""
        return self.law.moment(k)

    def log_moment(self, k: int = 1) -> float:
        """-inf or inf, because of the zeros."""
        return self.law.log_moment(k)


def laid(law: BatchJacobianLaw) -> LaidLaw:
    """Lay the table of a law."""
    zero = sum(mass for _, mass in law.atoms)
    low, foot, high = law.log_ppf([zero + TAIL, zero + FOOT * (1 - zero), 1 - TAIL])
    x = np.union1d(np.linspace(low, high, FOOT_NODES), np.linspace(foot, high, BODY_NODES))
    return LaidLaw(law=law, table=CubicHermiteSpline(x, law.cdf_log(x), np.exp(law.log_pdf_log(x))))
