"""The curve ln λ = ln((v + 1)/(v - 1)) + c v of the residual law on its real cut, without cancellation.

On the cut v = 1 + 2M = a - ib with b = θ/c, where θ is the angle under which the segment [-1, 1] is seen from v: by the
inscribed angle a² + b² - 1 = 2b cot θ. With s² = 1 + 2/c, T = 1 - θ cot θ, E = T + θ²/c and κ = 2T + θ²/c,

    a² = s² - κ/c,        d ln λ/da = c (E² + a²θ²)/(θ² - T + T² + θ²/c).

The variable is w = artanh(a/s) >= 0, so that κ = (c + 2)/cosh² w; w = 0 is λ = 1, and w = ∞ the upper edge. The
distance to the edge and the tail are sums that lose a factor 3 at most. Proof: docs/derivations/residual_law.md.
"""

import functools
import math
from dataclasses import dataclass

import mpmath
import numpy as np
from numpy.typing import NDArray

from rmtbn.theory.angle_functions import angle, arctangent_gap
from rmtbn.theory.newton import newton

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualCurve:
    """Points of the upper half of the curve.

    Parameters
    ----------
    theta
        θ, of which the density of ln λ is θ/(2πc).
    fall
        ln(edge/λ).
    log_tail
        ln P(λ' > λ).
    rate
        d ln λ/dw.
    """

    theta: Array
    fall: Array
    log_tail: Array
    rate: Array


def residual_curve(w: Array, *, c: float) -> ResidualCurve:
    """Evaluate the curve at w >= 0.

    Parameters
    ----------
    w
        artanh(a/s).
    c
        Variance of the branches, > 0.
    """
    s = math.sqrt(1 + 2 / c)
    near = np.exp(-2 * w)
    a, short = s * -np.expm1(-2 * w) / (1 + near), 2 * s * near / (1 + near)  # a and s - a
    squared_sech = 4 * near / (1 + near) ** 2
    kappa = (c + 2) * squared_sech
    theta, gap = _angle(kappa, c=c)
    b = theta / c
    excess = short * (s * short - 2 / c) + s * b**2
    log_ratio = np.log1p(c**2 * (s + 1) ** 2 * excess / ((a + 1) ** 2 + b**2))
    squared = theta**2
    steepness = c * ((gap + squared / c) ** 2 + a**2 * squared) / (squared - gap + gap**2 + squared / c)
    slope = b / (1 + a)
    tail = np.where(slope < 1, slope * kappa - 2 * arctangent_gap(slope), 2 * np.arctan(slope) + (1 - a) * theta)
    return ResidualCurve(
        theta=theta,
        fall=kappa / (s + a) + log_ratio / 2,
        log_tail=np.log(tail / (2 * math.pi)),
        rate=s * squared_sech * steepness,
    )


def _angle(kappa: Array, *, c: float) -> tuple[Array, Array]:
    """Solve 2T + θ²/c = κ for θ; return T too. Newton's method on ln κ, concave in u with a slope between 1 and 2."""

    def residual(u: Array) -> tuple[Array, Array]:
        theta, _, gap = angle(u)
        value = 2 * gap + theta**2 / c
        slope = 2 * (theta**2 - gap + gap**2 + theta**2 / c) / value * (1 - theta / math.pi)
        return np.log(value) - target, slope

    target = np.log(kappa)
    theta, _, gap = angle(newton(residual, (target - math.log(2 / 3 + 1 / c)) / 2 - math.log(math.pi)))
    return theta, gap


def at_rapidity(rapidity: Array, *, c: float) -> Array:
    """Solve artanh(ln λ/ln edge) = rapidity >= 0 for w, which it is nearly equal to (exactly for c → 0)."""
    edge = log_edge(c)[0]

    def residual(w: Array) -> tuple[Array, Array]:
        point = residual_curve(np.maximum(w, 0.0), c=c)
        rest = np.maximum(2 * edge - point.fall, edge)
        value = np.log(rest / point.fall) / 2 - rapidity
        return value, point.rate * edge / (rest * point.fall)

    return np.maximum(newton(residual, rapidity), 0.0)


def at_log_tail(log_tail: Array, *, c: float) -> Array:
    """Solve ln P(λ' > λ) = log_tail <= ln(1/2) for w, through the log odds, which are nearly -3w."""

    def odds(log_p: Array) -> Array:
        return log_p - np.log1p(-np.minimum(np.exp(log_p), 0.5))

    def residual(w: Array) -> tuple[Array, Array]:
        point = residual_curve(np.maximum(w, 0.0), c=c)
        tail = np.minimum(np.exp(point.log_tail), 0.5)
        slope = -point.theta / (2 * math.pi * c) * point.rate / (tail * (1 - tail))
        return odds(point.log_tail) - target, slope

    target = odds(log_tail)
    return np.maximum(newton(residual, -target / 3), 0.0)


@functools.lru_cache(maxsize=256)
def log_edge(c: float) -> tuple[float, float]:
    """Compute ln((s + 1)/(s - 1)) + √(c² + 2c) as the unevaluated sum of two floats (106 bits)."""
    with mpmath.workdps(50):
        c = mpmath.mpf(c)
        s = mpmath.sqrt(1 + 2 / c)
        edge = mpmath.log((s + 1) ** 2 * c / 2) + mpmath.sqrt(c * c + 2 * c)
        high = float(edge)
        return high, float(edge - high)
