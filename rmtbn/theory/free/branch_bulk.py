"""The bulk of a free product by the physical branch of its spectral curve, one interval after another.

The density of ln λ is -Im M/π and the distribution function 1 - Im E ln(z - λ)/π, both at the point of the branch
above λ. The outer edges are critical points; a gap inside shows as a stretch without density, and its edges are found
by bisection.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from rmtbn.theory.free.axis import Axis, axis, first_nodes, solve
from rmtbn.theory.free.branch import Chart, ConvergenceError, Points, follow
from rmtbn.theory.free.bulk import Bulk
from rmtbn.theory.free.cells import Rule, rule
from rmtbn.theory.free.curve import SpectralCurve
from rmtbn.theory.free.edges import anchors, bounds, gap_edge, real_w

Array = NDArray[np.float64]

NEAREST = 1e-13  # distance of ln λ to an edge, relative, below which a point counts as on it
CLOSE = 1e-10  # of a singularity to an edge, below which it is the edge; and to points from which F is extrapolated
NO_DENSITY = 1e-9  # below this a density is rounding
NEGLIGIBLE = 51.0  # u on z < 0 below which there is at most 2 e^-51 = 1.4e-22 of the mass
# -ln λ beyond which the rounding of ln z takes the angle away; a law with F = a/|ln λ| (`Thinning`) has 1e-11 there
FARTHEST = 1e11
LOWEST = 700.0  # u on z < 0 below which densities leave the floating range
_GRID = 400  # points on which gaps are looked for
_SPLIT = 33  # points of one round of the search for a gap's edges
_ROUNDS = 3


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BranchBulk(Bulk):
    """An interval of the bulk of a free product.

    Parameters
    ----------
    curve
        The spectral curve.
    interval
        The edges and their chart.
    anchors
        Points on z < 0 from which paths start.
    start, content
        Mass up to the interval, and in it.
    """

    curve: SpectralCurve
    interval: Chart
    anchors: Points
    start: float
    content: float

    @property
    def chart(self) -> Chart:
        """The edges, and the variable that is regular there."""
        return self.interval

    @property
    def below(self) -> float:
        """Mass up to the lower edge."""
        return self.start

    @property
    def mass(self) -> float:
        """Mass of the interval."""
        return self.content

    def density(self, w: Array) -> Array:
        """Density of ln λ, by the branch above w; 0 where less than 1e-303 of the mass is below."""
        seen, points = self._points(w)
        density = np.zeros(w.shape)
        density[seen] = np.maximum(self.curve.density(points.u), 0.0)
        return density

    def at(self, w: Array) -> tuple[Array, Array]:
        """Density of ln λ and P(ln λ' <= w); where less than 1e-303 of the mass is below, F is that below it."""
        seen, points = self._points(w)
        density, cdf = np.zeros(w.shape), np.full(w.shape, self.start)
        density[seen] = np.maximum(self.curve.density(points.u), 0.0)
        cdf[seen] = 1.0 - self.curve.upper_tail(points.u, points.v)
        return density, cdf

    def _points(self, w: Array) -> tuple[NDArray[np.bool_], Points]:
        """Tell where there is something to see, and find the branch there; what is next to an edge is moved off it."""
        low, high = self.interval.low, self.interval.high
        w = np.minimum(w, high - NEAREST * max(1.0, abs(high)))
        if math.isfinite(low):
            w = np.maximum(w, low + NEAREST * max(1.0, abs(low)))
        seen = w >= _bottom(self, float(w.min(initial=math.inf)))
        near = _axis(self).nodes.guess(self.interval.coordinate(w[seen].astype(np.complex128)).real)
        return seen, solve(self.curve, w[seen], near, chart=self.interval, anchors=self.anchors)

    def mean(self, function: Callable[[Array], Array]) -> float:
        """Integrate a function of w against the density."""
        found = _rule(self)
        return float(function(found.w) @ found.weights)

    @property
    def rounding(self) -> float:
        """Rounding error of F: a difference of terms as large as the number of factors."""
        return 4e-16 * (1 + self.curve.weight)

    def reach(self) -> float:
        """π, or where less than 1e-22 of the mass is below."""
        return _axis(self).reach

    def bound(self) -> float:
        """Bound the reach: at z = -e^w, E |z|/(|z| + λ) = p e^-u bounds F by half."""
        if math.isfinite(self.interval.low):
            return math.pi
        far = self.anchors.w.real[self.anchors.u.real > NEGLIGIBLE]
        if far.size == 0 or far.max() >= self.interval.high:
            raise ConvergenceError("no lower end of the bulk found")
        return math.sqrt(self.interval.high - max(float(far.max()), -FARTHEST))

    def table(self) -> tuple[Array, Array, Array]:
        """Read the axis."""
        found = _axis(self)
        return found.eta, found.slope, found.cdf


@functools.lru_cache(maxsize=64)  # laws compare by identity
def _axis(bulk: BranchBulk) -> Axis:
    return axis(bulk.curve, chart=bulk.interval, anchors=bulk.anchors, reach=bulk.bound())


def _bottom(bulk: BranchBulk, w: float) -> float:
    """Find ln λ below which there is at most 2e^-700 of the mass (see `bound`), if w is so low that it matters."""
    if math.isfinite(bulk.interval.low) or w >= bulk.anchors.w.real.min():
        return -math.inf
    found = _lowest(bulk)
    return found if math.isfinite(found) else -math.inf


@functools.lru_cache(maxsize=64)
def _lowest(bulk: BranchBulk) -> float:
    with np.errstate(all="ignore"):  # of slopes, next to the end of what is represented of a law
        return real_w(bulk.curve, LOWEST)


@functools.lru_cache(maxsize=64)
def _rule(bulk: BranchBulk) -> Rule:
    table = _axis(bulk)
    cdf = np.concatenate([[bulk.start + bulk.content], table.cdf, [bulk.start]])
    ends = np.concatenate([[0.0], table.eta, [table.reach]])
    return rule(bulk.density_in_chart, ends, cdf, cdf_at=lambda eta: bulk.in_chart(eta)[1], rounding=bulk.rounding)


def intervals(
    curve: SpectralCurve, log_atoms: tuple[tuple[float, float], ...], *, cuts: tuple[float, ...] = ()
) -> tuple[BranchBulk, ...]:
    """Find the intervals of the bulk, ascending, with their masses; `cuts` are singularities to be made ends of one."""
    low, high = _outer_edges(curve)
    before, after = 1.0 - curve.rank + _mass(log_atoms, low), 1.0 - _mass(log_atoms, math.inf) + _mass(log_atoms, high)
    whole = BranchBulk(
        curve=curve, interval=Chart(low=low, high=high), anchors=anchors(curve), start=before, content=after - before
    )
    gaps = _gaps(whole) if any(len(factor.law.atoms) > 1 for factor in curve.factors) else []
    inner = [cut for cut in cuts if low + CLOSE < cut < high - CLOSE and not any(a <= cut <= b for a, b in gaps)]
    breaks = sorted([*gaps, *((cut, cut) for cut in inner)])
    if not breaks:
        return (whole,)
    middles = np.array([(a + b) / 2 for a, b in breaks if a < b])
    in_gaps = iter(_read(whole, middles)[1].tolist())
    cdf = np.array([next(in_gaps) if a < b else _cdf_at_cut(whole, a) for a, b in breaks])
    crossed = [_mass(log_atoms, b) - _mass(log_atoms, (a + b) / 2) for a, b in breaks]
    lows, highs = [low, *(b for _, b in breaks)], [*(a for a, _ in breaks), high]
    starts, ends = [before, *(cdf + crossed)], [*cdf, after]
    return tuple(
        replace(
            whole,
            interval=Chart(low=a, high=b, mirrors=(a not in inner, b not in inner)),
            start=float(start),
            content=float(end - start),
        )
        for a, b, start, end in zip(lows, highs, starts, ends, strict=True)
    )


def _outer_edges(curve: SpectralCurve) -> tuple[float, float]:
    """Find the outer edges; where a gap separates the bulk from an atom outside it, by the density."""
    (low, low_found), (high, high_found) = bounds(curve)
    if low_found and high_found:
        return low, high
    whole = BranchBulk(
        curve=curve, interval=Chart(low=low, high=high), anchors=anchors(curve), start=0.0, content=curve.rank
    )
    reach, _ = first_nodes(curve, chart=whole.chart, anchors=whole.anchors, reach=whole.bound())
    w = whole.chart.place(reach * (np.arange(_GRID) + 0.5) / _GRID)[::-1]
    first, last = np.flatnonzero(_read(whole, w)[0] >= NO_DENSITY)[[0, -1]]
    return (
        low if low_found else _turn(whole, w[first - 1], w[first]),
        high if high_found else _turn(whole, w[last], w[last + 1]),
    )


def _cdf_at_cut(whole: BranchBulk, cut: float) -> float:
    """Extrapolate F to a singularity of the density, taken as a power of the distance, from both sides."""
    offset = CLOSE * np.array([-2.0, -1.0, 1.0, 2.0])
    density, cdf = _read(whole, cut + offset)
    exponent = 1 + np.log2(density[[0, 3]] / density[[1, 2]])  # 1 + power of the density
    sides = cdf[[1, 2]] - offset[[1, 2]] * density[[1, 2]] / exponent
    return float(sides.mean())


def _read(whole: BranchBulk, w: Array) -> tuple[Array, Array]:
    """Density of ln λ and F, each point followed by itself: no table is laid over what is yet to be cut."""
    points = follow(whole.curve, w, chart=whole.interval, anchors=whole.anchors)
    return whole.curve.density(points.u), 1.0 - whole.curve.upper_tail(points.u, points.v)


def _mass(log_atoms: tuple[tuple[float, float], ...], w: float) -> float:
    return sum(mass for x, mass in log_atoms if x <= w)


def _gaps(whole: BranchBulk) -> list[tuple[float, float]]:
    """Find the stretches inside the bulk without density, ascending."""
    reach, _ = first_nodes(whole.curve, chart=whole.chart, anchors=whole.anchors, reach=whole.bound())
    w = whole.chart.place(reach * (np.arange(_GRID) + 0.5) / _GRID)[::-1]
    empty = _read(whole, w)[0] < NO_DENSITY
    first, last = np.flatnonzero(~empty)[[0, -1]]
    turns = [i for i in range(first, last) if empty[i] != empty[i + 1]]
    ends = [_turn(whole, w[i], w[i + 1]) for i in turns]
    return list(zip(ends[::2], ends[1::2], strict=True))


def _turn(whole: BranchBulk, low: float, high: float) -> float:
    """Narrow down where the density starts or stops; the edge is the critical point next to the points of the gap."""
    for _ in range(_ROUNDS):
        w = np.linspace(low, high, _SPLIT)
        empty = _read(whole, w)[0] < NO_DENSITY
        turn = int(np.flatnonzero(empty != empty[0])[0])
        low, high = float(w[turn - 1]), float(w[turn])
    inner, outer = (high, 2 * high - low) if empty[-1] else (low, 2 * low - high)
    points = follow(whole.curve, np.array([inner, outer]), chart=whole.interval, anchors=whole.anchors)
    return gap_edge(whole.curve, points)
