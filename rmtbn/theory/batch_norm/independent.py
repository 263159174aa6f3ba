"""The limit B → ∞: the examples of a batch are independent, u = r z with z ~ N(0, 1), r² = σ_w² s/(σ_w² s + ε).

There s = Var φ(r z) and λ_G = σ_w² E φ′(r z)²/(σ_w² s + ε), which at ε = 0 is E φ′²/Var φ, whatever σ_w.
"""

import math

from rmtbn.activations import Activation
from rmtbn.theory import gauss_hermite
from rmtbn.theory.batch_norm.fixed_point import FixedPoint
from rmtbn.theory.batch_norm.root import largest_root


def independent(phi: Activation, *, eps: float, sigma_w: float) -> FixedPoint:
    """Compute the fixed point and the eigenvalues.

    On L: E[(z² - 1)(φ - E φ)²]/(2s) forward and λ_G backward; on M: (E zφ)²/s and λ_G (E φ′)²/E φ′².
    """
    weight = sigma_w**2

    def radius(spread: float) -> float:
        return math.sqrt(weight * spread / (weight * spread + eps))

    def next_spread(spread: float) -> float:
        mean, square = _moments(phi, radius(spread))[:2]
        return square - mean**2

    spread = next_spread(1.0) if eps == 0 else largest_root(next_spread, name="eps", value=eps)
    r = radius(spread)
    mean, square, slope_square, slope, tilted, first = _moments(phi, r)
    rate = weight * slope_square / (weight * spread + eps)
    forward_l = tilted / (2 * spread)
    return FixedPoint(
        q=square,
        c=mean**2 / square,
        explosion_rate=rate,
        forward_g=(1 - r * r) * forward_l,
        forward_l=forward_l,
        forward_m=first**2 / spread,
        backward_l=rate,
        backward_m=rate * slope**2 / slope_square,
    )


def _moments(phi: Activation, r: float) -> tuple[float, float, float, float, float, float]:
    """E φ, E φ², E φ′², E φ′, E (z² - 1)(φ - E φ)² and E z φ at r z."""
    q, kinks = r * r, phi.kinks
    mean = float(gauss_hermite.expectation(phi.phi, q, kinks=kinks))
    square, slope_square, slope, tilted, first = (
        float(gauss_hermite.expectation(f, q, kinks=kinks))
        for f in (
            lambda h: phi.phi(h) ** 2,
            lambda h: phi.dphi(h) ** 2,
            phi.dphi,
            lambda h: (h * h / q - 1) * (phi.phi(h) - mean) ** 2,
            lambda h: h / r * phi.phi(h),
        )
    )
    return mean, square, slope_square, slope, tilted, first
