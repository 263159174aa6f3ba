"""Mean field of wide unnormalised networks at initialisation: maps, fixed points, depth scales, critical points.

The maps themselves are in `rmtbn.theory.length` (q, χ₁), `rmtbn.theory.correlation` (c) and, iterated, in
`rmtbn.theory.propagation`; all can be had from here.
At the fixed point q* of the length map and c* of the correlation map (Schoenholz et al. 2017, arXiv:1611.01232)

- deviations from q* shrink by χ_q per layer, those from c* by χ_c = σ_w² E φ′(h₁)φ′(h₂) taken at (q*, c*),
- so they are forgotten over the depth scales ξ_q = -1/ln χ_q, ξ_c = -1/ln χ_c (eq. (8) and (10)),
- squared gradients grow by χ₁ per layer, and the order-to-chaos line is χ₁ = 1 at q*.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.activations import activation as find_activation
from rmtbn.theory.correlation import (
    correlation_map,
    correlation_slope,
    decorrelation_map,
)
from rmtbn.theory.length import (
    chi1,
    dphi_second_moment,
    length_map,
    length_slope,
    phi_second_moment,
    variances,
)
from rmtbn.theory.moment_rules import LENGTH_BOUNDS
from rmtbn.theory.propagation import (
    correlations,
    decorrelations,
    lengths,
    log_lengths,
    propagation,
)

__all__ = [
    "CriticalPoint",
    "FixedPoint",
    "chi1",
    "correlation_map",
    "correlation_slope",
    "correlations",
    "critical_point",
    "decorrelation_map",
    "decorrelations",
    "dphi_second_moment",
    "fixed_point",
    "length_map",
    "length_slope",
    "lengths",
    "log_lengths",
    "phi_second_moment",
    "propagation",
]

Array = NDArray[np.float64]

# Fixed points are sought between these lengths; beyond them the map is its limit at 0 or at infinity.
Q_RANGE = (1e-18, 1e15)
DRIFT_NOISE = 1e-11  # rounding and quadrature error of the relative drift q'/q - 1: what is below it has no sign
CRITICAL_NOISE = 1e-9  # a slope within this of 1 is marginal
SMALLEST_D = 1e-18  # of the search for 1 - c*: closer to the critical line c* is 1 in floating point
CONVENTIONAL_Q = 1.0  # where every q is a fixed point (linear, (leaky) ReLU at criticality) this one is reported


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """Fixed point of the length map that is reached from q = 1, and of the correlation map there.

    Parameters
    ----------
    q
        q*; 0 where lengths vanish with depth, inf where they diverge.
    c
        c*, reached from any correlation in (0, 1): 1 in the ordered phase, below 1 in the chaotic one. Where φ is
        linear at q* every c is kept, and 1 is reported.
    chi1
        χ₁ at q*: growth of the squared gradient norm per layer.
    chi_q
        Slope of the length map at q*: deviations of q shrink by this factor per layer.
    chi_c
        Slope of the correlation map at c*: deviations of c shrink by this factor per layer.
    xi_q, xi_c
        Depth scales -1/ln χ in layers; inf where the slope is 1 (slower than exponential) or more (not forgotten).
    stable
        Whether chi_q < 1.
    """

    q: float
    c: float
    chi1: float
    chi_q: float
    chi_c: float
    xi_q: float
    xi_c: float
    stable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalPoint:
    """A point of the order-to-chaos line: χ₁(q*) = 1."""

    sigma_w: float
    sigma_b: float
    q: float


def fixed_point(activation: str | Activation, *, sigma_w: float, sigma_b: float = 0.0) -> FixedPoint:
    """Find the fixed point q* of the length map that is reached from q = 1, and c* of the correlation map there.

    Where every q is fixed (linear and (leaky) ReLU at criticality) q* = 1 by convention, and it is not stable.

    Parameters
    ----------
    activation
        Name or record of φ.
    sigma_w, sigma_b
        Standard deviations of √N·W_ij, > 0, and of the bias, >= 0.

    Returns
    -------
    FixedPoint
        Where q* is 0 or inf the slopes are the limits there, and χ_c is that of the correlation, which is normalised.
    """
    record = find_activation(activation)
    weight, bias = (float(v) for v in variances(_checks.real("sigma_w", sigma_w, above=0.0), sigma_b))
    q = _attractor(record, weight, bias)
    at = min(max(q, LENGTH_BOUNDS[0]), LENGTH_BOUNDS[1])  # limits at q = 0 and at infinity
    chi_q = float(length_slope(at, record, sigma_w=sigma_w))
    c, chi_c = _correlation_attractor(record, at, sigma_w, sigma_b)
    return FixedPoint(
        q=q,
        c=c,
        chi1=float(chi1(at, record, sigma_w=sigma_w)),
        chi_q=chi_q,
        chi_c=chi_c,
        xi_q=depth_scale(chi_q),
        xi_c=depth_scale(chi_c),
        stable=chi_q < 1.0 - CRITICAL_NOISE,
    )


def depth_scale(chi: float) -> float:
    """Compute ξ = -1/ln χ, the layers over which deviations shrink by 1/e; inf at χ = 1 (to 1e-9) and above."""
    chi = _checks.real("chi", chi, at_least=0.0)
    if chi >= 1.0 - CRITICAL_NOISE:
        return math.inf
    return -1 / math.log(chi) if chi > 0 else 0.0


def critical_point(activation: str | Activation, *, sigma_b: float = 0.0) -> CriticalPoint:
    """Find σ_w with χ₁(q*) = 1 for a given σ_b, on the line parametrised by q: σ_w² = 1/E φ′², σ_b² = q - σ_w² E φ².

    σ_b² grows with q for every φ of the registry but the positively homogeneous ones, so the point is unique.

    Raises
    ------
    InvalidArgumentError
        If there is no critical point at that σ_b: linear and (leaky) ReLU are critical at σ_b = 0 only.

    Notes
    -----
    χ₁ = 1 does not make q* attracting: for GELU and SiLU it repels below σ_b² = 0.1729 and 0.5551 (`fixed_point` then
    goes elsewhere); for every other φ of the registry it attracts.

    Examples
    --------
    >>> round(critical_point("erf", sigma_b=0.0).sigma_w ** 2 * 4 / math.pi, 12)
    1.0
    """
    record = find_activation(activation)
    bias = float(variances(0.0, sigma_b)[1])
    if record.slopes is not None and set(record.kinks) <= {0.0}:  # φ(ah) = aφ(h) for a > 0: E φ² = q E φ′²
        if bias > 0:
            raise _checks.fail("sigma_b", f"0 for {record.name!r}, which is critical at no other", float(sigma_b))
        return CriticalPoint(sigma_w=float(dphi_second_moment(1.0, record)) ** -0.5, sigma_b=0.0, q=CONVENTIONAL_Q)
    q = 0.0 if bias == 0 else _critical_length(record, bias)
    return CriticalPoint(sigma_w=float(dphi_second_moment(q, record)) ** -0.5, sigma_b=float(sigma_b), q=q)


def _critical_length(record: Activation, bias: float) -> float:
    def excess(log_q: float) -> float:
        q = np.exp(log_q)
        return float(q - phi_second_moment(q, record) / dphi_second_moment(q, record)) - bias

    low, high = np.log(Q_RANGE)
    if excess(high) < 0:
        raise _checks.fail("sigma_b", "small enough for a critical point with q* < 1e15", bias**0.5)
    return float(np.exp(optimize.brentq(excess, low, high, xtol=1e-14, rtol=1e-14)))


def _attractor(record: Activation, weight: float, bias: float) -> float:
    """Follow the map from q = 1 up or down to the first fixed point on the way (the map increases with q)."""

    def drift(log_q: float) -> float:
        q = np.exp(log_q)
        return float((weight * phi_second_moment(q, record) + bias) / q) - 1.0

    log_q = np.linspace(0.0, np.log(Q_RANGE[1]), 300)
    start = drift(0.0)
    if abs(start) < DRIFT_NOISE:
        return CONVENTIONAL_Q
    grid = log_q if start > 0 else log_q * np.log(Q_RANGE[0]) / np.log(Q_RANGE[1])
    q = np.exp(grid)
    relative = ((weight * phi_second_moment(q, record) + bias) / q - 1.0) * np.sign(start)
    grid, relative = _with_dips(grid, relative, lambda at: drift(at) * math.copysign(1.0, start))
    crossed = np.flatnonzero(relative < -DRIFT_NOISE)
    if crossed.size == 0:
        return float("inf") if start > 0 else 0.0
    before = np.flatnonzero(relative[: crossed[0]] > 0)[-1]
    low, high = sorted((float(grid[before]), float(grid[crossed[0]])))
    return float(np.exp(optimize.brentq(drift, low, high, xtol=1e-15, rtol=1e-15)))


def _with_dips(grid: Array, height: Array, function: Callable[[float], float]) -> tuple[Array, Array]:
    """Add the bottom of each dip of `function`: two fixed points that are about to merge hide between grid points."""
    middle = height[1:-1]
    dips = np.flatnonzero((middle <= height[:-2]) & (middle <= height[2:]) & (middle > DRIFT_NOISE)) + 1
    for dip in dips[::-1]:  # from the far end, so that places before it stay
        low, high = sorted((float(grid[dip - 1]), float(grid[dip + 1])))
        bottom = optimize.minimize_scalar(function, bounds=(low, high), method="bounded", options={"xatol": 1e-8})
        place = dip + int(abs(bottom.x) > abs(grid[dip]))
        grid, height = np.insert(grid, place, bottom.x), np.insert(height, place, bottom.fun)
    return grid, height


def _correlation_attractor(record: Activation, q: float, sigma_w: float, sigma_b: float) -> tuple[float, float]:
    """Find c* in [0, 1], where the map is convex and increases (so c* < 1 iff its slope at 1 is > 1), and the slope."""

    def drift(log_d: float) -> float:
        d = math.exp(log_d)
        return float(decorrelation_map(d, record, q=q, sigma_w=sigma_w, sigma_b=sigma_b)) / d - 1.0

    slope = float(correlation_slope(1.0, record, q=q, sigma_w=sigma_w, sigma_b=sigma_b))
    if slope <= 1.0 + CRITICAL_NOISE or drift(math.log(SMALLEST_D)) <= 0:
        return 1.0, slope
    if drift(0.0) >= -DRIFT_NOISE:  # no bias and an odd φ: uncorrelated inputs stay so
        c = 0.0
    else:
        c = -math.expm1(optimize.brentq(drift, math.log(SMALLEST_D), 0.0, xtol=1e-14, rtol=1e-14))
    return c, float(correlation_slope(c, record, q=q, sigma_w=sigma_w, sigma_b=sigma_b))
