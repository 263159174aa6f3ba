"""Laws read off a table: what costs milliseconds a point is asked for a hundred points, whatever a page draws."""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicHermiteSpline

from rmtbn import _checks
from rmtbn.result import SpectralMeasure

Array = NDArray[np.float64]

ACCURACY = 1e-6  # of the distribution function: a thousandth of what can be measured
TAIL = 1e-6  # mass below the table, where ln F is continued as a line: F falls like a power of λ
_START, _ROUNDS, _INVERSE = 17, 12, 4097  # nodes at first, halvings at most, points of the inverse
_NEXT = 1e-4  # of the reach: the node next to the edge, between which and the edge F is a line in s


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TabulatedLaw(SpectralMeasure):
    """A law without atoms, whose distribution function F is interpolated in s = √(upper edge - ln λ).

    F is smooth in s where the density ends like a square root, or its inverse, at the upper edge.

    Parameters
    ----------
    law
        What is tabulated; moments are its own.
    high
        Its upper edge in ln λ.
    spline
        F against s: cubic, with the exact slopes.
    """

    law: SpectralMeasure
    high: float
    spline: CubicHermiteSpline

    @property
    def accuracy(self) -> float:
        """Of the distribution function; the density follows to about ten times that."""
        return max(ACCURACY, self.law.accuracy)

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """None."""
        return ()

    @property
    def log_bulk(self) -> tuple[float, float] | None:
        """Edges in ln λ."""
        return self.law.log_bulk

    def log_pdf_log(self, log_lam: ArrayLike) -> Array:
        """Log density of ln λ, from the slope of the table."""
        x = _checks.array("log_lam", log_lam)
        s, last = np.sqrt(np.maximum(self.high - x, 0.0)), self._last
        inside = np.clip(s, self.spline.x[0], last)
        with np.errstate(divide="ignore", invalid="ignore"):
            density = np.log(np.maximum(-self.spline(inside, 1) / (2 * inside), 0.0))
            density = np.where(s > last, density - self._fall * (s**2 - last**2), density)
        return np.where(x < self.high, density, -np.inf)

    def cdf_log(self, log_lam: ArrayLike) -> Array:
        """P(ln λ' <= log_lam)."""
        x = _checks.array("log_lam", log_lam)
        s, first, last = np.sqrt(np.maximum(self.high - x, 0.0)), self.spline.x[0], self._last
        table = self.spline(np.clip(s, first, last))
        table = np.where(s < first, 1 - (1 - table) * s / first, table)
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            table = np.where(s > last, table * np.exp(-self._fall * (s**2 - last**2)), table)
        return np.asarray(np.clip(table, 0.0, 1.0))

    def log_ppf(self, p: ArrayLike) -> Array:
        """Quantiles of ln λ, by inverting the table."""
        p = _checks.array("p", p, at_least=0.0, at_most=1.0)
        s = np.concatenate([[0.0], np.linspace(self.spline.x[0], self._last, _INVERSE)])
        values = np.minimum.accumulate(self.cdf_log(self.high - s**2))
        square = np.interp(-p, -values, s) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            below = self._last**2 - np.log(p / values[-1]) / self._fall
        edge = -np.inf if self.log_bulk is None else self.log_bulk[0]
        return np.asarray(np.maximum(self.high - np.where(p < values[-1], below, square), edge))

    def moment(self, k: int) -> float:
        """E λ^k of the law itself."""
        return self.law.moment(k)

    def log_moment(self, k: int = 1) -> float:
        """E (ln λ)^k of the law itself."""
        return self.law.log_moment(k)

    @property
    def _last(self) -> float:
        return float(self.spline.x[-1])

    @property
    def _fall(self) -> float:
        """Slope of ln F in ln λ at the lower end of the table."""
        value, slope = float(self.spline(self._last)), float(self.spline(self._last, 1))
        return max(-slope / (2 * self._last * value), 0.0) if value > 0 else np.inf


def tabulated(law: SpectralMeasure) -> SpectralMeasure:
    """Tabulate a law that has a density and no atoms, halving where the table is not yet right; leave any other."""
    if law.log_bulk is None or law.atoms:
        return law
    low, high = law.log_bulk
    reach = _reach(law, low, high)
    s = np.linspace(_NEXT * reach, reach, _START)
    table = np.stack([s, *_evaluate(law, high, s)])
    left, right = s[:-1], s[1:]
    for _ in range(_ROUNDS):
        middle = (left + right) / 2
        added = np.stack([middle, *_evaluate(law, high, middle)])
        bad = np.abs(CubicHermiteSpline(*table)(middle) - added[1]) > ACCURACY
        table = np.concatenate([table, added], axis=1)
        table = table[:, np.argsort(table[0])]
        left, right = np.concatenate([left[bad], middle[bad]]), np.concatenate([middle[bad], right[bad]])
        if not bad.any():
            break
    return TabulatedLaw(law=law, high=high, spline=CubicHermiteSpline(*table))


def _reach(law: SpectralMeasure, low: float, high: float) -> float:
    """Find the s beyond which there is no mass to speak of."""
    distance, farthest = 3.0**-4, min(3.0**10, (high - low) * (1 - 1e-9))
    while distance < farthest and law.cdf_log(high - distance) >= TAIL:
        distance *= 3
    return float(np.sqrt(min(distance, farthest)))


def _evaluate(law: SpectralMeasure, high: float, s: Array) -> tuple[Array, Array]:
    """F and dF/ds."""
    w = high - s**2
    return law.cdf_log(w), -2 * s * np.exp(law.log_pdf_log(w))
