"""The bulk of a law that is a single factor: orthogonal weights at depth 1 leave the law of φ′² as it is.

Its density and mass are those of the law itself: level by level where they are known so (`levels`), else from the
moment transform on the axis, M(λ + i0), which the poles on the panels make exact.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from rmtbn.theory.free.branch import Chart
from rmtbn.theory.free.bulk import Bulk
from rmtbn.theory.free.panel_law import PanelLaw

Array = NDArray[np.float64]

_NEGLIGIBLE = 1e-22


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FactorBulk(Bulk):
    """The density of a law given in panels, times e^log_scale.

    Parameters
    ----------
    law, log_scale
        The law of d, and ln λ - ln d.
    log_atoms
        The atoms of λ, ((ln λ, mass), ...): rounding of ln λ - log_scale must not carry a point across one.
    """

    law: PanelLaw
    log_scale: float
    log_atoms: tuple[tuple[float, float], ...] = ()

    @property
    def _ends(self) -> tuple[float, float]:
        """Infimum and supremum of ln d."""
        low, high = self.law.span
        return low if math.isfinite(self.law.floor) else -math.inf, high

    @property
    def chart(self) -> Chart:
        """The edges."""
        low, high = self._ends
        return Chart(low=low + self.log_scale, high=high + self.log_scale)

    @property
    def below(self) -> float:
        """Mass at zero and of the atoms up to the lower edge."""
        return 1.0 - self.law.mass + sum(mass for x, mass in self.law.flat if x <= self._ends[0])

    @property
    def mass(self) -> float:
        """Mass of the interval, with the atoms inside it."""
        low, high = self._ends
        return self.law.mass - sum(mass for x, mass in self.law.flat if not low < x < high)

    def density(self, w: Array) -> Array:
        """Density of ln λ."""
        return self.at(w)[0]

    def at(self, w: Array) -> tuple[Array, Array]:
        """Density of ln λ and P(ln λ' <= w)."""
        x = w - self.log_scale
        for log_lam, _ in self.log_atoms:
            places = np.array([at for at, _ in self.law.flat])
            own = places[np.abs(places - (log_lam - self.log_scale)).argmin()]
            x = np.where(w >= log_lam, np.maximum(x, own), np.minimum(x, np.nextafter(own, -np.inf)))
        return self.law.at(x)

    @property
    def rounding(self) -> float:
        """Rounding error of F, a sum of angles of weight 1."""
        return 1e-15

    def reach(self) -> float:
        """π, or where less than 1e-22 of the mass is below."""
        if math.isfinite(self.law.floor):
            return math.pi
        negligible = int(np.searchsorted(self.law.panels.before[0], math.log(_NEGLIGIBLE))) - 1
        lowest = min([float(self.law.panels.low[max(negligible, 0)]), *(x for x, _ in self.law.flat)])
        return math.sqrt(self.law.span[1] - lowest) * (1 + 1e-9)

    def mean(self, function: Callable[[Array], Array]) -> float:
        """Integrate a function of w against the density: a sum over the nodes."""
        return float(np.sum(function(self.law.panels.log_d + self.log_scale) * self.law.panels.weights))
