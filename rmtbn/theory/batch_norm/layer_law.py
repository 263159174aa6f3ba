"""The law of the squared singular values of one batch-normalised layer on 1^⊥, as a factor of free products.

λ = ℓ y with independent ℓ (`directions`) and y = B/(s χ²_n). The density of ln λ is the law of ln ℓ smoothed by the
density of ln y, which has an exponential tail e^{-n ln y/2}: moments of order n/2 and above are infinite. The sample of
ln ℓ enters by two points per cell that keep its first four moments there.
"""

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rmtbn.activations import Activation
from rmtbn.theory.batch_norm.directions import DirectionLaw, direction_law
from rmtbn.theory.batch_norm.fixed_point import normalised
from rmtbn.theory.free import factors
from rmtbn.theory.free.factors import Factor
from rmtbn.theory.free.panel_law import PanelLaw
from rmtbn.theory.free.panel_poles import NODES
from rmtbn.theory.free.panel_poles import WEIGHTS as GAUSS
from rmtbn.theory.free.panels import Panels

Array = NDArray[np.float64]

CELL = 0.2  # of ln ℓ, in standard deviations of ln y: two points per cell then err by 1e-6 of the density
NEGLIGIBLE = 42.0  # -ln of what is left out at the upper end, also of E λ
_ROWS = 2048  # nodes at a time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerLaw:
    """Law of λ = ℓ B/(s χ²_n).

    Parameters
    ----------
    directions
        The law of ℓ, by two points per cell.
    batch_size
        B.
    spread
        s = q*(1 - c*).
    explosion_rate
        λ_G = E λ.
    factor
        The law as a factor of free products.
    """

    directions: DirectionLaw
    batch_size: int
    spread: float
    explosion_rate: float
    factor: Factor

    def moment(self, k: int) -> float:
        """E λ^k = E ℓ^k (B/2s)^k Γ(n/2 - k)/Γ(n/2), inf for k >= n/2; k >= 1."""
        half = (self.batch_size - 1) / 2
        if k >= half:
            return math.inf
        if k == 1:
            return self.explosion_rate
        log_mean = k * math.log(self.batch_size / (2 * self.spread)) + math.lgamma(half - k) - math.lgamma(half)
        return self.directions.moment(k) * math.exp(log_mean)


@functools.lru_cache(maxsize=32)
def layer_law(phi: Activation, *, batch_size: int) -> LayerLaw:
    """Compute the law for a batch of B >= 4 examples at the fixed point of ε = 0."""
    point, n = normalised(phi, batch_size), batch_size - 1
    spread = point.q * (1 - point.c)
    mean = point.explosion_rate * spread * (n - 2) / batch_size
    deviation = math.sqrt(float(special.polygamma(1, n / 2)))  # of ln y
    directions = direction_law(phi, batch_size=batch_size, mean=mean)
    points, masses = _two_per_cell(directions.log_points, directions.weights, CELL * deviation)
    directions = replace(directions, log_points=points, weights=masses)
    panels = _panels(directions, n=n, log_scale=math.log(batch_size / spread), width=deviation)
    factor = factors.of_law(PanelLaw(panels=panels))
    return LayerLaw(
        directions=directions,
        batch_size=batch_size,
        spread=spread,
        explosion_rate=point.explosion_rate,
        factor=replace(factor, log_mean=math.log(point.explosion_rate)),
    )


def _panels(directions: DirectionLaw, *, n: int, log_scale: float, width: float) -> Panels:
    """Lay panels over ln λ = ln ℓ + ln(B/s) - ln χ²_n."""
    points, masses = directions.log_points, directions.weights
    least = math.log(n) - NEGLIGIBLE / (n / 2 - 1) - 6 * width  # of ln χ²
    most = math.log(n + 13 * math.sqrt(2 * n) + 2 * NEGLIGIBLE)
    low, high = log_scale + points.min() - most, log_scale + points.max() - least
    edges = np.linspace(low, high, math.ceil((high - low) / width) + 1)
    log_lam = (edges[1:] + edges[:-1])[:, None] / 2 + np.diff(edges)[:, None] / 2 * NODES
    density = _mixture(log_scale - log_lam.ravel(), points, masses, n=n).reshape(log_lam.shape)
    total = float(np.sum(density * GAUSS))
    return Panels.of(log_lam, density * masses.sum() / total)


def _mixture(rest: Array, points: Array, masses: Array, *, n: int) -> Array:
    """Sum the densities of ln χ²_n at rest + ln ℓ over the law of ℓ."""
    constant = n / 2 * math.log(2) + math.lgamma(n / 2)
    result = np.empty_like(rest)
    for start in range(0, rest.size, _ROWS):
        t = rest[start : start + _ROWS, None] + points
        with np.errstate(over="ignore", under="ignore"):
            result[start : start + _ROWS] = np.exp(n / 2 * t - np.exp(t) / 2 - constant) @ masses
    return result


def _two_per_cell(x: Array, weights: Array, width: float) -> tuple[Array, Array]:
    """Replace the points in each cell by two with the same mass, mean, variance and third moment."""
    cell = np.floor((x - x.min()) / width).astype(np.int64)
    _, which = np.unique(cell, return_inverse=True)
    mass = np.bincount(which, weights)
    mean = np.bincount(which, weights * x) / mass
    offset = x - mean[which]
    variance, third = (np.bincount(which, weights * offset**k) / mass for k in (2, 3))
    single = variance < 1e-14 * width**2
    safe = np.where(single, 1.0, variance)
    skew = third / safe / 2
    root = np.sqrt(skew**2 + safe)
    upper, lower = skew + root, skew - root  # the roots of t² - (third/variance) t - variance
    share = np.where(single, 1.0, -lower / (upper - lower))
    places = np.concatenate([mean + np.where(single, 0.0, upper), (mean + lower)[~single]])
    return places, np.concatenate([mass * share, (mass * (1 - share))[~single]])
