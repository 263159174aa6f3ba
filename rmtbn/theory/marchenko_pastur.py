"""Marchenko–Pastur law: squared singular values of one Gaussian matrix of any shape.

Model: W of size n_out × n_in, independent entries of mean 0 and variance 1/n_in, c = n_out/n_in. As the sizes grow the
law of λ, the eigenvalues of W Wᵀ, has the edges λ± = (1 ± √c)², the density √((λ₊ - λ)(λ - λ₋))/(2πcλ) between them,
and for c > 1 an atom 1 - 1/c at 0 (Marchenko & Pastur 1967).

Computed: with c <= 1 (for c > 1 the bulk is that of 1/c, scaled by c and weighted by 1/c) and s = √c,
√λ = |1 + s e^{iθ}| is the third side of a triangle with sides 1 and s. Let a and b = θ - a be its angles opposite s
and 1, θ′ = π - θ and b′ = π - b. Then, with g(x) = x - sin(2x)/2,

    1 - F = [g(b) + g(a)/c]/π,        F = [θ′ - sin θ′ cos(a + b′) - (1/c - 1) g(a)]/π,

the first a sum of positive terms and the second nearly so: both tails keep their relative accuracy. The variable is
ℓ = ln tan(θ/2) = ½ ln((λ₊ - λ)/(λ - λ₋)).
"""

import functools
import math
from dataclasses import dataclass
from typing import final

import mpmath
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from rmtbn import _checks
from rmtbn.result import SpectralMeasure
from rmtbn.theory.newton import newton

