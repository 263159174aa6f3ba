"""The spectral curve of a free product: z as an analytic function of one complex number, and what is read off it.

Model: J Jᵀ is built by free multiplication, compression and embedding; λ is its eigenvalue. With M(z) = E λ/(z - λ)
and the S-transform S(M) = (1 + M)/(M z) (Voiculescu 1987), every factor multiplies z by T = 1/S of its own, so that

    ln z = ln mean - ln M + Σ_j e_j ln(1 + M/c_j) + Σ_l n_l [ln ζ_l + ln(M/d_l)] + elementary terms.

The e_j are powers (Gaussian, orthogonal, Bernoulli factors). A factor given by points enters by ζ_l, where its own
transform is M/d_l; d_l is its dimension over that of J Jᵀ. All is a function of

    u = ln s,    s = M/(p + M),    p = 1 - (mass at zero),

which maps the lower half-plane of M to the strip -π < Im u < 0, resolves both ends of a spectrum that spans hundreds of
decades, and is regular at an atom (M = ∞ is u = 0). The logarithms are continuous on the closed strip: arguments are
unwrapped, as they must be for depth 10,000. Derivation: docs/derivations/free_products.md.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rmtbn.theory.free.factor_law import FactorLaw
from rmtbn.theory.free.series import log_inverse_series
from rmtbn.theory.free.terms import Place, Term, log_one_minus

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

ROUNDING = 1e-14  # of a sum of powers, relative


@dataclass(frozen=True, slots=True, kw_only=True)
class PointFactor:
    """A factor given by the points of its law.

    Parameters
    ----------
    law
        Law of the factor's eigenvalues, divided by their mean.
    dimension
        Dimension of the factor over that of J Jᵀ.
    count
        How many such factors there are.
    """

    law: FactorLaw
    dimension: float
    count: float

    @property
    def rank(self) -> float:
        """Number of non-zero eigenvalues over the dimension of J Jᵀ."""
        return self.dimension if self.law.mass > 1 - 1e-13 else self.dimension * self.law.mass


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Residual:
    """What Newton's method needs: ln z and each factor's mismatch, with their slopes; factors on the first axis."""

    log_z: Complex
    slope: Complex
    mismatch: Complex
    mismatch_slope: Complex
    target_slope: Complex


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpectralCurve:
    """The map u ↦ ln z of a free product.

    Parameters
    ----------
    log_mean
        ln E λ.
    rank
        p = 1 - (mass at zero), in (0, 1].
    poles, powers
        c_j >= p, distinct, and e_j.
    factors
        Those given by points.
    terms
        The elementary terms.
    """

    log_mean: float
    rank: float
    poles: Array
    powers: Array
    factors: tuple[PointFactor, ...] = ()
    terms: tuple[Term, ...] = ()
    gammas: Array = field(init=False)
    exponents: Array = field(init=False)
    fall: float = field(init=False)
    origin: float = field(init=False)
    counts: Array = field(init=False)

    def __post_init__(self) -> None:
        counts = np.array([factor.count for factor in self.factors], dtype=float)
        inner = self.poles != self.rank
        constant = sum(f.count * np.log(self.rank / f.dimension) for f in self.factors)
        object.__setattr__(self, "counts", counts)
        object.__setattr__(self, "gammas", 1.0 - self.rank / self.poles[inner])
        object.__setattr__(self, "exponents", self.powers[inner])
        fall = float(np.sum(self.powers) - 1.0 + counts.sum())
        rounding = ROUNDING * (1.0 + np.abs(self.powers).sum() + counts.sum())
        object.__setattr__(self, "fall", fall if abs(fall) > rounding else 0.0)
        object.__setattr__(self, "origin", float(self.log_mean - np.log(self.rank) + constant))

    @property
    def is_one_point(self) -> bool:
        """Whether z = const/s: the product is one atom and what is at zero."""
        return not self.factors and not self.terms and self.gammas.size == 0 and self.fall == 0

    @property
    def is_one_factor(self) -> bool:
        """Whether z = ζ: the product is one factor given by points and nothing else."""
        return bool(len(self.factors) == 1 and self.counts[0] == 1 and not self.terms and self.poles.size == 0)

    @property
    def weight(self) -> float:
        """Sum of the sizes of the angles' weights in the distribution function, of the order of the depth."""
        points = sum(factor.count * factor.dimension for factor in self.factors)
        return float(np.abs(self.powers) @ self.poles + points)

    def series(self, order: int) -> Array:
        """Compute the coefficients of M^1 ... M^order in ln(M z)."""
        j = np.arange(1, order + 1)
        total = np.sum(-self.powers * (-1.0 / self.poles) ** j[:, None] / j[:, None], axis=1)
        for factor in self.factors:
            moments = [math.exp(factor.law.log_moment(k)) for k in range(1, order + 2)]
            total = total + factor.count * np.array(log_inverse_series(moments)) / factor.dimension**j
        for term in self.terms:
            total = total + term.series(order)
        return np.asarray(total)

    def residual(self, u: Complex, v: Complex) -> Residual:
        """Evaluate at u, shape (n,), with guesses v = ln ζ, shape (factors, n)."""
        log_z, slope = self._elementary(u)
        mismatch, mismatch_slope, target_slope = np.empty_like(v), np.empty_like(v), np.empty_like(v)
        for i, factor in enumerate(self.factors):
            target, target_slope[i] = self.target(factor, u)
            value, mismatch_slope[i] = factor.law.log_ratio(v[i])
            mismatch[i] = value - target
            log_z = log_z + factor.count * (v[i] + u)
            slope = slope + factor.count
        return Residual(
            log_z=log_z, slope=slope, mismatch=mismatch, mismatch_slope=mismatch_slope, target_slope=target_slope
        )

    def total_slope(self, residual: Residual) -> tuple[Complex, Complex]:
        """Compute d ln z/du along the curve, where every factor keeps to its own equation, and dv/du."""
        pull = residual.target_slope / residual.mismatch_slope
        return residual.slope + self.counts @ pull, pull

    def target(self, factor: PointFactor, u: Complex) -> tuple[Complex, Complex]:
        """Compute the ln t that the factor must reach, t = (p/r) s/(1 - γs), r its rank, γ = 1 - p/r, and its slope."""
        if factor.rank == self.rank:
            return u, np.ones_like(u)
        log_rest = log_one_minus(1.0 - self.rank / factor.rank, u)
        return u + np.log(self.rank / factor.rank) - log_rest, np.exp(-log_rest)

    def _elementary(self, u: Complex) -> tuple[Complex, Complex]:
        """Compute ln z and its slope in u, without the factors given by points."""
        log_z, slope = self.origin - u, np.full_like(u, -1.0)
        if self.gammas.size:
            rest = log_one_minus(self.gammas[:, None], u)
            log_z = log_z + self.exponents @ rest
            slope = slope - (self.exponents * self.gammas) @ np.exp(u - rest)
        if self.fall != 0:
            rest = log_one_minus(1.0, u)
            log_z = log_z - self.fall * rest
            slope = slope + self.fall * np.exp(u - rest)
        if self.terms:
            place = Place.at(u, rank=self.rank)
            for term in self.terms:
                value, term_slope = term.value(place)
                log_z, slope = log_z + value, slope + term_slope
        return log_z, slope

    def upper_tail(self, u: Complex, v: Complex) -> Array:
        """P(λ > z) on the curve, where z > 0: Im of E ln(z - λ) over π, which needs no integration.

        E ln(z - λ) = ln z + ∫ M d ln z term by term: e_j [M - c_j ln(1 + M/c_j)], d_l E ln(1 - d/ζ_l) + M, and so on.
        """
        place = Place.at(u, rank=self.rank)
        total = self.fall * place.m.imag if self.fall else np.zeros(u.shape)
        rest = log_one_minus(1.0, u).imag
        for pole, power in zip(self.poles, self.powers, strict=True):
            gamma = 0.0 if pole == self.rank else 1.0 - self.rank / pole
            total = total - power * pole * ((log_one_minus(gamma, u).imag if gamma else 0.0) - rest)
        for factor, point in zip(self.factors, v, strict=True):
            total = total + factor.count * factor.dimension * factor.law.potential_angle(point)
        for term in self.terms:
            total = total + term.potential(place).imag
        return np.asarray(total / np.pi)

    def density(self, u: Complex) -> Array:
        """λ times the density of λ, -Im M/π with M = p s/(1 - s), on the curve; no cancellation at either end."""
        size, angle = np.exp(-np.abs(u.real)), u.imag
        squared = np.expm1(-np.abs(u.real)) ** 2 + 4 * size * np.sin(angle / 2) ** 2
        return np.asarray(-self.rank / np.pi * size * np.sin(angle) / squared)
