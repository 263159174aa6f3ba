"""The transforms of free probability as functions of a law of λ >= 0, at complex arguments.

With M(z) = E λ/(z - λ) = Σ m_k z^-k (Voiculescu 1987; Nica & Speicher 2006, lectures 12 and 18):

    G(z) = (1 + M(z))/z = E 1/(z - λ)      Cauchy          ψ(w) = M(1/w) = Σ m_k w^k      moments
    χ = ψ^-1,  S(m) = (1 + m) χ(m)/m       S multiplies    R(g) = z - 1/g at G(z) = g     R adds

A law of a free product is read off its curve, which is explicit in M; any other by quadrature over its quantiles.
Series with exact coefficients are in `rmtbn.theory.free.series`.
"""

import functools
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtbn import _checks
from rmtbn.result import SpectralMeasure
from rmtbn.theory.free.branch import ConvergenceError
from rmtbn.theory.free.factor_law import FactorLaw
from rmtbn.theory.free.weighted_points import WeightedPoints

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

_STEP = 1 / 128  # of the double-exponential rule over the quantiles
_NODES = np.arange(-3.5, 3.5 + _STEP, _STEP)
_HALF = 1e-5  # difference of the rule and that of half the points, of which the square is the error
_TURNS = 24  # steps of a continuation
_ITERATIONS = 30
_SETTLED = 1e-13


@runtime_checkable
class OnCurve(Protocol):
    """A law that knows its transform in logarithms: u = ln M/(p + M) at w = ln z, and the inverse."""

    def log_ratio(self, w: Complex) -> Complex:
        """Compute u at w, 0 < Im w <= π."""

    def log_inverse(self, u: Complex) -> Complex:
        """Compute w at u, -π <= Im u < 0."""


def moment_transform(law: SpectralMeasure, z: ArrayLike) -> Complex:
    """Compute M(z) = E λ/(z - λ) off the support.

    Parameters
    ----------
    law
        A law of λ >= 0.
    z
        Complex points off the real axis, or negative ones; any shape.

    Returns
    -------
    Complex
        To 1e-10; for a free product however close to the support. Any other law is replaced by 900 points, which is
        checked against half as many.

    Raises
    ------
    InvalidArgumentError
        If a z is real and not negative.
    ConvergenceError
        If a z is too near the support of a law that is no free product.

    Examples
    --------
    >>> from rmtbn.theory.marchenko_pastur import MarchenkoPastur
    >>> z = moment_transform(MarchenkoPastur(ratio=1.0), -2.0)
    >>> round(float(z.real), 12)  # z M = (1 + M)²
    -0.267949192431
    """
    points = np.asarray(z, dtype=np.complex128)
    _off_support("z", points)
    lower = points.imag < 0
    w = np.log(np.where(lower, points.conj(), points)).ravel()
    w = w.real + 1j * np.where(points.ravel().imag == 0, np.pi, w.imag)
    m = _of_log_ratio(_log_ratio(law, w), rank=_rank(law)).reshape(points.shape)
    return np.where(points.imag == 0, m.real + 0j, np.where(lower, m.conj(), m))


def cauchy_transform(law: SpectralMeasure, z: ArrayLike) -> Complex:
    """Compute G(z) = E 1/(z - λ) off the support (see `moment_transform`)."""
    return np.asarray((1 + moment_transform(law, z)) / np.asarray(z, dtype=np.complex128))


def psi(law: SpectralMeasure, w: ArrayLike) -> Complex:
    """Compute ψ(w) = E wλ/(1 - wλ) = Σ m_k w^k, 1/w off the support."""
    points = np.asarray(w, dtype=np.complex128)
    _off_support("w", points)
    return moment_transform(law, 1 / points)


