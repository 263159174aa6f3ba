"""A quadrature rule for an interval of a law: Gauss–Legendre on cells of the chart, checked against F.

The cells are those of a table that resolves the branch. On each the sum of the density must be the change of the
distribution function, which is known without integration; where it is not, the cell is halved.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmtbn.theory.free.branch import ConvergenceError

Array = NDArray[np.float64]
InChart = Callable[[Array], tuple[Array, Array]]

NODES, WEIGHTS = np.polynomial.legendre.leggauss(8)  # a cubic errs by 1e-5 on a cell, so these by about 1e-20
AGREES = 1e-12  # of a cell's sum with the change of F
ROUNDING = 4e-15  # of ln λ, relative; times the density it is what F can be wrong by
STILL = 1e-13  # of a cell's sum with that of its halves, where F has no more digits
HALVINGS, MOST = 45, 2048  # of a cell, and cells at a time
MISSED = 1e-6  # of the whole mass: next to a singularity of the density up to 1e-7 is within the rounding of ln λ
LEFT = 1e-10  # mass that may be wrong in cells that were halved to the end


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rule:
    """Nodes ln λ and weights: means are Σ weight·function(w)."""

    w: Array
    weights: Array


def rule(density: InChart, ends: Array, cdf: Array, *, cdf_at: Callable[[Array], Array], rounding: float) -> Rule:
    """Make the rule.

    Parameters
    ----------
    density
        η ↦ -dF/dη and w.
    ends, cdf
        Ends of the cells, ascending, and F there.
    cdf_at
        η ↦ F.
    rounding
        Rounding error of F.

    Raises
    ------
    ConvergenceError
        If a cell stays wrong however often it is halved, or the whole does not add up to the mass.
    """
    low, high, cdf_low, cdf_high = ends[:-1], ends[1:], cdf[:-1], cdf[1:]
    done: list[tuple[Array, Array]] = []
    whole = np.full(low.size, np.inf)
    for halving in range(HALVINGS):
        half = (high - low)[:, None] / 2
        eta = (low + high)[:, None] / 2 + half * NODES
        slope, w = (x.reshape(eta.shape) for x in density(eta.ravel()))
        weights = slope * half * WEIGHTS
        sums = weights.sum(axis=1)
        miss = np.abs(sums - (cdf_low - cdf_high))
        right = miss <= AGREES + rounding + _noise(slope, w, high - low, is_end=(low == ends[0]) | (high == ends[-1]))
        if halving:  # neighbours in the list are halves of one cell
            both = np.repeat(sums.reshape(-1, 2).sum(axis=1), 2)
            right |= np.abs(both - np.repeat(whole, 2)) <= STILL
        if halving == HALVINGS - 1 or (~right).sum() > MOST:
            if miss[~right].sum() > LEFT:
                break
            right[:] = True
        done.append((w[right].ravel(), weights[right].ravel()))
        low, high, cdf_low, cdf_high, whole = (x[~right] for x in (low, high, cdf_low, cdf_high, sums))
        if low.size == 0:
            w, weights = (np.concatenate(part) for part in zip(*done, strict=True))
            if abs(weights.sum() - (cdf[0] - cdf[-1])) > MISSED:
                break
            return Rule(w=w, weights=weights)
        middle = (low + high) / 2
        cdf_middle = cdf_at(middle)
        low, high = np.stack([low, middle], axis=1).ravel(), np.stack([middle, high], axis=1).ravel()
        cdf_low, cdf_high = (
            np.stack([cdf_low, cdf_middle], axis=1).ravel(),
            np.stack([cdf_middle, cdf_high], axis=1).ravel(),
        )
    raise ConvergenceError(f"the density does not add up to its mass, {cdf[0] - cdf[-1]} (cells left: {low[:5]})")


def _noise(slope: Array, w: Array, length: Array, *, is_end: NDArray[np.bool_]) -> Array:
    """Estimate what the rounding of ln λ does to F on a cell; next to a singular edge F grows as a square root."""
    with np.errstate(divide="ignore"):
        shift = ROUNDING * (1 + np.abs(w).max(axis=1)) / np.abs(w[:, 0] - w[:, -1])
    outer = np.minimum(slope[:, 0], slope[:, -1])
    return np.asarray(length * np.where(is_end, outer * np.sqrt(shift), slope.max(axis=1) * shift))
