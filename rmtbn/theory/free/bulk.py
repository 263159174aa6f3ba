"""An interval of the absolutely continuous part of a law of λ: density, distribution function, quantiles and means.

All is in w = ln λ. Quantiles and means are taken in a variable η in which the density is regular at both ends
(`Chart`): there Newton's method inverts the distribution function, and the midpoint rule converges faster than any
power of its points.
"""

import abc
from collections.abc import Callable
from typing import final

import numpy as np
from numpy.typing import NDArray

from rmtbn.theory.free.branch import Chart

Array = NDArray[np.float64]

_GRID = 129  # points of the table that brackets quantiles
_TURNS = 75  # of the search for a quantile; the first third may be Newton's
_TOLERANCE = 1e-14  # in F, of a quantile


class Bulk(abc.ABC):
    """An interval on which the law has a density."""

    __slots__ = ()

    @property
    @abc.abstractmethod
    def chart(self) -> Chart:
        """The edges, and the variable that is regular there."""

    @property
    @abc.abstractmethod
    def below(self) -> float:
        """Mass up to the lower edge."""

    @property
    @abc.abstractmethod
    def mass(self) -> float:
        """Mass of the open interval, with the atoms inside it."""

    @abc.abstractmethod
    def density(self, w: Array) -> Array:
        """Density of ln λ at w inside the interval."""

    @abc.abstractmethod
    def at(self, w: Array) -> tuple[Array, Array]:
        """Density of ln λ and P(ln λ' <= w), all of the law counted, at w inside the interval."""

    @property
    @abc.abstractmethod
    def rounding(self) -> float:
        """Rounding error of F."""

    @abc.abstractmethod
    def reach(self) -> float:
        """Find the η beyond which the bulk has no mass to speak of."""

    def table(self) -> tuple[Array, Array, Array]:
        """Lay a grid of η over 0 < η < reach, ascending: η, -dF/dη and F, from which quantiles start."""
        grid = self.reach() * (np.arange(_GRID) + 0.5) / _GRID
        return (grid, *self.in_chart(grid)[:2])

    @final
    def quantiles(self, p: Array) -> Array:
        """Invert the distribution function by Newton's method in a bracket; halving ends what rounding leaves."""
        low, high, eta = self._start(p)
        gap, tolerance = np.full(p.shape, np.inf), max(_TOLERANCE, self.rounding)
        for turn in range(_TURNS):
            left = np.flatnonzero((np.abs(gap) > tolerance) & (high - low > 1e-15 * high))
            if left.size == 0:
                break
            here = eta[left]
            slope, cdf, _ = self.in_chart(here)
            gap[left] = cdf - p[left]
            above = gap[left] > 0
            low[left], high[left] = np.where(above, here, low[left]), np.where(above, high[left], here)
            with np.errstate(divide="ignore", over="ignore"):
                newton = here + gap[left] / slope
            inside = (newton > low[left]) & (newton < high[left]) & (turn < _TURNS // 3)
            moved = np.where(inside, newton, (low[left] + high[left]) / 2)
            eta[left] = np.where(np.abs(gap[left]) <= tolerance, here, moved)
        order, w = np.argsort(p, kind="stable"), self.chart.place(eta)
        w[order] = np.maximum.accumulate(w[order])  # several per cent of the mass may lie within the rounding of w
        return w

    def _start(self, p: Array) -> tuple[Array, Array, Array]:
        """Bracket quantiles in the table, and guess them by the inverse cubic of their cell."""
        grid, slope, cdf = self.table()
        index = np.searchsorted(-np.minimum.accumulate(cdf), -p)
        ends = np.concatenate([[0.0], grid, [self.reach()]])
        low, high = ends[index], ends[index + 1]  # F falls with η: F(low) >= p >= F(high)
        eta, cell = (low + high) / 2, np.flatnonzero((index > 0) & (index < grid.size))
        at = index[cell]
        fall = cdf[at - 1] - cdf[at]
        with np.errstate(all="ignore"):
            part, length = (cdf[at - 1] - p[cell]) / fall, grid[at] - grid[at - 1]
            first, last = fall / slope[at - 1] / length, fall / slope[at] / length
            guess = part**2 * (3 - 2 * part) + part * (1 - part) ** 2 * first + part**2 * (part - 1) * last
        guess = np.where((guess > 0) & (guess < 1), guess, 0.5)
        eta[cell] = low[cell] + guess * length
        return low, high, eta

    @abc.abstractmethod
    def mean(self, function: Callable[[Array], Array]) -> float:
        """Integrate a function of w against the density."""

    @final
    def density_in_chart(self, eta: Array) -> tuple[Array, Array]:
        """Compute -dF/dη and w."""
        w = self.chart.place(eta)
        return self.density(w) * np.abs(self.chart.slope(eta.astype(np.complex128))), w

    @final
    def in_chart(self, eta: Array) -> tuple[Array, Array, Array]:
        """Compute -dF/dη, F and w."""
        w = self.chart.place(eta)
        density, cdf = self.at(w)
        return density * np.abs(self.chart.slope(eta.astype(np.complex128))), cdf, w
