"""ε > 0: batch normalisation divides by √(v + ε), so a feature's variance v, and with it σ_w, matters.

v = σ_w² s R²/B, R² ~ χ²_n, is independent of the feature's direction. Given v the normalised feature has radius r =
√(v/(v+ε)), and its derivative is (G - r² u uᵀ/B)/√(v+ε): the direction of scale, which ε = 0 cuts, passes with the
singular value ε/(v+ε)^{3/2}. The sums over the sphere are computed at Chebyshev points of r, interpolated, and averaged
over v in panels of ln R². Derivation: docs/derivations/batch_norm_mean_field.md.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BarycentricInterpolator

from rmtbn.activations import Activation
from rmtbn.theory import gauss_hermite
from rmtbn.theory.batch_norm.fixed_point import FixedPoint
from rmtbn.theory.batch_norm.root import largest_root
from rmtbn.theory.batch_norm.sums import sphere_sums

Array = NDArray[np.float64]
Averages = Callable[[Array], Array]  # radii → sums, shape (radii, sums)

POINTS = 24  # Chebyshev points in r between two radii at which a kink enters the sphere: 1e-10 for every smooth φ
NEGLIGIBLE = 40.0  # ln of the weight left out at either end of ln R²


def stabilised(phi: Activation, batch_size: int, *, eps: float, sigma_w: float) -> FixedPoint:
    """Compute the fixed point and the eigenvalues for ε > 0.

    Parameters
    ----------
    phi
        Record of φ, γ and β included.
    batch_size
        B >= 4.
    eps, sigma_w
        ε > 0 and σ_w > 0, of which only ε/σ_w² matters.

    Raises
    ------
    InvalidArgumentError
        If ε is so large that the spread over the batch dies out.
    """
    n, weight = batch_size - 1, sigma_w**2
    at, (square, chances) = _interpolated(phi, batch_size), _chi_square(n)
    pairs = batch_size * (batch_size - 3) / 2

    def variance(spread: float) -> Array:
        return weight * spread * square / batch_size

    def sums(spread: float) -> Array:
        v = variance(spread)
        return at(np.sqrt(v / (v + eps)))

    def next_spread(spread: float) -> float:
        values = sums(spread)
        return float(chances @ (values[:, 0] - values[:, 1]))

    spread = largest_root(next_spread, name="eps", value=eps)
    values, gain = sums(spread), chances * weight / (variance(spread) + eps)
    q, pair = chances @ values[:, :2]
    forward_l, forward_m = (chances * square / n) @ values[:, 2:4] / (2 * batch_size * spread)
    backward_g, backward_l, backward_m = gain @ values[:, 4:]
    return FixedPoint(
        q=float(q),
        c=float(pair / q),
        explosion_rate=float(backward_g),
        forward_g=float((chances * (square - n) / 2) @ (values[:, 0] - values[:, 1]) / spread),
        forward_l=float(forward_l),
        forward_m=float(forward_m * n / pairs),
        backward_l=float(backward_l / n),
        backward_m=float(backward_m / pairs),
    )


def _interpolated(phi: Activation, batch_size: int) -> Averages:
    """Interpolate the sums in r on (0, 1], piece by piece between the radii at which kinks κ enter the sphere.

    One coordinate reaches κ at r = |κ|/√n, two of cosine c₀ reach κ and ±κ at |κ|/√(n(1 ± c₀)/2).
    """
    n = batch_size - 1
    shares = (1.0, (1 - 1 / n) / 2, (1 + 1 / n) / 2)
    entries = {round(abs(kink) / math.sqrt(n * share), 12) for kink in phi.kinks for share in shares}
    cuts = [0.0, *sorted(r for r in entries if 1e-6 < r < 1), 1.0]
    angle = (np.arange(POINTS) + 0.5) * np.pi / POINTS
    pieces: list[Averages] = []
    for low, high in pairwise(cuts):
        nodes = (low + high) / 2 - (high - low) / 2 * np.cos(angle)
        rows = [sphere_sums(phi, batch_size=batch_size, radius=float(r)).as_array() for r in nodes]
        pieces.append(BarycentricInterpolator(nodes, np.array(rows)))

    def at(r: Array) -> Array:
        which = np.searchsorted(cuts[1:-1], r)
        result = np.empty((r.size, len(rows[0])))
        for i, piece in enumerate(pieces):
            result[which == i] = piece(r[which == i])
        return result

    return at


def _chi_square(n: int) -> tuple[Array, Array]:
    """Points R² and probabilities for χ²_n, in panels of ln R², down to where R^{n-2} is negligible too."""
    width = min(0.5, 1 / math.sqrt(n))
    low = math.log(n) - NEGLIGIBLE / (n / 2 - 1) - 12 / math.sqrt(n)
    high = math.log(n + 13 * math.sqrt(2 * n) + 2 * NEGLIGIBLE)
    edges = np.linspace(low, high, math.ceil((high - low) / width) + 1)
    t = ((edges[1:] + edges[:-1])[:, None] + np.diff(edges)[:, None] * gauss_hermite.NODES).ravel() / 2
    log_weight = n / 2 * t - np.exp(t) / 2
    weights = np.exp(log_weight - log_weight.max()) * np.tile(gauss_hermite.WEIGHTS, edges.size - 1)
    return np.exp(t), weights / weights.sum()
