"""The physical branch of a spectral curve: its points above given λ.

The inverse u(ln z) is univalent on the strip 0 < Im ln z < π (z in the upper half-plane) and explicit on z < 0. A
path that starts there and stays in the strip stays on the physical branch: each step is short compared with the
distance to the nearest singularity (by Koebe's distortion theorem the slope then changes little, which is checked)
and is closed by Newton's method. At an edge of the spectrum ln z has a critical point; in a variable that is
quadratic there, u is regular at both outer edges, and the path ends on the real axis itself. Derivation:
docs/derivations/free_products.md.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmtbn.theory.free.curve import SpectralCurve

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

# How far a step may miss its tangent, relative to its length. With f univalent in a disc of radius R, a step of ρR
# misses by at most 1/(1 - ρ)² - 1 (Koebe); onto the tip of a slit by 1/2; onto another sheet at a branch point by 1.
LARGEST_MISS = 0.55
STRAY = 3.0  # times the distance from its guess at which a solution is taken: iterates beyond are not pursued
ON_AXIS = 1e-9  # angle below which a point counts as real
MAX_STEPS = 400
ARRIVED = 1e-13  # distance of ln z from where it is to be, relative, that counts as none: rounding, next to an edge
WARY = 2  # steps after a refused one until longer ones are tried again
MAX_ITERATIONS = 12
PATIENCE, SLOW = 4, 0.6  # steps of Newton's method after which one that is not shorter than the last is the end
ROUNDING = 2e-15  # size of a step of Newton's method, relative, that ends it
STILL, PER_FACTOR = 1e-12, 1e-15  # ... or that does when it no longer shrinks, and what the sum over factors adds
NEARBY, QUADRATIC = 1e-3, 1e-3  # a step after which, and the ratio to the next at which, convergence is quadratic


class ConvergenceError(ArithmeticError):
    """The physical branch was not reached; the message says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A variable η in which the branch is regular at the outer edges of the bulk, as a function of w = ln z.

    With a hard lower edge (low = -inf) w = high - η²; else w = middle + half·cos η.

    Parameters
    ----------
    low, high
        Ends of the interval.
    mirrors
        Whether the branch goes on by reflection at the lower and at the upper end, as it does at an edge; not where
        two intervals meet.
    """

    low: float
    high: float
    mirrors: tuple[bool, bool] = (True, True)

    def coordinate(self, w: Complex) -> Complex:
        """Compute η at w, 0 <= Im w <= π."""
        if np.isinf(self.low):
            return np.asarray(np.sqrt(self.high - w))
        return np.asarray(np.arccos((w - (self.low + self.high) / 2) / ((self.high - self.low) / 2)))

    def place(self, eta: Array) -> Array:
        """Compute w at real η."""
        if np.isinf(self.low):
            return np.asarray(self.high - eta**2)
        return np.asarray((self.low + self.high) / 2 + (self.high - self.low) / 2 * np.cos(eta))

    def slope(self, eta: Complex) -> Complex:
        """Compute dw/dη."""
        if np.isinf(self.low):
            return np.asarray(-2 * eta)
        return np.asarray(-(self.high - self.low) / 2 * np.sin(eta))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Points:
    """Points of the branch: u, v (one row per factor given by points), and w = ln z."""

    u: Complex
    v: Complex
    w: Complex

    def take(self, index: NDArray[np.intp]) -> "Points":
        """Select points."""
        return Points(u=self.u[index], v=self.v[:, index], w=self.w[index])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """What Newton's method found: u, v, the slope dw/du, dv/du, and whether it converged."""

    u: Complex
    v: Complex
    slope: Complex
    pull: Complex
    converged: NDArray[np.bool_]

    @classmethod
    def at(cls, curve: SpectralCurve, u: Complex, v: Complex, *, w: Complex, leash: Array) -> "Solution":
        """Solve ln z = w together with the equations of the factors, from the guesses u and v.

        Iterates that leave the half-planes of M and ζ are put back on the axis: where a law has a density its transform
        jumps there, and what is beyond is another function. What strays from its guess u farther than the leash is
        given up.
        """
        origin, u, v = u, _below_axis(u), _above_axis(v)
        slope, pull = np.empty_like(u), np.empty_like(v)
        size, converged = np.full(u.shape, np.inf), np.zeros(u.shape, dtype=bool)
        still = max(STILL, PER_FACTOR * curve.weight)
        left = np.arange(u.size)
        for turn in range(MAX_ITERATIONS):
            residual = curve.residual(u[left], v[:, left])
            slope[left], pull[:, left] = curve.total_slope(residual)
            shift = residual.mismatch / residual.mismatch_slope
            du = (w[left] - residual.log_z + curve.counts @ shift) / slope[left]
            dv = pull[:, left] * du - shift
            u[left], v[:, left] = _below_axis(u[left] + du), _above_axis(v[:, left] + dv)
            scale = _scale(u[left], w[left], slope[left])
            scale_v = np.maximum(1 + np.abs(v[:, left]), np.abs(pull[:, left]) * scale)
            last, size[left] = size[left], np.max([np.abs(du) / scale, *(np.abs(dv) / scale_v)], axis=0)
            # quadratic convergence: a step is κ times the square of the last, and so is the error that it leaves;
            # the error of this iterate is at most of the order of the square of the last step
            ratio = size[left] / last
            is_quadratic = (last < NEARBY) & (ratio < QUADRATIC) & (size[left] * ratio**2 < ROUNDING)
            converged[left] = (size[left] < ROUNDING) | ((size[left] < still) & (ratio > 0.5)) | is_quadratic
            lost = (turn >= PATIENCE) & (ratio > SLOW) | ~(np.abs(u[left] - origin[left]) < leash[left])
            left = left[~converged[left] & ~lost]
            if left.size == 0:
                break
        return cls(u=u, v=v, slope=slope, pull=pull, converged=converged)

    @property
    def is_physical(self) -> NDArray[np.bool_]:
        """Whether M is in the lower half-plane and every ζ in the upper, or all real and led there by w moving up.

        For z in the upper half-plane one solution only has ζ there (Belinschi & Bercovici 2007); on the axis it is the
        limit of such.
        """
        rate = 1 / self.slope
        u, v = -self.u.imag, self.v.imag
        inside = (u > ON_AXIS) & (u < np.pi - ON_AXIS)
        allowed = (u > -ON_AXIS) & (u < np.pi + ON_AXIS) & np.all((v > -ON_AXIS) & (v < np.pi + ON_AXIS), axis=0)
        return allowed & (inside | (_is_upward(u, -rate.real) & np.all(_is_upward(v, (self.pull * rate).real), axis=0)))


