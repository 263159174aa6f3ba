"""The universal law of residual networks: squared singular values of a Jacobian that is a product of many I + small.

Model: J = ∏ (I + α_l A_l), A_l the Jacobian of branch l, with entries of mean 0 that are free of all before; the
branches are many and each is small, and c = Σ α_l² E tr A_l A_lᵀ/N is their variance. Whatever the activations and the
depth, the law of λ, the eigenvalues of J Jᵀ, depends on c only (Tarnowski et al. 2019, arXiv:1809.08848; Ling, He &
Qiu 2019, arXiv:1807.11694): it is free Brownian motion on the invertible matrices at time c (Biane 1997), S(M) =
e^{-c(1 + 2M)},

    z = (1 + M)/M e^{c(1 + 2M)},        edges ((s ± 1)/(s ∓ 1)) e^{±√(c² + 2c)}, s = √(1 + 2/c).

It is the law of 1/λ too, so E ln λ = 0; m_1 = e^c, m_2/m_1² = 1 + 2c. Computed: in an angle, exactly, on the curve of
`residual_curve`; density of ln λ = θ/(2πc). Derivation: docs/derivations/residual_law.md.

Freeness needs slopes that are fresh in every block and a last matrix of mean 0: x + α W₂ φ(W₁ x). A branch W φ(x) of
one layer sees nearly the same x in every block, and its law is wider: m_2/m_1² = 1 + 2c + (κ - 1)c² + O(c³) where the
slopes stay the same, κ = E φ′⁴/(E φ′²)². A branch φ(W x) whose φ has a mean adds a singular value far above the bulk.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import final

import mpmath
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtbn import _checks
from rmtbn.result import SpectralMeasure
from rmtbn.theory.residual_curve import ResidualCurve, at_log_tail, at_rapidity, log_edge, residual_curve
from rmtbn.theory.residual_moments import ResidualMoments

Array = NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualLaw(SpectralMeasure):
    """Law of λ of a residual network of many small branches.

    Parameters
    ----------
    c
        Variance of all branches together, > 0; tested from 1e-8 to 1e5.
    log_scale
        λ is multiplied by exp(log_scale).

    Raises
    ------
    InvalidArgumentError
        If `c` is not a finite number above 0, or `log_scale` not finite.
    """

    c: float
    log_scale: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "c", _checks.real("c", self.c, above=0.0))
        object.__setattr__(self, "log_scale", _checks.real("log_scale", self.log_scale))

    @property
    def accuracy(self) -> float:
        """Relative accuracy of the density and of both tails at a given distance of ln λ from the edges."""
        return 1e-12

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """There are none."""
        return ()

    @property
    def log_bulk(self) -> tuple[float, float]:
        """-ln edge and ln edge, shifted by log_scale."""
        edge = log_edge(self.c)[0]
        return self.log_scale - edge, self.log_scale + edge

    def log_pdf_log(self, log_lam: ArrayLike) -> Array:
        """Log density of log λ: ln of θ/(2πc)."""
        constant = math.log(2 * math.pi * self.c)
        return self._at(log_lam, lambda point, _: np.log(point.theta) - constant, beyond=(-np.inf, -np.inf))

    def cdf_log(self, log_lam: ArrayLike) -> Array:
        """P(log λ' <= log_lam), relatively accurate in both tails."""
        return self._at(log_lam, lambda point, upper: _tail(point, complement=upper), beyond=(0.0, 1.0))

    def sf_log(self, log_lam: ArrayLike) -> Array:
        """P(log λ' > log_lam), relatively accurate in both tails."""
        return self._at(log_lam, lambda point, upper: _tail(point, complement=~upper), beyond=(1.0, 0.0))

    def log_ppf(self, p: ArrayLike) -> Array:
        """Quantiles of log λ, by Newton's method on the log odds of the smaller tail."""
        probability = _checks.probabilities(p)
        edge, edge_low = log_edge(self.c)
        smaller = np.minimum(probability, 1 - probability)
        inside = smaller > 0
        distance = np.full(probability.shape, edge)
        w = at_log_tail(np.log(smaller[inside]), c=self.c)
        distance[inside] = (edge - residual_curve(w, c=self.c).fall) + edge_low
        return np.asarray(self.log_scale + np.copysign(distance, probability - 0.5))

    def moment(self, k: int) -> float:
        """E λ^k = e^{k(c + log_scale)} L¹_{k-1}(-2kc)/k, a Laguerre polynomial: a sum of positive terms.

        Rounded from 40 digits; inf beyond the floating range.
        """
        k = _checks.integer("k", k, at_least=0)
        if k == 0:
            return 1.0
        with mpmath.workdps(40):
            terms = (math.comb(k, j + 1) * (2 * k * mpmath.mpf(self.c)) ** j / mpmath.factorial(j) for j in range(k))
            total = mpmath.fsum(terms) / k * mpmath.exp(k * (mpmath.mpf(self.c) + self.log_scale))
        try:
            return float(total)
        except OverflowError:
            return math.inf

    def log_moment(self, k: int = 1) -> float:
        """E (ln λ)^k: k! times the k-th coefficient of E λ^s, in exact fractions; the variance is 2c + c²/3."""
        k = _checks.integer("k", k, at_least=1)
        return float(math.factorial(k) * _mellin_series(Fraction(self.c), Fraction(self.log_scale), order=k)[k])

    def _at(
        self,
        log_lam: ArrayLike,
        function: Callable[[ResidualCurve, NDArray[np.bool_]], Array],
        *,
        beyond: tuple[float, float],
    ) -> Array:
        """Evaluate a function of the mirrored point and the half it is from, and constants below and above the bulk."""
        x = _checks.array("log_lam", log_lam)
        edge, edge_low = log_edge(self.c)
        finite = np.where(np.isfinite(x), x, 0.0) - self.log_scale
        below, above = (finite + edge) + edge_low, (edge - finite) + edge_low
        inside = np.isfinite(x) & (below > 0) & (above > 0)
        values = np.where(x > self.log_scale, beyond[1], beyond[0])
        near, far = np.minimum(below, above)[inside], np.maximum(below, above)[inside]
        point = residual_curve(at_rapidity(np.log(far / near) / 2, c=self.c), c=self.c)
        values[inside] = function(point, (above < below)[inside])
        return values


def residual_law(*, c: float) -> ResidualLaw:
    """Return the law of λ of a deep residual network whose branches have variance c together.

    Parameters
    ----------
    c
        Σ_l α_l² χ_l, > 0: the branches' mean squared singular values added up (see `branch_variance`).

    Examples
    --------
    >>> law = residual_law(c=1)
    >>> [round(edge, 8) for edge in law.support], law.cdf(1.0).item(), law.log_moment(2)
    ([0.04740589, 21.09442325], 0.5, 2.3333333333333335)
    """
    return ResidualLaw(c=c)


def branch_variance(moments: ResidualMoments) -> float:
    """Compute c = Σ_l α² χ_f(q^{l-1}) of a residual network x^l = x^{l-1} + α f(x^{l-1}).

    Parameters
    ----------
    moments
        Those of the network, by `residual_moments` or `batch_norm_residual_moments`; α = 1/√L keeps c of order 1.

    Returns
    -------
    float
        c; the law `residual_law(c=c)` holds for many small branches, with errors of the order of the largest α²χ.

    Examples
    --------
    >>> from rmtbn.theory.residual_moments import residual_moments
    >>> round(branch_variance(residual_moments("relu", depth=100, sigma_w=2**0.5, alpha=0.1)), 12)
    1.0
    """
    return float(np.sum(np.expm1(-np.diff(moments.log_gradient))))


def _tail(point: ResidualCurve, *, complement: NDArray[np.bool_]) -> Array:
    tail = np.exp(point.log_tail)
    return np.where(complement, 1 - tail, tail)


def _mellin_series(c: Fraction, shift: Fraction, *, order: int) -> list[Fraction]:
    """Expand E λ^s = e^{s(c + shift)} Σ_j (1 - s)_j (-2cs)^j/((j + 1)! j!), with ₁F₁(1 - s; 2; -2cs), to s^order."""
    total, rising = [Fraction(0)] * (order + 1), [Fraction(1)]
    for j in range(order + 1):
        weight = (-2 * c) ** j / (math.factorial(j + 1) * math.factorial(j))
        for i, coefficient in enumerate(rising[: order + 1 - j]):
            total[i + j] += weight * coefficient
        rising = [(j + 1) * a - b for a, b in zip([*rising, Fraction(0)], [Fraction(0), *rising], strict=True)]
    growth = [(c + shift) ** j / math.factorial(j) for j in range(order + 1)]
    return [sum((growth[j] * total[n - j] for j in range(n + 1)), Fraction(0)) for n in range(order + 1)]
