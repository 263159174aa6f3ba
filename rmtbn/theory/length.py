"""Length of the signal in a wide unnormalised network, layer by layer, and the growth χ₁ of its gradients.

Model: h^l = W^l φ(h^{l-1}) + b^l, independent entries of variance σ_w²/N and σ_b², N → ∞. Then h^l_i ~ N(0, q^l), and

- length map (Poole et al. 2016, arXiv:1606.05340, eq. (3)):   q^l = σ_w² E φ(√q^{l-1} z)² + σ_b²
- growth per layer of squared gradients and of nearby inputs' distance (Schoenholz et al. 2017, arXiv:1611.01232,
  eq. (6)): χ₁ = σ_w² E φ′(√q z)²
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.activations import activation as find_activation
from rmtbn.theory import gauss_hermite

Array = NDArray[np.float64]

# The length is iterated as log q; where q leaves these bounds, E φ²/q is its limit: φ is h^0 or h^1 to 1e-125 there.
Q_BOUNDS = (1e-250, 1e250)


def phi_second_moment(q: ArrayLike, activation: str | Activation) -> Array:
    """Compute E φ(√q z)², in closed form where there is one, else by quadrature (relative error below 1e-11)."""
    record = find_activation(activation)
    q = _checks.array("q", q, at_least=0.0)
    if record.second_moment is not None:
        return np.asarray(record.second_moment(np.maximum(q, gauss_hermite.SMALLEST_Q)))
    return gauss_hermite.expectation(lambda h: record.phi(h) ** 2, q, kinks=record.kinks)


def dphi_second_moment(q: ArrayLike, activation: str | Activation) -> Array:
    """Compute E φ′(√q z)², in closed form where there is one, else by quadrature (relative error below 1e-11)."""
    record = find_activation(activation)
    q = _checks.array("q", q, at_least=0.0)
    if record.slope_second_moment is not None:
        return np.asarray(record.slope_second_moment(np.maximum(q, gauss_hermite.SMALLEST_Q)))
    return gauss_hermite.expectation(lambda h: record.dphi(h) ** 2, q, kinks=record.kinks)


def length_map(q: ArrayLike, activation: str | Activation, *, sigma_w: ArrayLike, sigma_b: ArrayLike = 0.0) -> Array:
    """Compute the next q: σ_w² E φ(√q z)² + σ_b² (arXiv:1606.05340, eq. (3)).

    Parameters
    ----------
    q
        Variances of the pre-activations, >= 0, any shape.
    activation
        Name or record of φ.
    sigma_w, sigma_b
        Standard deviations of √N·W_ij and of the bias, >= 0; arrays broadcast with `q`.

    Returns
    -------
    Array
        Of the broadcast shape of the arguments.

    Examples
    --------
    >>> round(float(length_map(0.5, "relu", sigma_w=2**0.5)), 12)
    0.5
    """
    weight, bias = variances(sigma_w, sigma_b)
    return np.asarray(weight * phi_second_moment(q, activation) + bias)


def chi1(q: ArrayLike, activation: str | Activation, *, sigma_w: ArrayLike) -> Array:
    """Compute χ₁ = σ_w² E φ′(√q z)² (arXiv:1611.01232, eq. (6)), of the broadcast shape of the arguments."""
    weight, _ = variances(sigma_w, 0.0)
    return np.asarray(weight * dphi_second_moment(q, activation))


def length_slope(q: ArrayLike, activation: str | Activation, *, sigma_w: ArrayLike) -> Array:
    """Compute the slope χ_q of the length map: σ_w² E[z φ φ′]/√q, which needs no φ″ and so holds at kinks too."""
    record = find_activation(activation)
    weight, _ = variances(sigma_w, 0.0)
    length = np.maximum(_checks.array("q", q, at_least=0.0), gauss_hermite.SMALLEST_Q**0.5)
    products = gauss_hermite.expectation(lambda h: h * record.phi(h) * record.dphi(h), length, kinks=record.kinks)
    return np.asarray(weight * products / length)


def lengths(
    q0: ArrayLike, activation: str | Activation, *, depth: int, sigma_w: ArrayLike, sigma_b: ArrayLike = 0.0
) -> Array:
    """Iterate the length map: q¹ … q^depth from the mean square q0 of the input (the input passes no φ).

    Parameters
    ----------
    q0
        Mean square of the input, >= 0.
    activation
        Name or record of φ.
    depth
        Number of weight layers, >= 1.
    sigma_w, sigma_b
        Standard deviations of √N·W_ij and of the bias, >= 0; arrays broadcast with `q0`.

    Returns
    -------
    Array
        Shape (depth, ...); entry l - 1 is the variance of the l-th pre-activation. A q that leaves the floating range
        is 0 or inf: `log_lengths` keeps it.
    """
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(log_lengths(q0, activation, depth=depth, sigma_w=sigma_w, sigma_b=sigma_b))


def log_lengths(
    q0: ArrayLike, activation: str | Activation, *, depth: int, sigma_w: ArrayLike, sigma_b: ArrayLike = 0.0
) -> Array:
    """Iterate log q, which stays finite at any depth (-inf for a q of exactly 0).

    Parameters
    ----------
    q0, activation, depth, sigma_w, sigma_b
        As in `lengths`, and so is the shape of the result.
    """
    record = find_activation(activation)
    weight, bias = variances(sigma_w, sigma_b)
    depth = _checks.integer("depth", depth, at_least=1)
    weight, bias, start = np.broadcast_arrays(weight, bias, _finite("q0", q0))
    with np.errstate(divide="ignore"):
        log_weight, log_bias = np.log(weight.ravel()), np.log(bias.ravel())
        log_q = np.empty((depth, weight.size))
        log_q[0] = np.log((weight * start + bias).ravel())
        for layer in range(1, depth):
            grown = log_weight + _log_gain(log_q[layer - 1], record) + log_q[layer - 1]
            log_q[layer] = np.logaddexp(grown, log_bias)
    return log_q.reshape(depth, *weight.shape)


def _log_gain(log_q: Array, record: Activation) -> Array:
    """Compute log(E φ²/q)."""
    q = np.exp(np.clip(log_q, *np.log(Q_BOUNDS)))
    return np.asarray(np.log(phi_second_moment(q, record) / q))


def variances(sigma_w: ArrayLike, sigma_b: ArrayLike) -> tuple[Array, Array]:
    """Return σ_w² and σ_b², refusing what is negative or not finite."""
    weight, bias = _finite("sigma_w", sigma_w), _finite("sigma_b", sigma_b)
    return np.square(weight, out=np.empty_like(weight)), np.square(bias, out=np.empty_like(bias))


def _finite(name: str, value: ArrayLike) -> Array:
    if np.ndim(value) == 0:
        return np.asarray(_checks.real(name, value, at_least=0.0))
    return _checks.array(name, value, at_least=0.0, at_most=float(np.finfo(np.float64).max))
