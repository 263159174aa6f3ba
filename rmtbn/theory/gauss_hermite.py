"""Gaussian expectations E f(h), h ~ N(0, q), to rounding for every q from 1e-300 to 1e250, with the kinks of f split.

Plain Gauss–Hermite nodes in z = h/√q miss an f that varies on the scale 1 when √q is large, and converge slowly across
a kink. Here h = sinh t, which is linear for small h and logarithmic for large h, so that panels of one width in t
resolve both the scale 1 of f and the scale √q of the Gaussian; each panel carries Gauss–Legendre nodes.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtbn import _checks

Array = NDArray[np.float64]

# Panels of 16 nodes, at most 1.06 wide in t: the integrand is analytic within π/4 of the real axis of t, so the error
# is below ρ^-32 with ρ = 3.3, about 1e-16; the tests hold it against mpmath.
PANEL_WIDTH = 1.06
FEWEST_PANELS = 10  # for small q, where the Gaussian is the only structure
NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)
TAIL = 12.0  # P(|z| > 12) = 4e-33
SMALLEST_Q = 1e-300  # q = 0 is taken as the limit q → 0+, which is what a kink at 0 needs
LARGEST_Q = 1e250  # beyond, h² leaves the floating range


def expectation(f: Callable[[Array], Array], q: ArrayLike, *, kinks: tuple[float, ...] = ()) -> Array:
    """Compute E f(h) for h ~ N(0, q).

    Parameters
    ----------
    f
        Elementwise function of float64 arrays, smooth between the kinks, growing slower than exp(h²/2q).
    q
        Variances of the Gaussian, from 0 to 1e250, any shape (an empty one too); 0 gives the limit from above.
    kinks
        Points where f is not smooth.

    Returns
    -------
    Array
        Of the shape of `q`.

    Raises
    ------
    InvalidArgumentError
        For a variance out of range, or NaN.

    Examples
    --------
    >>> round(float(expectation(lambda h: h**4, 2.0)), 12)
    12.0
    """
    q = _checks.array("q", q, at_least=0.0, at_most=LARGEST_Q)
    variance = np.maximum(q, SMALLEST_Q)[..., None]
    h, dh = _nodes(np.arcsinh(TAIL * np.sqrt(variance)), kinks)
    with np.errstate(under="ignore"):
        density = np.exp(-0.5 * h * (h / variance)) / np.sqrt(2 * np.pi * variance)
    return np.asarray(np.sum(f(h) * density * dh, axis=-1))


def _nodes(half_range: Array, kinks: tuple[float, ...]) -> tuple[Array, Array]:
    """Nodes h and weights dh over |t| <= half_range, shape (..., 1), with panel edges at the kinks."""
    panels = max(FEWEST_PANELS, int(np.ceil(2 * half_range.max(initial=0.0) / PANEL_WIDTH)))
    edges = half_range * np.linspace(-1.0, 1.0, panels + 1)
    if kinks:
        cuts = np.clip(np.arcsinh(np.asarray(kinks)), -half_range, half_range)
        edges = np.sort(np.concatenate([edges, cuts], axis=-1), axis=-1)
    centre, half = (edges[..., 1:] + edges[..., :-1]) / 2, np.diff(edges, axis=-1) / 2
    t = (centre[..., None] + half[..., None] * NODES).reshape(*centre.shape[:-1], centre.shape[-1] * NODES.size)
    dt = (half[..., None] * WEIGHTS).reshape(t.shape)
    return np.sinh(t), np.cosh(t) * dt
