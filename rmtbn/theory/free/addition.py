"""The free sum of two laws on the line, by subordination.

Model: X + Y, X and Y free with Cauchy transforms G(z) = E 1/(z - x). For z in the upper half-plane there is one pair
ω_1, ω_2 there, Im ω_i >= Im z, with (Voiculescu 1993; Biane 1998; Belinschi & Bercovici 2007)

    G_{X+Y}(z) = G_X(ω_1) = G_Y(ω_2),        ω_1 + ω_2 = z + 1/G_{X+Y}(z).

The density is -Im G/π at x + i0, followed down from far above the axis by Newton's method. The distribution function
needs no integration: with U(z) = E ln(z - x), U_{X+Y} = U_X(ω_1) + U_Y(ω_2) + ln G, and 1 - F = Im U/π. The outer edges
are the first zeros of K′ on the way from infinity, K(g) = ω_1 + ω_2 - 1/g the inverse of G. Derivation:
docs/derivations/free_products.md.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from rmtbn import _checks
from rmtbn.theory.free.branch import ConvergenceError
from rmtbn.theory.free.summands import Cauchy, Summand, argument, marchenko_pastur, point_masses, semicircle

__all__ = ["FreeSum", "Summand", "free_sum", "marchenko_pastur", "point_masses", "semicircle"]

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

_HEIGHTS = np.append(np.geomspace(30.0, 1e-6, 60), 0.0)  # Im z over the width of the sum
_ITERATIONS, _FIXED = 25, 100
_SETTLED, _ACCEPTED = 1e-12, 1e-11
_BESIDE = 1e-6  # of the width: distance from an atom from which F at the atom is taken, as a mean of both sides
_SCAN = np.append(np.linspace(0.002, 0.998, 400), 1 - np.geomspace(1e-3, 1e-9, 20))  # of g over its largest value


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeSum:
    """Law of the free sum of two laws on the line.

    Parameters
    ----------
    first, second
        The summands.
    support
        Outer edges, atoms included.
    atoms
        ((x, mass), ...): x + y with mass p + r - 1 where that is > 0 (Bercovici & Voiculescu 1998).
    """

    first: Summand
    second: Summand
    support: tuple[float, float]
    atoms: tuple[tuple[float, float], ...]

    @property
    def accuracy(self) -> float:
        """Absolute accuracy of G, and of the density away from edges."""
        return 1e-10

    def cauchy_transform(self, z: ArrayLike) -> Complex:
        """Compute G(z), Im z >= 0, real z as z + i0; any shape.

        Raises
        ------
        ConvergenceError
            If a point is not reached, for example at an atom.
        """
        goal = np.asarray(z, dtype=np.complex128)
        if not (np.isfinite(goal).all() and np.all(goal.imag >= 0)):
            raise _checks.fail("z", "finite, with Im z >= 0", z)
        return self._subordinated(goal.ravel())[1].reshape(goal.shape)

    def _subordinated(self, end: Complex) -> tuple[Complex, Complex]:
        """Compute ω_1, ω_2 and G, followed down from far above."""
        width = self._width
        centre = (self.first.low + self.first.high, self.second.low + self.second.high)
        omega = np.stack([end - centre[1] / 2, end - centre[0] / 2]) + 1j * _HEIGHTS[0] * width
        for height in _HEIGHTS:
            omega, g = _subordinate((self.first.cauchy, self.second.cauchy), end + 1j * height * width, omega)
        return omega, g

    @property
    def _width(self) -> float:
        return max(1e-3, self.first.high - self.first.low + self.second.high - self.second.low)

    def pdf(self, x: ArrayLike) -> Array:
        """Density at x (absolutely continuous part), -Im G(x + i0)/π; any shape."""
        place = _checks.array("x", x)
        inside = (place > self.support[0]) & (place < self.support[1])
        density = np.zeros(place.shape)
        density[inside] = np.maximum(-self.cauchy_transform(place[inside]).imag / np.pi, 0.0)
        return density

    def cdf(self, x: ArrayLike) -> Array:
        """P(X + Y <= x), atoms included, 1 - Im E ln(x + i0 - λ)/π; any shape.

        Raises
        ------
        InvalidArgumentError
            If a summand is given without its `angle`.
        ConvergenceError
            If a point is not reached.
        """
        place = _checks.array("x", x)
        beside = _BESIDE * self._width
        total = np.where(place >= self.support[1], 1.0, 0.0)
        inside = (place >= self.support[0]) & (place < self.support[1])
        for at, mass in self.atoms:
            near = inside & (np.abs(place - at) <= 1e-3 * beside)
            sides = self._below(np.array([at - beside, at + beside])).mean()
            total[near] = np.where(place[near] >= at, sides + mass / 2, sides - mass / 2)
            inside &= ~near
        total[inside] = self._below(place[inside])
        return np.asarray(np.clip(total, 0.0, 1.0))

    def _below(self, x: Array) -> Array:
        """F where there is no atom."""
        if self.first.angle is None or self.second.angle is None:
            raise _checks.fail("first and second", "given with their `angle`, Im E ln(z - x)", None)
        low, high = self.support
        total, inside = np.where(x >= high, 1.0, 0.0), (x > low) & (x < high)
        omega, g = self._subordinated(x[inside].astype(np.complex128))
        tail = self.first.angle(omega[0]) + self.second.angle(omega[1]) - argument(1 / g)
        total[inside] = 1.0 - tail / np.pi
        return total


def free_sum(first: Summand, second: Summand) -> FreeSum:
    """Compute the law of the free sum of two laws on the line.

    Parameters
    ----------
    first, second
        Made by `semicircle`, `marchenko_pastur` or `point_masses`, or by their Cauchy transforms.

    Examples
    --------
    >>> law = free_sum(semicircle(9.0), semicircle(16.0))
    >>> [round(edge, 9) for edge in law.support], round(float(law.pdf(0.0)), 12)  # semicircle of variance 25
    ([-10.0, 10.0], 0.063661977237)
    """
    atoms = [(x + y, p + r - 1) for x, p in first.atoms for y, r in second.atoms if p + r > 1 + 1e-14]
    high = _edge(first, second)
    low = -_edge(_mirrored(first), _mirrored(second))
    points = [x for x, _ in atoms]
    return FreeSum(
        first=first, second=second, support=(min([low, *points]), max([high, *points])), atoms=tuple(sorted(atoms))
    )


def _subordinate(pair: tuple[Cauchy, Cauchy], z: Complex, omega: Complex) -> tuple[Complex, Complex]:
    """Solve for ω and G, with ω_2 or else ω_1 as the unknown: where G = 0 in a gap one of them is infinite.

    Where Newton's method fails the fixed-point iteration comes near first (Belinschi & Bercovici 2007: it converges).
    """
    found, g, size = omega.copy(), np.empty_like(z), np.full(z.shape, np.inf)
    for unknown, is_near in ((1, False), (0, False), (1, True), (0, True)):
        lost = np.flatnonzero(~(size < _ACCEPTED))
        if lost.size == 0:
            break
        start = _iterated(pair, z[lost], omega[:, lost]) if is_near else omega[:, lost]
        sides = (pair[unknown], pair[1 - unknown])
        own, other, g[lost], size[lost] = _newton(sides, z[lost], start[unknown])
        found[unknown, lost], found[1 - unknown, lost] = own, other
    if not np.all(size < _ACCEPTED):
        raise ConvergenceError(f"no subordination found at z = {z[np.argmax(size)]}")
    return found, g


@np.errstate(all="ignore")  # what is not finite is found out by its size
def _iterated(pair: tuple[Cauchy, Cauchy], z: Complex, omega: Complex) -> Complex:
    first = omega[0]
    for _ in range(_FIXED):
        second = z + 1 / pair[0](first)[0] - first
        first = z + 1 / pair[1](second)[0] - second
    return np.stack([first, second])


@np.errstate(all="ignore")
def _newton(sides: tuple[Cauchy, Cauchy], z: Complex, omega: Complex) -> tuple[Complex, Complex, Complex, Array]:
    """Solve ω = z + H_b(z + H_a(ω)), H = 1/G - identity; the size of the last step is inf outside the half-plane."""
    for _ in range(_ITERATIONS):
        g, slope = sides[0](omega)
        other = z + 1 / g - omega
        g_other, slope_other = sides[1](other)
        off = z + 1 / g_other - other - omega
        step = off / (1 - (slope / g**2 + 1) * (slope_other / g_other**2 + 1))
        omega = omega + step
        size = np.abs(step) / (1 + np.abs(omega))
        if np.all(size < _SETTLED):
            break
    g = sides[0](omega)[0]
    other = z + 1 / g - omega
    inside = np.minimum(omega.imag, other.imag) >= z.imag * (1 - 1e-6) - 1e-11 * (1 + np.abs(other))
    return omega, other, g, np.where(inside & np.isfinite(size), size, np.inf)


@np.errstate(divide="ignore", invalid="ignore")  # slopes at the end of a support
def _edge(first: Summand, second: Summand) -> float:
    """Find the upper edge: the first zero of K′ as g grows from 0, or the end of a transform's range."""
    largest = min(_value_at_end(first), _value_at_end(second))
    scale = 1e12 if math.isinf(largest) else largest
    reach = max(first.high - first.low, second.high - second.low, 1e-9)
    grid = np.minimum(_SCAN / (1 - _SCAN) / reach * 4, scale * (1 - 1e-12)) if scale == 1e12 else _SCAN * scale

    def slope(g: float) -> float:
        parts = (1 / float(side.cauchy(np.array([_inverse(side, g) + 0j]))[1][0].real) for side in (first, second))
        return sum(parts) + 1 / g**2

    rising = next((i for i, g in enumerate(grid.tolist()) if slope(g) >= 0), None)
    if rising is None and math.isinf(largest):  # z reaches the sum of the upper ends: an atom
        return first.high + second.high
    g = float(grid[-1])
    if rising is not None:
        low, high = float(grid[rising - 1]) if rising else float(grid[0]) * 1e-6, float(grid[rising])
        g = float(optimize.brentq(slope, low, high, xtol=1e-15 * high, rtol=1e-14)) if slope(low) < 0 else low
    return _inverse(first, g) + _inverse(second, g) - 1 / g


