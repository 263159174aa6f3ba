"""First corrections in 1/width to the correlation of two inputs, for any φ.

Model: h^l = W^l φ(h^{l-1}) + b^l with n_l units, Gaussian entries of variance σ_w²/n_{l-1}, two inputs of equal length.
Given layer l - 1 the pairs (h₁, h₂) of the units of layer l are independent and Gaussian, so their lengths and their
covariance go from layer to layer by means over n_l units, each with a mean and a variance of order 1/n. Small
deviations of q = (q₁ + q₂)/2, of D = q - p (half the mean square difference, p the covariance) and of
v = (q₁ - q₂)/2 are followed: their covariances, and to second order their means. The correlation is p/√(q₁q₂). In the
half sum and half difference of h₁ and h₂, which are independent, derivatives with respect to the variances are Hermite
weights; so kinks need no care, and D keeps its digits as c → 1. Derivation: docs/derivations/correlation_expansion.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.activations import activation as find_activation
from rmtbn.theory import gauss_pairs, pair_moments
from rmtbn.theory.propagation import decorrelations, lengths

Array = NDArray[np.float64]

SMALLEST = 1e-100  # of 1 - c: squares of the second derivatives' 1/D² stay within the floating range


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelationExpansion:
    """Statistics over networks of 1 - c_l to order 1/width; arrays of shape (depth,), layer 1 first.

    c_l is the correlation of a unit's pre-activations given the layer before.

    Parameters
    ----------
    decorrelation
        1 - c of the mean field (order 1).
    shift, variance
        E(1 - c_l) less that, and Var c_l.
    sample_shift
        What the correlation over the n_l units of a layer adds to the mean of 1 - c: c (1 - c²)/(2 n_l).
    sample_variance
        And to its variance: (1 - c²)²/n_l.
    """

    decorrelation: Array
    shift: Array
    variance: Array
    sample_shift: Array
    sample_variance: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """One layer's maps of (q, D, v) but for σ_w²: first and second derivatives, and covariances of one unit."""

    slope: Array  # (2, 2), of (q, D)
    bend: Array  # (2, 2, 2), of (q, D)
    bend_v: Array  # (2,), of q and D with respect to v twice
    noise: Array  # (2, 2), of (q, D)
    noise_v: float


def correlation_expansion(
    activation: str | Activation,
    *,
    widths: Sequence[int],
    c0: float,
    sigma_w: float,
    sigma_b: float = 0.0,
    q0: float = 1.0,
) -> CorrelationExpansion:
    """Expand mean and variance over networks of the correlation of two inputs to first order in 1/width.

    Parameters
    ----------
    activation
        Name or record of φ.
    widths
        (n_0, ..., n_L), input first; the input's does not count.
    c0
        Correlation of the inputs, ⟨x₁, x₂⟩/(‖x₁‖‖x₂‖), in (-1, 1).
    sigma_w, sigma_b
        Standard deviations of √n·W_ij, > 0, and of the bias, >= 0.
    q0
        Mean square of both inputs, > 0.

    Returns
    -------
    CorrelationExpansion
        Right while the variances are small against (1 - c)².

    Raises
    ------
    InvalidArgumentError
        If an argument is out of range, or so many layers make inputs alike to 1 - c < 1e-100.

    Examples
    --------
    >>> found = correlation_expansion("linear", widths=(50, 50, 50), c0=0.5, sigma_w=1.0)
    >>> found.shift.round(6).tolist()  # c (1 - c²)/(2n) per layer, as for a sample of n pairs
    [0.0, 0.00375]
    """
    record = find_activation(activation)
    n = [_checks.integer("widths", width, at_least=1) for width in widths]
    if len(n) < 2:
        raise _checks.fail("widths", "the input width and one width per layer", tuple(n))
    weight = _checks.real("sigma_w", sigma_w, above=0.0) ** 2
    start, d0 = _checks.real("q0", q0, above=0.0), 1 - _checks.real("c0", c0, above=-1.0, below=1.0)
    q = lengths(start, record, depth=len(n) - 1, sigma_w=sigma_w, sigma_b=sigma_b)
    d = decorrelations(d0, record, q0=start, depth=len(n) - 1, sigma_w=sigma_w, sigma_b=sigma_b)
    if d.min() < SMALLEST:
        raise _checks.fail("widths", f"of so few layers that 1 - c stays above {SMALLEST}", f"{len(d)} layers")
    shift, variance = _followed(record, n[1:], q=q, d=d, weight=weight)
    inverse, c = 1 / np.array(n[1:]), 1 - d
    gap = d * (2 - d)  # 1 - c²
    return CorrelationExpansion(
        decorrelation=d,
        shift=shift,
        variance=variance,
        sample_shift=c * gap / 2 * inverse,
        sample_variance=gap**2 * inverse,
    )


