"""Mass and density of ln d, d = φ′(h)², h ~ N(0, q), at given ln d, from the h at which φ′(h)² = d.

Between its zeros and extrema ln φ′² is monotone, so that d <= e^x is an interval of h on each such branch, and its mass
a difference of two error functions. Where φ′² tends to a constant as |h| grows (GELU, SiLU), several per cent of the
mass may lie within 1e-8 of one value; this route keeps its digits there, up to the rounding of x itself. Next to a zero
h* of φ′ the branch is in ln |h - h*|. Derivation: docs/derivations/slope_levels.md.
"""

import abc
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from rmtbn import _checks
from rmtbn.theory.crossing import crossing
from rmtbn.theory.free.levels import Levels
from rmtbn.theory.free.panel_poles import NODES, TO_SERIES
from rmtbn.theory.slope_panels import DEPTH, MOST, RADIUS, Slope

Array = NDArray[np.float64]

FLAT = 1e-12  # size of d ln d/dh that counts as 0 where extrema are looked for
APART = 6.0  # radii between a zero and the next zero or extremum: then 16 nodes resolve ln d - 2 ln |h - h*| to 1e-15
SAMPLE = 4001  # points on which extrema are looked for


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Branch(abc.ABC):
    """A stretch low <= t <= high on which ln d is monotone."""

    slope: Slope
    low: float
    high: float

    @abc.abstractmethod
    def place(self, t: Array) -> Array:
        """Compute h."""

    @abc.abstractmethod
    def log_d(self, t: Array) -> Array:
        """Compute ln d."""

    @abc.abstractmethod
    def log_spread(self, t: Array) -> Array:
        """Compute |d ln d/dh|, 0 where it is lost."""

    @final
    def at(self, x: Array) -> tuple[Array, Array]:
        """Compute what the branch adds to the density of ln d and to P(ln d <= x)."""
        ends = np.array([self.low, self.high])
        (least, first), (most, last) = sorted(zip(self.log_d(ends).tolist(), ends.tolist(), strict=True))
        under, over = np.full(x.shape, first), np.full(x.shape, last)
        t = crossing(lambda place, which: self.log_d(place) - x[which], under, over)
        spread = self.log_spread(t)
        seen = (x >= least) & (x <= most) & (spread > 0)
        density = np.divide(self.slope.gaussian(self.place(t)), spread, where=seen, out=np.zeros(x.shape))
        return density, self._mass(self.place(under), self.place(t))

    def _mass(self, a: Array, b: Array) -> Array:
        """P(h between a and b), by tails on one side."""
        low, high = np.minimum(a, b) / math.sqrt(self.slope.q), np.maximum(a, b) / math.sqrt(self.slope.q)
        flip = low > 0
        low, high = np.where(flip, -high, low), np.where(flip, -low, high)
        return np.asarray(special.ndtr(high) - special.ndtr(low))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plain(Branch):
    """A branch on which φ′ has no zero: t = h."""

    def place(self, t: Array) -> Array:
        """Return t."""
        return t

    def log_d(self, t: Array) -> Array:
        """Compute ln φ′²."""
        return self.slope.log_d(t)

    def log_spread(self, t: Array) -> Array:
        """By φ″/φ′."""
        return np.abs(self.slope.log_rate(t, low=self.low, high=self.high))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NextToZero(Branch):
    """One side of a zero h*: t = ln |h - h*|, with ln d = 2t + a polynomial in (h - h*)/radius, by its series.

    Parameters
    ----------
    zero, radius
        h*, and how far the branch reaches, negative on the left.
    series
        Legendre coefficients of the polynomial.
    """

    zero: float
    radius: float
    series: Array

    def place(self, t: Array) -> Array:
        """Compute h* ± e^t."""
        return np.asarray(self.zero + math.copysign(1.0, self.radius) * np.exp(t))

    def log_d(self, t: Array) -> Array:
        """Compute 2t and the polynomial."""
        return np.asarray(2 * t + np.polynomial.legendre.legval(np.exp(t) / abs(self.radius), self.series))

    def log_spread(self, t: Array) -> Array:
        """Compute 2/|h - h*| and the polynomial's slope."""
        rise = np.polynomial.legendre.legval(np.exp(t) / abs(self.radius), np.polynomial.legendre.legder(self.series))
        return np.asarray(np.abs(2 * np.exp(-t) + rise / abs(self.radius)))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlopeLevels(Levels):
    """All branches, each counted `copies` times."""

    branches: tuple[Branch, ...]
    copies: int

    def at(self, x: Array) -> tuple[Array, Array]:
        """Add up the branches."""
        density, mass = np.sum([branch.at(x) for branch in self.branches], axis=0) * self.copies
        return density, mass


def slope_levels(slope: Slope, intervals: list[tuple[float, float]], *, copies: int) -> SlopeLevels:
    """Cut intervals of h, on which φ′ is smooth and not constant, into branches.

    Parameters
    ----------
    slope
        φ′ and q.
    intervals
        Where h is, ascending.
    copies
        2 if the intervals are one half of an even φ′.
    """
    branches = [branch for low, high in intervals for branch in _branches(slope, low, high)]
    return SlopeLevels(branches=tuple(branches), copies=copies)


def _branches(slope: Slope, low: float, high: float) -> list[Branch]:
    zeros, turns = slope.zeros(low, high), _turns(slope, low, high)
    marks = sorted([low, *zeros, *turns, high])
    gap = min((b - a for a, b in pairwise(marks)), default=math.inf)
    radius = min(RADIUS, 0.5 * math.sqrt(slope.q), gap / APART)
    ends = [(a + radius * (a in zeros), b - radius * (b in zeros)) for a, b in pairwise(marks)]
    plain: list[Branch] = [Plain(slope=slope, low=a, high=b) for a, b in ends]
    return plain + [_next_to_zero(slope, zero, side * radius) for zero in zeros for side in (-1, 1)]


def _turns(slope: Slope, low: float, high: float) -> list[float]:
    """Find the extrema of ln d; where it is flat to rounding there is none."""

    def rate(h: float) -> float:
        return float(slope.log_rate(np.array([h]), low=low, high=high)[0])

    h = np.sinh(np.linspace(math.asinh(low), math.asinh(high), SAMPLE))
    size = slope.log_rate(h, low=low, high=high)
    seen = np.flatnonzero(np.isfinite(size) & (np.abs(size) > FLAT))
    pairs = [(h[i], h[j]) for i, j in pairwise(seen) if size[i] * size[j] < 0]
    amplitude = [slope.split(np.array(pair))[0] for pair in pairs]
    smooth = [pair for pair, (a, b) in zip(pairs, amplitude, strict=True) if a * b > 0]  # else it is a zero of φ′
    if len(smooth) > MOST:
        raise _checks.fail("q", f"so small that φ′² has at most {MOST} extrema within reach", slope.q)
    return [float(optimize.brentq(rate, a, b, xtol=1e-14, rtol=1e-14)) for a, b in smooth]


def _next_to_zero(slope: Slope, zero: float, radius: float) -> NextToZero:
    offset = radius * NODES
    amplitude, envelope = slope.split(zero + offset)
    both_sides = TO_SERIES @ (2 * (np.log(np.abs(amplitude / offset)) + envelope))
    end = math.log(abs(radius))
    return NextToZero(slope=slope, low=end - DEPTH, high=end, zero=zero, radius=radius, series=both_sides)