def chi(law: SpectralMeasure, m: ArrayLike) -> Complex:
    """Compute χ(m), the inverse of ψ on the half-planes and on -p < m < 0, p = 1 - (mass at zero).

    Parameters
    ----------
    law
        A law of λ >= 0.
    m
        Complex numbers that are values of ψ off the positive axis; any shape.

    Raises
    ------
    InvalidArgumentError
        If an m is real and not in (-p, 0).
    ConvergenceError
        If an m is no value of ψ there.
    """
    values = np.asarray(m, dtype=np.complex128)
    rank = _rank(law)
    on_axis = values.imag == 0
    wrong = on_axis & ((values.real >= 0) | (values.real <= -rank))
    if wrong.any():
        raise _checks.fail("m", f"complex, or in (-p, 0) with p = {rank:.6g}", complex(values[wrong].flat[0]))
    upper = values.imag > 0
    lower = np.where(upper, values.conj(), values).ravel()
    u = np.log(lower / (rank + lower))
    u = u.real - 1j * np.where(on_axis.ravel(), np.pi, np.abs(u.imag))
    z = np.exp(-_log_inverse(law, u)).reshape(values.shape)
    return np.where(on_axis, z.real + 0j, np.where(upper, z.conj(), z))


def s_transform(law: SpectralMeasure, m: ArrayLike) -> Complex:
    """Compute S(m) = (1 + m) χ(m)/m, which multiplies under free multiplication (see `chi`).

    Examples
    --------
    >>> from rmtbn.theory.fuss_catalan import FussCatalan
    >>> round(float(s_transform(FussCatalan(depth=3), -0.5).real), 10)  # 1/(1 + m)³
    8.0
    """
    values = np.asarray(m, dtype=np.complex128)
    return np.asarray((1 + values) * chi(law, values) / values)


def r_transform(law: SpectralMeasure, g: ArrayLike) -> Complex:
    """Compute R(g) = z - 1/g with G(z) = g, which adds under free addition.

    Parameters
    ----------
    law
        A law of λ >= 0.
    g
        Values of G off the support that are reached from 0 along a ray: off the real axis, or negative; any shape.

    Raises
    ------
    InvalidArgumentError
        If a g is real and not negative.
    ConvergenceError
        If a g is not reached.

    Examples
    --------
    >>> from rmtbn.theory.marchenko_pastur import MarchenkoPastur
    >>> round(float(r_transform(MarchenkoPastur(ratio=0.5), -1.0).real), 10)  # 1/(1 - c g)
    0.6666666667
    """
    goal = np.asarray(g, dtype=np.complex128)
    _off_support("g", goal)
    flat = goal.ravel()
    start = _largest(law)
    scale = np.minimum(1.0, 0.1 / (np.abs(flat) * start))
    z = 1 / (flat * scale) + law.moment(1)
    for share in np.geomspace(scale, 1.0, _TURNS) if flat.size else ():
        z = _solve(lambda x: cauchy_transform(law, x), flat * share, z)
    return (z - 1 / flat).reshape(goal.shape)


def _solve(function: Callable[[Complex], Complex], goal: Complex, start: Complex) -> Complex:
    """Solve function(z) = goal by the secant method, keeping to the half-plane of the start."""
    last = start * (1 + 1e-4)
    value, before = function(start), function(last)
    z = start
    for _ in range(_ITERATIONS):
        change = value - before
        step = np.where(change == 0, 0.0, -(value - goal) * (z - last) / np.where(change == 0, 1.0, change))
        size = np.abs(step) / np.abs(z)
        step = np.where(size > 0.5, 0.5 * step / np.maximum(size, 0.5), step)
        last, z, before = z, z + step, value
        if np.all(np.abs(step) <= _SETTLED * np.abs(z)):
            return z
        value = function(z)
    if np.all(np.abs(value - goal) <= 1e-11 * np.abs(goal)):
        return z
    raise ConvergenceError(f"no z found with G(z) = {goal[np.abs(value - goal).argmax()]}")


def _largest(law: SpectralMeasure) -> float:
    return max(law.support[1], law.moment(1))


