"""The law of λ for infinitely many free Bernoulli factors, each of which keeps nearly all: a Lambert curve, exactly.

Model: J Jᵀ is a free product of L projections of rank 1 - s/L (times their inverse rank, so that the mean is 1), L → ∞:
the limit at fixed s of networks with orthogonal weights and slopes that are 0 or 1 (hard-tanh), where s = L(1/p - 1).
With v = M/(1 + M)

    z = e^{sv}/v        (v = -W(-s/z)/s, W Lambert's function).

On the cut v = φ e^{-iφ}/(s sin φ), 0 < φ < π: with ℓ = -ln(sin φ/φ) and T = 1 - φ cot φ

    ln(es/λ) = ℓ + T,        density of ln λ = (sφ/π)/((s - 1 + T)² + φ²),        1 - F = [φ + (1 - s) α]/π,

α = arg(s - 1 + T + iφ). The bulk reaches from 0 to es; if s < 1 an atom 1 - s is at e^s. Derivation:
docs/derivations/depth_limits.md.
"""

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
from rmtbn.theory.angle_functions import angle, arctangent_gap
from rmtbn.theory.edge_distance import by_edge_distance
from rmtbn.theory.newton import newton

Array = NDArray[np.float64]

_LEAST = 1e-280  # mass below which a tail counts as that much
_TABLE = np.linspace(-45.0, 45.0, 361)  # of u, from which Newton's method starts


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BernoulliLimit(SpectralMeasure):
    """Law of λ of infinitely many free Bernoulli factors.

    Parameters
    ----------
    s
        Variance of λ, > 0.
    log_scale
        λ is multiplied by exp(log_scale).

    Raises
    ------
    InvalidArgumentError
        If `s` is not a finite number above 0, or `log_scale` not finite.

    Examples
    --------
    >>> law = BernoulliLimit(s=0.25)
    >>> [(round(lam, 10), mass) for lam, mass in law.atoms], round(math.exp(law.log_bulk[1]), 10), law.moment(2)
    ([(1.2840254167, 0.75)], 0.6795704571, 1.25)
    """

    s: float
    log_scale: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "s", _checks.real("s", self.s, above=0.0))
        object.__setattr__(self, "log_scale", _checks.real("log_scale", self.log_scale))

    @property
    def accuracy(self) -> float:
        """Relative accuracy of the density, absolute of the distribution function."""
        return 1e-12

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """((e^s, 1 - s),) if s < 1."""
        return ((math.exp(self._log_atom), 1.0 - self.s),) if self.s < 1 else ()

    @property
    def log_bulk(self) -> tuple[float, float]:
        """(-inf, 1 + ln s)."""
        return -math.inf, self._edge[0]

    def log_pdf_log(self, log_lam: ArrayLike) -> Array:
        """Log density of log λ; it diverges at the edge for s = 1."""
        return self._at_angle(log_lam, self._log_density, below=-np.inf, above=-np.inf)

    def cdf_log(self, log_lam: ArrayLike) -> Array:
        """P(log λ' <= log_lam), the atom included."""
        bulk = self._at_angle(log_lam, lambda u: self._parts(u)[0], below=0.0, above=self._mass)
        return np.asarray(np.where(_checks.array("log_lam", log_lam) >= self._log_atom, 1.0, bulk))

    def log_ppf(self, p: ArrayLike) -> Array:
        """Quantiles of log λ, by Newton's method in u on the log odds within the bulk."""
        probability = _checks.probabilities(p)
        edge, edge_low = self._edge
        quantile = np.where(probability > 0, edge, -np.inf)
        quantile[probability > self._mass] = self._log_atom
        inside = (probability > 0) & (probability < self._mass)
        below = np.maximum(probability[inside], _LEAST)
        odds = np.log(self._mass - below) - np.log(below)
        quantile[inside] = edge - _fall(self._angle_at_odds(odds)) + edge_low
        return quantile

    def moment(self, k: int) -> float:
        """E λ^k = (1/k) Σ_{j<k} (k - j)(sk)^j/j!, times e^{k log_scale}, from 40 digits; inf beyond the range."""
        k = _checks.integer("k", k, at_least=0)
        if k == 0:
            return 1.0
        with mpmath.workdps(40):
            total = mpmath.fsum((k - j) * (mpmath.mpf(self.s) * k) ** j / mpmath.factorial(j) for j in range(k)) / k
            total *= mpmath.exp(mpmath.mpf(k) * self.log_scale)
        try:
            return float(total)
        except OverflowError:
            return math.inf

    def log_moment(self, k: int = 1) -> float:
        """Diverge: F falls as s/|ln λ| for λ → 0, the trace of atoms s/L at zero for finite L."""
        return (-math.inf) ** _checks.integer("k", k, at_least=1)

    @property
    def _mass(self) -> float:
        return min(self.s, 1.0)

    @property
    def _log_atom(self) -> float:
        return self.s + self.log_scale if self.s < 1 else math.inf

    @property
    def _edge(self) -> tuple[float, float]:
        with mpmath.workdps(50):
            edge = 1 + mpmath.log(self.s) + self.log_scale
            return float(edge), float(edge - float(edge))

    def _log_density(self, u: Array) -> Array:
        phi, _, gap = angle(u)
        return math.log(self.s / math.pi) + np.log(phi) - 2 * np.log(np.hypot(self.s - 1 + gap, phi))

    def _parts(self, u: Array) -> tuple[Array, Array]:
        """Mass of the bulk below and above u. With d = |s - 1| and β = φ/(d ± T) the upper is d(β - atan β) ± Tβ."""
        phi, _, gap = angle(u)
        distance, sign = abs(self.s - 1), math.copysign(1, self.s - 1)
        steep = phi >= distance + sign * gap
        slope = np.where(steep, 0.0, phi) / np.where(steep, 1.0, distance + sign * gap)
        shallow = distance * arctangent_gap(slope) + sign * gap * slope
        above = np.where(steep, phi - distance * np.arctan2(phi, distance + sign * gap), shallow) / math.pi
        return np.maximum(self._below(u, phi, gap), _LEAST), np.maximum(above, _LEAST)

    def _below(self, u: Array, phi: Array, gap: Array) -> Array:
        """Mass below u: π - φ - (1 - s)α over π; in t = tan(π - φ) where that is small, a sum of positive terms."""
        rest, s = special.expit(-u), self.s
        t = np.tan(math.pi * np.where(u > 0, rest, 0.0))
        if s < 1:
            near_zero = s * rest + (1 - s) / math.pi * np.arctan2(s * t**2, s * t + phi * (1 + t**2))
        else:
            near_zero = rest + (s - 1) / math.pi * np.arctan2(phi * t, s * t + phi)
        return np.where(u > 0, near_zero, rest + (s - 1) / math.pi * np.arctan2(phi, s - 1 + gap))

    def _at_angle(self, log_lam: ArrayLike, function: Callable[[Array], Array], *, below: float, above: float) -> Array:
        """Evaluate `function` of u at each log λ of the bulk, and the given constants outside it."""

        def at_fall(fall: Array) -> Array:
            return function(_angle_at_fall(fall))

        return by_edge_distance(log_lam, self._edge, at_fall, below=below, above=above)

    def _angle_at_odds(self, odds: Array) -> Array:
        """Solve ln(above/below) = odds for u."""

        def log_odds(u: Array) -> Array:
            below, above = self._parts(u)
            return np.log(above) - np.log(below)

        def residual(u: Array) -> tuple[Array, Array]:
            below, above = self._parts(u)
            log_slope = self._log_density(u) + _log_rate(u) + np.log(self._mass) - np.log(below) - np.log(above)
            return np.log(above) - np.log(below) - odds, np.exp(log_slope)

        return newton(residual, np.interp(odds, log_odds(_TABLE), _TABLE))


def _fall(u: Array) -> Array:
    """Compute ln(edge/λ) = ℓ + T."""
    _, fall, gap = angle(u)
    return fall + gap


def _log_rate(u: Array) -> Array:
    """Compute ln of the slope of ln(edge/λ) in u, (1 - φ/π)(φ² + T²)."""
    phi, _, gap = angle(u)
    return np.asarray(special.log_expit(-u) + 2 * np.log(np.hypot(phi, gap)))


def _angle_at_fall(fall: Array) -> Array:
    """Solve ℓ + T = fall for u, by its logarithm: φ²/2 at one end, π/(π - φ) at the other."""

    def residual(u: Array) -> tuple[Array, Array]:
        value = _fall(u)
        return np.log(value) - target, np.exp(_log_rate(u) - np.log(value))

    target = np.log(fall)
    small, large = (target + math.log(2)) / 2 - math.log(math.pi), target
    return newton(residual, np.where(target < 0, small, large))
