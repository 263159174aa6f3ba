"""Fuss–Catalan and Raney laws: squared singular values of products of square Gaussian matrices, at any depth.

Model: J = W_L ... W_1, square, independent entries of mean 0 and variance 1/N. As N → ∞ the law of λ, the eigenvalues
of J Jᵀ, is Fuss–Catalan, FC_L = Raney(L + 1, 1). Raney(p, r) has moments r C(kp + r, k)/(kp + r); its transform is
E z/(z - λ) = B^r with B = 1 + B^p/z. With q = p - 1 and 0 < φ < π/p it is exact in an angle (Penson & Życzkowski 2011,
arXiv:1103.3453; Forrester & Liu 2015, arXiv:1404.5759):

    λ = sin^p(pφ)/(sin φ sin^q(qφ)),        λ ρ(λ) = Im(B^r)/π = (1/π) sin(rφ) (sin(pφ)/sin(qφ))^r.

Computed: everything in log λ, on the curve of `raney_curve`. Derivation: docs/derivations/fuss_catalan.md.
"""

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import mpmath
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from rmtbn import _checks
from rmtbn.result import SpectralMeasure
from rmtbn.theory.edge_distance import by_edge_distance
from rmtbn.theory.newton import newton
from rmtbn.theory.raney_curve import angle_at_fall, arc, log_edge

Array = NDArray[np.float64]

_STEP = 1 / 16  # of the double-exponential rule: quartering it moves no tail by more than 1e-14, p <= 1001, r >= 0.01
_NODES = np.arange(-3.875, 4.3125, _STEP)


