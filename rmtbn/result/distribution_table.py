"""Lay the table of a law: nodes of its distribution function, halved until a cubic between them is right."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicHermiteSpline

from rmtbn.result.spectral_measure import SpectralMeasure

Array = NDArray[np.float64]

TAIL = 1e-6  # mass below the table, where ln F is continued as a line: F falls like a power of λ
_START, _ROUNDS, _MOST = 17, 60, 4096  # nodes at first; halvings, and intervals halved at a time, at most
_ROUNDING = 8e-15  # of ln λ, relative: what is narrower is not halved, and F is right up to so much in ln λ
_NEXT = 1e-4  # of the reach: the node next to the edge, between which and the edge F is a line in s


def spline_of(
    law: SpectralMeasure, log_atoms: tuple[tuple[float, float], ...], wanted: float
) -> tuple[CubicHermiteSpline, float]:
    """Halve intervals of s until the table and its slope are right in the middles; return what error is left too.

    Parameters
    ----------
    law
        Any law with a density.
    log_atoms
        Its atoms as ((ln λ, mass), ...).
    wanted
        Accuracy of F.

    Returns
    -------
    tuple
        The bulk's part of F against s = √(upper edge - ln λ), and the largest error seen where it is above `wanted`.
    """
    reach, high = _reach(law, log_atoms), (law.log_bulk or (0.0, 0.0))[1]
    s = np.linspace(_NEXT * reach, reach, _START)
    table = np.stack([s, *_evaluate(law, log_atoms, s)])
    left, right, missed = s[:-1], s[1:], 0.0
    for _ in range(_ROUNDS):
        middle = (left + right) / 2
        added = np.stack([middle, *_evaluate(law, log_atoms, middle)])
        spline = CubicHermiteSpline(*table)
        twist = np.abs(spline(middle, 1) - added[2]) * (right - left) / 2  # a middle may be right by chance
        error = np.maximum(np.abs(spline(middle) - added[1]), twist)
        table = np.concatenate([table, added], axis=1)
        table = table[:, np.argsort(table[0])]
        wide = right**2 - left**2 > _ROUNDING * (1 + abs(high) + np.abs(high - right**2))
        bad = (error > wanted) & wide
        missed = float(error[bad].max(initial=0.0))
        left, right = np.concatenate([left[bad], middle[bad]]), np.concatenate([middle[bad], right[bad]])
        if left.size == 0 or left.size > _MOST:
            break
    return CubicHermiteSpline(*table), missed


def atom_mass(log_atoms: tuple[tuple[float, float], ...], x: ArrayLike) -> Array:
    """Return the mass of the atoms up to x."""
    return np.asarray(sum((mass * (np.asarray(x) >= place) for place, mass in log_atoms), np.zeros(np.shape(x))))


def _reach(law: SpectralMeasure, log_atoms: tuple[tuple[float, float], ...]) -> float:
    """Find the s beyond which there is no mass to speak of."""
    low, high = law.log_bulk or (-math.inf, 0.0)
    distance, farthest = 3.0**-4, min(3.0**10, (high - low) * (1 - 1e-9))
    while distance < farthest and law.cdf_log(high - distance) - atom_mass(log_atoms, high - distance) >= TAIL:
        distance *= 3
    return float(np.sqrt(min(distance, farthest)))


def _evaluate(law: SpectralMeasure, log_atoms: tuple[tuple[float, float], ...], s: Array) -> tuple[Array, Array]:
    """F without the atoms, and its slope in s."""
    w = (law.log_bulk or (0.0, 0.0))[1] - s**2
    return law.cdf_log(w) - atom_mass(log_atoms, w), -2 * s * np.exp(law.log_pdf_log(w))
