"""Integrals over a normalised feature: one or two coordinates of a vector that is uniform on a sphere.

For Gaussian pre-activations one feature over the batch, u = BN(h), is uniform on the sphere |u|² = B in the space
orthogonal to (1, …, 1), of dimension n = B - 1 (Yang et al. 2019, arXiv:1902.08129). One coordinate is u₁ = √n sin θ
with density ∝ cos^{n-2} θ; given it u₂ = √n (c₀ sin θ + √(1-c₀²) cos θ sin η), c₀ = -1/n, with density ∝ cos^{n-3} η.
Both angles carry Gauss–Legendre panels cut at the kinks of the integrand.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmtbn.theory import gauss_hermite

Array = NDArray[np.float64]
Stack = Callable[[Array], Array]  # u of any shape → values of several functions, shape (functions, *u.shape)

PANELS = 24  # of 16 nodes, in both angles: one standard deviation each; tests hold the rates against two other routes
# Nodes s of (-1, 1) are moved to s(3 - s²)/2, quadratic at both ends: where a kink enters or leaves the range of the
# inner angle the outer integrand has a square root of the distance (B even), which is smooth in s.
NODES = gauss_hermite.NODES * (3 - gauss_hermite.NODES**2) / 2
WEIGHTS = gauss_hermite.WEIGHTS * 1.5 * (1 - gauss_hermite.NODES**2)
TAIL = 12.0  # in units of the sphere's width 1/√n


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SphereRule:
    """Nodes and weights for one coordinate and for two.

    Parameters
    ----------
    u, weights
        For one coordinate, shape (k,).
    first, first_weights
        u₁ of a pair, shape (m,).
    second, second_weights
        u₂ given u₁, shape (m, j).
    """

    u: Array
    weights: Array
    first: Array
    first_weights: Array
    second: Array
    second_weights: Array

    def one(self, functions: Stack) -> Array:
        """Compute E f_j(u₁) f_k(u₁), shape (functions, functions)."""
        values = functions(self.u)
        return np.asarray((values * self.weights) @ values.T)

    def two(self, functions: Stack) -> Array:
        """Compute E f_j(u₁) f_k(u₂), shape (functions, functions)."""
        given = np.einsum("kij,ij->ki", functions(self.second), self.second_weights)
        product = (functions(self.first) * self.first_weights) @ given.T
        return np.asarray((product + product.T) / 2)


@functools.lru_cache(maxsize=8)
def sphere_rule(batch_size: int, kinks: tuple[float, ...] = ()) -> SphereRule:
    """Make the rule for a batch of B >= 4 examples and functions of u that are smooth between `kinks`."""
    n = batch_size - 1
    c0, root = -1 / n, math.sqrt(1 - 1 / n**2)
    scaled = np.asarray(kinks) / math.sqrt(n)
    u, weights = coordinate(n, kinks)
    theta, outer = _angles(np.concatenate([scaled, _entries(scaled, c0)]), power=n - 2)
    level, height = c0 * np.sin(theta)[:, None], root * np.cos(theta)[:, None]
    eta, inner = _angles((scaled - level) / height, power=n - 3)
    return SphereRule(
        u=u,
        weights=weights,
        first=math.sqrt(n) * np.sin(theta),
        first_weights=outer,
        second=math.sqrt(n) * (level + height * np.sin(eta)),
        second_weights=inner,
    )


def coordinate(dimension: int, kinks: tuple[float, ...] = ()) -> tuple[Array, Array]:
    """Nodes and weights for one coordinate √n t of a vector uniform on the sphere of radius √n in n >= 3 dimensions."""
    theta, weights = _angles(np.asarray(kinks) / math.sqrt(dimension), power=dimension - 2)
    return math.sqrt(dimension) * np.sin(theta), weights


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
