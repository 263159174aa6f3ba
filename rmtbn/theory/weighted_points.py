"""A law on λ >= 0 given by weighted points, and its moment transform in logarithms.

With M(ζ) = E d/(ζ - d), p = P(d > 0), and t = M/(p + M), where p + M = E[ζ/(ζ - d); d > 0]: both are sums without
cancellation as functions of v = ln ζ, whatever the decades between ζ and the points.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

_FARTHEST = 600.0  # |ln(d/ζ)| beyond which d/(ζ - d) is its limit in floating point, with room to square it
_ITERATIONS = 80  # of Newton's method kept in a bracket: halving alone would reach rounding


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightedPoints:
    """A law given by weighted points.

    Parameters
    ----------
    log_points
        Logarithms of the points, ascending; zeros are left out.
    weights
        Their masses, > 0, of sum 1 - (mass at zero).
    atoms
        Those points that are atoms, as ((log point, mass), ...); the others are nodes of a quadrature.
    finer
        For a quadrature: the same law with half the spacing, made on demand. None where the points are the law.
    floor
        Logarithm of the infimum of the law's support without zero; -inf where the law reaches down to zero.
    """

    log_points: Array
    weights: Array
    atoms: tuple[tuple[float, float], ...] = ()
    finer: "Callable[[], WeightedPoints] | None" = None
    floor: float = -np.inf
    mass: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mass", float(self.weights.sum()))

    def scaled(self, log_factor: float) -> "WeightedPoints":
        """Return the law of e^log_factor·d."""
        finer = self.finer
        return WeightedPoints(
            log_points=self.log_points + log_factor,
            weights=self.weights,
            atoms=tuple((x + log_factor, mass) for x, mass in self.atoms),
            finer=None if finer is None else lambda: finer().scaled(log_factor),
            floor=self.floor + log_factor,
        )

    def log_moment(self, k: int) -> float:
        """Compute ln E d^k, k >= 1."""
        return float(np.logaddexp.reduce(k * self.log_points + np.log(self.weights)))

    def log_ratio(self, v: Complex) -> tuple[Complex, Complex]:
        """Compute ln t and its slope in v = ln ζ, 0 <= Im v <= π, shape (n,); Im ln t is in [-π, 0]."""
        m, rest, slope = self._sums(v)
        small = self.mass / m  # t = 1/(1 + p/M): near an atom M is large and ln t small
        near = np.abs(small) < 0.5
        log_t = np.where(near, -_log_one_plus(np.where(near, small, 0)), _log_below(m) - _log_below(rest))
        return log_t, -slope * small / rest

    def _sums(self, v: Complex) -> tuple[Complex, Complex, Complex]:
        """M, p + M and Σ w K(1 + K), K = d/(ζ - d) = (e^{-iα} - e^x)/(2(cosh x - cos α)), x = ln d - Re v, α = Im v."""
        x = np.clip(self.log_points - v.real[:, None], -_FARTHEST, _FARTHEST)
        turn = 2 * np.sin(v.imag[:, None] / 2) ** 2  # 1 - cos α
        rise = np.expm1(x)  # e^x - 1, and 1 - e^-x: no cancellation next to a point
        fall = rise / np.exp(x)
        share = 1.0 / (rise * fall + 2 * turn)
        first, second, imaginary = -(rise + turn) * share, (turn - fall) * share, -np.sin(v.imag[:, None]) * share
        w = self.weights
        shared = 1j * (imaginary @ w)
        slope = (first * second - imaginary**2) @ w + 1j * ((imaginary * (first + second)) @ w)
        return first @ w + shared, second @ w + shared, slope

    def potential_angle(self, v: Complex) -> Array:
        """Compute Im E ln(1 - d/ζ), continuous, in [0, π]."""
        ratio = np.exp(np.minimum(self.log_points - v.real[:, None], _FARTHEST))
        alpha = v.imag[:, None]
        return np.asarray(np.arctan2(ratio * np.sin(alpha), 1 - ratio * np.cos(alpha)) @ self.weights)

    def real_preimage(self, log_t: Complex, *, below: bool = False) -> Complex:
        """Solve for v = ln ζ on the real axis of ζ, where t is real: Im log_t is 0 or -π (t < 0, and then ζ < 0).

        For t > 0 the point lies above all points of the law (t < 1), under its top atom (t > 1), or with `below`
        under all points (t > 1). Outside the law |t| is a weighted mean of |d/ζ|, which gives the bracket; t falls as
        |ζ| grows.
        """
        y, negative = log_t.real, log_t.imag < -np.pi / 2
        bottom, second, top = self.log_points[0], self.log_points[-2], self.log_points[-1]
        low, high = bottom - y, top - y
        if below:
            high = np.where(negative, high, np.minimum(high, bottom))
        else:
            low = np.where(negative, low, np.where(y > 0, second, np.maximum(low, top)))
            high = np.where(~negative & (y > 0), top, high)
        angle = 1j * np.where(negative, np.pi, 0.0)
        v = (low + high) / 2
        for _ in range(_ITERATIONS):
            value, slope = self.log_ratio(v + angle)
            beyond = ~negative & (value.imag < -np.pi / 2)  # under the top atom t rises to ∞ and is then negative
            larger = beyond | (value.real > y)
            low, high = np.where(larger, v, low), np.where(larger, high, v)
            newton = v - (value.real - y) / slope.real
            inside = (newton > low) & (newton < high) & ~beyond
            last, v = v, np.where(inside, newton, (low + high) / 2)
            if np.all(np.abs(v - last) <= 1e-15 * (1 + np.abs(v))):
                break
        return np.asarray(v + angle)


def _log_one_plus(z: Complex) -> Complex:
    """Principal ln(1 + z) for |z| < 1/2, relatively accurate."""
    return np.asarray(0.5 * np.log1p(z.real * (2 + z.real) + z.imag**2) + 1j * np.arctan2(z.imag, 1 + z.real))


def _log_below(m: Complex) -> Complex:
    """Logarithm that is continuous on the closed lower half-plane: its cut is the positive imaginary axis."""
    return np.asarray(np.log(1j * m) - 0.5j * np.pi)
