"""What is exact at finite width for products of Gaussian matrices: exponents, log-norms, log-determinants, moments.

Model: J = D_L W_L ... D_1 W_1, W_l of size n_l × n_{l-1} with independent Gaussian entries of variance 1/n_{l-1} (real,
or complex with E|w|² = 1/n_{l-1}), D_l = diag φ′, the identity for a linear network. By rotation invariance ‖Jv‖²,
|det J| and the QR exponents are products of independent χ² variables, so their logarithms are sums with known means and
variances at every width and depth. Derivations: docs/derivations/lyapunov.md and docs/derivations/ginibre_moments.md.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.activations import activation as activation_record

Array = NDArray[np.float64]

FIELDS = ("real", "complex")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLaw:
    """Exact mean and variance of the logarithm of a positive quantity.

    Parameters
    ----------
    mean, variance
        Of the logarithm, given that the quantity is not 0.
    zero_probability
        Probability that the quantity is 0 (a ReLU layer all of whose units are off).
    """

    mean: float
    variance: float
    zero_probability: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductMoments:
    """Exact first moments of the spectrum of A = J Jᵀ at finite width, m_k = tr A^k / n_L.

    Parameters
    ----------
    m1, m2
        E m_1 (which is 1) and E m_2.
    m1_squared
        E m_1²; its excess over 1 is the variance of m_1 from network to network.
    """

    m1: float
    m2: float
    m1_squared: float


def lyapunov_exponents(width: int, *, field: str = "real") -> Array:
    """Return the Lyapunov exponents of products of square Gaussian matrices: log singular values per layer.

    As L → ∞, ln(σ_k)/L → [ln 2 + ψ((N-k+1)/2) - ln N]/2 for real entries, [ψ(N-k+1) - ln N]/2 for complex ones; k = 1
    is the largest. For ln λ double them. Newman 1986, Commun. Math. Phys. 103, 121; Forrester 2013, arXiv:1206.2001.

    Parameters
    ----------
    width
        N >= 1; the entries have variance 1/N (for σ_w²/N add ln σ_w).
    field
        "real" or "complex" entries.

    Returns
    -------
    Array
        Shape (width,), descending.

    Raises
    ------
    InvalidArgumentError
        If `width` is not an integer >= 1 or `field` is unknown.

    Examples
    --------
    >>> lyapunov_exponents(2).round(6).tolist()
    [-0.288608, -0.981755]
    """
    shape, unit = _gamma_shapes(width, field=field)
    return np.asarray((special.digamma(shape) + math.log(unit / width)) / 2)


def lyapunov_variances(width: int, *, field: str = "real") -> Array:
    """Return the variances of √L times the exponents at finite depth: ψ′((N-k+1)/2)/4 real, ψ′(N-k+1)/4 complex.

    They are exact for the QR exponents (logarithms of the diagonal of R) at every depth, and the limits as L → ∞ for
    the singular values, whose ln σ_k are then independent and Gaussian. Arguments and errors as `lyapunov_exponents`.
    """
    shape, _ = _gamma_shapes(width, field=field)
    return np.asarray(special.polygamma(1, shape) / 4)


def log_singular_value_means(width: int, *, depth: int, field: str = "real") -> Array:
    """Return E ln σ_k of products of `depth` square Gaussian matrices, for a depth well beyond the width.

    E ln σ_k = L λ_k + [ψ((N-k+1)/2) - ψ(k/2)]/2 for real entries, L λ_k + [ψ(N-k+1) - ψ(k)]/2 for complex ones, up to
    what falls off exponentially with L/N. The second term, of the random frames of singular vectors, does not vanish
    with depth: at N = 128 "exponent × depth" alone is off by 3.06 at the top, by -3.06 at the bottom. Measured, what is
    left out at the top is -0.44 at L = N, -0.12 at 4N, -0.05 at 8N. Derivation: docs/derivations/lyapunov.md.

    Parameters
    ----------
    width, field
        As in `lyapunov_exponents`; for entries of variance σ_w²/N add L ln σ_w.
    depth
        L >= 1.

    Returns
    -------
    Array
        Shape (width,), descending; the sum, E ln|det J|, is exact at every depth.

    Raises
    ------
    InvalidArgumentError
        If `width` or `depth` is not an integer >= 1 or `field` is unknown.

    Examples
    --------
    >>> log_singular_value_means(2, depth=100).round(4).tolist()
    [-28.1676, -98.8686]
    """
    depth = _checks.integer("depth", depth, at_least=1)
    shape, _ = _gamma_shapes(width, field=field)
    overlap = (special.digamma(shape) - special.digamma(shape[::-1])) / 2
    return np.asarray(depth * lyapunov_exponents(width, field=field) + overlap)


def log_det_law(width: int, *, depth: int, field: str = "real") -> LogLaw:
    """Return the exact law of ln|det J| of `depth` square Gaussian factors, |det W|² being a product of independent χ².

    Mean L Σ_k exponent_k, variance (L/4) Σ_m ψ′(m/2) for real entries (Goodman 1963), ψ′(m) for complex ones.

    Raises
    ------
    InvalidArgumentError
        If `width` or `depth` is not an integer >= 1 or `field` is unknown.
    """
    depth = _checks.integer("depth", depth, at_least=1)
    exponents, variances = lyapunov_exponents(width, field=field), lyapunov_variances(width, field=field)
    return LogLaw(mean=depth * math.fsum(exponents), variance=depth * math.fsum(variances))


def log_norm_law(activation: str | Activation, *, widths: Sequence[int]) -> LogLaw:
    """Return the exact law of ln‖Jv‖², v a fixed unit vector, at the Gaussian scheme that keeps the mean square.

    For φ = a₋x below 0 and a₊x above (linear, ReLU, leaky ReLU) each layer multiplies ‖·‖² by an independent
    g χ/n_{l-1}, g = 2/(a₋² + a₊²), χ = a₊² χ²_k + a₋² χ²_{n_l-k}, k ~ Bin(n_l, 1/2); linear: mean
    Σ [ψ(n_l/2) + ln(2/n_{l-1})], variance Σ ψ′(n_l/2). It is also the law of ‖x_L‖²/‖x_0‖² of the activations. For ReLU
    it is close to N(-β/2, β), β = 5 Σ 1/n_l, when the widths are large (Hanin & Nica 2019, arXiv:1812.05994).

    Parameters
    ----------
    activation
        Name or record of a positively homogeneous φ.
    widths
        (n_0, ..., n_L), input first.

    Returns
    -------
    LogLaw
        Given that no layer is dead, with the probability that one is.

    Raises
    ------
    InvalidArgumentError
        If φ is not linear on each side of 0 (its norms then depend on the length of the input), or a width is below 1.
    """
    record = activation_record(activation)
    if record.slopes is None or any(kink != 0 for kink in record.kinks) or not any(record.slopes):
        raise _checks.fail("activation", "linear on each side of 0, and not 0 on both", record.name)
    n = _widths(widths)
    squares = (record.slopes[0] ** 2, record.slopes[-1] ** 2)
    layers = {width: _log_chi_law(width, squares=squares) for width in set(n[1:])}
    gain = sum(math.log(2 / sum(squares)) - math.log(fan_in) for fan_in in n[:-1])
    return LogLaw(
        mean=gain + math.fsum(layers[width].mean for width in n[1:]),
        variance=math.fsum(layers[width].variance for width in n[1:]),
        zero_probability=1 - math.prod(1 - layers[width].zero_probability for width in n[1:]),
    )


def ginibre_moments(widths: Sequence[int], *, field: str = "real") -> ProductMoments:
    """Return E m_1, E m_2 and E m_1² of products of Gaussian matrices of any widths, exactly.

    With X_l = E m_2 and Y_l = E m_1² after l layers, Wick's theorem gives from X_0 = Y_0 = 1

        X_l = (n_l + δ)/n_{l-1} X_{l-1} + Y_{l-1},      Y_l = Y_{l-1} + (1 + δ)/(n_l n_{l-1}) X_{l-1},

    δ = 1 for real entries, 0 for complex ones. Free probability drops δ and keeps Y = 1, right while L is far below the
    widths. Derivation: docs/derivations/ginibre_moments.md.

    Parameters
    ----------
    widths
        (n_0, ..., n_L), input first.
    field
        "real" or "complex" entries.

    Raises
    ------
    InvalidArgumentError
        If a width is not an integer >= 1 or `field` is unknown.
    """
    n = _widths(widths)
    delta = 1 if _checks.one_of("field", field, FIELDS) == "real" else 0
    x, y = 1.0, 1.0
    for fan_in, fan_out in itertools.pairwise(n):
        x, y = (fan_out + delta) / fan_in * x + y, y + (1 + delta) / (fan_out * fan_in) * x
    return ProductMoments(m1=1.0, m2=x, m1_squared=y)


def _gamma_shapes(width: int, *, field: str) -> tuple[Array, float]:
    """Shapes of the Gamma laws of width·R_kk²/unit, k = 1..width, and the unit: 2 for real entries, 1 for complex."""
    width = _checks.integer("width", width, at_least=1)
    unit = 2.0 if _checks.one_of("field", field, FIELDS) == "real" else 1.0
    return np.arange(width, 0, -1) / unit, unit


def _widths(widths: Sequence[int]) -> tuple[int, ...]:
    n = tuple(_checks.integer("widths", width, at_least=1) for width in widths)
    if len(n) < 2:
        raise _checks.fail("widths", "the input width and one width per layer", n)
    return n


def _log_chi_law(n: int, *, squares: tuple[float, float]) -> LogLaw:
    """Return the law of ln χ given χ > 0: χ = Σ_{i<=n} a_i² h_i², h_i standard normal, a_i² either square evenly.

    With E exponential of mean 1, T = E/χ has P(T > t) = M(t)^n, M(t) = ½ Σ_a (1 + 2a²t)^{-1/2}; so E ln χ = -γ - E ln T
    and var ln χ = var ln T - π²/6. The density of ln T is analytic for |Im| < π: the trapezoidal rule is then exact.
    """
    step = 1 / 8  # its error is exp(-2π·π·8); the ends leave out less than 1e-17 of ln T
    start, stop = -40 - math.log(n * max(squares)), 90 - math.log(min(a for a in squares if a > 0))
    s = np.arange(start, stop, step)
    t = np.exp(s)
    transform = sum((1 + 2 * a * t) ** -0.5 / 2 for a in squares)
    drop = sum(-np.expm1(-np.log1p(2 * a * t) / 2) / 2 for a in squares)  # 1 - transform, without cancellation
    log_transform = np.where(drop < 0.5, np.log1p(-np.minimum(drop, 0.5)), np.log(transform))
    slope = sum(a * t * (1 + 2 * a * t) ** -1.5 / 2 for a in squares)
    zero = 0.5**n if min(squares) == 0 else 0.0
    with np.errstate(under="ignore"):
        weight = step * n * slope * np.exp((n - 1) * log_transform) / (1 - zero)
    mean = float(np.sum(weight * s))
    variance = float(np.sum(weight * (s - mean) ** 2)) - math.pi**2 / 6
    return LogLaw(mean=-np.euler_gamma - mean, variance=variance, zero_probability=zero)
