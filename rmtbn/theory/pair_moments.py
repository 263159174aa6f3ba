"""Gaussian moments of two pre-activations h₁, h₂ of length q and correlation c, which make the correlation map.

Everything is a function of d = 1 - c, and the first moment is a half mean square difference, so that both stay right to
rounding as c → 1, where E φ(h₁)φ(h₂) itself would lose every digit of what matters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from rmtbn import _checks
from rmtbn.activations import ACTIVATIONS, Activation
from rmtbn.activations import activation as find_activation
from rmtbn.theory.gauss_pairs import SMALLEST_Q, PairFunction, pair_expectation

Array = NDArray[np.float64]

# Where |t| < 0.01 max(1, |s|), φ(s + t) - φ(s - t) is 2t times the mean of φ′ at three Gauss–Legendre nodes; φ is
# analytic within max(1, |s|) or so, which leaves less than 1e-13 of it. Beyond, the difference itself loses at most two
# digits.
SMALL_STEP = 0.01
SLOPE_NODES, SLOPE_WEIGHTS = np.polynomial.legendre.leggauss(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairMoments:
    """Closed forms over a pair, as functions of q and d = 1 - c (arrays of one shape)."""

    difference: Callable[[Array, Array], Array]
    slope_product: Callable[[Array, Array], Array]


def phi_difference(q: ArrayLike, d: ArrayLike, activation: str | Activation) -> Array:
    """Compute E[(φ(h₁) - φ(h₂))²]/2 = E φ(h₁)² - E φ(h₁)φ(h₂), with a small *relative* error however small d is.

    Parameters
    ----------
    q
        Variance of h₁ and of h₂, >= 0 (0 gives the limit from above).
    d
        1 - c, in [0, 2], of a shape that broadcasts with `q`.
    activation
        Name or record of φ.

    Returns
    -------
    Array
        In closed form for linear, (leaky) ReLU, erf and GELU, else by quadrature; relative error below 1e-10.
    """
    record = find_activation(activation)
    q, d, shape = _pair(q, d)
    closed = closed_form(record)
    if closed is not None:
        return closed.difference(q, d).reshape(shape)
    return pair_expectation(difference_function(record), q, d, kinks=record.kinks).reshape(shape)


def dphi_product(q: ArrayLike, d: ArrayLike, activation: str | Activation) -> Array:
    """Compute E φ′(h₁)φ′(h₂), which is the derivative of E φ(h₁)φ(h₂) with respect to q·c (parameters as above)."""
    record = find_activation(activation)
    q, d, shape = _pair(q, d)
    closed = closed_form(record)
    if closed is not None:
        return closed.slope_product(q, d).reshape(shape)
    return pair_expectation(slope_function(record), q, d, kinks=record.kinks).reshape(shape)


def closed_form(activation: str | Activation) -> PairMoments | None:
    """Return the closed forms of φ: registered ones, or those of a φ that is linear on either side of 0; else None."""
    record = find_activation(activation)
    if record.slopes is not None and record.kinks in ((), (0.0,)):
        return _two_slopes(record.slopes[0], record.slopes[-1])
    return CLOSED_FORMS.get(record.name) if ACTIVATIONS.get(record.name) is record else None


def asymptote(activation: str | Activation, *, scale: float) -> PairMoments | None:
    """Return the closed forms of the two half lines that φ is where |h| is about `scale`; None if it is not."""
    record = find_activation(activation)
    h = scale * np.array([-1.0, 1.0, -0.1, 0.1])
    slopes = record.phi(h) / h
    if not np.allclose(slopes[:2], slopes[2:], rtol=1e-6, atol=1e-6 * np.abs(slopes).max()):
        return None
    return _two_slopes(float(slopes[0]), float(slopes[1]))


def _pair(q: ArrayLike, d: ArrayLike) -> tuple[Array, Array, tuple[int, ...]]:
    """Return q and d flat, and the shape they broadcast to."""
    length = np.maximum(_checks.array("q", q, at_least=0.0), SMALLEST_Q)
    first, second = np.broadcast_arrays(length, _checks.array("d", d, at_least=0.0, at_most=2.0))
    return first.ravel(), second.ravel(), first.shape


def difference_function(record: Activation) -> PairFunction:
    """Return (φ(s + t) - φ(s - t))²/2 as a function of s and t that keeps every digit for small t."""

    def f(s: Array, t: Array) -> Array:
        step = record.phi(s + t) - record.phi(s - t)
        small = np.abs(t) < SMALL_STEP * np.maximum(1.0, np.abs(s))
        for kink in record.kinks:
            small &= np.abs(s - kink) > np.abs(t)
        if small.any():
            slopes = (w * record.dphi(s + x * t) for x, w in zip(SLOPE_NODES, SLOPE_WEIGHTS, strict=True))
            step = np.where(small, t * sum(slopes), step)
        return np.asarray(step * step / 2)

    return f


def slope_function(record: Activation) -> PairFunction:
    """Return φ′(s + t) φ′(s - t) as a function of s and t."""
    return lambda s, t: np.asarray(record.dphi(s + t) * record.dphi(s - t))


def _angle(d: Array) -> Array:
    """θ = arccos(1 - d), right to rounding for small d."""
    return 2 * np.arcsin(np.sqrt(d / 2))


def _two_slopes(left: float, right: float) -> PairMoments:
    """φ = a h for h < 0, b h for h > 0 (Cho & Saul 2009, arc-cosine kernels of order 1 and 0), with θ = arccos c.

    φ = (b + a)h/2 + (b - a)|h|/2 and E|h₁h₂| = (2q/π)(sin θ + (π/2 - θ) cos θ), which is even in c. So the modulus
    parts by q (d - (2/π)(sin θ - θ cos θ)), θ the angle to the nearer of c = ±1, and sin θ - θ cos θ = θ² j₁(θ).
    """
    linear, modulus = ((right + left) / 2) ** 2, ((right - left) / 2) ** 2

    def difference(q: Array, d: Array) -> Array:
        nearer = np.minimum(d, 2 - d)
        theta = _angle(nearer)
        parted = nearer - theta**2 * special.spherical_jn(1, theta) / (np.pi / 2)
        return q * (linear * d + modulus * parted)

    def slope_product(_q: Array, d: Array) -> Array:
        return linear + modulus * (1 - 2 * _angle(d) / np.pi)

    return PairMoments(difference=difference, slope_product=slope_product)


def _arcsine_step(a: Array, d: Array, gap: Array) -> Array:
    """Compute arcsin(a) - arcsin((1 - d)a) from 0 <= a < 1 and gap = 1 - a², without cancellation."""
    b = (1 - d) * a
    other_gap = gap + a * a * d * (2 - d)
    root, other_root = np.sqrt(gap), np.sqrt(other_gap)
    sine = np.where(d < 1, a * a * d * (2 - d) / (a * other_root + np.abs(b) * root), a * other_root - b * root)
    return np.arctan2(sine, root * other_root + a * b)


def _erf_difference(q: Array, d: Array) -> Array:
    """(2/π)(arcsin A - arcsin cA) with A = 2q/(1 + 2q) (Williams 1997)."""
    return 2 / np.pi * _arcsine_step(2 * q / (1 + 2 * q), d, (1 + 4 * q) / (1 + 2 * q) ** 2)


def _erf_slope_product(q: Array, d: Array) -> Array:
    return 4 / np.pi / np.sqrt(1 + 4 * q + (2 * q) ** 2 * d * (2 - d))


def _gelu_roots(q: Array, d: Array) -> tuple[Array, Array]:
    """r₁ = √(1 + 2q) and r = √((1 + q)² - q²c²) = √det(I + Σ)."""
    return np.sqrt(1 + 2 * q), np.sqrt(1 + 2 * q + q * q * d * (2 - d))


def _gelu_difference(q: Array, d: Array) -> Array:
    """From E φφ = qc/4 + (qc/2π) arcsin cA + q²(1 + c² - 2c²A)/(2πr), A = q/(1 + q); differences are taken by hand."""
    share, (first_root, root) = q / (1 + q), _gelu_roots(q, d)
    arcsines = _arcsine_step(share, d, (1 + 2 * q) / (1 + q) ** 2) + d * np.arctan2(q * (1 - d), root)
    bracket = (q - 1) * first_root - 2 * q * q / (root + first_root)
    algebraic = q * share * d * (2 - d) / (root * first_root) * bracket
    return q * d / 4 + (q * arcsines - algebraic) / (2 * np.pi)


def _gelu_slope_product(q: Array, d: Array) -> Array:
    """1/4 + [arcsin cA + p (2/((1 + q) r) + 1/r³)]/2π with p = qc: the derivative of E φφ with respect to p."""
    product, (_, root) = q * (1 - d), _gelu_roots(q, d)
    algebraic = product / root * (2 / (1 + q) + root**-2)
    return 0.25 + (np.arctan2(product, root) + algebraic) / (2 * np.pi)  # arcsin cA, exact also for cA near ±1


CLOSED_FORMS: Mapping[str, PairMoments] = MappingProxyType(
    {
        "erf": PairMoments(difference=_erf_difference, slope_product=_erf_slope_product),
        "gelu": PairMoments(difference=_gelu_difference, slope_product=_gelu_slope_product),
    }
)
