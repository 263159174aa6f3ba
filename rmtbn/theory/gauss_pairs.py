"""Gaussian expectations over pairs: E f(s, t), where h₁ = s + t and h₂ = s - t have length q and correlation c.

The half sum s and the half difference t are independent, s ~ N(0, q(1 + c)/2) and t ~ N(0, q(1 - c)/2), so nothing
cancels as c → ±1. An f made of φ(h₁), φ(h₂) has structure where h₁ or h₂ is near 0 (of width 1) or at a kink of φ, that
is along lines s = ±t + const. The wide one of s, t is integrated inside, on panels that shrink towards those lines and
are cut at the kinks; the narrow one outside, where f averaged over the inside is smooth but for the crossings of kinks.
"""

import math
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
        Elementwise function of s = (h₁ + h₂)/2 and t = (h₁ - h₂)/2, even in t (symmetric in h₁ and h₂, as the product
        φ(s + t) φ(s - t) is) and smooth but where h₁ or h₂ is at a kink.
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


def expectation_grid(
    f: PairFunction, wide: Array, narrow: Array, *, kinks: tuple[float, ...] = (), mirrored: bool = False
) -> Array:
    """Compute E f(s, t) for every pair of variances of s and t, evaluating f once: far less work than one by one.

    Parameters
    ----------
    f, kinks
        As in `pair_expectation`; f may return several functions along a first axis.
    wide, narrow
        Variances: the larger ones of those of s and t, > 0; and the smaller ones, > 0 or all 0.
    mirrored
        Whether s is the narrow one (c < 0) rather than t (c > 0).

    Returns
    -------
    Array
        Shape (wide, narrow), or (functions, wide, narrow); less accurate where a narrow variance is above a wide one.
    """
    k = np.asarray(kinks, dtype=np.float64)
    if mirrored:  # kinks at t = ±(k - s), and, where f is taken at -s, at ±(k + s)
        outside, probability = _narrow_law(narrow, crossings=(k[:, None] + k).ravel() / 2)
        cuts = np.concatenate([k - outside, outside - k, k + outside, -k - outside], axis=-1)
    else:  # kinks at s = k - t and s = k + t
        outside, probability = _narrow_law(narrow, crossings=(k[:, None] - k).ravel() / 2)
        cuts = np.concatenate([k - outside, k + outside], axis=-1)
    inside, inside_weight = _wide_nodes(outside, wide, cuts)
    values = (f(outside, inside) + f(-outside, inside)) / 2 if mirrored else f(inside, outside)
    values = values * inside_weight
    inner = np.stack([np.sum(values * _density(inside, variance), axis=-1) for variance in wide], axis=-2)
    return np.asarray(inner @ probability)


def _expectation(f: PairFunction, q: float, d: float, kinks: tuple[float, ...]) -> float:
    half_sum, half_difference = q * (2 - d) / 2, q * d / 2
    wide, narrow = np.array([max(half_sum, half_difference)]), np.array([min(half_sum, half_difference)])
    return float(expectation_grid(f, wide, narrow, kinks=kinks, mirrored=d > 1)[0, 0])


def _narrow_law(variances: Array, *, crossings: Array) -> tuple[Array, Array]:
    """Nodes |x| (n, 1) on panels 0, w, 2w, 4w, … cut where kinks cross, and their probabilities (n, variances)."""
    if variances.max() == 0:
        return np.zeros((1, 1)), np.ones((1, variances.size))
    end = TAIL * math.sqrt(variances.max())
    edges = np.concatenate([[0.0], _doubling(variances), np.abs(crossings)])
    nodes, weights = _panels(np.unique(np.minimum(edges, end)))
    return nodes[:, None], 2 * weights[:, None] * _density(nodes[:, None], variances)


def _wide_nodes(centre: Array, variances: Array, cuts: Array) -> tuple[Array, Array]:
    """Nodes and weights (n, m) of x, for each centre >= 0 on panels that shrink towards ±centre."""
    end, steps = TAIL * math.sqrt(variances.max()), _doubling(variances)
    right = np.maximum(centre + np.concatenate([-steps, [0.0], steps]), 0.0)
    edges = np.concatenate([-right, np.zeros_like(centre), right, cuts], axis=-1)
    return _panels(np.sort(np.clip(edges, -end, end), axis=-1))


def _doubling(variances: Array) -> Array:
    """Distances w, 2w, 4w, … beyond the tail: w is the smaller of the smallest spread and 1, the scale of φ."""
    first = min(math.sqrt(variances.min()), 1.0)
    last = 2 * TAIL * math.sqrt(variances.max())
    return np.asarray(first * 2.0 ** np.arange(math.ceil(math.log2(last / first)) + 1))


def _panels(edges: Array) -> tuple[Array, Array]:
    """Gauss–Legendre nodes and weights of the panels between edges along the last axis."""
    centre, half = (edges[..., 1:] + edges[..., :-1]) / 2, np.diff(edges, axis=-1) / 2
    shape = (*edges.shape[:-1], -1)
    nodes = (centre[..., None] + half[..., None] * NODES).reshape(shape)
    return nodes, (half[..., None] * WEIGHTS).reshape(shape)


def _density(x: Array, variance: Array | float) -> Array:
    with np.errstate(under="ignore"):
        return np.asarray(np.exp(-0.5 * x * (x / variance)) / np.sqrt(2 * np.pi * variance))
