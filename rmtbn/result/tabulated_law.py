"""A law read off a table: what costs milliseconds a point is asked for some hundred points once, and can be kept.

The table holds the bulk's part of the distribution function, F without the atoms, against s = √(upper edge - ln λ), in
which it is smooth where the density ends like a square root, or its inverse, at the upper edge.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicHermiteSpline

from rmtbn import _checks
from rmtbn.result.distribution_table import atom_mass, spline_of
from rmtbn.result.spectral_measure import SpectralMeasure
from rmtbn.result.table_file import read_table, write_table

Array = NDArray[np.float64]

ACCURACY = 1e-6  # of the distribution function: a thousandth of what can be measured
_INVERSE = 4097  # points of the inverse, and of means
_MOMENTS, _LOG_MOMENTS = 8, 4  # written with a law
_KIND = "law"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TabulatedLaw(SpectralMeasure):
    """A law whose distribution function is interpolated, with its atoms exact.

    Parameters
    ----------
    spline
        The bulk's part of F against s: cubic, with the exact slopes; None for a law of atoms only.
    edges
        Edges of the bulk in ln λ; None for a law of atoms only.
    log_atoms
        Atoms as ((ln λ, mass), ...), ascending; -inf for one at zero.
    stated
        Accuracy of the distribution function, up to the rounding of ln λ (8e-15, relative): where much of the mass
        lies within that (GELU, d near 1), F is right at a ln λ so near. The density follows to about ten times that.
    law
        What was tabulated, which moments are asked of; None for a law read from a file.
    moments, log_moments
        E λ^k, k = 1, 2, ..., and E (ln λ)^k of a law read from a file.
    parameters
        Of what was tabulated: its class under "law", and its fields.
    """

    spline: CubicHermiteSpline | None
    edges: tuple[float, float] | None
    log_atoms: tuple[tuple[float, float], ...]
    stated: float
    law: SpectralMeasure | None = None
    moments: tuple[float, ...] = ()
    log_moments: tuple[float, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Of the distribution function; the density follows to about ten times that."""
        return self.stated

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Those of the law."""
        with np.errstate(over="ignore"):
            return tuple((float(np.exp(x)), mass) for x, mass in self.log_atoms)

    @property
    def log_bulk(self) -> tuple[float, float] | None:
        """Edges in ln λ."""
        return self.edges

    def log_pdf_log(self, log_lam: ArrayLike) -> Array:
        """Log density of ln λ, from the slope of the table."""
        x = _checks.array("log_lam", log_lam)
        if self.spline is None or self.edges is None:
            return np.full(x.shape, -np.inf)
        s, last = np.sqrt(np.maximum(self.edges[1] - x, 0.0)), self._last
        inside = np.clip(s, self.spline.x[0], last)
        with np.errstate(divide="ignore", invalid="ignore"):
            density = np.log(np.maximum(-self.spline(inside, 1) / (2 * inside), 0.0))
            density = np.where(s > last, density - self._fall * (s**2 - last**2), density)
        return np.where((x < self.edges[1]) & (x > self.edges[0]), density, -np.inf)

    def cdf_log(self, log_lam: ArrayLike) -> Array:
        """P(ln λ' <= log_lam)."""
        x = _checks.array("log_lam", log_lam)
        return np.asarray(np.clip(self._bulk_cdf(x) + atom_mass(self.log_atoms, x), 0.0, 1.0))

    def log_ppf(self, p: ArrayLike) -> Array:
        """Quantiles of ln λ: atoms where p falls into their jumps, else by inverting the table."""
        p = _checks.probabilities(p)
        low = self.edges[0] if self.edges else self.log_atoms[0][0]
        quantile = np.full(p.shape, min([low, *(place for place, _ in self.log_atoms)]))
        share, taken = p.copy(), np.zeros(p.shape, dtype=bool)
        for place, mass in self.log_atoms:
            above = float(self.cdf_log(place))
            within = (p > above - mass) & (p <= above)
            quantile[within] = place
            taken |= within
            share[p > above] -= mass
        rest = ~taken & ((p > 0) | (not self.log_atoms))
        quantile[rest] = self._bulk_quantile(share[rest]) if self.edges else self.log_atoms[-1][0]
        return quantile

    def moment(self, k: int) -> float:
        """E λ^k, of the law itself or as written with it; for others from the table."""
        k = _checks.integer("k", k, at_least=0)
        if self.law is not None or k == 0:
            return 1.0 if self.law is None else self.law.moment(k)
        return self.moments[k - 1] if k <= len(self.moments) else self._mean(lambda x: np.exp(k * x))

    def log_moment(self, k: int = 1) -> float:
        """E (ln λ)^k, of the law itself or as written with it; for others from the table."""
        k = _checks.integer("k", k, at_least=1)
        if self.law is not None:
            return self.law.log_moment(k)
        return self.log_moments[k - 1] if k <= len(self.log_moments) else self._mean(lambda x: x**k)

    def to_parquet(self, path: str | Path) -> None:
        """Write the table (ln λ, density of ln λ, F), and atoms, edges, accuracy, moments and parameters beside it."""
        x = np.empty(0) if self.spline is None or self.edges is None else self.edges[1] - self.spline.x[::-1] ** 2
        about = {
            "edges": self.edges,
            "log_atoms": self.log_atoms,
            "accuracy": self.stated,
            "moments": [self.moment(k) for k in range(1, _MOMENTS + 1)],
            "log_moments": [self.log_moment(k) for k in range(1, _LOG_MOMENTS + 1)],
            "parameters": self.parameters,
        }
        columns = {"log_lam": x, "density": np.exp(self.log_pdf_log(x)), "cdf": self.cdf_log(x)}
        write_table(path, columns, kind=_KIND, about=about)

    @classmethod
    def from_parquet(cls, path: str | Path) -> "TabulatedLaw":
        """Read what `to_parquet` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        InvalidArgumentError
            If it is not the file of a law.
        """
        _, columns, about = read_table(path, kind=_KIND)
        edges = None if about["edges"] is None else (about["edges"][0], about["edges"][1])
        log_atoms = tuple((place, mass) for place, mass in about["log_atoms"])
        spline = None
        if edges is not None:
            x = columns["log_lam"][::-1]
            bulk = columns["cdf"][::-1] - atom_mass(log_atoms, x)
            s = np.sqrt(edges[1] - x)
            spline = CubicHermiteSpline(s, bulk, -2 * s * columns["density"][::-1])
        return cls(
            spline=spline,
            edges=edges,
            log_atoms=log_atoms,
            stated=about["accuracy"],
            moments=tuple(about["moments"]),
            log_moments=tuple(about["log_moments"]),
            parameters=about["parameters"],
        )

    @property
    def _mass(self) -> float:
        return 1.0 - sum(mass for _, mass in self.log_atoms)

    @property
    def _last(self) -> float:
        return 0.0 if self.spline is None else float(self.spline.x[-1])

    @property
    def _fall(self) -> float:
        """Slope of ln F in ln λ at the lower end of the table."""
        if self.spline is None:
            return math.inf
        value, slope = float(self.spline(self._last)), float(self.spline(self._last, 1))
        return max(-slope / (2 * self._last * value), 0.0) if value > 0 else math.inf

    def _bulk_cdf(self, x: Array) -> Array:
        if self.spline is None or self.edges is None:
            return np.zeros(x.shape)
        s, first, last = np.sqrt(np.maximum(self.edges[1] - x, 0.0)), self.spline.x[0], self._last
        table = self.spline(np.clip(s, first, last))
        table = np.where(s < first, self._mass - (self._mass - table) * s / first, table)
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            table = np.where(s > last, table * np.exp(-self._fall * (s**2 - last**2)), table)
        return np.asarray(np.where(x > self.edges[0], np.clip(table, 0.0, self._mass), 0.0))

    def _bulk_quantile(self, p: Array) -> Array:
        """Invert the bulk's part: by a finer table, and a step of Newton's method inside its cell."""
        if self.spline is None or self.edges is None:
            return np.full(p.shape, -np.inf)
        low, high = self.edges
        even = np.linspace(self.spline.x[0], self._last, _INVERSE)
        s = np.concatenate([[0.0], np.union1d(even, self.spline.x)])
        values = np.minimum.accumulate(np.concatenate([[self._mass], self.spline(s[1:])]))
        guess, cell = np.interp(-p, -values, s), np.clip(np.searchsorted(-values, -p), 1, s.size - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = (self.spline(guess) - p) / self.spline(guess, 1)
        newton = np.clip(guess - step, s[cell - 1], s[cell])
        square = np.where(np.isfinite(step) & (guess > s[1]), newton, guess) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            below = self._last**2 - np.log(p / values[-1]) / self._fall
        return np.asarray(np.clip(high - np.where(p < values[-1], below, square), low, high))

    def _mean(self, function: Callable[[Array], Array]) -> float:
        """Mean over the quantiles of the middles of equal shares."""
        p = (np.arange(_INVERSE) + 0.5) / _INVERSE
        with np.errstate(over="ignore", invalid="ignore"):
            return float(np.mean(function(self.log_ppf(p))))


def tabulated(law: SpectralMeasure, *, accuracy: float = ACCURACY) -> TabulatedLaw:
    """Tabulate a law, halving where the table is not yet right.

    Parameters
    ----------
    law
        Any law given by a density and atoms.
    accuracy
        Of the distribution function, >= 1e-12.

    Returns
    -------
    TabulatedLaw
        Whose `accuracy` is larger than what was asked for where the law's own is, or where a table does not resolve it.
    """
    accuracy = _checks.real("accuracy", accuracy, at_least=1e-12)
    with np.errstate(divide="ignore"):
        log_atoms = tuple((float(np.log(lam)), float(mass)) for lam, mass in law.atoms)
    known = TabulatedLaw(
        spline=None, edges=None, log_atoms=log_atoms, stated=law.accuracy, law=law, parameters=_parameters(law)
    )
    if law.log_bulk is None:
        return known
    low, high = law.log_bulk
    wanted = max(accuracy, law.accuracy)
    spline, missed = spline_of(law, log_atoms, wanted)
    found = dataclasses.replace(known, spline=spline, edges=(float(low), float(high)), stated=max(wanted, missed))
    return dataclasses.replace(found, stated=max(found.stated, _tail_error(found, law)))


def _parameters(law: SpectralMeasure) -> dict[str, Any]:
    """Return the class of the law and those of its fields that are numbers or strings."""
    names = [one.name for one in getattr(type(law), "__dataclass_fields__", {}).values() if one.init]
    pairs = ((name, getattr(law, name)) for name in names)
    return {"law": type(law).__name__} | {name: v for name, v in pairs if isinstance(v, int | float | str)}


def _tail_error(found: TabulatedLaw, law: SpectralMeasure) -> float:
    """Compare F below the table, half as far again, with the line that ln F is continued as."""
    low, high = found.edges or (-math.inf, 0.0)
    below = high - 1.5 * found._last**2
    return float(np.abs(found.cdf_log(below) - law.cdf_log(below))) if below > low else 0.0
