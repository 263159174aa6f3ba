"""The elementary terms of ln z on a spectral curve, as functions of u = ln s, s = M/(p + M).

A factor of a free product multiplies z by T = 1/S, so it adds ln T to ln z. Each term gives ln T normalised to T(0) =
1, its slope in u, its potential ∫ M d ln T (what the distribution function needs), and its power series in M.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

_STEP = 1e-7  # relative, of the difference quotient of a user's S-transform: its slope steers Newton's method only
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)  # analytic integrands on a segment: to rounding
_CIRCLE = 64  # points of the contour that gives a Taylor series


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Place:
    """Points on the curve: p, u, and M with its slope in u."""

    rank: float
    u: Complex
    m: Complex
    m_slope: Complex

    @classmethod
    def at(cls, u: Complex, *, rank: float) -> "Place":
        """Compute M = p s/(1 - s) and dM/du = M/(1 - s)."""
        log_rest = log_one_minus(1.0, u)
        m = np.asarray(rank * np.exp(u - log_rest), dtype=np.complex128)
        return cls(rank=rank, u=u, m=m, m_slope=np.asarray(m * np.exp(-log_rest), dtype=np.complex128))


class Term(abc.ABC):
    """A factor of a free product whose S-transform is elementary."""

    __slots__ = ()

    @abc.abstractmethod
    def value(self, place: Place) -> tuple[Complex, Complex]:
        """Compute ln T, with T(0) = 1, and its slope in u."""

    @abc.abstractmethod
    def potential(self, place: Place) -> Complex:
        """Compute ∫ M d ln T from 0."""

    @abc.abstractmethod
    def placed(self, *, dimension: float, count: float) -> "Term":
        """Return the term of `count` such factors in a space of `dimension` (over that of M)."""

    @abc.abstractmethod
    def series(self, order: int) -> Array:
        """Coefficients of M^1 ... M^order in ln T."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Drift(Term):
    """ln T = a M: the free multiplicative analogue of the lognormal law (Bercovici & Voiculescu 1992)."""

    a: float

    def value(self, place: Place) -> tuple[Complex, Complex]:
        """Linear in M."""
        return self.a * place.m, self.a * place.m_slope

    def potential(self, place: Place) -> Complex:
        """Compute a M²/2."""
        return np.asarray(0.5 * self.a * place.m**2)

    def placed(self, *, dimension: float, count: float) -> "Drift":
        """Scale a."""
        return Drift(a=self.a * count / dimension)

    def series(self, order: int) -> Array:
        """Only the first coefficient, a."""
        return self.a * np.eye(1, order)[0]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Thinning(Term):
    """ln T = a M/(d + M): infinitely many Bernoulli factors, each of which keeps nearly all; d is their dimension."""

    a: float
    dimension: float = 1.0

    def value(self, place: Place) -> tuple[Complex, Complex]:
        """Möbius in s as in M: M/(d + M) = (p/d) s/(1 - γs), γ = 1 - p/d, which loses no digit where M is near -d."""
        share, rest = self._share(place)
        return self.a * share, self.a * share * np.exp(-rest)

    def potential(self, place: Place) -> Complex:
        """Compute a d [ln(1 + M/d) - M/(d + M)]."""
        share, rest = self._share(place)
        return np.asarray(self.a * self.dimension * (rest - log_one_minus(1.0, place.u) - share))

    def _share(self, place: Place) -> tuple[Complex, Complex]:
        """Compute M/(d + M), and ln(1 - γs)."""
        gamma = 1.0 - place.rank / self.dimension
        rest = log_one_minus(gamma, place.u) if gamma > 0 else np.zeros_like(place.u)
        return np.asarray(place.rank / self.dimension * np.exp(place.u - rest)), rest

    def placed(self, *, dimension: float, count: float) -> "Thinning":
        """Scale a and d."""
        return Thinning(a=self.a * count, dimension=self.dimension * dimension)

    def series(self, order: int) -> Array:
        """Alternate: -a (-1/d)^j."""
        return np.asarray(-self.a * (-1.0 / self.dimension) ** np.arange(1, order + 1), dtype=np.float64)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Transform(Term):
    """A factor given by ln S(M), analytic in the lower half-plane and near 0."""

    log_s: Callable[[Complex], Complex]
    dimension: float = 1.0
    count: float = 1.0

    def value(self, place: Place) -> tuple[Complex, Complex]:
        """Difference quotient towards the inside of the half-plane for the slope."""
        m = place.m / self.dimension
        step = -1j * _STEP * np.abs(m)
        here = self.log_s(m)
        slope = (self.log_s(m + step) - here) / step / self.dimension
        return self.count * (self._origin() - here), -self.count * slope * place.m_slope

    def potential(self, place: Place) -> Complex:
        """Compute d [M ln T - ∫ ln T dM] along the segment from 0."""
        m = place.m / self.dimension
        path = m[..., None] * (0.5 + 0.5 * _NODES)
        mean = (self._origin() - self.log_s(path)) @ (0.5 * _WEIGHTS)
        return np.asarray(self.count * self.dimension * m * (self._origin() - self.log_s(m) - mean))

    def placed(self, *, dimension: float, count: float) -> "Transform":
        """Scale d and the count."""
        return Transform(log_s=self.log_s, dimension=self.dimension * dimension, count=self.count * count)

    def series(self, order: int) -> Array:
        """Cauchy's integral on a circle of half the distance to M = -1."""
        circle = 0.5 * np.exp(2j * np.pi * np.arange(_CIRCLE) / _CIRCLE)
        taylor = np.fft.fft(self.log_s(circle)).real / _CIRCLE
        powers = np.arange(1, order + 1)
        return -self.count * taylor[1 : order + 1] / (0.5 * self.dimension) ** powers

    def _origin(self) -> float:
        return float(self.log_s(np.zeros(1, dtype=complex))[0].real)


def log_one_minus(gamma: Array | float, u: Complex) -> Complex:
    """Compute ln(1 - γ e^u), 0 < γ <= 1, -π <= Im u <= 0, continuous with Im in [0, π]; shapes broadcast."""
    gamma, u = np.broadcast_arrays(gamma, u)
    inner = u.real <= 0
    size = np.exp(-np.abs(u.real))
    cosine, sine = size * np.cos(u.imag), -size * np.sin(u.imag)
    x = np.where(inner, -gamma * cosine, cosine - gamma)  # 1 - γs = 1 + x + iy, or s(1/s - γ) = s(x + iy)
    y = np.where(inner, gamma * sine, sine)
    log_size = 0.5 * np.where(
        inner, np.log1p(np.where(inner, x * (2 + x) + y * y, 0)), np.log(np.where(inner, 1, x * x + y * y))
    )
    angle = np.arctan2(y, np.where(inner, 1 + x, x)) + np.where(inner, 0.0, u.imag)
    angle = np.where(angle < -0.5 * np.pi, angle + 2 * np.pi, angle)
    return np.asarray(log_size + np.maximum(u.real, 0.0) + 1j * angle)
