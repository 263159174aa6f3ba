"""Densities of laws of λ: several in one panel, against λ itself or over decades."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from rmtbn import _checks
from rmtbn.plot.decades import LN10, set_decades
from rmtbn.result import SpectralMeasure

_POINTS = 400  # of a curve: finer than a pixel of a report's figure
_TAIL = 5e-3  # share of a law's mass that may stay out of sight where its lower edge is at 0
_UPPER = 1e-4  # the same at the upper side, where tails without an edge fall fast
_WIDE = math.log(100.0)  # bulks that span more than this ratio of λ are drawn over decades
_EDGE = 0.03  # share of the mass next to either edge, where a density may diverge, that does not set the axis' height
_MARKERS = "osD^vPXp"  # colours are not the only sign


def law_density(laws: Mapping[str, SpectralMeasure], *, decades: bool | None = None, ax: Axes) -> Axes:
    """Draw the densities of laws, each under its name in the legend, which the caller adds.

    The areas under the curves are the masses of what is not an atom. An atom is a marker, at the height of its mass on
    the right-hand axis; one at 0, which has no place among decades, is written in the legend.

    Parameters
    ----------
    laws
        Name → law.
    decades
        Whether the axis is that of log10 λ, the density per decade; None: where a bulk spans a factor of 100 or more.
    ax
        Where to draw.

    Raises
    ------
    InvalidArgumentError
        If there is no law.
    """
    if not laws:
        raise _checks.fail("laws", "one or more", laws)
    if decades is None:
        decades = any(_spans(law) > _WIDE for law in laws.values())
    masses = ax.twinx() if any(_shown_atoms(law, decades=decades) for law in laws.values()) else None
    tops = []
    for number, (name, law) in enumerate(laws.items()):
        color = f"C{number % 8}"
        label = name + _zero_text(law) if decades else name
        x, density = _curve(law, decades=decades)
        ax.plot(x, density, color=color, label=label)
        if masses is not None:
            atoms = _shown_atoms(law, decades=decades)
            places, heights = ([atom[i] for atom in atoms] for i in (0, 1))
            masses.stem(places, heights, linefmt=f"C{number % 8}--", markerfmt=_MARKERS[number % 8], basefmt=" ")
        tops.append(_top(x, density))
    _dress(ax, masses, top=max(tops), decades=decades)
    return ax


def _spans(law: SpectralMeasure) -> float:
    return 0.0 if law.log_bulk is None else law.log_bulk[1] - law.log_bulk[0]


def _shown_atoms(law: SpectralMeasure, *, decades: bool) -> list[tuple[float, float]]:
    """Places on the axis and masses."""
    if decades:
        return [(math.log10(lam), mass) for lam, mass in law.atoms if lam > 0]
    return list(law.atoms)


def _zero_text(law: SpectralMeasure) -> str:
    zero = sum(mass for lam, mass in law.atoms if lam == 0)
    return f" ({zero:.1%} at λ = 0)" if zero else ""


def _curve(law: SpectralMeasure, *, decades: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a curve between the edges; from and to the quantile of a small mass where there is no edge."""
    if law.log_bulk is None:
        return np.empty(0), np.empty(0)
    low, high = law.log_bulk
    if not np.isfinite(low):
        zero = sum(mass for lam, mass in law.atoms if lam == 0)
        low = float(law.log_ppf(zero + _TAIL * (1 - zero)))
    high = high if np.isfinite(high) else float(law.log_ppf(1 - _UPPER))
    shape = (1 - np.cos(np.linspace(0, np.pi, _POINTS))) / 2  # dense at both edges
    x = low + (high - low) * shape
    with np.errstate(over="ignore", under="ignore"):
        density = np.exp(law.log_pdf_log(x)) * LN10 if decades else np.exp(law.log_pdf_log(x) - x)
    return (x / LN10 if decades else np.exp(x)), np.where(np.isfinite(density), density, np.nan)


def _top(x: np.ndarray, density: np.ndarray) -> float:
    """Find the largest density away from the edges."""
    if x.size == 0:
        return 0.0
    steps = np.diff(x) * np.nan_to_num(density[1:] + density[:-1]) / 2
    mass = np.concatenate([[0.0], np.cumsum(steps)])
    inside = (mass >= _EDGE * mass[-1]) & (mass <= (1 - _EDGE) * mass[-1])
    return float(np.nanmax(density[inside], initial=0.0))


def _dress(ax: Axes, masses: Axes | None, *, top: float, decades: bool) -> None:
    ax.set_xlabel("squared singular value λ")
    ax.set_ylabel("density per decade" if decades else "density")
    if decades:
        set_decades(ax.xaxis)
    ax.set_ylim(0.0, 1.1 * top if top > 0 else 1.0)
    if masses is not None:
        masses.set_ylabel("mass of an atom")
        masses.set_ylim(0.0, 1.05)
        masses.grid(visible=False)
        masses.spines["right"].set_visible(True)
