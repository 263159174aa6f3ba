"""The physical branch along the real axis of one interval of the bulk: a table from which any point of it is near.

In the chart's variable η the branch u(η) is regular on the closed interval, and goes on beyond its ends by reflection.
So a cubic between neighbours of the table is a good guess, which Newton's method closes in two steps. The table is
refined until the guess is good everywhere. What is found inside the strip, with every ζ in the upper half-plane, is
the physical solution (there is one only), and it is asked to be near the guess besides; the rest is followed from
z < 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmtbn.theory.free.branch import STRAY, Chart, Points, Solution, follow
from rmtbn.theory.free.curve import SpectralCurve

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

FIRST = 12  # points of the first grid
SHORTER, SHORTEST = 0.75, 12  # where the bulk reaches down to 0: ratio of neighbours in the first grid, and cells
ROUNDS = 24  # halvings of a cell at most
GOOD = 1e-4  # miss of the guess half-way, relative to the change over the cell: two steps then reach rounding
MOST_MISS = 0.05  # of the cell's change: a solution farther from the guess is not taken
UNSEEN = 1e-22  # mass that is left out
LEAST = 1e-6  # change of u over a cell, relative: where it is less (no density) its misses are those of rounding
FEW = 1e-9  # part of the interval: cells are not halved below


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Nodes:
    """Points of the branch with their slopes.

    Parameters
    ----------
    eta
        η, ascending, shape (n,).
    values, rates
        u, and then v of every factor given by points, with their slopes in η; shape (1 + factors, n).
    """

    eta: Array
    values: Complex
    rates: Complex

    @classmethod
    def at(cls, curve: SpectralCurve, points: Points, *, chart: Chart, eta: Array) -> "Nodes":
        """Compute du/dη and dv/dη at points of the branch."""
        slope, pull = curve.total_slope(curve.residual(points.u, points.v))
        rate = chart.slope(eta.astype(np.complex128)) / slope
        return cls(
            eta=eta,
            values=np.concatenate([points.u[None], points.v]),
            rates=np.concatenate([rate[None], pull * rate]),
        )

    def joined(self, other: "Nodes") -> "Nodes":
        """Merge with others."""
        eta = np.concatenate([self.eta, other.eta])
        order = np.argsort(eta, kind="stable")
        return Nodes(
            eta=eta[order],
            values=np.concatenate([self.values, other.values], axis=1)[:, order],
            rates=np.concatenate([self.rates, other.rates], axis=1)[:, order],
        )

    def reflected(self, end: float) -> "Nodes":
        """Reflect the point next to an end, where every value is real but for a multiple of iπ."""
        at = slice(0, 1) if end <= self.eta[0] else slice(-1, None)
        value, rate = self.values[:, at], self.rates[:, at]
        line = np.pi * np.round((value + rate * (end - self.eta[at])).imag / np.pi)
        return Nodes(eta=2 * end - self.eta[at], values=value.conj() + 2j * line, rates=-rate.conj())

    def guess(self, eta: Array) -> tuple[Complex, Complex, Array]:
        """Guess u and v by the cubic between neighbours, and tell the change of u over the cell."""
        low = np.clip(np.searchsorted(self.eta, eta) - 1, 0, self.eta.size - 2)
        length = self.eta[low + 1] - self.eta[low]
        s = (eta - self.eta[low]) / length
        first, second, rise = s * (1 - s) ** 2 * length, s * s * (s - 1) * length, s * s * (3 - 2 * s)
        change = self.values[:, low + 1] - self.values[:, low]
        found = self.values[:, low] + rise * change + first * self.rates[:, low] + second * self.rates[:, low + 1]
        return found[0], found[1:], np.maximum(np.abs(change[0]), LEAST * (1 + np.abs(found[0])))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Axis:
    """The table.

    Parameters
    ----------
    reach
        η beyond which there is no mass to speak of.
    nodes
        The branch, with its reflections.
    eta, cdf, slope
        η between 0 and the reach, ascending, P(ln λ' <= w) and -dF/dη; shape (n,).
    """

    reach: float
    nodes: Nodes
    eta: Array
    cdf: Array
    slope: Array


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
    reach, nodes = first_nodes(curve, chart=chart, anchors=anchors, reach=reach)
    soft = not np.isinf(chart.low)
    low, high = np.concatenate([[0.0], nodes.eta[: None if soft else -1]]), np.append(nodes.eta, [reach] * soft)
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        guess = _extended(nodes, chart, reach).guess(middle)
        found = Nodes.at(
            curve, solve(curve, chart.place(middle), guess, chart=chart, anchors=anchors), chart=chart, eta=middle
        )
        miss = np.abs(found.values - np.concatenate([guess[0][None], guess[1]])).max(axis=0)
        coarse = (miss > GOOD * guess[2]) & (high - low > FEW * reach)
        nodes = nodes.joined(found)
        middle, low, high = middle[coarse], low[coarse], high[coarse]
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
        if low.size == 0:
            break
    u, v = nodes.values[0], nodes.values[1:]
    return Axis(
        reach=reach,
        nodes=_extended(nodes, chart, reach),
        eta=nodes.eta,
        cdf=1.0 - curve.upper_tail(u, v),
        slope=np.maximum(curve.density(u), 0.0) * np.abs(chart.slope(nodes.eta.astype(np.complex128))),
    )


def first_nodes(curve: SpectralCurve, *, chart: Chart, anchors: Points, reach: float) -> tuple[float, Nodes]:
    """Follow the first points, and shorten the reach to what is seen.

    A narrow law may reach down to 0 with a mass of e^-1000, which is not seen.

    Parameters
    ----------
    curve
        The spectral curve.
    chart, anchors
        As for `follow`.
    reach
        End of η.

    Returns
    -------
    tuple
        The reach, and nodes up to it.
    """
    if not np.isinf(chart.low):
        eta = reach * (np.arange(FIRST) + 0.5) / FIRST
        points = follow(curve, chart.place(eta), chart=chart, anchors=anchors)
        return reach, Nodes.at(curve, points, chart=chart, eta=eta)
    eta = reach * SHORTER ** np.arange(SHORTEST, -1, -1.0)
    points = follow(curve, chart.place(eta), chart=chart, anchors=anchors)
    mass = curve.density(points.u) * np.abs(chart.slope(eta.astype(np.complex128))) * eta
    count = min(int(np.flatnonzero(mass > UNSEEN).max(initial=0)) + 2, eta.size)
    eta, points = eta[:count], points.take(np.arange(count))
    return 1.0001 * float(eta[-1]), Nodes.at(curve, points, chart=chart, eta=eta)


def _extended(nodes: Nodes, chart: Chart, reach: float) -> Nodes:
    """Add the reflections at the edges; elsewhere the cubic of the last cell goes on."""
    at_low, at_high = chart.mirrors
    found = nodes.joined(nodes.reflected(0.0)) if at_high else nodes
    return found.joined(nodes.reflected(reach)) if at_low and not np.isinf(chart.low) else found


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
    found = Solution.at(curve, u, v, w=end, leash=STRAY * MOST_MISS * size)
    taken = found.converged & found.is_physical & (np.abs(found.u - u) <= MOST_MISS * size)
    lost = np.flatnonzero(~taken)
    if lost.size:
        followed = follow(curve, w[lost], chart=chart, anchors=anchors)
        found.u[lost], found.v[:, lost] = followed.u, followed.v
    return Points(u=found.u, v=found.v, w=end)