def _below_axis(u: Complex) -> Complex:
    inside = u.copy()
    inside.imag = np.minimum(u.imag, 0.0)
    return inside


def _above_axis(v: Complex) -> Complex:
    inside = v.copy()
    inside.imag = np.maximum(v.imag, 0.0)
    return inside


def _is_upward(angle: Array, speed: Array) -> NDArray[np.bool_]:
    """Whether an angle in [0, π] that is on the border grows inwards."""
    return np.where(angle <= ON_AXIS, speed >= -ON_AXIS, (angle < np.pi - ON_AXIS) | (speed <= ON_AXIS))


def _scale(u: Complex, w: Complex, slope: Complex) -> Array:
    """Compute what rounding moves u by, over machine precision."""
    return np.maximum(1 + np.abs(u), (1 + np.abs(w)) / np.abs(slope))


@np.errstate(all="ignore")  # a trial step may leave the floating range; it is then refused
def follow(curve: SpectralCurve, target: Array | Complex, *, chart: Chart, anchors: Points) -> Points:
    """Follow the physical branch to z, or down to λ + i0.

    Parameters
    ----------
    curve
        The spectral curve.
    target
        Values of ln λ strictly inside the bulk, or of ln z, 0 < Im ln z <= π; shape (n,).
    chart
        The variable that is regular at the edges.
    anchors
        Points on z < 0; each path starts at the nearest.

    Raises
    ------
    ConvergenceError
        If a path does not arrive.
    """
    start = anchors.take(np.abs(anchors.w.real[:, None] - target.real).argmin(axis=0))
    end = target.astype(np.complex128)
    u, v, w, eta = start.u.copy(), start.v.copy(), start.w.copy(), chart.coordinate(start.w)
    slope, pull = curve.total_slope(curve.residual(u, v))
    rate, step, wary = chart.slope(eta) / slope, np.ones(target.shape), np.zeros(target.shape, dtype=np.int64)
    for _ in range(MAX_STEPS):
        index = np.flatnonzero(w != end)
        if index.size == 0:
            return Points(u=u, v=v, w=w)
        next_w = np.where(step[index] == 1, end[index], w[index] + step[index] * (end - w)[index])
        next_eta = chart.coordinate(next_w)
        guess = rate[index] * (next_eta - eta[index])
        most = LARGEST_MISS * np.abs(guess)
        start_u, start_v = u[index] + guess, v[:, index] + pull[:, index] * guess
        found = Solution.at(curve, start_u, start_v, w=next_w, leash=STRAY * most)
        near = np.abs(found.u - start_u) <= most
        below_zero = (next_w.imag > np.pi - ON_AXIS) & (found.u.imag < ON_AXIS - np.pi)  # z < 0, where M is real
        accepted = found.converged & (found.is_physical | below_zero) & near
        moved = index[accepted]
        u[moved], v[:, moved], pull[:, moved] = found.u[accepted], found.v[:, accepted], found.pull[:, accepted]
        w[moved], eta[moved] = next_w[accepted], next_eta[accepted]
        w = np.where(np.abs(end - w) <= ARRIVED * (1 + np.abs(end)), end, w)
        rate[moved] = (chart.slope(next_eta) / found.slope)[accepted]
        wary[index] = np.where(accepted, np.maximum(wary[index] - 1, 0), WARY)
        longer = np.where(wary[index] > 0, step[index], np.minimum(2 * step[index], 1))
        step[index] = np.where(accepted, longer, step[index] / 2)
    lost = target[w != end]
    raise ConvergenceError(f"no physical branch found at ln λ = {lost[:5]} ({lost.size} of {target.size} points)")
