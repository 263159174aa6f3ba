"""Mean spectral law of products of square complex Gaussian matrices, exact at every width and depth.

Model: J = W_L ... W_1, N × N, independent complex Gaussian entries with E|w|² = 1/N; the law of λ, the eigenvalues of
J J†, averaged over networks. The squared singular values are a determinantal point process whose one-point density is a
sum of N biorthogonal pairs (Akemann, Kieburg & Wei 2013, arXiv:1303.5694). Its Mellin transform collapses to one sum:

    E (1/N) Σ λ^{t-1} = N^{-L(t-1)}/(N Γ(t)) Σ_{i<N} (Γ(t+i)/i!)^{L+1} (-1)^{N-1-i} C(t-2, N-1-i),

at integer t the moments, at t = 1 + iy the characteristic function of ln λ. Computed: that function on a grid of y,
once, in as many digits as the alternating sum needs; then density and cdf of ln λ as Fourier sums in float64.

Where it is not practical: N > 48 (the sum loses 0.3 N digits and the grid grows with N), and real entries, for which no
comparable formula is known at L >= 2 (`finite_width` has their exact exponents, log-determinant and two moments).
Derivation: docs/derivations/finite_ginibre.md.
"""

import functools
import itertools
import math
from dataclasses import dataclass
from typing import final

import mpmath
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtbn import _checks
from rmtbn.result import SpectralMeasure
from rmtbn.theory.finite_width import lyapunov_exponents

Array = NDArray[np.float64]

LARGEST_WIDTH = 48  # its table takes 5 s, once (L = 1; less when deeper); N = 12 takes 0.5 s
_FLOOR = 1e-12  # of the density of log λ: below it rounding is all there is
_TAIL = 1e-17  # mass left outside the window, and size of the transform where its grid ends


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FiniteGinibre(SpectralMeasure):
    """Exact mean law of λ for a product of `depth` complex Gaussian matrices of size `width`.

    Parameters
    ----------
    width
        N, 1 to 48.
    depth
        Number of factors L >= 1.
    log_scale
        λ is multiplied by exp(log_scale): 2L ln σ_w for entries of E|w|² = σ_w²/N.

    Raises
    ------
    InvalidArgumentError
        If `width` is not an integer from 1 to 48, `depth` not an integer >= 1, or `log_scale` not finite.
    """

    width: int
    depth: int
    log_scale: float = 0.0

    def __post_init__(self) -> None:
        width = _checks.integer("width", self.width, at_least=1, at_most=LARGEST_WIDTH)
        object.__setattr__(self, "width", width)
        object.__setattr__(self, "depth", _checks.integer("depth", self.depth, at_least=1))
        object.__setattr__(self, "log_scale", _checks.real("log_scale", self.log_scale))

    @property
    def accuracy(self) -> float:
        """Absolute accuracy of the density of log λ and of the cdf."""
        return _FLOOR

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """There are none."""
        return ()

    @property
    def log_bulk(self) -> tuple[float, float]:
        """(-inf, inf): every λ > 0 has a density at finite width."""
        return -math.inf, math.inf

    def log_pdf_log(self, log_lam: ArrayLike) -> Array:
        """Log density of log λ; -inf where the density is below 1e-12, its absolute accuracy."""
        table = _table(self.width, self.depth)
        x = np.asarray(_checks.array("log_lam", log_lam) - self.log_scale)
        inside = (x > table.low) & (x < table.high)
        density = np.zeros(x.shape)
        density[inside] = table.density(x[inside])
        visible = density > _FLOOR
        return np.log(density, where=visible, out=np.full(x.shape, -np.inf))

    def cdf_log(self, log_lam: ArrayLike) -> Array:
        """P(log λ' <= log_lam)."""
        table = _table(self.width, self.depth)
        x = np.asarray(_checks.array("log_lam", log_lam) - self.log_scale)
        inside = (x > table.low) & (x < table.high)
        cdf = np.where(x >= table.high, 1.0, 0.0)
        cdf[inside] = table.cdf(x[inside])
        return cdf

    def log_ppf(self, p: ArrayLike) -> Array:
        """Quantiles of log λ; for 0 < p < 1e-12 and 1 - 1e-12 < p < 1 those of these bounds, the accuracy of cdf."""
        probability = _checks.probabilities(p)
        quantile = _table(self.width, self.depth).quantile(np.clip(probability, _FLOOR, 1 - _FLOOR)) + self.log_scale
        return np.where(probability == 0, -np.inf, np.where(probability == 1, np.inf, quantile))

    def moment(self, k: int) -> float:
        """E λ^k, exact: the transform at t = k + 1; inf beyond the floating range."""
        k = _checks.integer("k", k, at_least=0)
        with mpmath.workdps(50 + self.width + k):
            value = _transform(mpmath.mpf(k + 1), self.width, self.depth) * mpmath.exp(mpmath.mpf(k) * self.log_scale)
        try:
            return float(value)
        except OverflowError:
            return math.inf

    def log_moment(self, k: int = 1) -> float:
        """E (ln λ)^k: 2L times the mean of the Lyapunov exponents for k = 1, else by quadrature of the density."""
        k = _checks.integer("k", k, at_least=1)
        if k == 1:
            return 2 * self.depth * float(np.mean(lyapunov_exponents(self.width, field="complex"))) + self.log_scale
        table = _table(self.width, self.depth)
        x = np.linspace(table.low, table.high, 4 * table.frequency.size)
        return float((x[1] - x[0]) * np.sum(table.density(x) * (x + self.log_scale) ** k))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """The characteristic function of ln λ at y = 2πk/(high - low), k >= 1, up to where it vanishes."""

    low: float  # all but 1e-17 of the mass lies between low and high
    high: float
    frequency: Array
    transform: NDArray[np.complex128]

    def density(self, x: Array) -> Array:
        """Return f(x) = (1 + 2 Re Σ R(y) e^{-iyx})/(high - low)."""
        return np.asarray((1 + 2 * self._sum(x, self.transform).real) / (self.high - self.low))

    def cdf(self, x: Array) -> Array:
        """Integrate the density from the lower end, term by term."""
        integrated = self.transform / (-1j * self.frequency)
        waves = self._sum(x, integrated).real - self._sum(np.asarray(self.low), integrated).real
        return np.clip((x - self.low + 2 * waves) / (self.high - self.low), 0.0, 1.0)

    def quantile(self, p: Array) -> Array:
        """Invert the cdf: by linear interpolation in a table, then Newton's method within the cell of the table."""
        grid = np.linspace(self.low, self.high, 4 * self.frequency.size)
        x = np.interp(p, self.cdf(grid), grid)
        cell = grid[1] - grid[0]
        low, high = x - cell, x + cell
        for _ in range(8):  # the cell is a fraction of the finest wave: five steps reach rounding
            x = np.clip(x - (self.cdf(x) - p) / np.maximum(self.density(x), _FLOOR), low, high)
        return np.asarray(x)

    def _sum(self, x: Array, weights: NDArray[np.complex128]) -> NDArray[np.complex128]:
        return np.asarray(np.exp(-1j * np.multiply.outer(x, self.frequency)) @ weights)


