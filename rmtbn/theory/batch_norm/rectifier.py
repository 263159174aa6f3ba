"""Closed forms for φ with slope a below 0 and b above it: linear, ReLU, leaky ReLU.

φ and uφ′ = φ are homogeneous, so their second moments over the sphere are those of Gaussians of correlation c₀ =
-1/(B-1): with p = (a+b)/2, m = (b-a)/2 and the arc-cosine kernels (Cho & Saul 2009)

    E φ(u)² = E φ′² = p² + m²,
    E φ(u₁)φ(u₂) = p² c₀ + m² (2/π)(√(1-c₀²) + c₀ arcsin c₀),      E φ′(u₁)φ′(u₂) = p² + m² (2/π) arcsin c₀.
"""

import math

import numpy as np

from rmtbn.activations import Activation


def slopes_at_zero(phi: Activation) -> tuple[float, float] | None:
    """Return (a, b) where φ is a line on each side of 0 with φ(0) = 0; None for any other φ."""
    if phi.slopes is None or phi.kinks not in {(), (0.0,)} or float(phi.phi(np.zeros(()))) != 0:
        return None
    return phi.slopes[0], phi.slopes[-1]


def mean_field(a: float, b: float, *, batch_size: int) -> tuple[float, float, float]:
    """Compute q*, c* and λ_G = B [(B-2) E φ′² + (E φ′² + n E φ′φ′ - n s)/B]/(s (B-3) n), n = B - 1, s = q*(1 - c*)."""
    n, c0 = batch_size - 1, -1 / (batch_size - 1)
    p2, m2, arcs = ((a + b) / 2) ** 2, ((b - a) / 2) ** 2, 2 / math.pi * math.asin(c0)
    q, pair = p2 + m2, p2 * c0 + m2 * (2 / math.pi * math.sqrt(1 - c0 * c0) + c0 * arcs)
    spread, slopes = q - pair, p2 + m2 * arcs
    mean_removed = (batch_size - 2) * q + (q + n * slopes) / batch_size
    return q, pair / q, batch_size * (mean_removed - n * spread / batch_size) / (spread * (batch_size - 3) * n)
