"""The fixed point of the batch covariance and the eigenvalues of a layer there, for all three regimes.

With ε = 0 a normalised feature has one radius, and its variance σ² = s χ²_n/B only scales the derivative; with ε > 0
all is averaged over σ² (`stabilised`); for B → ∞ the examples are independent (`independent`).
"""

import math
from dataclasses import dataclass

from rmtbn.activations import Activation
from rmtbn.theory.batch_norm import rectifier
from rmtbn.theory.batch_norm.sums import sphere_sums


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """Fixed point q*((1 - c*) I + c* 11ᵀ) of the batch covariance of x = φ(u), and what a layer does next to it.

    Parameters
    ----------
    q
        q* = E φ(u)².
    c
        c*: correlation of two examples of the batch.
    explosion_rate
        λ_G: growth per layer of the *squared* gradient norm, towards the input.
    forward_g, forward_l, forward_m
        Factors per layer of a small deviation of the batch covariance, restricted to 1^⊥, from its fixed point: of its
        size (0 for ε = 0, for batch normalisation removes it), of unequal examples (L), of unequal pairs (M).
    backward_l, backward_m
        Factors per layer, towards the input, of what in the covariance of the gradients is not a multiple of G.
    """

    q: float
    c: float
    explosion_rate: float
    forward_g: float
    forward_l: float
    forward_m: float
    backward_l: float
    backward_m: float

    @property
    def stable(self) -> bool:
        """Whether no deviation grows. At B = ∞ homogeneous φ have forward_l = 1 exactly, the limit from below."""
        return max(self.forward_g, self.forward_l, self.forward_m) <= 1 + MARGIN


MARGIN = 1e-11  # rounding of the eigenvalues


def normalised(phi: Activation, batch_size: int, *, closed: bool = True) -> FixedPoint:
    """Compute the fixed point at ε = 0, whatever σ_w: q*, c* and λ_G in closed form if there is one."""
    sums, n = sphere_sums(phi, batch_size=batch_size), batch_size - 1
    forward = 1 / (2 * batch_size * sums.spread)
    backward = batch_size / (sums.spread * (batch_size - 3))  # E 1/σ²
    pairs = batch_size * (batch_size - 3) / 2
    q, c, rate = sums.q, sums.pair / sums.q, backward * sums.backward_g
    slopes = rectifier.slopes_at_zero(phi) if closed else None
    if slopes:
        q, c, rate = rectifier.mean_field(*slopes, batch_size=batch_size)
    return FixedPoint(
        q=q,
        c=c,
        explosion_rate=rate,
        forward_g=0.0,
        forward_l=forward * sums.forward_l,
        forward_m=forward * n * sums.forward_m / pairs,
        backward_l=backward * sums.backward_l / n,
        backward_m=backward * sums.backward_m / pairs,
    )


def is_infinite(batch_size: float) -> bool:
    """Whether the limit B → ∞ is asked for."""
    return isinstance(batch_size, float) and batch_size == math.inf
