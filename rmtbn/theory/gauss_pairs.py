"""Gaussian expectations over pairs: E f(s, t), where h₁ = s + t and h₂ = s - t have length q and correlation c.

The half sum s and the half difference t are independent, s ~ N(0, q(1 + c)/2) and t ~ N(0, q(1 - c)/2), so nothing
cancels as c → ±1. An f made of φ(h₁), φ(h₂) has structure where h₁ or h₂ is near 0 (of width 1) or at a kink of φ, that
is along lines s = ±t + const. The wide one of s, t is integrated inside, on panels that shrink towards those lines and
are cut at the kinks; the narrow one outside, where f averaged over the inside is smooth but for the crossings of kinks.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtbn import _checks

Array = NDArray[np.float64]
PairFunction = Callable[[Array, Array], Array]

# Panels double in width away from the structure, so a panel from a to 2a carries a Gaussian or a φ that is analytic
# within distance a: 12 nodes leave less than 1e-14; the tests hold the expectations against mpmath and closed forms.
NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)
TAIL = 9.0  # P(|z| > 9) = 2e-19
SMALLEST_Q = 1e-250  # q = 0 is taken as the limit q → 0+


def pair_expectation(f: PairFunction, q: ArrayLike, d: ArrayLike, *, kinks: tuple[float, ...] = ()) -> Array:
    """Compute E f(s, t) for two Gaussians h₁ = s + t, h₂ = s - t of variance q and correlation c = 1 - d.

    Parameters
    ----------
    f
        Elementwise function of s = (h₁ + h₂)/2 and t = (h₁ - h₂)/2, even in t and even under the exchange of h₁, h₂
        (as the product φ(s + t) φ(s - t) is), smooth but where h₁ or h₂ is at a kink.
    q
        Variances, >= 0; 0 gives the limit from above.
    d
        1 - c, in [0, 2], of a shape that broadcasts with `q`.
    kinks
        Points where φ is not smooth.

    Returns
    -------
    Array
        Of the broadcast shape of `q` and `d`.
    """
    q, d = np.broadcast_arrays(_checks.array("q", q, at_least=0.0), _checks.array("d", d, at_least=0.0, at_most=2.0))
    values = [_expectation(f, max(float(a), SMALLEST_Q), float(b), kinks) for a, b in zip(q.flat, d.flat, strict=True)]
    return np.array(values).reshape(q.shape)


def _expectation(f: PairFunction, q: float, d: float, kinks: tuple[float, ...]) -> float:
    k = np.asarray(kinks, dtype=np.float64)
    if d <= 1:  # the half difference is the narrow one: kinks of f at s = k - t and s = k + t
        wide, narrow = q * (1 - d / 2), q * d / 2
        outside, outside_weight = _narrow_nodes(narrow, crossings=(k[:, None] - k).ravel() / 2)
        inside, inside_weight = _wide_nodes(outside, wide, np.concatenate([k - outside, k + outside], axis=-1))
        values = f(inside, outside)
    else:  # the half sum is: kinks at t = ±(k - s), and, where f is taken at -s, at ±(k + s)
        wide, narrow = q * d / 2, q * (1 - d / 2)
        outside, outside_weight = _narrow_nodes(narrow, crossings=(k[:, None] + k).ravel() / 2)
        cuts = np.concatenate([k - outside, outside - k, k + outside, -k - outside], axis=-1)
        inside, inside_weight = _wide_nodes(outside, wide, cuts)
        values = (f(outside, inside) + f(-outside, inside)) / 2
    return float(outside_weight @ np.sum(values * inside_weight, axis=-1))


def _narrow_nodes(variance: float, *, crossings: Array) -> tuple[Array, Array]:
    """Nodes (n, 1) and weights (n,) of |x|, x ~ N(0, variance): panels 0, w, 2w, 4w, … cut where kinks cross."""
    spread = np.sqrt(variance)
    if spread == 0:
        return np.zeros((1, 1)), np.ones(1)
    edges = np.concatenate([[0.0], _doubling(spread), np.abs(crossings)])
    edges = np.unique(np.minimum(edges, TAIL * spread))
    nodes, weights = _panels(edges)
    return nodes[:, None], 2 * weights * _density(nodes, variance)


def _wide_nodes(centre: Array, variance: float, cuts: Array) -> tuple[Array, Array]:
    """Nodes and weights (n, m) of x ~ N(0, variance), for each centre >= 0 on panels that shrink towards ±centre."""
    spread = np.sqrt(variance)
    steps = _doubling(spread)
    right = np.maximum(centre + np.concatenate([-steps, [0.0], steps]), 0.0)
    edges = np.concatenate([-right, np.zeros_like(centre), right, cuts], axis=-1)
    nodes, weights = _panels(np.sort(np.clip(edges, -TAIL * spread, TAIL * spread), axis=-1))
    return nodes, weights * _density(nodes, variance)


def _doubling(spread: float) -> Array:
    """Distances w, 2w, 4w, … beyond the tail: w is the smaller of the spread and 1, the scale of φ."""
    first = min(spread, 1.0)
    return np.asarray(first * 2.0 ** np.arange(int(np.ceil(np.log2(2 * TAIL * spread / first))) + 1))


def _panels(edges: Array) -> tuple[Array, Array]:
    """Gauss–Legendre nodes and weights of the panels between edges along the last axis."""
    centre, half = (edges[..., 1:] + edges[..., :-1]) / 2, np.diff(edges, axis=-1) / 2
    shape = (*edges.shape[:-1], -1)
    nodes = (centre[..., None] + half[..., None] * NODES).reshape(shape)
    return nodes, (half[..., None] * WEIGHTS).reshape(shape)


def _density(x: Array, variance: float) -> Array:
    with np.errstate(under="ignore"):
        return np.exp(-0.5 * x * (x / variance)) / np.sqrt(2 * np.pi * variance)
