"""A law on λ >= 0 as a factor of free products: its moment transform in logarithms.

With M(ζ) = E d/(ζ - d), p = P(d > 0), and t = M/(p + M), where p + M = E[ζ/(ζ - d); d > 0]: as functions of v = ln ζ
both are sums without cancellation, whatever the decades between ζ and the points of the law.
"""

import abc
import math
from typing import final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

_FARTHEST = 600.0  # |ln(d/ζ)| beyond which d/(ζ - d) is its limit in floating point, with room to square it
_BEYOND = 40.0  # distance of ln ζ from the law at which one term of a geometric series is exact to rounding
_ITERATIONS = 80  # of Newton's method kept in a bracket: halving alone would reach rounding


class FactorLaw(abc.ABC):
    """A law on λ >= 0 that has two or more points, zero not counted."""

    __slots__ = ()

    @property
    @abc.abstractmethod
    def mass(self) -> float:
        """Mass not at zero."""

    @property
    @abc.abstractmethod
    def log_means(self) -> tuple[float, float]:
        """Ln E 1/d and ln E d, zero left out."""

    @property
    @abc.abstractmethod
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Its atoms but for zero, ((ln d, mass), ...), ascending."""

    @property
    @abc.abstractmethod
    def span(self) -> tuple[float, float]:
        """Least and largest ln d that is represented, zero left out."""

    @property
    @abc.abstractmethod
    def floor(self) -> float:
        """Infimum of ln d in truth; -inf for a law that reaches down to zero."""

    @property
    @abc.abstractmethod
    def inner(self) -> tuple[float, float]:
        """Where ln d goes on beyond a gap next to the bottom and the top atom; `span` where there is no such gap."""

    @abc.abstractmethod
    def scaled(self, log_factor: float) -> "FactorLaw":
        """Return the law of e^log_factor·d."""

    @abc.abstractmethod
    def log_moment(self, k: int) -> float:
        """Compute ln E d^k, zero left out."""

    @abc.abstractmethod
    def sums(self, v: Complex) -> tuple[Complex, Complex, Complex]:
        """Compute M, p + M and E K(1 + K), K = d/(ζ - d), at v = ln ζ, 0 <= Im v <= π, shape (n,)."""

    @final
    def log_ratio(self, v: Complex) -> tuple[Complex, Complex]:
        """Compute ln t and its slope in v; Im ln t is in [-π, 0]. Far from the law t is E d/(pζ), or p/(-ζ E 1/d)."""
        bottom, top = self.span
        above, below = v.real > top + _BEYOND, v.real < bottom - _BEYOND
        log_t, slope = np.empty_like(v), np.full_like(v, -1.0)
        log_t[above] = self.log_means[1] - math.log(self.mass) - v[above]
        log_t[below] = math.log(self.mass) - self.log_means[0] - v[below]
        near = ~(above | below)
        log_t[near], slope[near] = log_ratio_of(self.sums(v[near]), mass=self.mass)
        return log_t, slope

    @abc.abstractmethod
    def potential_angle(self, v: Complex) -> Array:
        """Compute Im E ln(1 - d/ζ), continuous, in [0, π]."""

    @final
    def real_preimage(self, log_t: Complex, *, below: bool = False, guess: Complex | None = None) -> Complex:
        """Solve for v = ln ζ on the real axis of ζ, where t is real: Im log_t is 0 or -π (t < 0, and then ζ < 0).

        For t > 0 the point lies above the law (t < 1) or in the gap under its top atom (t > 1); with `below` under the
        law (t > 1) or in the gap over its bottom atom (t < 1). Outside the law |t| is a weighted mean of |d/ζ|, which
        gives the bracket; t falls as |ζ| grows.
        """
        y, negative = log_t.real, log_t.imag < -np.pi / 2
        low, high = self._bracket(y, negative, below=below)
        end = np.where(negative | ((y > 0) != below), np.nan, self.span[0] if below else self.span[1])
        angle = 1j * np.where(negative, np.pi, 0.0)
        v = self._first_guess(low, high, end) if guess is None else np.clip(guess.real, low, high)
        left = np.arange(v.size)
        for _ in range(_ITERATIONS):
            here, goal = v[left], y[left]
            value, slope = self.log_ratio(here + angle[left])
            beyond = ~negative[left] & (value.imag < -np.pi / 2)  # at the far end of a gap t has passed 0 or ∞
            larger = np.where(beyond, not below, value.real > goal)
            low[left], high[left] = np.where(larger, here, low[left]), np.where(larger, high[left], here)
            newton = _newton(here, value.real, slope.real, goal=goal, end=end[left])
            inside = (newton > low[left]) & (newton < high[left]) & ~beyond
            still = ~beyond & (np.abs(newton - here) <= 1e-15 * (1 + np.abs(here)))
            v[left] = np.where(still, here, np.where(inside, newton, (low[left] + high[left]) / 2))
            left = left[~still & (high[left] - low[left] > 1e-15 * (1 + np.abs(here)))]
            if left.size == 0:
                break
        return np.asarray(v + angle)

    def _first_guess(self, low: Array, high: Array, end: Array) -> Array:
        """Half-way; next to an end of the law half-way in the logarithm of the distance from it."""
        middle = (low + high) / 2
        with np.errstate(invalid="ignore"):
            apart = np.sqrt(np.maximum(np.abs(low - end), 1e-8) * np.maximum(np.abs(high - end), 1e-8))
        guess = end + np.where(high > end, apart, -apart)
        return np.where((guess > low) & (guess < high), guess, middle)

    def _bracket(self, y: Array, negative: NDArray[np.bool_], *, below: bool) -> tuple[Array, Array]:
        (bottom, top), inner = self.span, self.inner
        low, high = bottom - y, top - y
        if below:
            gap = ~negative & (y < 0)
            high = np.where(gap, inner[0], np.where(negative, high, np.minimum(high, bottom)))
            return np.where(gap, bottom, low), high
        gap = ~negative & (y > 0)
        low = np.where(gap, inner[1], np.where(negative, low, np.maximum(low, top)))
        return low, np.where(gap, top, high)


@np.errstate(all="ignore")  # what is not finite is refused
def _newton(v: Array, value: Array, slope: Array, *, goal: Array, end: Array) -> Array:
    """Step towards ln t = goal; outside the law in ln |v - end| and ln |ln t|, of which one is linear in the other."""
    plain = v - (value - goal) / slope
    step = np.log(value / goal) * value / (slope * (v - end))
    return np.where(np.isnan(step), plain, end + (v - end) * np.exp(-np.clip(step, -20.0, 20.0)))


def kernel(x: Array, weights: Array, angle: Array) -> tuple[Complex, Complex, Complex]:
    """Sum K, 1 + K and K(1 + K), K = d/(ζ - d) = (e^{-iα} - e^x)/(2(cosh x - cos α)), over the last axis.

    Parameters
    ----------
    x
        ln d - Re v, shape (n, points).
    weights
        Shape (points,) or (n, points).
    angle
        α = Im v, shape (n,).

    Returns
    -------
    tuple
        Three arrays of shape (n,); the first two have the same imaginary part.
    """
    x = np.clip(x, -_FARTHEST, _FARTHEST)
    sine, turn = np.sin(angle), 2 * np.sin(angle / 2) ** 2  # and 1 - cos α
    rise = np.expm1(x)  # e^x - 1, and then 1 - e^-x: no cancellation next to a point
    fall = rise / np.exp(x)
    size = rise * fall + 2 * turn[:, None]  # 2(cosh x - cos α)
    share = weights / size
    total = share.sum(axis=1)
    first = -np.einsum("ij,ij->i", share, rise) - turn * total
    second = -np.einsum("ij,ij->i", share, fall) + turn * total
    share /= size
    slope = (1 - turn) * total - 2 * sine**2 * share.sum(axis=1)
    twist = np.einsum("ij,ij->i", share, rise + fall)
    return first - 1j * sine * total, second - 1j * sine * total, slope + 1j * sine * twist


def log_angle(x: Array, angle: Array) -> Array:
    """Compute Im ln(1 - e^{x - iα}), continuous, in [0, π], shape (n, points)."""
    ratio, angle = np.exp(np.minimum(x, _FARTHEST)), np.maximum(angle, 0.0)  # not below the axis by rounding
    return np.arctan2(ratio * np.sin(angle[:, None]), 1 - ratio * np.cos(angle[:, None]))


def log_ratio_of(sums: tuple[Complex, Complex, Complex], *, mass: float) -> tuple[Complex, Complex]:
    """Compute ln t and its slope in v from M, p + M, which has the same imaginary part <= 0, and E K(1 + K).

    The angle keeps its digits where it is small, and ln t where M is large, next to an atom.
    """
    first, rest, slope = sums
    angle = np.arctan2(mass * first.imag, first.real * rest.real + first.imag**2)
    angle = np.where(angle > 0.5 * np.pi, angle - 2 * np.pi, angle)
    small = mass / first
    near = np.abs(small) < 0.5
    shift = np.where(near, small, 0.0)
    size = np.where(
        near,
        -0.5 * np.log1p(shift.real * (2 + shift.real) + shift.imag**2),
        np.log(np.abs(first)) - np.log(np.abs(rest)),
    )
    return size + 1j * angle, -slope * small / rest
