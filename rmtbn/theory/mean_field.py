"""Mean field of wide unnormalised networks at initialisation: length map, χ₁, fixed point, critical point.

Model: h^l = W^l φ(h^{l-1}) + b^l, independent entries of variance σ_w²/N and σ_b², N → ∞. Then h^l_i ~ N(0, q^l), and

- length map (Poole et al. 2016, arXiv:1606.05340, eq. (3)):   q^l = σ_w² E φ(√q^{l-1} z)² + σ_b²
- growth per layer of squared gradients and of nearby inputs' distance (Schoenholz et al. 2017, arXiv:1611.01232,
  eq. (6)): χ₁ = σ_w² E φ′(√q z)²
- the order-to-chaos line is χ₁ = 1 at the fixed point q*.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.activations import activation as find_activation
from rmtbn.theory import gauss_hermite

Array = NDArray[np.float64]

# Fixed points are sought between these lengths; beyond them the map is its limit at 0 or at infinity.
Q_RANGE = (1e-18, 1e15)
DRIFT_NOISE = 1e-11  # rounding and quadrature error of the relative drift q'/q - 1: what is below it has no sign
CONVENTIONAL_Q = 1.0  # where every q is a fixed point (linear, (leaky) ReLU at criticality) this one is reported


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """Fixed point of the length map that is reached from q = 1.

    Parameters
    ----------
    q
        q*; 0 where lengths vanish with depth, inf where they diverge.
    chi1
        χ₁ at q*: growth of the squared gradient norm per layer.
    chi_q
        Slope of the length map at q*: deviations of q shrink by this factor per layer.
    stable
        Whether chi_q < 1.
    """

    q: float
    chi1: float
    chi_q: float
    stable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalPoint:
    """A point of the order-to-chaos line: χ₁(q*) = 1."""

    sigma_w: float
    sigma_b: float
    q: float


def phi_second_moment(q: ArrayLike, activation: str | Activation) -> Array:
    """Compute E φ(√q z)², in closed form where there is one, else by quadrature (relative error below 1e-11)."""
    record = find_activation(activation)
    q = _checks.array("q", q, at_least=0.0)
    if record.second_moment is not None:
        return np.asarray(record.second_moment(np.maximum(q, gauss_hermite.SMALLEST_Q)))
    return gauss_hermite.expectation(lambda h: record.phi(h) ** 2, q, kinks=record.kinks)


def dphi_second_moment(q: ArrayLike, activation: str | Activation) -> Array:
    """Compute E φ′(√q z)², in closed form where there is one, else by quadrature (relative error below 1e-11)."""
    record = find_activation(activation)
    q = _checks.array("q", q, at_least=0.0)
    if record.slope_second_moment is not None:
        return np.asarray(record.slope_second_moment(np.maximum(q, gauss_hermite.SMALLEST_Q)))
    return gauss_hermite.expectation(lambda h: record.dphi(h) ** 2, q, kinks=record.kinks)


def length_map(q: ArrayLike, activation: str | Activation, *, sigma_w: float, sigma_b: float = 0.0) -> Array:
    """Compute the next q: σ_w² E φ(√q z)² + σ_b² (arXiv:1606.05340, eq. (3)).

    Parameters
    ----------
    q
        Variances of the pre-activations, >= 0, any shape.
    activation
        Name or record of φ.
    sigma_w, sigma_b
        Standard deviations of √N·W_ij and of the bias, >= 0.

    Returns
    -------
    Array
        Of the shape of `q`.

    Examples
    --------
    >>> float(length_map(0.5, "relu", sigma_w=2**0.5))
    0.5
    """
    weight, bias = _variances(sigma_w, sigma_b)
    return np.asarray(weight * phi_second_moment(q, activation) + bias)


def chi1(q: ArrayLike, activation: str | Activation, *, sigma_w: float) -> Array:
    """Compute χ₁ = σ_w² E φ′(√q z)² (arXiv:1611.01232, eq. (6)), of the shape of `q`."""
    weight, _ = _variances(sigma_w, 0.0)
    return np.asarray(weight * dphi_second_moment(q, activation))


def length_slope(q: ArrayLike, activation: str | Activation, *, sigma_w: float) -> Array:
    """Compute the slope χ_q of the length map: σ_w² E[z φ φ′]/√q, which needs no φ″ and so holds at kinks too."""
    record = find_activation(activation)
    weight, _ = _variances(sigma_w, 0.0)
    length = np.maximum(_checks.array("q", q, at_least=0.0), gauss_hermite.SMALLEST_Q**0.5)
    products = gauss_hermite.expectation(lambda h: h * record.phi(h) * record.dphi(h), length, kinks=record.kinks)
    return np.asarray(weight * products / length)


def lengths(q0: float, activation: str | Activation, *, depth: int, sigma_w: float, sigma_b: float = 0.0) -> Array:
    """Iterate the length map: q¹ … q^depth from the mean square q0 of the input (the input passes no φ).

    Returns
    -------
    Array
        Shape (depth,); entry l - 1 is the variance of the l-th pre-activation.
    """
    weight, bias = _variances(sigma_w, sigma_b)
    depth = _checks.integer("depth", depth, at_least=1)
    q = np.empty(depth)
    q[0] = weight * _checks.real("q0", q0, at_least=0.0) + bias
    for layer in range(1, depth):
        q[layer] = length_map(q[layer - 1], activation, sigma_w=sigma_w, sigma_b=sigma_b)
    return q


def fixed_point(activation: str | Activation, *, sigma_w: float, sigma_b: float = 0.0) -> FixedPoint:
    """Find the fixed point q* of the length map that is reached from q = 1.

    Where every q is fixed (linear and (leaky) ReLU at criticality) q* = 1 by convention, and it is not stable.
    """
    record = find_activation(activation)
    weight, bias = _variances(sigma_w, sigma_b)
    q = _attractor(record, weight, bias)
    at = min(max(q, Q_RANGE[0] ** 2), Q_RANGE[1])  # limits at q = 0 and at infinity
    slope = float(length_slope(at, record, sigma_w=sigma_w))
    return FixedPoint(q=q, chi1=float(chi1(at, record, sigma_w=sigma_w)), chi_q=slope, stable=slope < 1.0 - 1e-9)


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
    >>> critical_point("erf", sigma_b=0.0).sigma_w ** 2 * 4 / np.pi
    1.0
    """
    record = find_activation(activation)
    _, bias = _variances(0.0, sigma_b)
    if record.slopes is not None and set(record.kinks) <= {0.0}:  # φ(ah) = aφ(h) for a > 0: E φ² = q E φ′²
        if bias > 0:
            raise _checks.fail("sigma_b", f"0 for {record.name!r}, which is critical at no other", float(sigma_b))
        return CriticalPoint(sigma_w=float(dphi_second_moment(1.0, record)) ** -0.5, sigma_b=0.0, q=CONVENTIONAL_Q)
    q = 0.0 if bias == 0 else _critical_length(record, bias)
    return CriticalPoint(sigma_w=float(dphi_second_moment(q, record)) ** -0.5, sigma_b=float(sigma_b), q=q)


def _variances(sigma_w: float, sigma_b: float) -> tuple[float, float]:
    return _checks.real("sigma_w", sigma_w, at_least=0.0) ** 2, _checks.real("sigma_b", sigma_b, at_least=0.0) ** 2


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
    crossed = np.flatnonzero(relative < -DRIFT_NOISE)
    if crossed.size == 0:
        return float("inf") if start > 0 else 0.0
    before = np.flatnonzero(relative[: crossed[0]] > 0)[-1]
    low, high = sorted((float(grid[before]), float(grid[crossed[0]])))
    return float(np.exp(optimize.brentq(drift, low, high, xtol=1e-15, rtol=1e-15)))
