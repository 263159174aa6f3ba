"""The density of a measured spectrum over decades of λ, with an analytic law over it."""

import math

import numpy as np
from matplotlib.axes import Axes

from rmtbn import _checks
from rmtbn.plot.decades import LN10, set_decades
from rmtbn.result import EmpiricalSpectrum, SpectralMeasure

_POINTS = 400  # of the curve: finer than a pixel of a report's figure
_TAIL = 1e-3  # share of a law's mass that may stay out of sight on each side


def spectrum_density(
    spectrum: EmpiricalSpectrum,
    *,
    law: SpectralMeasure | None = None,
    bins: int | None = None,
    note: str | None = None,
    ax: Axes,
) -> Axes:
    """Draw a histogram of log10 λ (λ a squared singular value), per decade, and the density of a law over it.

    The areas under histogram and curve are the masses of what is not an atom; atoms at zero, which have no place on
    the axis, and the share of censored values are written out, and other atoms of the law are vertical lines.

    Parameters
    ----------
    spectrum
        What was measured.
    law
        What is predicted.
    bins
        Number of bins; None: 2 n^(1/3) for n values (the Rice rule), but 40 at most.
    note
        What is written out in the corner instead, where zeros are of more kinds than one.
    ax
        Where to draw.
    """
    known = np.isfinite(spectrum.by_network) & ~spectrum.censored
    decades = 2.0 * spectrum.by_network[known] / LN10
    bins = (
        min(40, math.ceil(2 * decades.size ** (1 / 3))) if bins is None else _checks.integer("bins", bins, at_least=1)
    )
    if decades.size:
        _histogram(decades, total=spectrum.log_singular_values.size, bins=bins, ax=ax)
    if law is not None:
        _curve(law, ax=ax)
    _written(_zeros(spectrum, law=law) if note is None else note, ax=ax)
    ax.set_xlabel("squared singular value λ")
    ax.set_ylabel("density per decade")
    set_decades(ax.xaxis)
    ax.set_ylim(bottom=0.0)
    return ax


def _histogram(decades: np.ndarray, *, total: int, bins: int, ax: Axes) -> None:
    """Bars whose areas are shares of all values, zeros included."""
    low, high = float(decades.min()), float(decades.max())
    if high - low < 1e-6:  # all values equal, as for orthogonal weights: one bar of a tenth of a decade
        low, high, bins = low - 0.05, high + 0.05, 1
    counts, edges = np.histogram(decades, bins=bins, range=(low, high))
    ax.stairs(counts / (total * np.diff(edges)), edges, fill=True, color="C0", alpha=0.45, label="measured")


def _curve(law: SpectralMeasure, *, ax: Axes) -> None:
    for lam, mass in law.atoms:
        if lam > 0:
            ax.axvline(np.log10(lam), color="C1", ls="--", label=f"theory: mass {mass:.3g} at λ = {lam:.3g}")
    if law.log_bulk is None:
        return
    zero = sum(mass for lam, mass in law.atoms if lam == 0)
    low, high = (float(edge) for edge in law.log_ppf([zero + _TAIL * (1 - zero), 1 - _TAIL]))
    low, high = min(low, ax.dataLim.x0 * LN10), max(high, ax.dataLim.x1 * LN10)
    left, right = law.log_bulk
    x = np.linspace(max(low, left), right if np.isfinite(right) else high, _POINTS)
    density = np.exp(law.log_pdf_log(x)) * LN10
    ax.plot(x / LN10, np.where(np.isfinite(density), density, np.nan), color="C1", label="theory")


def _zeros(spectrum: EmpiricalSpectrum, *, law: SpectralMeasure | None) -> str:
    predicted = None if law is None else sum(mass for lam, mass in law.atoms if lam == 0)
    lines = []
    if spectrum.zero_fraction or predicted:
        lines.append(f"exact zeros: {spectrum.zero_fraction:.1%}")
        lines += [] if predicted is None else [f"in theory: {predicted:.1%}"]
    if spectrum.censored_fraction:
        floor = spectrum.log_lam_floor / LN10
        lines.append(f"censored: {spectrum.censored_fraction:.1%}, below λ = 10^{floor:.1f}")
    return "\n".join(lines)


def _written(text: str, *, ax: Axes) -> None:
    if text:
        ax.text(0.02, 0.98, text, transform=ax.transAxes, va="top")
        ax.margins(y=0.15)  # room for it
