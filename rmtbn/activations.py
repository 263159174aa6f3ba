"""Activations: one record per φ with its sympy form, numpy φ and φ′, kinks, and Gaussian moments where known.

The moments are over a pre-activation h ~ N(0, q). Torch forms live in `rmtbn.nets.activations`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rmtbn import _checks

Array = NDArray[np.float64]
Values: TypeAlias = Array | np.float64  # numpy turns an array of shape () into a scalar
Elementwise = Callable[[Array], Array]

SELU_ALPHA = 1.6732632423543772848170429916717  # Klambauer et al. 2017, arXiv:1706.02515, eq. (14): α01
SELU_SCALE = 1.0507009873554804934193349852946  # ibid.: λ01
LEAKY_SLOPE = 0.01  # Maas et al. 2013, and the default of torch.nn.LeakyReLU


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """An activation φ.

    Parameters
    ----------
    name
        Key in `ACTIVATIONS`.
    formula
        φ(x) in sympy's syntax.
    phi, dphi
        φ and its derivative φ′, elementwise on float64 arrays (φ′ at a kink is the value torch takes there).
    kinks
        Points where φ or φ′ is not smooth, ascending.
    slopes
        For a piecewise linear φ the slopes between the kinks (one more than kinks), else None.
    second_moment, slope_second_moment
        E φ(h)² and E φ′(h)² as functions of q in closed form, or None where only quadrature is known.
    """

    name: str
    formula: str
    phi: Elementwise
    dphi: Elementwise
    kinks: tuple[float, ...] = ()
    slopes: tuple[float, ...] | None = None
    second_moment: Elementwise | None = None
    slope_second_moment: Elementwise | None = None


def activation(name: str | Activation) -> Activation:
    """Return the record called `name` (a record is returned as it is).

    Raises
    ------
    InvalidArgumentError
        If there is no activation of that name.
    """
    if isinstance(name, Activation):
        return name
    return ACTIVATIONS[_checks.one_of("activation", name, ACTIVATIONS)]


def leaky_relu(negative_slope: float) -> Activation:
    """Make the leaky ReLU of any slope a: φ(x) = x for x > 0, a·x otherwise; E φ² = q(1+a²)/2, E φ′² = (1+a²)/2."""
    a = _checks.real("negative_slope", negative_slope)
    return Activation(
        name="leaky_relu",
        formula=f"Piecewise((x, x > 0), ({a!r}*x, True))",
        phi=lambda x: np.where(x > 0, x, a * x),
        dphi=lambda x: np.where(x > 0, 1.0, a),
        kinks=(0.0,),
        slopes=(a, 1.0),
        second_moment=lambda q: (1 + a * a) / 2 * q,
        slope_second_moment=lambda q: np.full_like(q, (1 + a * a) / 2),
    )


def _hard_tanh_second_moment(q: Values) -> Array:
    """P(|h| > 1) + E[h²; |h| < 1], the second as an incomplete Γ(3/2) so that nothing cancels at large q."""
    half_inverse = np.asarray(0.5 / q)
    return np.asarray(special.erfc(np.sqrt(half_inverse)) + q * special.gammainc(1.5, half_inverse))


def _gelu_second_moment(q: Values) -> Array:
    root = np.sqrt(1 + 2 * q)
    share = q / (1 + q)
    return np.asarray(q / 4 + q / (2 * np.pi) * np.arctan(q / root) + q * share / (np.pi * root))


def _gelu_slope_second_moment(q: Values) -> Array:
    root = np.sqrt(1 + 2 * q)
    algebraic = q / (1 + q) + q / (2 * root**2)
    return np.asarray(0.25 + np.arctan(q / root) / (2 * np.pi) + algebraic / (np.pi * root))


def _selu_slope_second_moment(q: Values) -> Array:
    """λ²/2 (1 + α² E[e^{2h} | h < 0]), and E[e^{kh}; h < 0] = erfcx(k √(q/2))/2."""
    return np.asarray(SELU_SCALE**2 / 2 * (1 + SELU_ALPHA**2 * special.erfcx(np.sqrt(2 * q))))


def _normal_pdf(x: Values) -> Array:
    with np.errstate(under="ignore"):
        return np.asarray(np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi))


def _sech2(x: Values) -> Array:
    with np.errstate(under="ignore"):
        decay = np.exp(-2 * np.abs(x))
        return np.asarray(4 * decay / (1 + decay) ** 2)


def _erf_slope(x: Values) -> Array:
    with np.errstate(under="ignore"):
        return np.asarray(2 / np.sqrt(np.pi) * np.exp(-x * x))


def _silu_slope(x: Values) -> Array:
    gate = special.expit(x)
    return np.asarray(gate * (1 + x * special.expit(-x)))


def _selu(x: Values) -> Array:
    return np.asarray(SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0.0))))


def _selu_slope(x: Values) -> Array:
    with np.errstate(under="ignore"):
        return np.asarray(SELU_SCALE * np.where(x > 0, 1.0, SELU_ALPHA * np.exp(np.minimum(x, 0.0))))


ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        "linear": Activation(
            name="linear",
            formula="x",
            phi=lambda x: x,
            dphi=np.ones_like,
            slopes=(1.0,),
            second_moment=lambda q: q,
            slope_second_moment=np.ones_like,
        ),
        "relu": Activation(
            name="relu",
            formula="Max(x, 0)",
            phi=lambda x: np.maximum(x, 0.0),
            dphi=lambda x: np.where(x > 0, 1.0, 0.0),
            kinks=(0.0,),
            slopes=(0.0, 1.0),
            second_moment=lambda q: q / 2,
            slope_second_moment=lambda q: np.full_like(q, 0.5),
        ),
        "leaky_relu": leaky_relu(LEAKY_SLOPE),
        "tanh": Activation(name="tanh", formula="tanh(x)", phi=np.tanh, dphi=_sech2),
        "erf": Activation(
            name="erf",
            formula="erf(x)",
            phi=special.erf,
            dphi=_erf_slope,
            # Williams 1997; the arctan form of arcsin(2q/(1+2q)) keeps every digit at large q
            second_moment=lambda q: 2 / np.pi * np.arctan(2 * q / np.sqrt(1 + 4 * q)),
            slope_second_moment=lambda q: 4 / np.pi / np.sqrt(1 + 4 * q),
        ),
        "hard_tanh": Activation(
            name="hard_tanh",
            formula="Piecewise((-1, x < -1), (1, x > 1), (x, True))",
            phi=lambda x: np.clip(x, -1.0, 1.0),
            dphi=lambda x: np.where(np.abs(x) < 1, 1.0, 0.0),
            kinks=(-1.0, 1.0),
            slopes=(0.0, 1.0, 0.0),
            second_moment=_hard_tanh_second_moment,
            slope_second_moment=lambda q: special.erf(np.sqrt(0.5 / q)),
        ),
        "gelu": Activation(
            name="gelu",
            formula="x*(1 + erf(x/sqrt(2)))/2",
            phi=lambda x: x * special.ndtr(x),
            dphi=lambda x: special.ndtr(x) + x * _normal_pdf(x),
            second_moment=_gelu_second_moment,
            slope_second_moment=_gelu_slope_second_moment,
        ),
        "silu": Activation(
            name="silu", formula="x/(1 + exp(-x))", phi=lambda x: x * special.expit(x), dphi=_silu_slope
        ),
        "selu": Activation(
            name="selu",
            formula=f"{SELU_SCALE!r}*Piecewise((x, x > 0), ({SELU_ALPHA!r}*(exp(x) - 1), True))",
            phi=_selu,
            dphi=_selu_slope,
            kinks=(0.0,),
            slope_second_moment=_selu_slope_second_moment,
        ),
    }
)
