"""An interval of the absolutely continuous part of a law of λ: density, distribution function, quantiles and means.

All is in w = ln λ. Quantiles and means are taken in a variable η in which the density is regular at both ends
(`Chart`): there Newton's method inverts the distribution function, and the midpoint rule converges faster than any
power of its points.
"""

import abc
import math
from collections.abc import Callable
from typing import final

import numpy as np
from numpy.typing import NDArray

from rmtbn.theory.free.branch import Chart, ConvergenceError
from rmtbn.theory.free.panel_poles import NODES, WEIGHTS

Array = NDArray[np.float64]

_GRID = 129  # points of the table that brackets quantiles
_TURNS = 75  # of the search for a quantile; the first third may be Newton's
_TOLERANCE = 1e-14  # in F, of a quantile
_NEGLIGIBLE = 1e-22  # mass per unit of η that is left out of means
_AT_END = 1e-6  # mass that may lie below the point where no density is seen: more, and it is a gap
_MIDPOINTS = tuple(2**k for k in range(6, 12))  # numbers of points of the midpoint rule
_PANELS, _HALVINGS, _MOST = 4, 40, 2048  # for singular densities: panels at first, halvings, panels at a time
_STILL, _SETTLED = 1e-14, 1e-11  # relative change that needs no further step, and that is accepted where it ends


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
    def at(self, w: Array) -> tuple[Array, Array]:
        """Density of ln λ and P(ln λ' <= w), all of the law counted, at w inside the interval."""

    @final
    def quantiles(self, p: Array) -> Array:
        """Invert the distribution function by Newton's method in a bracket; halving ends what rounding leaves."""
        reach = self.reach()
        grid = reach * (np.arange(_GRID) + 0.5) / _GRID
        index = np.searchsorted(-np.minimum.accumulate(self._in_chart(grid)[1]), -p)
        ends = np.concatenate([[0.0], grid, [reach]])
        low, high = ends[index], ends[index + 1]  # F falls with η: F(low) >= p >= F(high)
        eta, gap = (low + high) / 2, np.full(p.shape, np.inf)
        for turn in range(_TURNS):
            left = np.flatnonzero((np.abs(gap) > _TOLERANCE) & (high - low > 1e-15 * high))
            if left.size == 0:
                break
            here = eta[left]
            slope, cdf, _ = self._in_chart(here)
            gap[left] = cdf - p[left]
            above = gap[left] > 0
            low[left], high[left] = np.where(above, here, low[left]), np.where(above, high[left], here)
            with np.errstate(divide="ignore", over="ignore"):
                newton = here + gap[left] / slope
            inside = (newton > low[left]) & (newton < high[left]) & (turn < _TURNS // 3)
            moved = np.where(inside, newton, (low[left] + high[left]) / 2)
            eta[left] = np.where(np.abs(gap[left]) <= _TOLERANCE, here, moved)
        return self.chart.place(eta)

    @abc.abstractmethod
    def mean(self, function: Callable[[Array], Array]) -> float:
        """Integrate a function of w against the density."""

    @final
    def chart_mean(self, function: Callable[[Array], Array]) -> float:
        """Integrate in the chart by the midpoint rule, which converges fast where the density is regular at both ends.

        Where it does not settle there is a singularity inside, and panels are halved next to it.
        """
        reach, last, change = self.reach(), math.inf, math.inf
        for count in _MIDPOINTS:
            slope, _, w = self._in_chart(reach * (np.arange(count) + 0.5) / count)
            terms = function(w) * slope * reach / count
            value, before = float(np.sum(terms)), change
            change = abs(value - last)
            if change <= _STILL * float(np.sum(np.abs(terms))) or change > before / 2:
                break
            last = value
        if change <= _SETTLED * float(np.sum(np.abs(terms))):
            return value
        return self._panel_mean(function, reach)

    def _panel_mean(self, function: Callable[[Array], Array], reach: float) -> float:
        """Gauss–Legendre panels, halved until the halves agree with the whole."""
        ends = np.linspace(0.0, reach, _PANELS + 1)
        low, high = ends[:-1], ends[1:]
        whole = self._integrals(function, low, high)
        scale, total = float(np.sum(np.abs(whole))), 0.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
            halves = self._integrals(function, low, high)
            both = halves.reshape(2, -1).sum(axis=0)
            open_ = np.abs(both - whole) > _SETTLED * scale
            total += float(both[~open_].sum())
            again = np.concatenate([open_, open_])
            low, high, whole = low[again], high[again], halves[again]
            if low.size == 0:
                return total
            if low.size > _MOST:
                break
        raise ConvergenceError(f"a mean over the bulk does not settle next to ln λ = {self.chart.place(low)[:5]}")

    def _integrals(self, function: Callable[[Array], Array], low: Array, high: Array) -> Array:
        half = (high - low)[:, None] / 2
        eta = (low + high)[:, None] / 2 + half * NODES
        slope, _, w = self._in_chart(eta.ravel())
        return np.asarray(np.sum((function(w) * slope).reshape(eta.shape) * half * WEIGHTS, axis=1))

    def _in_chart(self, eta: Array) -> tuple[Array, Array, Array]:
        """Compute -dF/dη, F and w."""
        w = self.chart.place(eta)
        density, cdf = self.at(w)
        return density * np.abs(self.chart.slope(eta.astype(np.complex128))), cdf, w

    @final
    def reach(self) -> float:
        """Find the η beyond which the bulk has no mass to speak of."""
        if math.isfinite(self.chart.low):
            return math.pi
        reach = 1.0
        while reach < 1e6:
            slope, cdf, w = self._in_chart(np.array([reach]))
            if slope[0] * (1 + abs(w[0])) < _NEGLIGIBLE and cdf[0] - self.below < _AT_END:
                return reach
            reach *= 1.25
        raise ConvergenceError("no lower end of the bulk found")
