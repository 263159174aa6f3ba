"""The physical branch along the real axis of one interval of the bulk: a table from which any point of it is near.

In the chart's variable η the branch u(η) is regular on the closed interval, so a cubic between neighbours of the table
is a good guess, which Newton's method closes in two steps. The table is refined until the guess is good everywhere.
What is found inside the strip, with every ζ in the upper half-plane, is the physical solution (there is one only), and
it is asked to be near the guess besides; the rest is followed from z < 0.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmtbn.theory.free.branch import Chart, Points, Solution, follow
from rmtbn.theory.free.curve import SpectralCurve

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

FIRST = 24  # cells of the first grid
NEXT_TO_END = 2e-2  # part of the interval: its first and last point; beyond them the cubic goes on
ROUNDS = 12  # halvings of a cell at most
GOOD = 1e-4  # miss of the guess half-way, relative to the change over the cell: two steps then reach rounding
MOST_MISS = 0.05  # of the cell's change: a solution farther from the guess is not taken
SHORTER, SHORTEST = 0.75, 31  # where the bulk reaches down to 0: ratio of neighbours in the first grid, and cells
UNSEEN = 1e-22  # mass that is left out
FEW = 1e-9  # part of the interval: cells are not halved below


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Axis:
    """The table.

    Parameters
    ----------
    reach
        η beyond which there is no mass to speak of.
    eta
        η, ascending, shape (n,).
    points
        The branch there.
    rate, pull
        du/dη, shape (n,), and dv/dη, shape (factors, n).
    cdf, slope
        P(ln λ' <= w) and -dF/dη, shape (n,).
    """

    reach: float
    eta: Array
    points: Points
    rate: Complex
    pull: Complex
    cdf: Array
    slope: Array

    def guess(self, eta: Array) -> tuple[Complex, Complex, Array]:
        """Guess u and v at η by the cubic between neighbours, with the change of u over the cell."""
        return _hermite(self.eta, (self.points.u, self.points.v), (self.rate, self.pull), eta)


def axis(curve: SpectralCurve, *, chart: Chart, anchors: Points, reach: float) -> Axis:
    """Lay the table over 0 < η < reach.

    Parameters
    ----------
    curve
        The spectral curve.
    chart, anchors
        As for `follow`.
    reach
        End of η; where the bulk reaches down to 0 it is shortened to what is seen.

    Raises
    ------
    ConvergenceError
        If a path does not arrive.
    """
    if np.isinf(chart.low):
        eta = reach * SHORTER ** np.arange(SHORTEST, -1, -1.0)
    else:
        end = min(NEXT_TO_END, 0.6 / math.sqrt(chart.high - chart.low))  # 1 in ln λ where the bulk is long
        eta = reach * np.concatenate([[end], np.arange(1, FIRST) / FIRST, [1 - end]])
    points = follow(curve, chart.place(eta), chart=chart, anchors=anchors)
    if np.isinf(chart.low):
        count = _seen(curve, chart, points, eta)
        reach, eta, points = 1.0001 * float(eta[count - 1]), eta[:count], points.take(np.arange(count))
    rate, pull = _slopes(curve, points, chart.slope(eta.astype(np.complex128)))
    low = np.arange(eta.size - 1)  # the cell from the i-th point to the next is open
    for _ in range(ROUNDS):
        middle = (eta[low] + eta[low + 1]) / 2
        guess_u, guess_v, change = _hermite(eta, (points.u, points.v), (rate, pull), middle)
        found = solve(curve, chart.place(middle), (guess_u, guess_v, change), chart=chart, anchors=anchors)
        miss = np.abs(np.concatenate([(found.u - guess_u)[None], found.v - guess_v])).max(axis=0)
        coarse = (miss > GOOD * change) & (eta[low + 1] - eta[low] > FEW * reach)
        found_rate, found_pull = _slopes(curve, found, chart.slope(middle.astype(np.complex128)))
        order = np.argsort(np.concatenate([eta, middle]), kind="stable")
        eta, rate = np.concatenate([eta, middle])[order], np.concatenate([rate, found_rate])[order]
        pull = np.concatenate([pull, found_pull], axis=1)[:, order]
        points = Points(
            u=np.concatenate([points.u, found.u])[order],
            v=np.concatenate([points.v, found.v], axis=1)[:, order],
            w=np.concatenate([points.w, found.w])[order],
        )
        at = np.searchsorted(eta, middle[coarse])
        low = np.unique(np.concatenate([at - 1, at]))
        if low.size == 0:
            break
    cdf = 1.0 - curve.upper_tail(points.u, points.v)
    slope = np.maximum(curve.density(points.u), 0.0) * np.abs(chart.slope(eta.astype(np.complex128)))
    return Axis(reach=reach, eta=eta, points=points, rate=rate, pull=pull, cdf=cdf, slope=slope)


def _seen(curve: SpectralCurve, chart: Chart, points: Points, eta: Array) -> int:
    """Count the points up to where no density is seen: a narrow law may reach down to 0 with a mass of e^-1000."""
    mass = curve.density(points.u) * np.abs(chart.slope(eta.astype(np.complex128))) * eta
    return min(int(np.flatnonzero(mass > UNSEEN).max(initial=0)) + 2, eta.size)


@np.errstate(all="ignore")  # a trial step may leave the floating range; it is then refused
def solve(
    curve: SpectralCurve,
    w: Array,
    guess: tuple[Complex, Complex, Array],
    *,
    chart: Chart,
    anchors: Points,
) -> Points:
    """Close guesses by Newton's method, and follow from z < 0 what that does not reach.

    Parameters
    ----------
    curve
        The spectral curve.
    w
        Values of ln λ inside the bulk, shape (n,).
    guess
        u, v and the size of the cell in u.
    chart, anchors
        As for `follow`.
    """
    u, v, size = guess
    end = w.astype(np.complex128)
    found = Solution.at(curve, u, v, w=end)
    taken = found.converged & found.is_physical & (np.abs(found.u - u) <= MOST_MISS * size)
    lost = np.flatnonzero(~taken)
    if lost.size:
        followed = follow(curve, w[lost], chart=chart, anchors=anchors)
        found.u[lost], found.v[:, lost] = followed.u, followed.v
    return Points(u=found.u, v=found.v, w=end)


def _slopes(curve: SpectralCurve, points: Points, chart_slope: Complex) -> tuple[Complex, Complex]:
    """Compute du/dη and dv/dη."""
    slope, pull = curve.total_slope(curve.residual(points.u, points.v))
    rate = chart_slope / slope
    return rate, pull * rate


def _hermite(
    eta: Array, values: tuple[Complex, Complex], slopes: tuple[Complex, Complex], at: Array
) -> tuple[Complex, Complex, Array]:
    """Interpolate u and v by the cubic between neighbours, and tell the size of the cell in u."""
    low = np.clip(np.searchsorted(eta, at) - 1, 0, eta.size - 2)
    length = eta[low + 1] - eta[low]
    s = (at - eta[low]) / length
    rise, second = s * s * (3 - 2 * s), s * s * (s - 1) * length
    first = s * (1 - s) ** 2 * length
    u, v = (
        value[..., low] + rise * (value[..., low + 1] - value[..., low])
        + first * slope[..., low] + second * slope[..., low + 1]
        for value, slope in zip(values, slopes, strict=True)
    )  # fmt: skip
    return u, v, np.abs(values[0][low + 1] - values[0][low])
