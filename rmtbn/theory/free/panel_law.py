"""A law given by a density in panels: ln d is smooth on each, with Gauss–Legendre weights of the measure.

For the law of d = φ′(h)², h ~ N(0, q), a panel is an interval of h. Sums over nodes give E d/(ζ - d) to rounding
where ζ is far from the law; where it is near, or on it, the poles of the integrand are put right exactly
(`panel_poles`). Only panels with |ln d - ln ζ| < 18 are summed one by one; what lies beyond enters by prefix sums.
"""

import math
from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rmtbn.theory.free.factor_law import FactorLaw, kernel, log_angle
from rmtbn.theory.free.levels import Levels
from rmtbn.theory.free.panel_poles import AT_NODES, DERIVATIVE, INTEGRAL, TO_SERIES, WEIGHTS, Poles, poles
from rmtbn.theory.free.panels import POWERS, Panels

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.intp]

WINDOW = 18.0  # |ln d - ln ζ| beyond which two terms of a geometric series are exact to rounding
_ABOVE = 1e-150  # +0, of which the square is not 0
NEAR = 1.4  # distance in s within which a pole is looked for
_CHUNK = 50_000  # numbers in one table of points by nodes, to stay in the cache: twice as fast as a table of all points


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PanelLaw(FactorLaw):
    """A law with a density, and perhaps atoms.

    Parameters
    ----------
    panels
        Its density.
    flat
        Its atoms but for zero, ((ln d, mass), ...).
    infimum
        Infimum of ln d, zero left out.
    levels, shift
        Density and mass at given ln d - shift, where they are known directly; else the panels give them.
    """

    panels: Panels
    flat: tuple[tuple[float, float], ...] = ()
    infimum: float = -np.inf
    levels: Levels | None = None
    shift: float = 0.0
    total: float = field(init=False)
    means: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "means", (self.log_moment(-1), self.log_moment(1)))
        total = float(np.exp(self.panels.before[0, -1])) + sum(mass for _, mass in self.flat)
        object.__setattr__(self, "total", 1.0 if abs(total - 1) < 1e-12 else total)

    @property
    def mass(self) -> float:
        """Mass not at zero."""
        return self.total

    @property
    def log_means(self) -> tuple[float, float]:
        """Ln E 1/d and ln E d."""
        return self.means

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Its atoms."""
        return self.flat

    @property
    def span(self) -> tuple[float, float]:
        """Least and largest ln d on the panels and at the atoms."""
        atoms = [x for x, _ in self.flat]
        return min([float(self.panels.low.min()), *atoms]), max([float(self.panels.high.max()), *atoms])

    @property
    def floor(self) -> float:
        """Infimum of ln d."""
        return self.infimum

    @property
    def inner(self) -> tuple[float, float]:
        """The span: there is no gap."""
        return self.span

    def scaled(self, log_factor: float) -> "PanelLaw":
        """Return the law of e^log_factor·d."""
        return PanelLaw(
            panels=self.panels.shifted(log_factor),
            flat=tuple((x + log_factor, mass) for x, mass in self.flat),
            infimum=self.infimum + log_factor,
            levels=self.levels,
            shift=self.shift + log_factor,
        )

    def log_moment(self, k: int) -> float:
        """Compute ln E d^k, zero left out."""
        if abs(k) < len(POWERS):
            of_panels = self.panels.before[k, -1] if k >= 0 else self.panels.after[-k, 0]
        else:
            with np.errstate(divide="ignore"):  # of a weight below the floating range
                of_panels = special.logsumexp(k * self.panels.log_d + np.log(self.panels.weights))
        return float(np.logaddexp.reduce([of_panels, *(k * x + math.log(mass) for x, mass in self.flat)]))

    def sums(self, v: Complex) -> tuple[Complex, Complex, Complex]:
        """Sum over panels near ζ, panels far from it, atoms and poles."""
        first, rest, slope = (np.zeros(v.shape, dtype=np.complex128) for _ in range(3))
        for rows in self._chunks(v):
            first[rows], rest[rows], slope[rows] = self._sums(v[rows])
        return first, rest, slope

    def potential_angle(self, v: Complex) -> Array:
        """Compute Im E ln(1 - d/ζ), continuous, in [0, π]."""
        return np.concatenate([np.zeros(0), *(self._angle(v[rows]) for rows in self._chunks(v))])

    def at(self, x: Array) -> tuple[Array, Array]:
        """Compute the density of ln d, and P(d <= e^x) with atoms and zero."""
        if self.levels is None:
            v = np.asarray(x + _ABOVE * 1j, dtype=np.complex128)
            with np.errstate(over="ignore", invalid="ignore"):  # of the slope, which is not needed, on a node
                return -self.sums(v)[0].imag / np.pi, 1.0 - self.potential_angle(v) / np.pi
        density, mass = self.levels.at(x - self.shift)
        return density, 1.0 - self.total + mass + sum(share * (x >= at) for at, share in self.flat)

    def _chunks(self, v: Complex) -> list[slice]:
        middle = (self.panels.low + self.panels.high) / 2
        width = int((np.searchsorted(middle, middle + 2 * WINDOW) - np.arange(middle.size)).max())
        rows = max(32, _CHUNK // (width * WEIGHTS.size))
        return [slice(i, i + rows) for i in range(0, v.size, rows)]

    def _window(self, v: Complex) -> tuple[Index, Index, Index, NDArray[np.bool_]]:
        """First panel and first beyond the last that are summed one by one; table of them; which entries count."""
        middle = (self.panels.low + self.panels.high) / 2
        start, stop = (np.searchsorted(middle, v.real + side) for side in (-WINDOW, WINDOW))
        table = start[:, None] + np.arange(max(1, int((stop - start).max())))
        return start, stop, np.minimum(table, middle.size - 1), table < stop[:, None]

    def _sums(self, v: Complex) -> tuple[Complex, Complex, Complex]:
        start, stop, table, counted = self._window(v)
        rows = v.size
        x = (self.panels.log_d[table] - v.real[:, None, None]).reshape(rows, -1)
        first, rest, slope = kernel(x, (self.panels.weights[table] * counted[..., None]).reshape(rows, -1), v.imag)
        under, small, small2 = np.exp(self.panels.before[:, start] - POWERS * v)
        over, large, large2 = np.exp(self.panels.after[:, stop] + POWERS * v)
        first += small + small2 - (over + large + large2)
        rest += under + small + small2 - (large + large2)
        slope += small + 2 * small2 + large + 2 * large2
        if self.flat:
            points, masses = np.array(self.flat).T
            parts = kernel(points - v.real[:, None], masses, v.imag)
            first, rest, slope = first + parts[0], rest + parts[1], slope + parts[2]
        row, panel, found = self._poles(v, table, counted)
        residue, change = self._residue(panel[found.pair], found)
        error, error_slope = found.error()
        at = row[found.pair]
        np.add.at(first, at, residue * error)
        np.add.at(rest, at, residue * error)
        np.add.at(slope, at, -(change * error + residue * error_slope) / found.slope)
        return first, rest, slope

    def _poles(self, v: Complex, table: Index, counted: NDArray[np.bool_]) -> tuple[Index, Index, Poles]:
        """List the pairs of a row of v and a panel that may be near each other, and find their poles."""
        low, high = self.panels.low[table], self.panels.high[table]
        gap = np.abs(v[:, None] - np.clip(v.real[:, None], low, high))
        row, column = np.nonzero(counted & (gap < NEAR * self.panels.steepness[table]))
        panel = table[row, column]
        return row, panel, poles(self.panels.log_d[panel], v[row])

    def _residue(self, panel: Index, found: Poles) -> tuple[Complex, Complex]:
        """Compute the residue -g/(ln d)′ of g d/(ζ - d) at each pole, g the density, and its slope in s."""
        series = self.panels.density[panel] @ TO_SERIES.T
        g, g_slope = found.value(series), found.value(series @ DERIVATIVE.T)
        return -g / found.slope, (g * found.bend / found.slope - g_slope) / found.slope

    def _angle(self, v: Complex) -> Array:
        start, stop, table, counted = self._window(v)
        rows = v.size
        x = (self.panels.log_d[table] - v.real[:, None, None]).reshape(rows, -1)
        weights = (self.panels.weights[table] * counted[..., None]).reshape(rows, -1)
        total = np.einsum("ij,ij->i", log_angle(x, v.imag), weights)
        _, small, small2 = np.exp(self.panels.before[:, start] - POWERS * v).imag
        over, large, large2 = np.exp(self.panels.after[:, stop] + POWERS * v)
        total += over.real * (np.pi - v.imag) - (small + small2 / 2) - (large + large2 / 2).imag
        if self.flat:
            points, masses = np.array(self.flat).T
            total += log_angle(points - v.real[:, None], v.imag) @ masses
        row, panel, found = self._poles(v, table, counted)
        np.add.at(total, row, self._by_parts(v[row], panel, found))
        return np.asarray(total)

    def _by_parts(self, v: Complex, panel: Index, found: Poles) -> Array:
        """Compute the error of the sum of Im ln(1 - d/ζ) on panels near ζ.

        With G the integral of the density g, ∫ g ln(1 - d/ζ) = G ln(1 - d/ζ) at the end + ∫ G (ln d)′ d/(ζ - d), and
        the last integrand has simple poles, of residue -G.
        """
        log_d, weights = self.panels.log_d[panel], self.panels.weights[panel]
        x = log_d - v.real[:, None]
        plain = np.sum(weights * log_angle(x, v.imag), axis=1)
        integral = (self.panels.density[panel] @ TO_SERIES.T) @ INTEGRAL.T
        end = self.panels.series[panel].sum(axis=1) - v.real
        total = integral.sum(axis=1) * log_angle(end[:, None], v.imag)[:, 0] - plain
        imaginary = -np.sin(v.imag[:, None]) / (4 * np.sinh(x / 2) ** 2 + 4 * np.sin(v.imag[:, None] / 2) ** 2)
        total += np.sum(
            WEIGHTS
            * (integral @ AT_NODES.T)
            * (self.panels.series[panel] @ DERIVATIVE.T @ AT_NODES[:, :-1].T)
            * imaginary,
            axis=1,
        )
        np.add.at(total, found.pair, -(found.value(integral[found.pair]) * found.error()[0]).imag)
        return np.asarray(total)
