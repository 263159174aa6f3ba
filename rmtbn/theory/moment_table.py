"""Tables of the Gaussian moments of one φ, for recursions that ask for them many thousand times.

All moments vary on the scale 1 of log q and of the log variances of half sum and half difference, so splines on even
grids in these logarithms hold them to rounding or close to it. A table costs as much as a few hundred evaluations.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate

from rmtbn.activations import Activation
from rmtbn.theory import gauss_pairs, length, pair_moments

Array = NDArray[np.float64]

LOG_Q_RANGE = 60.0  # of the tables in q, |log q| <= 60; beyond, every φ is its power law to 1e-13
STEP = 1 / 8  # of splines of degree 7 in log q: relative error below 1e-12, held in the tests
PAIR_STEP = 1 / 16  # of splines of degree 5 over pairs: 1e-12 for smooth φ, 2e-11 with kinks
BLOCK = 3.0  # of log q in one table of pairs: those of a recursion that has settled are few
SMALLEST_GAP = {False: 1e-13, True: 1e-22}  # of 1 ∓ c, without kinks and with: what is left out is its root with kinks


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthTable:
    """Functions of log q: log(E φ²/q) and log E φ′², linear beyond the table."""

    log_gain: Callable[[Array], Array]
    log_slope: Callable[[Array], Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTable:
    """Moments of a pair over a range of q, for c >= 0 or (`mirrored`) c <= 0, as functions of q and d = 1 - c."""

    difference: Callable[[Array, Array], Array]
    slope_product: Callable[[Array, Array], Array]


@functools.lru_cache(maxsize=16)
def length_table(record: Activation) -> LengthTable:
    """Tabulate the moments of one pre-activation under φ."""
    log_q = np.arange(-LOG_Q_RANGE, LOG_Q_RANGE + STEP / 2, STEP)
    q = np.exp(log_q)
    log_gain = np.log(length.phi_second_moment(q, record)) - log_q
    return LengthTable(
        log_gain=_curve(log_q, log_gain), log_slope=_curve(log_q, np.log(length.dphi_second_moment(q, record)))
    )


def look_up(log_q: Array, d: Array, *, record: Activation, moment: str) -> Array:
    """Look up a moment of pairs, whose tables are made when first asked for.

    Parameters
    ----------
    log_q, d
        Flat arrays of log q and of 1 - c.
    record
        φ.
    moment
        "difference" or "slope_product".
    """
    values = np.empty(log_q.shape)
    blocks, mirrored = np.floor(log_q / BLOCK).astype(int), d > 1
    for block in np.unique(blocks):
        for side in (False, True):
            here = (blocks == block) & (mirrored == side)
            if here.any():
                table = pair_table(record, block=int(block), mirrored=side)
                values[here] = getattr(table, moment)(np.exp(log_q[here]), d[here])
    return values


@functools.lru_cache(maxsize=64)
def pair_table(record: Activation, *, block: int, mirrored: bool = False) -> PairTable:
    """Tabulate the moments of a pair for block <= log(q)/3 <= block + 1 and c >= 0 (`mirrored`: c <= 0)."""
    q_low, q_high = np.exp(BLOCK * block), np.exp(BLOCK * (block + 1))
    gap = SMALLEST_GAP[bool(record.kinks)]
    wide, narrow = _even(q_low / 2, q_high), _even(gap * q_low / 2, q_high / 2)

    functions = pair_moments.difference_function(record), pair_moments.slope_function(record)
    difference, product = gauss_pairs.expectation_grid(
        lambda s, t: np.stack([f(s, t) for f in functions]),
        np.exp(wide),
        np.exp(narrow),
        kinks=record.kinks,
        mirrored=mirrored,
    )
    slope = _surface(wide, narrow, product, mirrored=mirrored)
    if mirrored:
        return PairTable(difference=_surface(wide, narrow, difference, mirrored=True), slope_product=slope)
    ratio = _surface(wide, narrow, difference / np.exp(narrow), mirrored=False)  # which is flat where d is small
    return PairTable(difference=lambda q, d: q * d / 2 * ratio(q, d), slope_product=slope)


def _curve(x: Array, y: Array) -> Callable[[Array], Array]:
    """Interpolate to degree 7, and continue with the slopes of the last units."""
    spline = interpolate.make_interp_spline(x, y, k=7)
    unit = round(1 / STEP)
    ends = y[unit] - y[0], y[-1] - y[-1 - unit]

    def curve(at: Array) -> Array:
        inside = np.clip(at, x[0], x[-1])
        return np.asarray(spline(inside) + np.where(at < inside, ends[0], ends[1]) * (at - inside))

    return curve


def _even(low: float, high: float) -> Array:
    """Even grid of logarithms with a margin of some steps, so that the ends of the spline are not used."""
    return np.arange(np.log(low) - 4 * PAIR_STEP, np.log(high) + 5 * PAIR_STEP, PAIR_STEP)


def _surface(wide: Array, narrow: Array, values: Array, *, mirrored: bool) -> Callable[[Array, Array], Array]:
    """Interpolate to degree 5 in the logarithms of the two variances, as a function of q and d."""
    spline = interpolate.RectBivariateSpline(wide, narrow, values, kx=5, ky=5, s=0)

    def surface(q: Array, d: Array) -> Array:
        larger, smaller = (d, 2 - d) if mirrored else (2 - d, d)
        log_narrow = np.log(np.maximum(q * smaller / 2, np.exp(narrow[0])))
        return np.asarray(spline.ev(np.log(q * larger / 2), log_narrow))

    return surface