Array = NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MarchenkoPastur(SpectralMeasure):
    """Law of λ for one Gaussian matrix W, mean over its output dimension.

    Parameters
    ----------
    ratio
        c = n_out/n_in > 0.
    log_scale
        λ is multiplied by exp(log_scale): 2 ln σ_w for entries of variance σ_w²/n_in.

    Raises
    ------
    InvalidArgumentError
        If `ratio` is not a finite number above 0, or `log_scale` not finite.

    Examples
    --------
    >>> law = MarchenkoPastur(ratio=4)
    >>> round(law.support[1], 12), law.atoms, law.moment(2)
    (9.0, ((0.0, 0.75),), 5.0)
    """

    ratio: float
    log_scale: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", _checks.real("ratio", self.ratio, above=0.0))
        object.__setattr__(self, "log_scale", _checks.real("log_scale", self.log_scale))

    @property
    def accuracy(self) -> float:
        """Relative accuracy of the density and of both tails at a given log λ."""
        return 1e-12

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """((0, 1 - 1/c),) if c > 1."""
        return ((0.0, self._triangle.atom),) if self.ratio > 1 else ()

    @property
    def log_bulk(self) -> tuple[float, float]:
        """(ln λ₋, ln λ₊); the first is -inf for c = 1."""
        return self._triangle.low[0], self._triangle.high[0]

    @property
    def _triangle(self) -> "_Triangle":
        return _triangle(self.ratio, self.log_scale)

    def log_pdf_log(self, log_lam: ArrayLike) -> Array:
        """Log density of log λ: ln of √((λ₊ - λ)(λ - λ₋))/(2πc), λ in units of the scale."""
        x = _checks.array("log_lam", log_lam)
        below, above = self._triangle.distances(x)
        inside = (below > 0) & (above > 0) & np.isfinite(above)
        x, below, above = x[inside] - self.log_scale, below[inside], above[inside]
        density = np.full(inside.shape, -np.inf)
        roots = above + np.log(-np.expm1(-above)) + np.log(-np.expm1(-below))  # ln of (λ₊ - λ)(λ - λ₋)/λ²
        density[inside] = x + roots / 2 - math.log(2 * math.pi * self.ratio)
        return density

    def cdf_log(self, log_lam: ArrayLike) -> Array:
        """P(log λ' <= log_lam), the atom included."""
        triangle = self._triangle
        return np.asarray(triangle.atom + triangle.weight * self._tail(log_lam, side=0))

    def sf_log(self, log_lam: ArrayLike) -> Array:
        """P(log λ' > log_lam), relatively accurate however close to the upper edge."""
        return np.asarray(self._triangle.weight * self._tail(log_lam, side=1))

    def log_ppf(self, p: ArrayLike) -> Array:
        """Quantiles of log λ, by Newton's method in ℓ on ln((1 - F)/F) of the bulk; -inf inside the atom."""
        probability = _checks.probabilities(p)
        triangle = self._triangle
        share = (probability - triangle.atom) / triangle.weight
        rest = (1 - probability) / triangle.weight
        inside = (share > 0) & (rest > 0)
        quantile = np.where(rest > 0, triangle.low[0], triangle.high[0])
        quantile[(probability <= triangle.atom) & (triangle.atom > 0)] = -np.inf
        quantile[inside] = triangle.log_lam(triangle.angle_at_odds(np.log(rest[inside]) - np.log(share[inside])))
        return quantile

    def moment(self, k: int) -> float:
        """E λ^k = e^{k log_scale} Σ_{j<k} C(k, j) C(k-1, j) c^j/(j+1), Narayana polynomials; inf beyond the range."""
        k = _checks.integer("k", k, at_least=0)
        with mpmath.workdps(40):
            c = mpmath.mpf(self.ratio)
            terms = (math.comb(k, j) * math.comb(k - 1, j) // (j + 1) * c**j for j in range(k))
            total = mpmath.exp(mpmath.mpf(k) * self.log_scale) * (mpmath.fsum(terms) if k else 1)
        try:
            return float(total)
        except OverflowError:
            return math.inf

    def log_moment(self, k: int = 1) -> float:
        """E (ln λ)^k, by the trapezoidal rule in ℓ; for k = 1 and c <= 1 it is -1 - (1/c - 1) ln(1 - c) + log_scale."""
        k = _checks.integer("k", k, at_least=1)
        if self.ratio > 1:
            return math.inf if k % 2 == 0 else -math.inf
        reach = 60.0 + 4 * k
        ell = np.arange(-reach, reach, 0.2)  # analytic for |Im ℓ| < π/2: the error is exp(-π²/0.2)
        with np.errstate(over="ignore"):
            return float(0.2 * np.sum(np.exp(self._triangle.log_slope(ell)) * self._triangle.log_lam(ell) ** k))

    def _tail(self, log_lam: ArrayLike, *, side: int) -> Array:
        """F (side 0) or 1 - F (side 1) of the bulk."""
        x = _checks.array("log_lam", log_lam)
        below, above = self._triangle.distances(x)
        inside = (below > 0) & (above > 0) & np.isfinite(above)
        below_bulk = ~inside & (above > 0)
        values = np.where(below_bulk, float(side), 1.0 - side)
        log_odds = above[inside] + np.log(-np.expm1(-above[inside])) - np.log(-np.expm1(-below[inside]))
        values[inside] = np.exp(self._triangle.log_tails(log_odds / 2)[side])
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class _Triangle:
    """The triangle of sides 1, s = √κ and √(λ/top), κ = min(c, 1/c): geometry of the bulk as functions of ℓ."""

    kappa: float
    side: float  # s
    gap: float  # 1 - s
    atom: float
    weight: float  # mass of the bulk
    low: tuple[float, float]  # ln λ₋ and ln λ₊ as unevaluated sums
    high: tuple[float, float]

    def distances(self, x: Array) -> tuple[Array, Array]:
        """Return x - ln λ₋ and ln λ₊ - x."""
        below = (x - self.low[0]) - self.low[1] if self.gap else np.full_like(x, np.inf)
        return np.asarray(below), np.asarray((self.high[0] - x) + self.high[1])

    def log_lam(self, ell: Array) -> Array:
        """Return ln λ from the nearer edge: λ₊ - λ = 4s sin²(θ/2) and λ - λ₋ = 4s cos²(θ/2), in units of the scale."""
        from_high = np.log1p(-4 * self.side / (1 + self.side) ** 2 * special.expit(2 * np.minimum(ell, 0)))
        downward = self.high[0] + (from_high + self.high[1])
        if self.gap == 0:
            upward = self.high[0] + special.log_expit(-2 * ell)
        else:
            from_low = np.log1p(4 * self.side / self.gap**2 * special.expit(-2 * np.maximum(ell, 0)))
            upward = self.low[0] + (from_low + self.low[1])
        return np.where(ell < 0, downward, upward)

    def log_slope(self, ell: Array) -> Array:
        """Return ln of d(1 - F)/dℓ = (2/π) sin³θ/|1 + s e^{iθ}|²."""
        log_sine = math.log(2) - np.abs(ell) - np.log1p(np.exp(-2 * np.abs(ell)))
        log_four_s_cos = math.log(4 * self.side) + special.log_expit(-2 * ell)
        log_third_side = np.logaddexp(2 * math.log(self.gap) if self.gap else -np.inf, log_four_s_cos)
        return np.asarray(math.log(2 / math.pi) + 3 * log_sine - log_third_side)

    def log_tails(self, ell: Array) -> tuple[Array, Array]:
        """Return ln F and ln(1 - F) of the bulk, the smaller by its formula and the larger as its complement."""
        lower = ell > 0
        log_smaller = np.where(lower, self._log_lower(np.maximum(ell, 0)), self._log_upper(np.minimum(ell, 0)))
        log_larger = np.log1p(-np.exp(log_smaller))
        return np.where(lower, log_smaller, log_larger), np.where(lower, log_larger, log_smaller)

    def angle_at_odds(self, odds: Array) -> Array:
        """Solve ln((1 - F)/F) = odds for ℓ; its slope lies between 1 and 3."""

        def residual(ell: Array) -> tuple[Array, Array]:
            log_cdf, log_sf = self.log_tails(ell)
            return log_sf - log_cdf - odds, np.exp(self.log_slope(ell) - log_cdf - log_sf)

        return newton(residual, odds / 3)

    def _angle_a(self, ell: Array) -> Array:
        sine = np.maximum(1 / np.cosh(np.minimum(np.abs(ell), 700.0)), 1e-300)
        return np.arctan2(self.side * sine, self.gap + 2 * self.side * special.expit(-2 * ell))

    def _log_upper(self, ell: Array) -> Array:
        """Return ln(1 - F), the cube of θ taken out."""
        theta, a = 2 * np.arctan(np.exp(ell)), self._angle_a(ell)
        b = theta - a
        cubes = (b / theta) ** 3 * _cubic(2 * b) + (a / theta) ** 3 / self.kappa * _cubic(2 * a)
        return np.asarray(3 * np.log(theta) + np.log(4 / math.pi * cubes))

    def _log_lower(self, ell: Array) -> Array:
        """Return ln F, θ′ taken out."""
        tangent = np.maximum(np.exp(-ell), 1e-300)
        rest, a = 2 * np.arctan(tangent), self._angle_a(ell)
        log_rest = math.log(2) - ell + np.log(np.arctan(tangent) / tangent)
        turn = np.sinc(rest / math.pi) * 2 * np.sin(a + rest / 2) ** 2
        excess = self.gap * (1 + self.side) / self.kappa * 4 * a**2 * (a / rest) * _cubic(2 * a) if self.gap else 0.0
        return np.asarray(log_rest + np.log((rest**2 * _cubic(rest) + turn - excess) / math.pi))


@functools.lru_cache(maxsize=256)
def _triangle(ratio: float, log_scale: float) -> _Triangle:
    """Lay out the triangle in 50 digits, so that √c near 1 and the edges near each other lose nothing."""
    with mpmath.workdps(50):
        c = mpmath.mpf(ratio)
        kappa = min(c, 1 / c)
        s = mpmath.sqrt(kappa)
        edges = []
        for edge in (1 - s, 1 + s):
            exact = 2 * mpmath.log(edge) + max(mpmath.log(c), 0) + log_scale if edge else -mpmath.inf
            high = float(exact)
            edges.append((high, float(exact - high) if edge else 0.0))
        return _Triangle(
            kappa=float(kappa),
            side=float(s),
            gap=float(1 - s),
            atom=float(1 - 1 / c) if ratio > 1 else 0.0,
            weight=float(min(1 / c, 1)),
            low=edges[0],
            high=edges[1],
        )


def _cubic(x: Array) -> Array:
    """Return (x - sin x)/x³, by its Taylor series below 1."""
    square = np.minimum(x * x, 1.0)
    series = np.zeros_like(x)
    for n in range(8, 0, -1):
        series = (1 - square * series) / ((2 * n) * (2 * n + 1))
    wide = np.maximum(x, 1.0)
    return np.where(x < 1, series, (wide - np.sin(wide)) / wide**3)
