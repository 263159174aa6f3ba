"""Lyapunov exponents of deep nonlinear networks: how fast singular values of the Jacobian grow or fall per layer.

Model: J = D_L W_L … D_1 W_1, W_l square with independent Gaussian entries of variance σ_w²/N or σ_w times Haar,
D_l = diag φ′(h), h ~ N(0, q). The exponents are λ_k = lim ln(σ_k)/L; k = 1 is the largest. Computed: for N → ∞ the
exponent below which a share u of them lies, from d = φ′(h)²,

    e^{2λ(u)} = σ_w² u/c   (Gaussian),      σ_w² u/(c (1 - u))   (orthogonal),      E[c d/(1 + c d)] = u;

and for ReLU networks with Gaussian weights the exponents of every width, exactly. Derivation:
docs/derivations/exponent_spectrum.md.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.activations import activation as find_activation
from rmtbn.theory import gauss_hermite

Array = NDArray[np.float64]

WEIGHTS = ("gaussian", "orthogonal")
_HALVINGS = 70  # of an interval of ln c of at most 10³: to rounding
_REACH = 700.0  # ln c beyond which nothing but zeros of φ′ is left of E[1/(1 + c d)]


def exponent_spectrum(
    activation: str | Activation, share: ArrayLike, *, q: float, sigma_w: float, weights: str = "gaussian"
) -> Array:
    """Return the exponents of a wide network: λ(u), which a share u of all exponents exceeds.

    At u → 0 it is ½ ln χ₁ with χ₁ = σ_w² E φ′(h)², the mean-field growth of gradients; the mean over u is
    ½ E ln φ′² + ln σ_w, less ½ for Gaussian weights. Where φ′ vanishes on a set of positive probability the last
    exponents are -∞. Tucci 2010, arXiv:0802.4226, has the limit theorem; it is that of free multiplicative powers.

    Parameters
    ----------
    activation
        Name or record of φ.
    share
        u, in (0, 1), any shape; for the k-th of N exponents about (k - ½)/N.
    q
        Variance of the pre-activations, the fixed point q* at depth, > 0.
    sigma_w
        Standard deviation of √N·W_ij, > 0.
    weights
        "gaussian" or "orthogonal".

    Returns
    -------
    Array
        Of the shape of `share`; rounding of the quadrature, 1e-12 or less, is the error, that of N is O(1/N).

    Raises
    ------
    InvalidArgumentError
        If an argument is out of its range.

    Examples
    --------
    >>> bool(abs(exponent_spectrum("linear", 0.75, q=1.0, sigma_w=1.0) + np.log(2)) < 1e-12)  # e^{2λ} = 1 - u
    True
    """
    record = find_activation(activation)
    u = _checks.array("share", share)
    if not ((u > 0) & (u < 1)).all():
        raise _checks.fail("share", "inside (0, 1)", float(u[(u <= 0) | (u >= 1)].flat[0]))
    q, sigma_w = _checks.real("q", q, above=0.0), _checks.real("sigma_w", sigma_w, above=0.0)
    weights = _checks.one_of("weights", weights, WEIGHTS)
    log_c = _log_weight(record, u.ravel(), q=q).reshape(u.shape)
    exponent = math.log(sigma_w) + (np.log(u) - log_c) / 2
    return np.asarray(exponent - np.log1p(-u) / 2 if weights == "orthogonal" else exponent)


def relu_exponents(width: int, *, sigma_w: float = math.sqrt(2)) -> Array:
    """Return the exponents of ReLU networks with Gaussian weights and no biases, exactly at their width.

    λ_k = ln σ_w + ½[ln 2 - ln N + E ψ((r - k + 1)/2)], r ~ Bin(N, ½) units on, given that r >= k: the k-th exponent is
    that of networks in which no layer has fewer than k units on, for in others σ_k = 0.

    Parameters
    ----------
    width
        N >= 1.
    sigma_w
        Standard deviation of √N·W_ij, > 0; √2 is He's.

    Returns
    -------
    Array
        Shape (width,), descending; the first is half the mean of ln‖Jv‖² per layer (Hanin & Nica 2019,
        arXiv:1812.05994).

    Raises
    ------
    InvalidArgumentError
        If an argument is out of its range.

    Examples
    --------
    >>> relu_exponents(1).round(6).tolist()  # a single unit that is on: that of |N(0, 2)|
    [-0.288608]
    """
    width = _checks.integer("width", width, at_least=1)
    sigma_w = _checks.real("sigma_w", sigma_w, above=0.0)
    on = np.arange(width + 1)
    log_p = stats.binom.logpmf(on, width, 0.5)
    means = [np.average(special.digamma((on[k:] - k + 1) / 2), weights=np.exp(log_p[k:] - log_p[k:].max()))
             for k in range(1, width + 1)]  # fmt: skip
    return np.asarray(math.log(sigma_w) + (math.log(2 / width) + np.array(means)) / 2)


def _log_weight(record: Activation, u: Array, *, q: float) -> Array:
    """Solve E[c d/(1 + c d)] = u for ln c by bisection; ∞ where even c = ∞ leaves the mean below u."""

    def mean(log_c: Array) -> Array:
        with np.errstate(divide="ignore"):
            return gauss_hermite.expectation(
                lambda h: special.expit(log_c[:, None] + 2 * np.log(np.abs(record.dphi(h)))),
                np.full(u.shape, q),
                kinks=record.kinks,
            )

    square = float(gauss_hermite.expectation(lambda h: record.dphi(h) ** 2, q, kinks=record.kinks))
    low = np.log(u) - math.log(square)  # E[c d/(1 + c d)] <= c E d
    high = np.full(u.shape, _REACH)
    beyond = mean(high) <= u
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = mean(middle) > u
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.where(beyond, np.inf, (low + high) / 2)
