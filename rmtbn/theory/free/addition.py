"""The free sum of two laws on the line, by subordination.

Model: X + Y, X and Y free with Cauchy transforms G(z) = E 1/(z - x). For z in the upper half-plane there is one pair
ω_1, ω_2 there, Im ω_i >= Im z, with (Voiculescu 1993; Biane 1998; Belinschi & Bercovici 2007)

    G_{X+Y}(z) = G_X(ω_1) = G_Y(ω_2),        ω_1 + ω_2 = z + 1/G_{X+Y}(z).

The density is -Im G/π at x + i0, followed down from far above the axis by Newton's method. The outer edges are the
first zeros of K′ on the way from infinity, K(g) = ω_1 + ω_2 - 1/g the inverse of G. Derivation:
docs/derivations/free_products.md.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from rmtbn import _checks
from rmtbn.theory.free.branch import ConvergenceError

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Cauchy = Callable[[Complex], tuple[Complex, Complex]]

_HEIGHTS = np.append(np.geomspace(30.0, 1e-6, 60), 0.0)  # Im z over the width of the sum
_ITERATIONS, _FIXED = 25, 100
_SETTLED, _ACCEPTED = 1e-12, 1e-11
_SCAN = np.append(np.linspace(0.002, 0.998, 400), 1 - np.geomspace(1e-3, 1e-9, 20))  # of g over its largest value


@dataclass(frozen=True, slots=True, kw_only=True)
class Summand:
    """A law on the line by its Cauchy transform.

    Parameters
    ----------
    cauchy
        z ↦ G(z) and G′(z), analytic off the support.
    low, high
        Ends of the support.
    atoms
        ((x, mass), ...).
    """

    cauchy: Cauchy
    low: float
    high: float
    atoms: tuple[tuple[float, float], ...] = ()


def semicircle(variance: float = 1.0, *, mean: float = 0.0) -> Summand:
    """Make Wigner's law: G = 2/(z - m + √((z - m)² - 4v))."""
    v, m = _checks.real("variance", variance, above=0.0), _checks.real("mean", mean)
    radius = 2 * math.sqrt(v)

    def cauchy(z: Complex) -> tuple[Complex, Complex]:
        root = np.sqrt(z - m - radius) * np.sqrt(z - m + radius)
        g = 2 / (z - m + root)
        return g, -g / root

    return Summand(cauchy=cauchy, low=m - radius, high=m + radius)


def marchenko_pastur(ratio: float = 1.0, *, variance: float = 1.0) -> Summand:
    """Make the law of W Wᵀ for independent entries of variance v/columns, ratio c = rows/columns.

    G = 2/(z + v(c - 1) + √((z - λ₋)(z - λ₊))), λ_± = v(1 ± √c)², an atom 1 - 1/c at 0 if c > 1.
    """
    c, v = _checks.real("ratio", ratio, above=0.0), _checks.real("variance", variance, above=0.0)
    low, high = v * (1 - math.sqrt(c)) ** 2, v * (1 + math.sqrt(c)) ** 2

    def cauchy(z: Complex) -> tuple[Complex, Complex]:
        root = np.sqrt(z - low) * np.sqrt(z - high)
        g = 2 / (z + v * (c - 1) + root)
        return g, -(g**2) * (1 + (z - (low + high) / 2) / root) / 2

    return Summand(cauchy=cauchy, low=0.0 if c > 1 else low, high=high, atoms=((0.0, 1 - 1 / c),) if c > 1 else ())


def point_masses(values: ArrayLike, weights: ArrayLike | None = None) -> Summand:
    """Make the law with masses `weights` (equal if left out) at distinct points `values` of the line."""
    x = _checks.array("values", values).ravel()
    if x.size == 0 or not np.isfinite(x).all() or np.unique(x).size != x.size:
        raise _checks.fail("values", "one or more finite and distinct numbers", values)
    p = np.full(x.size, 1 / x.size) if weights is None else _checks.array("weights", weights, at_least=0.0)
    if p.shape != x.shape or abs(p.sum() - 1) > 1e-9:
        raise _checks.fail("weights", "one number per value, of sum 1", weights)

    def cauchy(z: Complex) -> tuple[Complex, Complex]:
        share = 1 / (z[..., None] - x)
        return share @ p, -(share**2) @ p

    atoms = tuple(sorted(zip(x.tolist(), p.tolist(), strict=True)))
    return Summand(cauchy=cauchy, low=float(x.min()), high=float(x.max()), atoms=atoms)


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
        end = goal.ravel()
        width = max(1e-3, self.first.high - self.first.low + self.second.high - self.second.low)
        centre = (self.first.low + self.first.high, self.second.low + self.second.high)
        omega = np.stack([end - centre[1] / 2, end - centre[0] / 2]) + 1j * _HEIGHTS[0] * width
        for height in _HEIGHTS:
            omega, g = _subordinate((self.first.cauchy, self.second.cauchy), end + 1j * height * width, omega)
        return g.reshape(goal.shape)

    def pdf(self, x: ArrayLike) -> Array:
        """Density at x (absolutely continuous part), -Im G(x + i0)/π; any shape."""
        place = _checks.array("x", x)
        inside = (place > self.support[0]) & (place < self.support[1])
        density = np.zeros(place.shape)
        density[inside] = np.maximum(-self.cauchy_transform(place[inside]).imag / np.pi, 0.0)
        return density


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
