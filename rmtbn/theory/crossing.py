"""Where functions cross zero, many at a time, by signs: Chandrupatla 1997, doi:10.1016/S0965-9978(96)00051-8.

Inverse quadratic interpolation where three points allow it and halving where they do not: about ten values a root
instead of the sixty of halving. A value of 0 counts as not above zero, so that a stretch on which the function is 0 to
rounding is kept whole on one side.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]

WIDTH = 4e-16  # of the last bracket, relative
_MOST = 200  # steps; three halvings for each bit would be fewer


@np.errstate(all="ignore")  # what is not finite is not interpolated
def crossing(function: Callable[[Array, Index], Array], under: Array, over: Array) -> Array:
    """Find the last point that is not above zero, on the way from `under` to `over`.

    Parameters
    ----------
    function
        (t, which) ↦ the values of the functions with these indices at t, monotone but for rounding.
    under, over
        Ends of the brackets, in any order, shape (n,); the value at `under` is <= 0 and that at `over` > 0. Where all
        of a bracket is above zero the answer is `under`, where none is, `over`.
    """
    every = np.arange(under.size)
    at_under, at_over = function(under, every), function(over, every)
    found = np.where((at_over <= 0) & (at_under <= 0), over, under)
    left = np.flatnonzero((at_under <= 0) & (at_over > 0))
    a, b, fa, fb, share = under[left], over[left], at_under[left], at_over[left], np.full(left.size, 0.5)
    for _ in range(_MOST):
        if left.size == 0:
            break
        t = a + share * (b - a)
        value = function(t, left)
        same = (value > 0) == (fa > 0)
        c, fc = np.where(same, a, b), np.where(same, fa, fb)
        b, fb = np.where(same, b, a), np.where(same, fb, fa)
        a, fa = t, value
        found[left] = np.where(fa > 0, b, a)
        share, wide = _next_share((a, b, c), (fa, fb, fc))
        left = left[wide]
        a, b, fa, fb, share = (part[wide] for part in (a, b, fa, fb, share))
    return found


def _next_share(
    points: tuple[Array, Array, Array], values: tuple[Array, Array, Array]
) -> tuple[Array, NDArray[np.bool_]]:
    """Choose the next point a + share·(b - a), and tell where the bracket is not yet narrow."""
    (a, b, c), (fa, fb, fc) = points, values
    least = 0.5 * WIDTH * (np.abs(a) + np.abs(b)) / np.abs(b - a)
    xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
    quadratic = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
    share = np.where((phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi) & np.isfinite(quadratic), quadratic, 0.5)
    return np.clip(share, np.minimum(least, 0.5), np.maximum(1 - least, 0.5)), least < 0.5
