"""Signal propagation through many layers: length q^l, correlation c^l, χ₁ and χ, iterated together.

The maps of `rmtbn.theory.length` and `rmtbn.theory.correlation` are applied layer by layer to log q and to d = 1 - c,
so that neither leaves the floating range nor loses digits at any depth. `rmtbn.theory.moment_rules` chooses
how each moment is computed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.activations import activation as find_activation
from rmtbn.theory import length, moment_rules

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Propagation:
    """What happens to two inputs of equal length, layer by layer; arrays of shape (depth, ...), layer 1 first.

    Parameters
    ----------
    log_q
        Logarithm of the variance of the pre-activations.
    decorrelation
        1 - c of the pre-activations.
    chi1
        σ_w² E φ′² at q^l: growth of squared gradients from this layer's pre-activations to the one before's.
    chi
        σ_w² E φ′(h₁)φ′(h₂) at (q^l, c^l), which is the slope of the correlation map at a fixed q.
    """

    log_q: Array
    decorrelation: Array
    chi1: Array
    chi: Array


def propagation(
    c0: ArrayLike,
    activation: str | Activation,
    *,
    q0: ArrayLike,
    depth: int,
    sigma_w: ArrayLike,
    sigma_b: ArrayLike = 0.0,
) -> Propagation:
    """Iterate length, correlation and both χ for one network or an array of them.

    Parameters
    ----------
    c0, activation, q0, depth, sigma_w, sigma_b
        As in `correlations`.

    Returns
    -------
    Propagation
        Errors of one layer are below 1e-10 relative; on the critical line they add up over the layers.
    """
    record = find_activation(activation)
    d0 = np.asarray(1.0 - _checks.array("c0", c0, at_least=-1.0, at_most=1.0))
    log_q = log_lengths(q0, record, depth=depth, sigma_w=sigma_w, sigma_b=sigma_b)
    d = _decorrelations(d0, record, log_q, sigma_b)
    weight, _ = length.variances(sigma_w, sigma_b)
    chi1 = weight * np.exp(moment_rules.log_slope(record, log_q.size)(log_q.ravel()).reshape(log_q.shape))
    log_q, chi1 = (np.broadcast_to(_aligned(x, d.ndim), d.shape) for x in (log_q, chi1))
    within = np.clip(log_q, *moment_rules.LOG_PAIR_BOUNDS).ravel()
    product = moment_rules.pair_moment(record, "slope_product", d.size)(within, d.ravel()).reshape(d.shape)
    return Propagation(log_q=log_q, decorrelation=d, chi1=chi1, chi=weight * product)


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
    depth = _checks.integer("depth", depth, at_least=1)
    weight, bias = length.variances(sigma_w, sigma_b)
    weight, bias, start = np.broadcast_arrays(weight, bias, length.finite("q0", q0))
    log_gain = moment_rules.log_gain(record, depth * weight.size)
    with np.errstate(divide="ignore"):
        log_weight, log_bias = np.log(weight.ravel()), np.log(bias.ravel())
        log_q = np.empty((depth, weight.size))
        log_q[0] = np.log((weight * start + bias).ravel())
        for layer in range(1, depth):
            log_q[layer] = np.logaddexp(log_weight + log_gain(log_q[layer - 1]) + log_q[layer - 1], log_bias)
    return log_q.reshape(depth, *weight.shape)


def correlations(
    c0: ArrayLike,
    activation: str | Activation,
    *,
    q0: ArrayLike,
    depth: int,
    sigma_w: ArrayLike,
    sigma_b: ArrayLike = 0.0,
) -> Array:
    """Iterate the correlation map together with the length map: c¹ … c^depth.

    Parameters
    ----------
    c0
        Correlation of two inputs, ⟨x₁, x₂⟩/(‖x₁‖‖x₂‖), in [-1, 1].
    activation
        Name or record of φ.
    q0
        Mean square of both inputs, > 0; the inputs pass no φ, so the first layer is linear.
    depth
        Number of weight layers, >= 1.
    sigma_w, sigma_b
        Standard deviations of √N·W_ij and of the bias; arrays broadcast with `c0` and `q0`.

    Returns
    -------
    Array
        Shape (depth, ...): entry l - 1 is the correlation of the l-th pre-activations.
    """
    d0 = 1.0 - _checks.array("c0", c0, at_least=-1.0, at_most=1.0)
    return 1.0 - decorrelations(d0, activation, q0=q0, depth=depth, sigma_w=sigma_w, sigma_b=sigma_b)


def decorrelations(
    d0: ArrayLike,
    activation: str | Activation,
    *,
    q0: ArrayLike,
    depth: int,
    sigma_w: ArrayLike,
    sigma_b: ArrayLike = 0.0,
) -> Array:
    """Iterate `decorrelation_map`: 1 - c¹ … 1 - c^depth from d0 = 1 - c0, each with a small relative error.

    Parameters
    ----------
    d0
        1 - c0 of two inputs, in [0, 2].
    activation, q0, depth, sigma_w, sigma_b
        As in `correlations`, and so is the shape of the result.
    """
    record = find_activation(activation)
    d0 = _checks.array("d0", d0, at_least=0.0, at_most=2.0)
    log_q = log_lengths(q0, record, depth=depth, sigma_w=sigma_w, sigma_b=sigma_b)
    return _decorrelations(d0, record, log_q, sigma_b)


def _decorrelations(d0: Array, record: Activation, log_q: Array, sigma_b: ArrayLike) -> Array:
    if np.isneginf(log_q).any():
        raise _checks.fail("q0", "of a network without a layer of length 0, which has no correlation", 0.0)
    with np.errstate(under="ignore", divide="ignore"):
        signal = -np.expm1(np.log(np.square(sigma_b)) - log_q)  # the share of q^l that comes from the signal
    full = (len(log_q), *np.broadcast_shapes(d0.shape, log_q.shape[1:]))
    signal, log_q = (np.broadcast_to(_aligned(x, len(full)), full).reshape(len(log_q), -1) for x in (signal, log_q))
    lost = moment_rules.lost_share(record, log_q.size)
    d = np.empty(log_q.shape)
    d[0] = signal[0] * np.broadcast_to(d0, full[1:]).ravel()
    for layer in range(1, len(d)):
        d[layer] = signal[layer] * lost(log_q[layer - 1], d[layer - 1])
    return d.reshape(full)


def _aligned(values: Array, ndim: int) -> Array:
    """Insert axes after the first, so that the others broadcast from the right."""
    return values.reshape(values.shape[0], *(1,) * (ndim - values.ndim), *values.shape[1:])
