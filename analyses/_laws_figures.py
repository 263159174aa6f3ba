"""The figures of `rmtbn laws`: networks over their laws in panels, and distances against width."""

from collections.abc import Mapping, Sequence
from math import ceil
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from rmtbn.plot.decades import LN10
from rmtbn.plot.points import points
from rmtbn.plot.spectrum_density import spectrum_density
from rmtbn.result import EmpiricalSpectrum, SpectralMeasure

from ._laws_networks import Kind
from ._laws_records import Laws, has_zeros, is_isometry

NAMES: Mapping[str, str] = MappingProxyType(
    {"linear": "linear", "relu": "ReLU", "hard_tanh": "hard tanh", "tanh": "tanh", "erf": "erf"}
)
WEIGHTS_NAMES: Mapping[str, str] = MappingProxyType(
    {"gaussian": "Gaussian", "orthogonal": "Orthogonal", "uniform": "Uniform"}
)
HIDDEN = 0.01  # share of the smallest values that panels leave out of sight
BINS = 30  # of a panel


def name(kind: Kind) -> str:
    """Name a kind of networks."""
    return f"{NAMES[kind.activation]}, {'Gaussian' if kind.weights == 'gaussian' else kind.weights}"


def draw_densities(laws: Laws, kinds: Sequence[Kind], canvas: Canvas) -> None:
    """Draw a row of panels per kind, a column per depth."""
    panels = canvas.subplots(len(kinds), len(laws.depths), squeeze=False)
    for row, kind in zip(panels, kinds, strict=True):
        for ax, depth in zip(row, laws.depths, strict=True):
            _panel(ax, laws.spectrum(kind, laws.widths[-1], depth), kind.law(depth))
            ax.set_title(f"{NAMES[kind.activation]}, L = {depth}")
            if ax is not row[0]:
                ax.set_ylabel("")
            if row is not panels[-1]:
                ax.set_xlabel("")
    panels[0][0].legend(loc="best")


def _panel(ax: Axes, spectrum: EmpiricalSpectrum, law: SpectralMeasure) -> None:
    """Draw a histogram and the law, from the quantile `HIDDEN` of the values that are not 0 on."""
    zeros = spectrum.zero_fraction
    if spectrum.log_bulk is None:
        spectrum_density(spectrum, law=law, ax=ax)
        return
    (low, high), start = spectrum.log_bulk, float(spectrum.log_ppf(zeros + HIDDEN * (1 - zeros)))
    hidden = high - start < 1e-6  # one value only
    spectrum_density(spectrum, law=law, bins=None if hidden else ceil(BINS * (high - low) / (high - start)), ax=ax)
    if not hidden:
        edges = [high / LN10, *(np.log10(lam) for lam, _ in law.atoms if lam > 0)]
        margin = 0.05 * (max(edges) - start / LN10)
        ax.set_xlim(start / LN10, max(edges) + margin)


def draw_rates(laws: Laws, depth: int, canvas: Canvas) -> None:
    """Draw KS distances against the width at one depth, apart where units switch off."""
    left, right = canvas.subplots(1, 2, sharey=True)
    widths = np.array(laws.widths, dtype=np.float64)
    for kind in laws.kinds:
        if is_isometry(kind):
            continue
        ax = right if has_zeros(kind) else left
        aside = widths * 1.04 ** (len(ax.containers) - 2)  # points of one width stand beside one another
        found = [laws.comparison(kind, width, depth) for width in laws.widths]
        points(aside, [f.ks for f in found], se=[f.ks_se for f in found], label=name(kind), ax=ax)
        if has_zeros(kind):
            given = [laws.given_ranks(kind, width, depth).ks for width in laws.widths]
            ax.plot(aside, given, "o", mfc="none", color=ax.containers[-1].lines[0].get_color())
    for ax, title in ((left, "units never switch off"), (right, "units switch off")):
        ax.plot(widths, 1 / widths, color="C5", lw=1, label="1/N")
        if ax is right:
            ax.plot(widths, 0.5 / np.sqrt(widths), color="C5", lw=1, ls="--", label="1/(2√N)")
            ax.plot([], [], "o", mfc="none", color="C5", label="hollow: given the ranks")
        ax.set(xscale="log", yscale="log", xlabel="width N", title=title)
        ax.set_xticks(laws.widths, [str(n) for n in laws.widths], minor=False)
        ax.minorticks_off()
        ax.legend(loc="lower left", fontsize=8)
    left.set_ylabel("KS distance to the law")
