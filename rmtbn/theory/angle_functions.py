"""Elementary functions of an angle that explicit spectral curves are made of, relatively accurate where they vanish.

For an angle x = πt, 0 < t < 1:

    ℓ = -ln(sin x/x) ~ x²/6,        T = 1 - x cot x ~ x²/3,        x dℓ/dx = T,        x dT/dx = x² - T + T²,

and for a slope β the gap β - atan β ~ β³/3 between it and its angle.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]

# ζ(2n) - 1 falls as 4^-n: 27 terms reach one ulp on the whole of (0, 1); highest order first, for Horner's rule
_SERIES = [(float(special.zetac(2 * n)) / n, 2 * float(special.zetac(2 * n))) for n in range(27, 0, -1)]
_SMALL = 0.4  # slope below which the gap is summed: 20 terms then reach one ulp
_TERMS = 20


def sine_falls(t: Array, rest: Array, *, log_rest: Array | None = None) -> tuple[Array, Array]:
    """Compute ℓ = -ln(sin(πt)/(πt)) and T = 1 - πt cot(πt), relatively accurate on the whole of 0 < t < 1.

    From sin(πt)/(πt) = Π(1 - t²/m²): ℓ = -ln(1 - t²) + Σ (ζ(2n) - 1)/n t^2n, T = 2t²/(1 - t²) + 2 Σ (ζ(2n) - 1) t^2n.

    Parameters
    ----------
    t, rest
        t and 1 - t, of one shape.
    log_rest
        ln(1 - t), where 1 - t leaves the floating range.
    """
    square = t * t
    smooth, slope = np.zeros_like(t), np.zeros_like(t)
    for log_coefficient, cot_coefficient in _SERIES:
        smooth = (smooth + log_coefficient) * square
        slope = (slope + cot_coefficient) * square
    pole = np.where(
        t < 0.5, np.log1p(-np.minimum(square, 0.25)), np.log1p(t) + (np.log(rest) if log_rest is None else log_rest)
    )
    return smooth - pole, slope + 2 * square / ((1 + t) * rest)


def arctangent_gap(slope: Array) -> Array:
    """Compute β - atan β for β >= 0, by its Taylor series where β is small."""
    small = np.minimum(slope, _SMALL)
    square, series = small * small, np.zeros_like(slope)
    for n in range(_TERMS, 0, -1):
        series = square * (1 / (2 * n + 1) - series)
    return np.where(slope < _SMALL, small * series, slope - np.arctan(slope))


def angle(u: Array) -> tuple[Array, Array, Array]:
    """Compute x = π/(1 + e^{-u}) with its ℓ and T; u resolves both ends of (0, π)."""
    share, rest = special.expit(u), np.maximum(special.expit(-u), 1e-290)
    fall, gap = sine_falls(share, rest, log_rest=special.log_expit(-u))
    return math.pi * share, fall, gap
