"""The algebraic curve B = 1 + B^p/z of the Raney laws, on its real cut, in an angle and without cancellation.

On the cut B = sin(pφ)/sin(qφ) e^{iφ} and z = λ = sin^p(pφ)/(sin φ sin^q(qφ)), with q = p - 1 and 0 < φ < π/p; λ falls
from the edge p^p/q^q at φ = 0 to 0 at φ = π/p. The variable is u = ln(e/(1 - e)), e = pφ/π, which resolves both ends.

With ℓ(t) = -ln(sin(πt)/(πt)) and D_c = ℓ(e) - ℓ(ce) >= 0 for 0 < c < 1,

    ln(edge/λ) = D_{1/p} + q D_{q/p},        ln(p/q) - ln|B| = D_{q/p}:

sums of positive terms, each relatively accurate for every p > 1 at every u. Proof: docs/derivations/fuss_catalan.md.
"""

import functools
import math
from dataclasses import dataclass

import mpmath
import numpy as np
from numpy.typing import NDArray
from scipy import special

from rmtbn.theory.angle_functions import sine_falls
from rmtbn.theory.newton import newton

Array = NDArray[np.float64]

_TINY = 1e-290  # below it 1 - e is kept as a logarithm only


@dataclass(frozen=True, slots=True, kw_only=True)
class Arc:
    """Points of the curve: their share e = pφ/π of the angle, and what falls between the edge and there.

    Parameters
    ----------
    log_share, log_rest
        ln e and ln(1 - e).
    sinc_fall
        -ln(sin φ/φ) = ℓ(e/p).
    modulus_fall
        ln(p/q) - ln|B| = D_{q/p}.
    fall
        y = ln(edge/λ).
    log_rate
        ln(dy/du).
    """

    log_share: Array
    log_rest: Array
    sinc_fall: Array
    modulus_fall: Array
    fall: Array
    log_rate: Array

    def log_sine(self, ratio: float) -> Array:
        """Return ln sin(π·ratio·e) for 0 < ratio <= 1, from whichever of ratio·e and 1 - ratio·e is below 1/2."""
        gap = math.log1p(-ratio) if ratio < 1 else -math.inf
        log_part = np.minimum(math.log(ratio) + self.log_share, np.logaddexp(gap, math.log(ratio) + self.log_rest))
        part = np.exp(log_part)
        return math.log(math.pi) + log_part - sine_falls(part, 1 - part, log_rest=np.log1p(-part))[0]


def arc(u: Array, *, p: float) -> Arc:
    """Evaluate the curve of parameter p > 1 at u.

    The rate is positive termwise too: dy/d(pφ) = exp(D_{1/p}) sin(qφ) [1 + ((T(qφ) - T(φ))/(pφ))²], T(x) = 1 - x cot x.
    """
    small, large = 1 / p, (p - 1) / p  # shares of pφ that are φ and qφ
    share, log_share, log_rest = special.expit(u), special.log_expit(u), special.log_expit(-u)
    rest = np.maximum(special.expit(-u), _TINY)
    whole = sine_falls(share, rest, log_rest=log_rest)
    phi = sine_falls(small * share, large + small * rest)
    q_phi = sine_falls(large * share, small + large * rest)
    falls = (
        _fall(small, share, whole=whole, part=phi, complement=q_phi, log_rest=log_rest),
        _fall(large, share, whole=whole, part=q_phi, complement=phi, log_rest=log_rest),
    )
    tilt = (q_phi[1] - phi[1]) / (np.pi * share)
    log_sin_q_phi = math.log(np.pi * large) + log_share - q_phi[0]
    return Arc(
        log_share=log_share,
        log_rest=log_rest,
        sinc_fall=phi[0],
        modulus_fall=falls[1],
        fall=falls[0] + (p - 1) * falls[1],
        log_rate=math.log(np.pi) + log_share + log_rest + falls[0] + log_sin_q_phi + np.log1p(tilt * tilt),
    )


def angle_at_fall(fall: Array, *, p: float) -> Array:
    """Solve ln(edge/λ) = fall > 0 for u, relatively accurate in e and in 1 - e.

    Newton's method on ln(exp(2y/p) - 1), whose slope in u stays between 0.85 and 2 for every p; the start joins the
    asymptotes ln(qπ²/p²) + 2u at the edge and 2u - 2 ln p at λ → 0.
    """
    scaled = 2 * fall / p
    target = scaled + np.log(-np.expm1(-scaled))
    left = math.log(p / math.pi) - math.log(p - 1) / 2
    right = math.log(p)

    def residual(u: Array) -> tuple[Array, Array]:
        point = arc(u, p=p)
        z = 2 * point.fall / p
        rise = -np.expm1(-z)
        return z + np.log(rise) - target, 2 / p * np.exp(point.log_rate) / rise

    weight = np.clip(1 + target / (2 * abs(right - left) + 1), 0, 1)
    return newton(residual, target / 2 + left + weight * (right - left))


@functools.lru_cache(maxsize=256)
def log_edge(p: float, log_scale: float) -> tuple[float, float]:
    """Return p ln p - q ln q + log_scale as the unevaluated sum of two floats (106 bits)."""
    with mpmath.workdps(50):
        q = mpmath.mpf(p) - 1
        edge = p * mpmath.log(p) - q * mpmath.log(q) + log_scale
        high = float(edge)
        return high, float(edge - high)


def _fall(
    c: float,
    share: Array,
    *,
    whole: tuple[Array, Array],
    part: tuple[Array, Array],
    complement: tuple[Array, Array],
    log_rest: Array,
) -> Array:
    """Return D_c = ℓ(e) - ℓ(ce) >= 0; `complement` is `sine_falls` at (1 - c)e.

    Near c = 1 the difference cancels. There, with α = π(1 - c)e and sin(πce) = sin(πe - α),
    D_c = ln1p of (1 - c)/c · [1 - sin α/α (πe cot πe + πe tan(α/2))].
    """
    if c <= 0.7:
        return whole[0] - part[0]
    dip = -np.expm1(-complement[0])
    bracket = dip + (1 - dip) * (whole[1] - np.pi * share * np.tan(np.pi * (1 - c) * share / 2))
    return np.log1p((1 - c) / c * bracket) + np.maximum(math.log(_TINY) - log_rest, 0)
