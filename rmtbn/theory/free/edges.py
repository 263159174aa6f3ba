"""Where the spectral curve meets the real axis: the outer edges of the bulk, and points on z < 0.

Outside the spectrum M is real and falls as λ grows, so s is real. For s > 0 ln z falls as u = ln s grows: from ∞ (u =
-∞) to the upper edge, and from the lower edge to -∞ (u = ∞). Both edges are the first zeros of d ln z/du on the way.
An atom above the bulk is passed at u = 0. For s < 0, Im u = -π, z < 0.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.special import expit, log_expit

from rmtbn.theory.free.branch import ConvergenceError, Points
from rmtbn.theory.free.curve import SpectralCurve
from rmtbn.theory.free.panel_poles import NODES, TO_SERIES

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

AT_ATOM = 1e-7  # |u| below which M counts as infinite; ln z at a critical point errs by its square
FAR = 30.0  # u that counts as infinite where λ -> 0
_SECANTS = 60
_SETTLED = 1e-9  # change of u, relative, that ends the search for a critical point
_APART = 1e-9  # distance of ln ζ from the end of a law at which it is outside
_LOGITS = np.concatenate([np.arange(-16.0, 6.0), np.arange(6.0, 37.0, 5.0)])
_FALLING = 0.013 + np.concatenate([np.arange(-3.0, 3.0, 0.17), np.arange(3.0, 37.0, 1.5)])  # not u = ln 2: singular
_ANCHORS = np.concatenate([np.arange(-30, -8, 4.0), np.arange(-8, 8, 1.0), np.arange(8, 58, 4.0)])


def anchors(curve: SpectralCurve) -> Points:
    """Lay points on z < 0 from far above the bulk to far below it."""
    return _real_points(curve, _ANCHORS - 1j * np.pi, below=False)


def real_w(curve: SpectralCurve, u: float) -> float:
    """Compute ln |z| at the point of z < 0 with given Re u."""
    return float(_real_points(curve, np.array([u - 1j * np.pi]), below=False).w[0].real)


@np.errstate(all="ignore")  # a slope that is not finite is no critical point
def edges(curve: SpectralCurve) -> tuple[float, float]:
    """Compute (ln low, ln high) of the bulk; ln low is -inf where the density reaches λ = 0.

    Raises
    ------
    ConvergenceError
        If there is no critical point.
    """
    (low, low_found), (high, high_found) = bounds(curve)
    if not (low_found and high_found):
        raise ConvergenceError(f"no edge found between ln λ = {low} and ln λ = {high} and the atoms outside them")
    return low, high


@np.errstate(all="ignore")
def bounds(curve: SpectralCurve) -> tuple[tuple[float, bool], tuple[float, bool]]:
    """Compute the edges, or points of the gaps between atoms outside the bulk and the bulk, and which they are.

    Beyond such an atom the real axis is followed up to where M passes 0, or -p, and u leaves its sheet.

    Raises
    ------
    ConvergenceError
        If there is neither.
    """
    return _lower_edge(curve), _upper_edge(curve)


def gap_edge(curve: SpectralCurve, points: Points) -> float:
    """Compute ln λ at the critical point next to two points of a gap, by the secant method on d ln z/du."""
    sheet = 1j * np.where(points.u.imag < -np.pi / 2, -np.pi, 0.0)
    u, v = points.u.real + sheet, points.v.real + 1j * np.where(points.v.imag > np.pi / 2, np.pi, 0.0)
    for _ in range(_SECANTS):
        v = _on_curve(curve, u, v)
        residual = curve.residual(u, v)
        slope, pull = curve.total_slope(residual)
        step = -slope[0] * (u[0] - u[1]) / (slope[0] - slope[1])
        if abs(step) < 1e-10 * (1 + abs(u[0])):  # ln z is then right to its square
            return float(residual.log_z[0].real)
        u, v = np.array([u[0] + step, u[0]]), np.stack([v[:, 0] + pull[:, 0] * step, v[:, 0]], axis=1)
    raise ConvergenceError(f"no edge of a gap found near ln λ = {points.w[0].real}")


def _on_curve(curve: SpectralCurve, u: Complex, v: Complex) -> Complex:
    """Solve the equations of the factors at given u."""
    for _ in range(_SECANTS):
        residual = curve.residual(u, v)
        step = residual.mismatch / residual.mismatch_slope
        v = v - step
        if np.all(np.abs(step) < 1e-14 * (1 + np.abs(v))):
            break
    return v


def _upper_edge(curve: SpectralCurve) -> tuple[float, bool]:
    u = log_expit(_LOGITS)
    tops = [factor.law.span[1] > factor.law.inner[1] for factor in curve.factors]
    if curve.fall == 0 and all(
        tops
    ):  # else ln z is singular at u = 0, or u = 0 not reached; its critical point is before
        u = np.concatenate([u, _limit(curve) * expit(_LOGITS)])
    return _first_critical(curve, u[np.abs(u) > AT_ATOM], below=False)


def _limit(curve: SpectralCurve) -> float:
    """Return the least u > 0 at which a logarithm of the curve is singular, or FAR."""
    gammas = [*curve.gammas, *(1 - curve.rank / factor.rank for factor in curve.factors)]
    return min([FAR, *(-math.log(gamma) for gamma in gammas if gamma > 0)])


def _lower_edge(curve: SpectralCurve) -> tuple[float, bool]:
    """Find a soft edge where z falls as 1/s for s -> ∞, so that M is regular at z = 0; else the bulk reaches 0."""
    if not all(factor.law.floor > -math.inf or factor.rank != curve.rank for factor in curve.factors):
        return -math.inf, True
    if not abs(_slope(curve, FAR, below=True) + 1) < 1e-6:
        return -math.inf, True
    u = np.concatenate([np.linspace(FAR, 3.2, 19), -log_expit(_FALLING), [1.5 * AT_ATOM]]) + _last_zero(curve)
    bottoms = [factor.law.span[0] < factor.law.inner[0] for factor in curve.factors]
    if curve.fall == 0 and _last_zero(curve) == 0 and all(bottoms):
        u = np.concatenate([u, log_expit(_LOGITS[::-1])])
    return _first_critical(curve, u[np.abs(u) > AT_ATOM], below=True)


def _last_zero(curve: SpectralCurve) -> float:
    """Return the largest u at which z vanishes or is infinite: the edge lies above; 0 if there is none.

    At M = -c a pole c has its power, and a factor of rank c, whose ζ passes through 0, its count.
    """
    powers = dict(zip(curve.poles.tolist(), curve.powers.tolist(), strict=True))
    for factor in curve.factors:
        powers[factor.rank] = powers.get(factor.rank, 0.0) + factor.count
    return max([0.0, *(-math.log1p(-curve.rank / c) for c, power in powers.items() if power and c > curve.rank)])


def _first_critical(curve: SpectralCurve, u: Array, *, below: bool) -> tuple[float, bool]:
    """Follow the real axis along the grid u to the first change of sign of d ln z/du: ln z there, or in the gap."""
    points = _real_points(curve, u.astype(np.complex128), below=below)
    slope = curve.total_slope(curve.residual(points.u, points.v))[0].real
    rising = np.flatnonzero(slope >= 0)
    at_atom = rising.size == 0 and abs(u[-1]) < 2 * AT_ATOM and abs(slope[-1]) < 1e-5
    if at_atom or (rising.size and rising[0] and u[rising[0] - 1] * u[rising[0]] < 0):
        return _at_atom(curve, below=below), True
    if rising.size == 0 and any(factor.law.inner == factor.law.span for factor in curve.factors):
        return _end_of_panels(curve, points, below=below), True
    if rising.size == 0 and u[0] * u[-1] < 0:
        return float(points.w.real[-1]), False
    if rising.size == 0 or rising[0] == 0:
        raise ConvergenceError(f"no edge found between u = {u[0]} and u = {u[-1]}")
    return _critical(curve, points.take(np.array([rising[0], rising[0] - 1])), below=below), True


def _critical(curve: SpectralCurve, ends: Points, *, below: bool) -> float:
    """Compute ln z where d ln z/du changes its sign between two points of the real axis, the first not falling.

    In ever narrower brackets the zero of the polynomial through 16 values is taken, until it stays.
    """
    (rising, falling), places, v, last = ends.u.real.tolist(), ends.u.real, ends.v.real, math.inf
    for _ in range(_SECANTS):
        u = (rising + falling) / 2 + (falling - rising) / 2 * NODES
        order = np.argsort(places)
        guess = np.array([np.interp(u, places[order], row[order]) for row in v], dtype=np.complex128)
        points = _real_points(curve, u.astype(np.complex128), below=below, guess=guess.reshape(len(v), u.size))
        slope = curve.total_slope(curve.residual(points.u, points.v))[0].real
        zero = _zero(TO_SERIES @ slope, slope >= 0)
        root = (rising + falling) / 2 + (falling - rising) / 2 * zero
        if abs(root - last) < _SETTLED * (1 + abs(root)):  # ln z is then right to its square
            return float(np.polynomial.legendre.legval(zero, TO_SERIES @ points.w.real))
        turn = int(np.argmin(np.append(slope >= 0, False)))
        rising, falling = np.concatenate([[rising], u, [falling]])[turn : turn + 2].tolist()
        places, v, last = points.u.real, points.v.real, root
    raise ConvergenceError(f"no edge found next to u = {last}")


def _zero(series: Array, rises: NDArray[np.bool_]) -> float:
    """Find where a polynomial on (-1, 1) first turns negative, by its values at the nodes; half-way to an end else."""
    turn = int(np.argmin(np.append(rises, False)))
    low, high = np.concatenate([[-1.0], NODES, [1.0]])[turn : turn + 2].tolist()
    at_low, at_high = np.polynomial.legendre.legval(np.array([low, high]), series).tolist()
    if not at_low > 0 > at_high:
        return (low + high) / 2
    return float(optimize.brentq(lambda x: np.polynomial.legendre.legval(x, series), low, high, xtol=1e-15))


def _end_of_panels(curve: SpectralCurve, points: Points, *, below: bool) -> float:
    """Return ln z where a ζ comes to the end of what is represented of its law: no more than e^-684 is beyond it."""
    outside = np.ones(points.u.shape, dtype=bool)
    for factor, v in zip(curve.factors, points.v, strict=True):
        low, high = factor.law.span
        outside &= (v.imag > np.pi / 2) | (v.real < low - _APART if below else v.real > high + _APART)
    last = np.flatnonzero(outside)
    if last.size == 0:
        raise ConvergenceError("no edge found: no real point outside the laws of the factors")
    return float(points.w.real[last[-1]])


def _at_atom(curve: SpectralCurve, *, below: bool) -> float:
    """Extrapolate to u = 0, where an atom has just lost its mass: ln z is even there but for higher terms."""
    near, far = _real_points(curve, np.array([AT_ATOM, 2 * AT_ATOM], dtype=np.complex128), below=below).w.real
    return float((4 * near - far) / 3)


def _slope(curve: SpectralCurve, u: float, *, below: bool) -> float:
    points = _real_points(curve, np.array([u + 0j]), below=below)
    return float(curve.total_slope(curve.residual(points.u, points.v))[0][0].real)


def _real_points(curve: SpectralCurve, u: Complex, *, below: bool, guess: Complex | None = None) -> Points:
    """Points with real s: Im u = 0 above all points of the factors (with `below`: under them), or Im u = -π."""
    v = np.empty((len(curve.factors), u.size), dtype=np.complex128)
    for i, factor in enumerate(curve.factors):
        target, _ = curve.target(factor, u)
        v[i] = factor.law.real_preimage(target, below=below, guess=None if guess is None else guess[i])
    return Points(u=u, v=v, w=curve.residual(u, v).log_z)