@functools.lru_cache(maxsize=32)
def _table(width: int, depth: int) -> _Table:
    """Lay out the window and tabulate the characteristic function on the grid it needs."""
    low, high = _window(width, depth)
    spacing = 2 * math.pi / (high - low)
    values: list[complex] = []
    with mpmath.workdps(30 + width):
        for k in itertools.count(1):
            values.append(complex(_transform(mpmath.mpc(1, k * spacing), width, depth)))
            if max(abs(value) for value in values[-3:]) < _TAIL and len(values) > 3:
                break
    frequency = spacing * np.arange(1.0, len(values) + 1)
    return _Table(low=low, high=high, frequency=frequency, transform=np.array(values))


def _window(width: int, depth: int) -> tuple[float, float]:
    """Return the tightest Chernoff bounds: P(ln λ < a) <= e^{sa} E λ^{-s}, P(ln λ > b) <= e^{-sb} E λ^s."""
    ends = []
    with mpmath.workdps(30 + 4 * width):
        for sign, powers in ((-1, np.linspace(0.05, 0.95, 19)), (1, np.geomspace(0.05, 4.0 * width, 30))):
            logs = [mpmath.log(_transform(mpmath.mpf(1 + sign * s), width, depth)) for s in powers]
            bounds = [(float(value) - math.log(_TAIL)) / s for value, s in zip(logs, powers, strict=True)]
            ends.append(sign * min(bounds))
    return float(ends[0]), float(ends[1])


def _transform(t: mpmath.mpf | mpmath.mpc, width: int, depth: int) -> mpmath.mpf | mpmath.mpc:
    """Return E (1/N) Σ λ^{t-1} in the working precision, by recursion over both factors of the sum."""
    binomials = [mpmath.mpf(1)]  # (-1)^j C(t-2, j)
    for j in range(1, width):
        binomials.append(-binomials[-1] * (t - 1 - j) / j)
    rising, total = mpmath.mpf(1), mpmath.mpf(0)  # Γ(t+i)/(Γ(t) i!)
    for i in range(width):
        total += rising ** (depth + 1) * binomials[width - 1 - i]
        rising *= (t + i) / (i + 1)
    return mpmath.gamma(t) ** depth * mpmath.power(width, -depth * (t - 1)) * total / width