def _followed(record: Activation, n: list[int], *, q: Array, d: Array, weight: float) -> tuple[Array, Array]:
    """Follow mean and covariance of the deviations of (q, D) and the variance of v; return those of 1 - c."""
    mean, covariance, variance_v = np.zeros(2), np.zeros((2, 2)), 0.0
    rows = []
    for length, gap, size in zip(q, d, n, strict=True):
        rows.append(_of_decorrelation(float(length), float(gap), mean, covariance, variance_v))
        layer = _layer(record, float(length), float(gap))
        second = np.einsum("ijk,jk->i", layer.bend, covariance) + layer.bend_v * variance_v
        mean = weight * (layer.slope @ mean + second / 2)
        covariance = weight**2 * (layer.slope @ covariance @ layer.slope.T + layer.noise / size)
        variance_v = weight**2 * (layer.slope[0, 0] ** 2 * variance_v + layer.noise_v / size)
    shift, variance = np.array(rows).T
    return shift, variance


def _of_decorrelation(q: float, d: float, mean: Array, covariance: Array, variance_v: float) -> tuple[float, float]:
    """Expand 1 - (q - D)/√(q² - v²) to second order about (q, dq, 0)."""
    gradient = np.array([-d, 1.0]) / q
    second = (d * covariance[0, 0] - covariance[0, 1]) / q**2 - (1 - d) * variance_v / (2 * q**2)
    return float(gradient @ mean + second), float(gradient @ covariance @ gradient)


def _layer(record: Activation, q: float, d: float) -> _Layer:
    """Integrate one layer's moments over s ~ N(0, a), t ~ N(0, b): h₁ = s + t, h₂ = s - t."""
    a, b = q * (2 - d) / 2, q * d / 2
    m = _moments(record, a, b)
    along = np.array([[1.0, 0.0], [-0.5, 0.5]])  # derivatives of (a, b) with respect to q and D
    second = np.array([[m["aa"], m["ab"]], [m["ab"], m["bb"]]])
    bend = np.zeros((2, 2, 2))
    bend[0, 0, 0], bend[1] = m["q_aa"], along @ second @ along.T
    return _Layer(
        slope=np.array([[m["q_a"], 0.0], along @ np.array([m["a"], m["b"]])]),
        bend=bend,
        bend_v=np.array([m["q_aa"], m["ab"]]),  # the covariance of s and t is v/2: 4 ∂a∂b, over 4
        noise=np.array(
            [[m["qq"] - m["q"] ** 2, m["qg"] - m["q"] * m["g"]], [m["qg"] - m["q"] * m["g"], m["gg"] - m["g"] ** 2]]
        ),
        noise_v=m["vv"],
    )


def _moments(record: Activation, a: float, b: float) -> dict[str, float]:
    """Moments of the units' (φ₁² + φ₂²)/2 ("q"), (φ₁ - φ₂)²/2 ("g") and (φ₁² - φ₂²)/2 ("v"), and derivatives of g."""
    difference = pair_moments.difference_function(record)
    names = ("q", "g", "q_a", "q_aa", "a", "b", "aa", "ab", "bb", "qq", "qg", "gg", "vv")

    def f(s: Array, t: Array) -> Array:
        first, second = record.phi(s + t) ** 2, record.phi(s - t) ** 2
        both, g = (first + second) / 2, difference(s, t)
        x2, y2 = s * s / a, t * t / b
        one_a, one_b = (x2 - 1) / (2 * a), (y2 - 1) / (2 * b)
        two_a, two_b = (x2 * x2 - 6 * x2 + 3) / (2 * a) ** 2, (y2 * y2 - 6 * y2 + 3) / (2 * b) ** 2
        rows = (both, g, both * one_a, both * two_a, g * one_a, g * one_b, g * two_a, g * one_a * one_b, g * two_b,
                both * both, both * g, g * g, ((first - second) / 2) ** 2)  # fmt: skip
        return np.stack(np.broadcast_arrays(*rows))

    wide, narrow = np.array([max(a, b)]), np.array([min(a, b)])
    found = gauss_pairs.expectation_grid(f, wide, narrow, kinks=record.kinks, mirrored=b > a)
    return dict(zip(names, found[:, 0, 0].tolist(), strict=True))