def _value_at_end(side: Summand) -> float:
    """G at the upper end of the support; inf at an atom."""
    if any(x == side.high for x, _ in side.atoms):
        return math.inf
    return float(side.cauchy(np.array([side.high + 0j]))[0][0].real)


def _inverse(side: Summand, g: float) -> float:
    """Solve G(x) = g > 0 for x above the support: x - low >= 1/g >= x - high bounds it."""
    if side.high == side.low:
        return side.high + 1 / g

    def excess(x: float) -> float:
        return float(side.cauchy(np.array([x + 0j]))[0][0].real) - g

    low, high = max(side.high, side.low + 1 / g), side.high + 1 / g
    low = low + 1e-15 * max(1.0, abs(low))
    if excess(low) <= 0:
        return low
    if excess(high) >= 0:  # to rounding
        return high
    return float(optimize.brentq(excess, low, high, xtol=1e-15, rtol=1e-15))


def _mirrored(side: Summand) -> Summand:
    """Return the law of -x: G(z) = -conj G(-conj z)."""

    def cauchy(z: Complex) -> tuple[Complex, Complex]:
        g, slope = side.cauchy(-z.conj())  # stays in the closed upper half-plane
        return -g.conj(), slope.conj()

    return Summand(
        cauchy=cauchy,
        low=-side.high,
        high=-side.low,
        atoms=tuple((-x, mass) for x, mass in reversed(side.atoms)),
    )
