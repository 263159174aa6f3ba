"""Correlation of two inputs in a wide unnormalised network, layer by layer, and the slope χ of its map.

Two inputs of equal length keep equal lengths (`rmtbn.theory.length`); the correlation of their pre-activations obeys
(Poole et al. 2016, arXiv:1606.05340, eq. (5))

    c^l = [σ_w² E φ(h₁)φ(h₂) + σ_b²]/q^l,    h₁, h₂ of variance q^{l-1} and correlation c^{l-1}.

Two inputs that are close differ by d = 1 - c, which may be far below the spacing of floats near 1. So everything here
is computed from the map of d, σ_w² E[(φ(h₁) - φ(h₂))²]/(2 q^l), in which nothing cancels; c = 1 - d is taken last.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.activations import activation as find_activation
from rmtbn.theory import length, pair_moments

Array = NDArray[np.float64]

# Beyond these lengths the ratio of moments is taken at them: φ is linear, a step or two half lines there, to 1e-11.
Q_BOUNDS = (1e-22, 1e22)


def correlation_map(
    c: ArrayLike, activation: str | Activation, *, q: ArrayLike, sigma_w: ArrayLike, sigma_b: ArrayLike = 0.0
) -> Array:
    """Compute the next correlation of two inputs of length q: [σ_w² E φ(h₁)φ(h₂) + σ_b²]/q′ (1606.05340, eq. (5)).

    Parameters
    ----------
    c
        Correlations of the pre-activations, in [-1, 1], any shape.
    activation
        Name or record of φ.
    q
        Length (variance of the pre-activations) of both inputs, >= 0; at a fixed point the length map keeps it.
    sigma_w, sigma_b
        Standard deviations of √N·W_ij and of the bias, >= 0.

    Returns
    -------
    Array
        Of the broadcast shape of the arguments; absolute error below 1e-10. Near c = 1 use `decorrelation_map`.

    Raises
    ------
    InvalidArgumentError
        For an argument out of range, or where the next length is 0, which has no correlation.

    Examples
    --------
    >>> round(float(correlation_map(0.0, "relu", q=1.0, sigma_w=2**0.5)) * np.pi, 12)
    1.0
    """
    d = 1.0 - _checks.array("c", c, at_least=-1.0, at_most=1.0)
    return np.asarray(1.0 - decorrelation_map(d, activation, q=q, sigma_w=sigma_w, sigma_b=sigma_b))


def decorrelation_map(
    d: ArrayLike, activation: str | Activation, *, q: ArrayLike, sigma_w: ArrayLike, sigma_b: ArrayLike = 0.0
) -> Array:
    """Compute the next 1 - c from d = 1 - c in [0, 2], with a small *relative* error however small d is.

    The map is d′ = σ_w² E[(φ(h₁) - φ(h₂))²]/(2q′).

    Parameters
    ----------
    d
        1 - c of the pre-activations.
    activation, q, sigma_w, sigma_b
        As in `correlation_map`, and so are the result and the errors.
    """
    record = find_activation(activation)
    d = _checks.array("d", d, at_least=0.0, at_most=2.0)
    grown, bias = _next_length(q, record, sigma_w, sigma_b)
    return np.asarray(grown / (grown + bias) * _lost_share(q, d, record))


def correlation_slope(
    c: ArrayLike, activation: str | Activation, *, q: ArrayLike, sigma_w: ArrayLike, sigma_b: ArrayLike = 0.0
) -> Array:
    """Compute the slope of the correlation map: (q/q′) σ_w² E φ′(h₁)φ′(h₂) (arXiv:1611.01232, eq. (6) and (9)).

    At a fixed point q′ = q of the lengths it is χ at c, which is χ₁ at c = 1.

    Parameters
    ----------
    c, activation, q, sigma_w, sigma_b
        As in `correlation_map`, and so are the shape of the result and the errors.
    """
    record = find_activation(activation)
    d = 1.0 - _checks.array("c", c, at_least=-1.0, at_most=1.0)
    grown, bias = _next_length(q, record, sigma_w, sigma_b)
    length_here = _within_bounds(q)
    share = length_here * pair_moments.dphi_product(length_here, d, record)
    return np.asarray(grown / (grown + bias) * share / length.phi_second_moment(length_here, record))


def _next_length(q: ArrayLike, record: Activation, sigma_w: ArrayLike, sigma_b: ArrayLike) -> tuple[Array, Array]:
    """Compute σ_w² E φ² and σ_b², whose sum is the next length; at least one is above 0."""
    weight, bias = length.variances(sigma_w, sigma_b)
    grown = np.asarray(weight * length.phi_second_moment(np.asarray(q, dtype=np.float64), record))
    if np.any(grown + bias == 0):
        raise _checks.fail("sigma_w", "> 0 where `sigma_b` is 0, or the next layer has no length", sigma_w)
    return grown, bias


def _lost_share(q: ArrayLike, d: Array, record: Activation) -> Array:
    """Compute E[(φ(h₁) - φ(h₂))²]/(2 E φ²), in [0, 2]: 1 - c′ of a layer without bias."""
    q = _within_bounds(q)
    share = pair_moments.phi_difference(q, d, record) / length.phi_second_moment(q, record)
    return np.asarray(np.minimum(share, 2.0))


def _within_bounds(q: ArrayLike) -> Array:
    return np.asarray(np.clip(_checks.array("q", q, at_least=0.0), *Q_BOUNDS))