class _AngleLaw(SpectralMeasure):
    """What the laws of the curve share; each adds its parameters and its two tails as functions of the angle."""

    __slots__ = ()

    @property
    @abc.abstractmethod
    def _shape(self) -> tuple[float, float, float]:
        """p, r and log_scale."""

    @abc.abstractmethod
    def _log_tails(self, u: Array) -> tuple[Array, Array]:
        """Return ln F and ln(1 - F) at u."""

    @property
    def accuracy(self) -> float:
        """Relative accuracy of the density and of both tails at a given log λ."""
        return 1e-12

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """There are none."""
        return ()

    @property
    def log_bulk(self) -> tuple[float, float]:
        """(-inf, ln edge) with edge = e^log_scale p^p/q^q."""
        p, _, log_scale = self._shape
        return -math.inf, log_edge(p, log_scale)[0]

    def log_pdf_log(self, log_lam: ArrayLike) -> Array:
        """Log density of log λ: ln of (1/π) sin(rφ) (sin(pφ)/sin(qφ))^r."""
        return self._at_angle(log_lam, self._log_density, below=-np.inf, above=-np.inf)

    def cdf_log(self, log_lam: ArrayLike) -> Array:
        """P(log λ' <= log_lam), relatively accurate however small."""
        return self._at_angle(log_lam, lambda u: np.exp(self._log_tails(u)[0]), below=0.0, above=1.0)

    def sf_log(self, log_lam: ArrayLike) -> Array:
        """P(log λ' > log_lam), relatively accurate however close to the edge."""
        return self._at_angle(log_lam, lambda u: np.exp(self._log_tails(u)[1]), below=1.0, above=0.0)

    def log_ppf(self, p: ArrayLike) -> Array:
        """Quantiles of log λ, by Newton's method in u on ln((1 - F)/F), which is nearly linear there."""
        probability = _checks.probabilities(p)
        order, _, log_scale = self._shape
        edge, edge_low = log_edge(order, log_scale)
        inside = (probability > 0) & (probability < 1)
        quantile = np.where(probability > 0, edge, -np.inf)
        odds = np.log1p(-probability[inside]) - np.log(probability[inside])
        quantile[inside] = edge - arc(self._angle_at_odds(odds), p=order).fall + edge_low
        return quantile

    def moment(self, k: int) -> float:
        """E λ^k = e^{k log_scale} r C(kp + r, k)/(kp + r), rounded from 40 digits; inf beyond the floating range."""
        k = _checks.integer("k", k, at_least=0)
        p, r, log_scale = self._shape
        with mpmath.workdps(40):
            n = mpmath.mpf(k) * p + r
            return _to_float(mpmath.exp(mpmath.mpf(k) * log_scale) * mpmath.binomial(n, k) * r / n)

    def log_moment(self, k: int = 1) -> float:
        """E (ln λ)^k, rounded from the cumulants, which E λ^s = r Γ(sp + r)/(Γ(s + 1) Γ(sq + r + 1)) gives.

        The n-th is p^n ψ_{n-1}(r) - ψ_{n-1}(1) - q^n ψ_{n-1}(r + 1), polygamma functions, plus log_scale at n = 1.
        For Fuss–Catalan the mean is -L + log_scale and the variance L² + Lπ²/3.
        """
        k = _checks.integer("k", k, at_least=1)
        p, r, log_scale = self._shape
        with mpmath.workdps(40 + k):
            q, moments = mpmath.mpf(p) - 1, [mpmath.mpf(1)]
            psi = [(mpmath.psi(n, r), mpmath.psi(n, 1), mpmath.psi(n, r + mpmath.mpf(1))) for n in range(k)]
            cumulants = [p ** mpmath.mpf(n) * a - b - q**n * c for n, (a, b, c) in enumerate(psi, start=1)]
            cumulants[0] += log_scale
            for n in range(k):
                moments.append(mpmath.fsum(math.comb(n, j) * cumulants[j] * moments[n - j] for j in range(n + 1)))
            return _to_float(moments[k])

    def _log_density(self, u: Array) -> Array:
        p, r, _ = self._shape
        point = arc(u, p=p)
        return point.log_sine(r / p) + r * (math.log(p / (p - 1)) - point.modulus_fall) - math.log(math.pi)

    def _at_angle(self, log_lam: ArrayLike, function: Callable[[Array], Array], *, below: float, above: float) -> Array:
        """Evaluate `function` of u at each log λ of the bulk, and the given constants outside it."""
        p, _, log_scale = self._shape

        def at_fall(fall: Array) -> Array:
            return function(angle_at_fall(fall, p=p))

        return by_edge_distance(log_lam, log_edge(p, log_scale), at_fall, below=below, above=above)

    def _angle_at_odds(self, odds: Array) -> Array:
        """Solve ln((1 - F)/F) = odds for u; the slope is dF/(F(1 - F)). The start joins the asymptotes of r = 1."""
        p = self._shape[0]

        def residual(u: Array) -> tuple[Array, Array]:
            log_cdf, log_sf = self._log_tails(u)
            return log_sf - log_cdf - odds, np.exp(self._log_density(u) + arc(u, p=p).log_rate - log_cdf - log_sf)

        return newton(residual, np.maximum((odds + math.log(3 * p / math.pi**2)) / 3, odds + math.log(p)))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FussCatalan(_AngleLaw):
    """Law of λ for a product of `depth` independent square Gaussian matrices (entries of variance 1/N, N → ∞).

    With L the depth: moments C((L+1)k, k)/(Lk + 1), edge (L+1)^{L+1}/L^L, and in closed form

        F = 1 - (L+1)φ/π + (L/π) sin φ sin((L+1)φ)/sin(Lφ).

    Parameters
    ----------
    depth
        Number of factors L >= 1.
    log_scale
        λ is multiplied by exp(log_scale): 2L ln σ_w for entries of variance σ_w²/N.

    Raises
    ------
    InvalidArgumentError
        If `depth` is not an integer >= 1, or `log_scale` not finite.

    Examples
    --------
    >>> law = FussCatalan(depth=2)
    >>> round(law.support[1], 12), law.moment(2), round(float(law.pdf(1.0)), 10)
    (6.75, 3.0, 0.1789791275)
    """

    depth: int
    log_scale: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", _checks.integer("depth", self.depth, at_least=1))
        object.__setattr__(self, "log_scale", _checks.real("log_scale", self.log_scale))

    @property
    def _shape(self) -> tuple[float, float, float]:
        return self.depth + 1.0, 1.0, self.log_scale

    def _log_tails(self, u: Array) -> tuple[Array, Array]:
        point = arc(u, p=self.depth + 1.0)
        shared = point.sinc_fall + point.modulus_fall  # F = (1 - e) + e exp(-shared)
        return np.logaddexp(point.log_rest, point.log_share - shared), point.log_share + np.log(-np.expm1(-shared))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Raney(_AngleLaw):
    """The law with moments r C(kp + r, k)/(kp + r); Fuss–Catalan of L factors is p = L + 1, r = 1.

    The smaller tail is an integral over u of the density, which is analytic for |Im u| < π and falls exponentially from
    its mode to both ends: the double-exponential rule (Takahasi & Mori 1974) is accurate to rounding there.

    Parameters
    ----------
    p, r
        Real, p > 1 and 0 < r <= p: there the moments are those of a probability law without atoms (Młotkowski 2010).
    log_scale
        λ is multiplied by exp(log_scale).

    Raises
    ------
    InvalidArgumentError
        If a parameter is out of its range.
    """

    p: float
    r: float
    log_scale: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", _checks.real("p", self.p, above=1.0))
        object.__setattr__(self, "r", _checks.real("r", self.r, above=0.0, at_most=self.p))
        object.__setattr__(self, "log_scale", _checks.real("log_scale", self.log_scale))

    @property
    def _shape(self) -> tuple[float, float, float]:
        return self.p, self.r, self.log_scale

    def _log_tails(self, u: Array) -> tuple[Array, Array]:
        lower, smaller = u >= self._mode(), np.empty_like(u)
        smaller[lower] = self._log_mass_beyond(u[lower], reach=1 / min(self.r, 1.0))
        smaller[~lower] = self._log_mass_beyond(u[~lower], reach=-1 / 3)
        larger = np.log1p(-np.exp(smaller))
        return np.where(lower, smaller, larger), np.where(lower, larger, smaller)

    def _mode(self) -> float:
        """Where in u most of the mass is, to the grid's spacing."""
        grid = np.linspace(-20, 40, 241)
        return float(grid[np.argmax(self._log_density(grid) + arc(grid, p=self.p).log_rate)])

    def _log_mass_beyond(self, u: Array, *, reach: float) -> Array:
        """Return ln of the mass between u and the end on the side of `reach`, over which it falls by 1/e."""
        offset = reach * np.exp(_NODES - np.exp(-_NODES))
        log_weight = np.log(abs(_STEP * offset) * (1 + np.exp(-_NODES)))
        v = u[..., None] + offset
        return np.asarray(special.logsumexp(self._log_density(v) + arc(v, p=self.p).log_rate + log_weight, axis=-1))


def _to_float(number: mpmath.mpf) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.copysign(math.inf, number)
