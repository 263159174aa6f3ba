"""Laws on the line by their Cauchy transforms and potentials, as summands of free sums.

G(z) = E 1/(z - x); U(z) = E ln(z - x), U′ = G. With R = K - 1/g, K the inverse of G (Voiculescu 1986),
U = ∫ g dK = g R(g) - ∫ R dg - ln g: R is m + vg for Wigner's law, v/(1 - cvg) for that of Marchenko & Pastur.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtbn import _checks

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Cauchy = Callable[[Complex], tuple[Complex, Complex]]


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
    angle
        z ↦ Im E ln(z - x), in [0, π] for Im z >= 0; None if it is not known: then sums have no distribution function.
    """

    cauchy: Cauchy
    low: float
    high: float
    atoms: tuple[tuple[float, float], ...] = ()
    angle: Callable[[Complex], Array] | None = None


def semicircle(variance: float = 1.0, *, mean: float = 0.0) -> Summand:
    """Make Wigner's law: G = 2/(z - m + √((z - m)² - 4v))."""
    v, m = _checks.real("variance", variance, above=0.0), _checks.real("mean", mean)
    radius = 2 * math.sqrt(v)

    def cauchy(z: Complex) -> tuple[Complex, Complex]:
        root = np.sqrt(z - m - radius) * np.sqrt(z - m + radius)
        g = 2 / (z - m + root)
        return g, -g / root

    def angle(z: Complex) -> Array:
        g = cauchy(z)[0]
        return argument(1 / g) + v * (g**2).imag / 2

    return Summand(cauchy=cauchy, low=m - radius, high=m + radius, angle=angle)


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

    def angle(z: Complex) -> Array:
        g = cauchy(z)[0]
        rest = 1 - c * v * g
        return argument(1 / g) + ((c * v * g / rest).imag + argument(rest)) / c

    atoms = ((0.0, 1 - 1 / c),) if c > 1 else ()
    return Summand(cauchy=cauchy, low=0.0 if c > 1 else low, high=high, atoms=atoms, angle=angle)


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

    def angle(z: Complex) -> Array:
        return np.asarray(argument(z[..., None] - x) @ p)

    atoms = tuple(sorted(zip(x.tolist(), p.tolist(), strict=True)))
    return Summand(cauchy=cauchy, low=float(x.min()), high=float(x.max()), atoms=atoms, angle=angle)


def argument(z: Complex) -> Array:
    """Compute arg z in [0, π]; an imaginary part that rounding has put below 0 counts as 0."""
    return np.asarray(np.arctan2(np.maximum(z.imag, 0.0), z.real))
