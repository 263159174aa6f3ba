"""φ′ as amplitude·e^envelope, which keeps its logarithm where φ′ itself leaves the floating range.

The amplitude carries the sign, and vanishes only where φ′ does.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rmtbn.activations import SELU_ALPHA, SELU_SCALE, Activation

Array = NDArray[np.float64]
Split = Callable[[Array], tuple[Array, Array]]

_LOG_NORMAL = -0.5 * math.log(2 * math.pi)


def split_slope(activation: Activation) -> Split:
    """Return h ↦ (amplitude, envelope) with φ′ = amplitude·e^envelope; the envelope is 0 for a φ of the user's own."""
    return SPLITS.get(activation.name, lambda h: (activation.dphi(h), np.zeros_like(h)))


def _tanh(h: Array) -> tuple[Array, Array]:
    """sech² h: next to 0 by ln cosh² h = ln(1 + sinh² h)."""
    size = np.abs(h)
    near = np.minimum(size, 1.0)
    far = 2 * (math.log(2) - size - np.log1p(np.exp(-2 * size)))
    return np.ones_like(h), np.where(size < 1, -np.log1p(np.sinh(near) ** 2), far)


def _erf(h: Array) -> tuple[Array, Array]:
    return np.ones_like(h), math.log(2 / math.sqrt(math.pi)) - h * h


def _gelu(h: Array) -> tuple[Array, Array]:
    """Φ(h) + hφ(h): for h < 0 it is φ(h)[m(-h) + h] with Mills' ratio m."""
    left, size = h < 0, np.abs(h)
    log_normal = _LOG_NORMAL - 0.5 * h * h
    mills = math.sqrt(math.pi / 2) * special.erfcx(size / math.sqrt(2))
    right = 1 + np.exp(log_normal) * (size - mills)
    return np.where(left, mills - size, right), np.where(left, log_normal, 0.0)


def _silu(h: Array) -> tuple[Array, Array]:
    """σ(h)[1 + hσ(-h)]."""
    return 1 + h * special.expit(-h), special.log_expit(h)


def _selu(h: Array) -> tuple[Array, Array]:
    return np.where(h > 0, SELU_SCALE, SELU_SCALE * SELU_ALPHA), np.minimum(h, 0.0)


SPLITS: Mapping[str, Split] = MappingProxyType(
    {"tanh": _tanh, "erf": _erf, "gelu": _gelu, "silu": _silu, "selu": _selu}
)


def _gelu_rate(h: Array) -> Array:
    """φ″ = (2 - h²)·normal density."""
    amplitude, envelope = _gelu(h)
    return np.asarray((2 - h * h) * np.exp(_LOG_NORMAL - 0.5 * h * h - envelope) / amplitude)


def _silu_rate(h: Array) -> Array:
    """φ″ = σ(h)σ(-h)[2 - h tanh(h/2)]."""
    gate = special.expit(-h)
    return np.asarray(gate * (2 - h * np.tanh(h / 2)) / (1 + h * gate))


# φ″/φ′
RATES: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {
        "tanh": lambda h: -2 * np.tanh(h),
        "erf": lambda h: -2 * h,
        "gelu": _gelu_rate,
        "silu": _silu_rate,
        "selu": lambda h: np.where(h > 0, 0.0, 1.0),
    }
)
