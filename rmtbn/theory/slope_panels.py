"""Panels for the law of d = φ′(h)², h ~ N(0, q), smooth φ: intervals of h on which ln d and the Gaussian are resolved.

Next to a zero h* of φ′ the panels are in ln |h - h*|, where ln d = 2 ln |h - h*| + smooth.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from rmtbn import _checks
from rmtbn.theory.free.panel_poles import DERIVATIVE, NODES, ORDER, TO_SERIES

Array = NDArray[np.float64]

# The rule below keeps E d/(ζ - d) to 1e-14 for every φ of the registry: the other poles in ln d are 2πi off, four
# half panels; doubling the resolution changes no digit.
RISE = 3.0  # of ln d over one panel
FALL = 5.0  # of the Gaussian's logarithm over one panel
LENGTH = 1.0  # of a panel in standard deviations
RESOLVED = 3e-14  # size of the last Legendre coefficients of ln d, relative to ln d
MOST = 200  # zeros or extrema of φ′ within reach: of more than a few hundred the search misses some
HALVINGS = 48  # of an interval at most, for a φ′ that is not smooth where it should be
RADIUS = 0.2  # of the neighbourhood of a zero of φ′, in which φ′/(h - h*) is its interpolating polynomial
DEPTH = 350  # unit panels in ln |h - h*| next to a zero of φ′: down to d = e^-700
REACH = 0.1  # of the points that give φ″/φ′ where it is not known, in h or in standard deviations
_SAMPLE = 4001  # points on which zeros are looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """φ′ = amplitude·e^envelope (`log_slope`), the variance q of its Gaussian argument, and φ″/φ′ where it is known."""

    split: Callable[[Array], tuple[Array, Array]]
    q: float
    rate: Callable[[Array], Array] | None = None

    def log_d(self, h: Array) -> Array:
        """Compute ln φ′(h)², -inf at a zero."""
        amplitude, envelope = self.split(h)
        with np.errstate(divide="ignore"):
            return np.asarray(2 * (np.log(np.abs(amplitude)) + envelope))

    def log_rate(self, h: Array, *, low: float, high: float) -> Array:
        """Compute d ln d/dh = 2φ″/φ′; for a φ of the user's own from points next to h and between low and high."""
        if self.rate is not None:
            return 2 * self.rate(h)
        reach = min(REACH, REACH * math.sqrt(self.q), (high - low) / 2)
        middle = np.clip(h, low + reach, high - reach)
        series = self.log_d(middle[:, None] + reach * NODES) @ TO_SERIES.T @ DERIVATIVE.T
        return np.asarray(
            np.sum(series * np.polynomial.legendre.legvander((h - middle) / reach, ORDER - 1), axis=1) / reach
        )

    def gaussian(self, h: Array) -> Array:
        """Compute the density of h."""
        return np.asarray(np.exp(-0.5 * h * (h / self.q)) / math.sqrt(2 * math.pi * self.q))

    def zeros(self, low: float, high: float) -> list[float]:
        """Find where φ′ changes sign; more than 200 places are refused."""
        h = np.sinh(np.linspace(math.asinh(low), math.asinh(high), _SAMPLE))
        amplitude = self.split(h)[0]
        turns = np.flatnonzero(amplitude[1:] * amplitude[:-1] < 0)
        if turns.size > MOST:
            raise _checks.fail("q", f"so small that φ′ changes its sign at most {MOST} times within reach", self.q)
        return [float(optimize.brentq(self._amplitude, h[i], h[i + 1], xtol=1e-15, rtol=1e-15)) for i in turns]

    def _amplitude(self, h: float) -> float:
        return float(self.split(np.array([h]))[0][0])


def panels(slope: Slope, low: float, high: float) -> tuple[Array, Array]:
    """Compute ln d and the density of its law per unit of s at the nodes, shape (panels, ORDER), for low < h < high."""
    zeros = slope.zeros(low, high)
    radius = min([RADIUS, 0.5 * math.sqrt(slope.q), *((b - a) / 3 for a, b in pairwise(zeros))])
    ends = [low, *(end for zero in zeros for end in (max(low, zero - radius), min(high, zero + radius))), high]
    pieces = [_between(slope, a, b) for a, b in zip(ends[::2], ends[1::2], strict=True) if a < b]
    pieces += [
        _next_to_zero(slope, zero, end - zero) for zero, end in zip(np.repeat(zeros, 2), ends[1:-1], strict=True)
    ]
    return np.concatenate([log_d for log_d, _ in pieces]), np.concatenate([density for _, density in pieces])


def _between(slope: Slope, low: float, high: float) -> tuple[Array, Array]:
    """Halve intervals until ln d and the Gaussian are resolved."""
    log_d, density = [np.empty((0, ORDER))], [np.empty((0, ORDER))]
    middle, half = np.array([(low + high) / 2]), np.array([(high - low) / 2])
    for halving in range(HALVINGS):
        h = middle[:, None] + half[:, None] * NODES
        value = slope.log_d(h)
        coarse = _is_coarse(slope, value, middle, half) & (halving < HALVINGS - 1)
        log_d.append(value[~coarse])
        density.append((slope.gaussian(h) * half[:, None])[~coarse])
        half = half[coarse] / 2
        middle, half = np.concatenate([middle[coarse] - half, middle[coarse] + half]), np.concatenate([half, half])
        if middle.size == 0:
            break
    return np.concatenate(log_d), np.concatenate(density)


def _is_coarse(slope: Slope, log_d: Array, middle: Array, half: Array) -> NDArray[np.bool_]:
    largest = np.abs(middle) + half
    last = np.abs(log_d @ TO_SERIES[-3:].T).max(axis=1)
    return np.asarray(
        (np.ptp(log_d, axis=1) > RISE)
        | (2 * half * largest / slope.q > FALL)
        | (2 * half > LENGTH * math.sqrt(slope.q))
        | (last > RESOLVED * (1 + np.abs(log_d).max(axis=1)))
    )


def _next_to_zero(slope: Slope, zero: float, radius: float) -> tuple[Array, Array]:
    """Panels in τ = ln |h - h*| on the side of the zero to which `radius` points."""
    amplitude = slope.split(zero + radius * NODES)[0] / (radius * NODES)
    quotient = TO_SERIES @ amplitude
    tau = math.log(abs(radius)) - 0.5 - np.arange(DEPTH)[:, None] + 0.5 * NODES
    offset = math.copysign(1.0, radius) * np.exp(tau)
    h = zero + offset
    size = np.log(np.abs(np.polynomial.legendre.legval(offset / radius, quotient)))
    return 2 * (tau + size + slope.split(h)[1]), 0.5 * np.exp(tau) * slope.gaussian(h)
