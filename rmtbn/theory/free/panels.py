"""Panels of a law of d: intervals on which ln d is smooth, with their weights and the sums over them."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rmtbn.theory.free.panel_poles import DERIVATIVE, ORDER, TO_SERIES, WEIGHTS

Array = NDArray[np.float64]

POWERS = np.arange(3)[:, None]  # of d in the sums over panels
_HALVINGS = 52  # of the search for an extremum of ln d


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Panels:
    """Panels ascending in their mean ln d, with what is summed over them.

    Parameters
    ----------
    log_d, density, weights
        ln d, the density of the measure in s, and the weights at the nodes, shape (panels, ORDER).
    series
        Legendre coefficients of ln d, shape (panels, ORDER).
    low, high, steepness
        Extremes of ln d and the largest size of its slope in s, shape (panels,).
    before, after
        Logarithms of Σ w d^k over the panels before the i-th, and of Σ w d^-k over it and those after it, k = 0, 1, 2;
        shape (3, panels + 1).
    """

    log_d: Array
    density: Array
    weights: Array
    series: Array
    low: Array
    high: Array
    steepness: Array
    before: Array
    after: Array

    @classmethod
    def of(cls, log_d: Array, density: Array) -> "Panels":
        """Sort and sum."""
        order = np.argsort(log_d.mean(axis=1))
        log_d, density = log_d[order], density[order]
        weights, series = density * WEIGHTS, log_d @ TO_SERIES.T
        rates = np.polynomial.legendre.legder(series, axis=1)
        slopes = np.asarray(np.polynomial.legendre.legval(np.linspace(-1, 1, 9), rates.T), dtype=np.float64)
        values = np.concatenate([log_d, _turns_and_ends(series, slopes)], axis=1)
        with np.errstate(divide="ignore"):
            log_weights = np.log(weights)
        return cls(
            log_d=log_d,
            density=density,
            weights=weights,
            series=series,
            low=values.min(axis=1),
            high=values.max(axis=1),
            steepness=np.abs(slopes).max(axis=1),
            before=np.stack([_running(log_weights + k * log_d) for k in (0, 1, 2)]),
            after=np.stack([_running((log_weights - k * log_d)[::-1])[::-1] for k in (0, 1, 2)]),
        )

    def shifted(self, by: float) -> "Panels":
        """Add a constant to ln d."""
        powers = by * POWERS
        return replace(
            self,
            log_d=self.log_d + by,
            series=self.series + by * (np.arange(ORDER) == 0),
            low=self.low + by,
            high=self.high + by,
            before=self.before + powers,
            after=self.after - powers,
        )


def _turns_and_ends(series: Array, slopes: Array) -> Array:
    """Values of ln d at both ends of each panel, and at an extremum inside it if there is one; shape (panels, 3)."""
    places = np.tile([-1.0, 1.0, 1.0], (series.shape[0], 1))
    turning = np.flatnonzero(slopes.min(axis=1) * slopes.max(axis=1) < 0)
    rates = series[turning] @ DERIVATIVE.T
    near = np.argmax(slopes[turning, 1:] * slopes[turning, :-1] <= 0, axis=1)
    first = slopes[turning, near]
    low, high = near / 4 - 1, (near + 1) / 4 - 1
    for _ in range(_HALVINGS if turning.size else 0):  # a slope that is rounding to 0 at an end is no obstacle
        middle = (low + high) / 2
        same = np.sum(rates * np.polynomial.legendre.legvander(middle, ORDER - 1), axis=1) * first > 0
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    places[turning, 2] = low
    return np.einsum("ijk,ik->ij", np.polynomial.legendre.legvander(places, series.shape[1] - 1), series)


def _running(log_terms: Array) -> Array:
    """Logarithms of the sums over the first 0, 1, 2, ... panels."""
    of_panels = special.logsumexp(log_terms, axis=1)
    return np.concatenate([[-np.inf], np.logaddexp.accumulate(of_panels)])
