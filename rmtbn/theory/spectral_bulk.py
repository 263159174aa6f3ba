"""The absolutely continuous part of a law of λ: density, distribution function, quantiles and means, in w = ln λ.

Quantiles and means are taken in a variable η in which the density is regular at both ends (`Chart`): there Newton's
method inverts the distribution function, and the midpoint rule converges faster than any power of its number of
points.
"""

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from rmtbn.theory.spectral_branch import Chart, ConvergenceError, Points, follow
from rmtbn.theory.spectral_curve import SpectralCurve
from rmtbn.theory.spectral_edges import anchors, edges

Array = NDArray[np.float64]

_NEAREST = 1e-13  # distance of ln λ to an edge, relative, below which a point counts as on it
_GRID = 129  # points of the table that brackets quantiles
_TURNS = 75  # of the search for a quantile; the first third may be Newton's
_TOLERANCE = 1e-14  # in F, of a quantile
_NEGLIGIBLE = 1e-22  # mass per unit of η that is left out of means
_RULES = tuple(2**k for k in range(6, 14))  # numbers of points of the midpoint rule
_STILL = 1e-12  # relative change under doubling at which a mean has settled


class Bulk(abc.ABC):
    """The absolutely continuous part of a law, between two edges."""

    __slots__ = ()

    @property
    @abc.abstractmethod
    def chart(self) -> Chart:
        """The edges, and the variable that is regular there."""

    @abc.abstractmethod
    def at(self, w: Array) -> tuple[Array, Array]:
        """Density of ln λ and P(ln λ' <= w), atoms included, at w between the edges."""

    @final
    def quantiles(self, p: Array) -> Array:
        """Invert the distribution function by Newton's method in a bracket; halving ends what rounding leaves."""
        reach = self._reach()
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
            newton = here + gap[left] / slope
            inside = (newton > low[left]) & (newton < high[left]) & (turn < _TURNS // 3)
            moved = np.where(inside, newton, (low[left] + high[left]) / 2)
            eta[left] = np.where(np.abs(gap[left]) <= _TOLERANCE, here, moved)
        return self.chart.place(eta)

    @final
    def mean(self, function: Callable[[Array], Array]) -> float:
        """Integrate a function of w over the bulk, with the midpoint rule doubled until it stands still."""
        reach, last = self._reach(), math.inf
        for count in _RULES:
            slope, _, w = self._in_chart(reach * (np.arange(count) + 0.5) / count)
            value = float(np.sum(function(w) * slope)) * reach / count
            if abs(value - last) <= _STILL * abs(value):
                return value
            last, change = value, abs(value - last)
        raise ConvergenceError(f"the mean over the bulk does not settle: {last} after a change of {change}")

    def _in_chart(self, eta: Array) -> tuple[Array, Array, Array]:
        """Compute -dF/dη, F and w."""
        w = self.chart.place(eta)
        density, cdf = self.at(w)
        return density * np.abs(self.chart.slope(eta.astype(np.complex128))), cdf, w

    def _reach(self) -> float:
        """Find the η beyond which the bulk has no mass to speak of."""
        if math.isfinite(self.chart.low):
            return math.pi
        reach = 1.0
        while reach < 1e6:
            slope, _, w = self._in_chart(np.array([reach]))
            if slope[0] * (1 + abs(w[0])) < _NEGLIGIBLE:
                return reach
            reach *= 1.25
        raise ConvergenceError("no lower end of the bulk found")


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BranchBulk(Bulk):
    """The bulk of a free product, by its spectral curve: density -Im M/π, distribution function Im E ln(z - λ)/π."""

    curve: SpectralCurve
    edge_chart: Chart
    anchors: Points

    @classmethod
    def of(cls, curve: SpectralCurve) -> "BranchBulk":
        """Find the edges, and lay the points from which paths start."""
        low, high = edges(curve)
        return cls(curve=curve, edge_chart=Chart(low=low, high=high), anchors=anchors(curve))

    @property
    def chart(self) -> Chart:
        """The edges, and the variable that is regular there."""
        return self.edge_chart

    def at(self, w: Array) -> tuple[Array, Array]:
        """Density of ln λ and P(ln λ' <= w), by the branch above w; what is next to an edge is moved off it."""
        low, high = self.edge_chart.low, self.edge_chart.high
        w = np.minimum(w, high - _NEAREST * max(1.0, abs(high)))
        if math.isfinite(low):
            w = np.maximum(w, low + _NEAREST * max(1.0, abs(low)))
        points = follow(self.curve, w, chart=self.edge_chart, anchors=self.anchors)
        return self.curve.density(points.u), 1.0 - self.curve.upper_tail(points.u, points.v)
