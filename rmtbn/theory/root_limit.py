"""The law of λ^{1/L} as L → ∞: for products whose factors stay as they are.

Model: λ is an eigenvalue of a free product of L equal factors of mean 1. As L → ∞ at fixed factors the law of λ^{1/L}
converges, to the one whose quantile at t is 1/S(t - 1) (Haagerup & Möller 2013, arXiv:1211.4457): ln λ/L are the
Lyapunov exponents of a matrix of infinite size. For layers that keep a share p of their units (ReLU 1/2, linear 1),

    Gaussian weights: F(x) = 1 - p + px,        orthogonal weights: F(x) = (1 - p)/(1 - px),        0 <= x <= 1:

uniform for Fuss–Catalan, as Newman (1986) found for products of Gaussian matrices. Derivation:
docs/derivations/depth_limits.md.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from rmtbn import _checks
from rmtbn.result import SpectralMeasure

Array = NDArray[np.float64]

WEIGHTS = ("gaussian", "orthogonal")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RootLimit(SpectralMeasure):
    """Law of λ^{1/L}, L → ∞, of layers that keep a share p of their units; what is called λ here is that root.

    Parameters
    ----------
    p
        Share of units, 0 < p <= 1, and below 1 for orthogonal weights.
    weights
        "gaussian" (any independent entries) or "orthogonal".

    Raises
    ------
    InvalidArgumentError
        If an argument is out of its range.

    Examples
    --------
    >>> RootLimit(p=0.5).cdf([0.0, 0.5, 1.0])
    array([0.5 , 0.75, 1.  ])
    """

    p: float
    weights: str = "gaussian"

    def __post_init__(self) -> None:
        _checks.one_of("weights", self.weights, WEIGHTS)
        object.__setattr__(self, "p", _checks.real("p", self.p, above=0.0, at_most=1.0))
        if self.weights == "orthogonal" and self.p == 1:
            raise _checks.fail("p", "below 1 for orthogonal weights, which leave λ = 1", self.p)

    @property
    def accuracy(self) -> float:
        """Rounding."""
        return 1e-15

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """((0, 1 - p),) if p < 1."""
        return ((0.0, 1.0 - self.p),) if self.p < 1 else ()

    @property
    def log_bulk(self) -> tuple[float, float]:
        """(-inf, 0)."""
        return -math.inf, 0.0

    def log_pdf_log(self, log_lam: ArrayLike) -> Array:
        """Log of p x, or of p(1 - p)x/(1 - px)², x = e^log_lam < 1."""
        x = _checks.array("log_lam", log_lam)
        density = math.log(self.p) + x
        if self.weights == "orthogonal":
            density = density + math.log1p(-self.p) - 2 * np.log1p(-self.p * np.exp(np.minimum(x, 0.0)))
        return np.where(x < 0, density, -np.inf)

    def cdf_log(self, log_lam: ArrayLike) -> Array:
        """P(log λ' <= log_lam), the atom included."""
        x = np.exp(np.minimum(_checks.array("log_lam", log_lam), 0.0))
        if self.weights == "gaussian":
            return np.asarray(1 - self.p + self.p * x)
        return np.asarray((1 - self.p) / (1 - self.p * x))

    def log_ppf(self, p: ArrayLike) -> Array:
        """Quantiles of log λ: ln(1 - (1 - t)/p), and -ln t more for orthogonal weights; -inf inside the atom."""
        t = _checks.probabilities(p)
        above = np.maximum(t - (1 - self.p), 0.0)
        with np.errstate(divide="ignore"):
            quantile = np.log(above / self.p)
        if self.weights == "orthogonal":
            quantile = quantile - np.log(np.where(t > 0, t, 1.0))
        return np.asarray(np.minimum(quantile, 0.0))

    def moment(self, k: int) -> float:
        """E λ^k = p/(k + 1), times (1 - p) ₂F₁(2, k + 1; k + 2; p) for orthogonal weights."""
        k = _checks.integer("k", k, at_least=0)
        if k == 0:
            return 1.0
        share = self.p / (k + 1)
        if self.weights == "gaussian":
            return share
        return float(share * (1 - self.p) * special.hyp2f1(2, k + 1, k + 2, self.p))

    def log_moment(self, k: int = 1) -> float:
        """E (ln λ)^k = (-1)^k k! for p = 1; without bound where there is an atom at 0."""
        k = _checks.integer("k", k, at_least=1)
        return float((-1) ** k * math.factorial(k)) if self.p == 1 else (-math.inf) ** k
