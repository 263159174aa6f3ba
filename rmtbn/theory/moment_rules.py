"""How a recursion over layers computes its Gaussian moments: directly where it asks for few, from tables for many.

Each function returns a function of log q (and d = 1 - c), flat arrays, that holds at any length: where q leaves the
range of the tables, φ is a power law or two half lines, and the moment is its limit.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rmtbn.activations import Activation
from rmtbn.theory import length, moment_table, pair_moments

Array = NDArray[np.float64]

LENGTH_BOUNDS = (1e-250, 1e250)  # where q leaves them, E φ²/q is its limit
PAIR_BOUNDS = (1e-22, 1e12)  # where q leaves them, φ is two half lines for pairs (SELU to 1e-6, others to 1e-12)
LOG_PAIR_BOUNDS = (math.log(PAIR_BOUNDS[0]), math.log(PAIR_BOUNDS[1]))
MANY = 1000  # evaluations from which tables are cheaper; a table takes as long as some hundred


def log_gain(record: Activation, evaluations: int) -> Callable[[Array], Array]:
    """Choose how to compute log(E φ²/q) of log q."""
    if record.second_moment is None and evaluations > MANY:
        return moment_table.length_table(record).log_gain

    def direct(log_q: Array) -> Array:
        q = np.exp(np.clip(log_q, *np.log(LENGTH_BOUNDS)))
        return np.asarray(np.log(length.phi_second_moment(q, record) / q))

    return direct


def log_slope(record: Activation, evaluations: int) -> Callable[[Array], Array]:
    """Choose how to compute log E φ′² of log q."""
    if record.slope_second_moment is None and evaluations > MANY:
        return moment_table.length_table(record).log_slope
    return lambda log_q: np.log(length.dphi_second_moment(np.exp(np.clip(log_q, *np.log(LENGTH_BOUNDS))), record))


def lost_share(record: Activation, evaluations: int) -> Callable[[Array, Array], Array]:
    """Choose how to compute E[(φ(h₁) - φ(h₂))²]/(2 E φ²), in [0, 2], of log q and d: 1 - c after φ."""
    difference, gain = pair_moment(record, "difference", evaluations), log_gain(record, evaluations)

    def share(log_q: Array, d: Array) -> Array:
        within = np.clip(log_q, *LOG_PAIR_BOUNDS)
        return np.minimum(difference(within, d) / np.exp(within + gain(within)), 2.0)

    return share


def pair_moment(record: Activation, moment: str, evaluations: int) -> Callable[[Array, Array], Array]:
    """Choose how to compute a pair moment, "difference" or "slope_product", of flat log q within bounds and d."""
    closed = pair_moments.closed_form(record)
    if closed is not None:
        return _of_log(getattr(closed, moment))
    direct = {"difference": pair_moments.phi_difference, "slope_product": pair_moments.dphi_product}[moment]
    general = _of_log(lambda q, d: direct(q, d, record))
    if evaluations > MANY:
        general = functools.partial(moment_table.look_up, record=record, moment=moment)
    limits = [pair_moments.asymptote(record, scale=bound**0.5) for bound in PAIR_BOUNDS]

    def rule(log_q: Array, d: Array) -> Array:
        ends = [(log_q <= LOG_PAIR_BOUNDS[0], limits[0]), (log_q >= LOG_PAIR_BOUNDS[1], limits[1])]
        values = np.full(log_q.shape, np.nan)
        for here, limit in ends:
            if limit is not None and here.any():
                values[here] = getattr(limit, moment)(np.exp(log_q[here]), d[here])
        rest = np.isnan(values)
        if rest.any():
            values[rest] = general(log_q[rest], d[rest])
        return values

    return rule


def _of_log(moment: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda log_q, d: moment(np.exp(log_q), d)