def _off_support(name: str, points: Complex) -> None:
    wrong = (points.imag == 0) & ~(points.real < 0)
    if wrong.any() or not np.isfinite(points).all():
        raise _checks.fail(name, "finite, and off the real axis or negative", points)


def _rank(law: SpectralMeasure) -> float:
    return 1.0 - sum(mass for lam, mass in law.atoms if lam == 0)


def _of_log_ratio(u: Complex, *, rank: float) -> Complex:
    """M = p s/(1 - s) at u = ln s."""
    return np.asarray(rank * np.exp(u) / -np.expm1(u))


def _log_ratio(law: SpectralMeasure, w: Complex) -> Complex:
    """Compute u = ln M/(p + M) at w = ln z, 0 < Im w <= π."""
    if isinstance(law, OnCurve):
        return law.log_ratio(w)
    u, _ = points_of(law).log_ratio(w)
    rough, _ = points_of(law, stride=2).log_ratio(w)
    wrong = np.abs(u - rough) > _HALF  # halving the step squares the error
    if wrong.any():
        raise ConvergenceError(f"z = {np.exp(w[wrong][0]):.6g} is too near the support of {type(law).__name__}")
    return u


def _log_inverse(law: SpectralMeasure, u: Complex) -> Complex:
    """Compute ln z at u, -π <= Im u < 0."""
    w = law.log_inverse(u) if isinstance(law, OnCurve) else inverse(points_of(law), u)
    if not isinstance(law, OnCurve):
        _log_ratio(law, w)
    if not np.all((w.imag > -1e-12) & (w.imag < np.pi + 1e-12)):
        raise ConvergenceError("`m` is no value of ψ off the positive axis")
    return w


def inverse(factor: FactorLaw, log_t: Complex) -> Complex:
    """Solve ln t(v) = log_t for v = ln ζ, from the negative axis upwards at constant |t|."""
    angle = log_t.imag
    v = factor.real_preimage(np.asarray(log_t.real - 1j * np.pi, dtype=np.complex128))
    for share in np.linspace(0.0, 1.0, _TURNS + 1)[1:]:
        target = log_t.real + 1j * (-np.pi + share * (np.pi + angle))
        for _ in range(_ITERATIONS):
            value, slope = factor.log_ratio(np.asarray(v.real + 1j * np.clip(v.imag, 0.0, np.pi)))
            step = (target - value) / slope
            v = v + step
            if np.all(np.abs(step) <= 1e-14 * (1 + np.abs(v))):
                break
        if not np.all((np.abs(step) <= 1e-9) & (v.imag >= -1e-12) & (v.imag <= np.pi + 1e-12)):
            raise ConvergenceError("`m` is no value of the transform off the positive axis")
    return v


@functools.lru_cache(maxsize=32)
def points_of(law: SpectralMeasure, *, stride: int = 1) -> WeightedPoints:
    """Replace a law by points: double-exponential quadrature over the quantiles between its atoms."""
    nodes, step = _NODES[::stride], _STEP * stride
    zero = 1.0 - _rank(law)
    jumps = [(float(law.cdf(lam)) - mass, float(law.cdf(lam)), lam) for lam, mass in law.atoms if lam > 0]
    ends = [zero, *(p for jump in jumps for p in jump[:2]), 1.0]
    logs, masses = [np.log([lam for _, _, lam in jumps])], [np.array([b - a for a, b, _ in jumps])]
    for low, high in zip(ends[::2], ends[1::2], strict=True):
        if high - low > 1e-12:
            below = 1 / (1 + np.exp(np.pi * np.sinh(nodes)))
            slope = np.pi * np.cosh(nodes) * below * (1 - below) * step
            p = low + (high - low) * below
            inside = (p > low) & (p < high)
            logs.append(law.log_ppf(p[inside]))
            masses.append((high - low) * slope[inside])
    log_points, weights = np.concatenate(logs), np.concatenate(masses)
    order = np.argsort(log_points)
    return WeightedPoints(log_points=log_points[order], weights=weights[order] / weights.sum() * (1 - zero))
