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


def phi_second_moment(q: ArrayLike, activation: str | Activation) -> Array:
    """Compute E φ(√q z)² (finite q >= 0) in closed form where there is one, else by quadrature (error 1e-11)."""
    record = find_activation(activation)
    q = finite("q", q)
    if record.second_moment is not None:
        return np.asarray(record.second_moment(np.maximum(q, gauss_hermite.SMALLEST_Q)))
    return gauss_hermite.expectation(lambda h: record.phi(h) ** 2, q, kinks=record.kinks)


def dphi_second_moment(q: ArrayLike, activation: str | Activation) -> Array:
    """Compute E φ′(√q z)² (finite q >= 0) in closed form where there is one, else by quadrature (error 1e-11)."""
    record = find_activation(activation)
    q = finite("q", q)
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


def variances(sigma_w: ArrayLike, sigma_b: ArrayLike) -> tuple[Array, Array]:
    """Return σ_w² and σ_b², refusing what is negative or not finite."""
    weight, bias = finite("sigma_w", sigma_w), finite("sigma_b", sigma_b)
    return np.square(weight, out=np.empty_like(weight)), np.square(bias, out=np.empty_like(bias))


def finite(name: str, value: ArrayLike) -> Array:
    """Return `value` as an array, refusing what is negative or not finite."""
    if np.ndim(value) == 0:
        return np.asarray(_checks.real(name, value, at_least=0.0))
    return _checks.array(name, value, at_least=0.0, at_most=float(np.finfo(np.float64).max))
