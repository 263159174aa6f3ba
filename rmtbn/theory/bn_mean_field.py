"""Mean field of wide batch-normalised networks: fixed point of the batch covariance and rate of gradient explosion.

Model (Yang et al. 2019, arXiv:1902.08129): h = W x without bias, u = BN(h) over a batch of B examples (biased
variance, γ = 1, β = 0, ε → 0), x = φ(u), N → ∞. For Gaussian W the vector of one feature over the batch, u/√B, is
uniform on the unit sphere orthogonal to (1, …, 1), of dimension n = B - 1; so one layer lands on the fixed point
from any covariance of that form, and σ_w does not matter. With s = q*(1 - c*), D = diag φ′(u), G = I - 11ᵀ/B and
P = G - uuᵀ/B, the squared gradient norm grows per layer, towards the input, by

    λ_G = B/(s (B - 3)(B - 1)) · E tr[P D G D],        → E φ′(z)² / Var φ(z) for B → ∞.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.activations import activation as find_activation
from rmtbn.theory import gauss_hermite

Array = NDArray[np.float64]
Elementwise = Callable[[Array], Array]

PANELS = 24  # of 16 nodes, in both angles; tests hold the rates against the closed forms of ReLU and linear
# Nodes s of (-1, 1) are moved to s(3 - s²)/2, quadratic at both ends: where a kink enters or leaves the range of the
# inner angle the outer integrand has a square root of the distance (B even), which is smooth in s.
NODES = gauss_hermite.NODES * (3 - gauss_hermite.NODES**2) / 2
WEIGHTS = gauss_hermite.WEIGHTS * 1.5 * (1 - gauss_hermite.NODES**2)
TAIL = 12.0  # in units of the sphere's width 1/√n


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """Fixed point q*((1 - c*) I + c* 11ᵀ) of the batch covariance of x = φ(u), and what follows from it.

    Parameters
    ----------
    q
        q* = E φ(u)².
    c
        c*: correlation of two examples of the batch.
    explosion_rate
        λ_G: growth per layer of the *squared* gradient norm, towards the input.
    """

    q: float
    c: float
    explosion_rate: float


def fixed_point(activation: str | Activation, *, batch_size: float) -> FixedPoint:
    """Find the fixed point for a batch of `batch_size` examples.

    Linear and ReLU: λ_G = (B-2)/(B-3) and (B - 2 + J₀ + J₁)/((B-3)(1 - J₁)) with the arc-cosine kernels
    J₀ = (π - arccos c₀)/π, J₁ = (√(1-c₀²) + (π - arccos c₀) c₀)/π at c₀ = -1/(B-1); others by quadrature on the sphere.

    Parameters
    ----------
    activation
        Name or record of φ.
    batch_size
        B, an integer >= 4, or `math.inf` for the limit. At B = 3 the rate diverges, at B = 2 the gradient vanishes.

    Raises
    ------
    InvalidArgumentError
        For B < 4.

    Examples
    --------
    >>> round(fixed_point("relu", batch_size=math.inf).explosion_rate, 6)  # π/(π - 1)
    1.466942
    """
    record = find_activation(activation)
    if isinstance(batch_size, float) and batch_size == math.inf:
        return _infinite_batch(record)
    whole = int(batch_size) if isinstance(batch_size, float) and batch_size.is_integer() else batch_size
    size = _checks.integer("batch_size", whole, at_least=4)
    if record.name == "linear":
        return FixedPoint(q=1.0, c=-1 / (size - 1), explosion_rate=(size - 2) / (size - 3))
    if record.name == "relu":
        return _relu(size)
    return from_quadrature(record, batch_size=size)


def from_quadrature(activation: str | Activation, *, batch_size: int) -> FixedPoint:
    """Find the fixed point by quadrature on the sphere, for any φ and B >= 4 (the general route of `fixed_point`)."""
    phi, size = find_activation(activation), _checks.integer("batch_size", batch_size, at_least=4)
    q = _single(lambda u: phi.phi(u) ** 2, size, phi.kinks)
    c = _pair(phi.phi, size, phi.kinks) / q
    slope = _single(lambda u: phi.dphi(u) ** 2, size, phi.kinks)
    slope_pair = _pair(phi.dphi, size, phi.kinks)
    scale = _single(lambda u: (u * phi.dphi(u)) ** 2, size, phi.kinks)
    scale_pair = _pair(lambda u: u * phi.dphi(u), size, phi.kinks)
    mean_removed = (size - 2) * slope + (slope + (size - 1) * slope_pair) / size  # E tr[G D G D]
    scale_removed = (1 - 1 / size) * (scale - scale_pair)  # E uᵀ D G D u / B
    rate = size / (q * (1 - c) * (size - 3) * (size - 1)) * (mean_removed - scale_removed)
    return FixedPoint(q=q, c=c, explosion_rate=rate)


def _relu(size: int) -> FixedPoint:
    c0 = -1 / (size - 1)
    angle = math.pi - math.acos(c0)
    j0, j1 = angle / math.pi, (math.sqrt(1 - c0 * c0) + angle * c0) / math.pi
    return FixedPoint(q=0.5, c=j1, explosion_rate=(size - 2 + j0 + j1) / ((size - 3) * (1 - j1)))


def _infinite_batch(phi: Activation) -> FixedPoint:
    mean, q, slope = (
        float(gauss_hermite.expectation(f, 1.0, kinks=phi.kinks))
        for f in (phi.phi, lambda u: phi.phi(u) ** 2, lambda u: phi.dphi(u) ** 2)
    )
    return FixedPoint(q=q, c=mean * mean / q, explosion_rate=slope / (q - mean * mean))


def _single(f: Elementwise, size: int, kinks: tuple[float, ...]) -> float:
    """E f(u₁): u₁ = √n sin θ, with density ∝ cos^{n-2} θ."""
    n = size - 1
    theta, weight = _angles(np.asarray(kinks) / math.sqrt(n), power=n - 2)
    return float(np.sum(weight * f(math.sqrt(n) * np.sin(theta))))


def _pair(f: Elementwise, size: int, kinks: tuple[float, ...]) -> float:
    """E f(u₁)f(u₂): u₂ = √n (c₀ sin θ + √(1-c₀²) cos θ sin η), c₀ = -1/n, η with density ∝ cos^{n-3} η."""
    n = size - 1
    c0, root = -1 / n, math.sqrt(1 - 1 / n**2)
    scaled = np.asarray(kinks) / math.sqrt(n)
    theta, weight = _angles(np.concatenate([scaled, _entries(scaled, c0)]), power=n - 2)
    cuts = (scaled - c0 * np.sin(theta)[:, None]) / (root * np.cos(theta)[:, None])
    eta, inner = _angles(cuts, power=n - 3)
    u1 = math.sqrt(n) * np.sin(theta)
    u2 = math.sqrt(n) * (c0 * np.sin(theta)[:, None] + root * np.cos(theta)[:, None] * np.sin(eta))
    return float(np.sum(weight * f(u1) * np.sum(inner * f(u2), axis=-1)))


def _entries(scaled: Array, c0: float) -> Array:
    """Find sin θ where a kink κ of f(u₂) enters or leaves the range of η: θ = arcsin κ ∓ arccos c₀."""
    at, alpha = np.arcsin(np.clip(scaled, -1, 1)), math.acos(c0)
    return np.concatenate([np.sin(at - alpha), np.sin(at + alpha)])


def _angles(cuts: Array, *, power: int) -> tuple[Array, Array]:
    """Nodes and normalised weights for the density ∝ cos^power over (-π/2, π/2), panels cut where sin equals `cuts`."""
    half = min(math.pi / 2, TAIL / math.sqrt(max(power, 1)))
    edges = np.broadcast_to(np.linspace(-half, half, PANELS + 1), (*cuts.shape[:-1], PANELS + 1))
    at = np.clip(np.arcsin(np.clip(cuts, -1.0, 1.0)), -half, half)
    edges = np.sort(np.concatenate([edges, at], axis=-1), axis=-1)
    centre, width = (edges[..., 1:] + edges[..., :-1]) / 2, np.diff(edges, axis=-1) / 2
    nodes = (centre[..., None] + width[..., None] * NODES).reshape(*edges.shape[:-1], -1)
    with np.errstate(under="ignore"):
        weights = (width[..., None] * WEIGHTS).reshape(nodes.shape) * np.cos(nodes) ** power
    return nodes, weights / weights.sum(axis=-1, keepdims=True)
