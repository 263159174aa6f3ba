"""The figures of `rmtbn bn-jacobian`: networks over their laws, laws over B and depth, distances, blocks."""

from collections.abc import Mapping, Sequence
from math import ceil
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import NullLocator

from rmtbn.plot.decades import LN10
from rmtbn.plot.law_density import law_density
from rmtbn.plot.points import points
from rmtbn.plot.spectrum_density import spectrum_density
from rmtbn.result import EmpiricalSpectrum, SpectralMeasure
from rmtbn.theory.bn_mean_field import block_share

from ._bn_jacobian_records import BatchSpectra, Kind, law_of

NAMES: Mapping[str, str] = MappingProxyType(
    {"linear": "linear", "relu": "ReLU", "leaky_relu": "leaky ReLU", "hard_tanh": "hard tanh", "gelu": "GELU",
     "silu": "SiLU", "selu": "SELU"}
)  # fmt: skip
WEIGHTS_NAMES: Mapping[str, str] = MappingProxyType({"gaussian": "Gaussian", "orthogonal": "orthogonal"})
HIDDEN = 0.01  # share of the smallest values that panels leave out of sight
BINS = 28  # of a panel


def name(activation: str) -> str:
    """Name an activation as papers do."""
    return NAMES.get(activation, activation)


def draw_densities(found: BatchSpectra, kinds: Sequence[Kind], canvas: Canvas) -> None:
    """Draw a row of panels per kind, a column per depth."""
    panels = canvas.subplots(len(kinds), len(found.depths), squeeze=False)
    for i, kind in enumerate(kinds):
        for j, depth in enumerate(found.depths):
            ax = panels[i, j]
            _panel(ax, found.spectrum(kind, depth), found.law(kind, depth), note=_zeros(found, kind, depth))
            ax.set_title(f"{name(kind.activation)}, L = {depth}")
            if j > 0:
                ax.set_ylabel("")
            if i < len(kinds) - 1:
                ax.set_xlabel("")
    handles, labels = panels[0][0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside upper right", ncols=len(labels))


def _zeros(found: BatchSpectra, kind: Kind, depth: int) -> str:
    """Write out both kinds of zeros among the contrasts, and what theory says of them together."""
    exact, leaked = found.zeros_of_contrasts(kind, depth)
    predicted = sum(mass for lam, mass in found.law(kind, depth).atoms if lam == 0)
    return f"exactly 0: {exact:.1%}\n0 but for ε: {leaked:.1%}\ntheory, ε → 0: {predicted:.1%}"


def _panel(ax: Axes, spectrum: EmpiricalSpectrum, law: SpectralMeasure, *, note: str) -> None:
    """Draw a histogram and the law, from the quantile `HIDDEN` of the values that are not 0 on."""
    zeros = spectrum.zero_fraction
    (low, high), start = spectrum.log_bulk or (0.0, 1.0), float(spectrum.log_ppf(zeros + HIDDEN * (1 - zeros)))
    bins = ceil(BINS * (high - low) / max(high - start, 1e-9))
    spectrum_density(spectrum, law=law, bins=min(bins, 400), note=note, ax=ax)
    for text in ax.texts:
        text.set_fontsize(7)
    ax.set_ylim(top=1.3 * ax.dataLim.y1)  # room for it
    ax.set_xlim(start / LN10, high / LN10 + 0.05 * (high - start) / LN10)


def draw_laws(found: BatchSpectra, activation: str, canvas: Canvas) -> None:
    """Draw the laws of one activation, Gaussian weights: over B at the middle depth, over depth at the middle B."""
    left, right = canvas.subplots(1, 2)
    depth, batch = found.depths[len(found.depths) // 2], found.batches[len(found.batches) // 2]
    law_density({f"B = {b}": law_of(activation, "gaussian", b, depth) for b in found.batches}, ax=left)
    law_density({f"L = {d}": law_of(activation, "gaussian", batch, d) for d in found.depths}, ax=right)
    left.set_title(f"{name(activation)}, L = {depth}")
    right.set_title(f"{name(activation)}, B = {batch}")
    for ax in (left, right):
        ax.legend(fontsize=8)


def draw_distances(found: BatchSpectra, canvas: Canvas) -> None:
    """Draw KS distances against B/N at the deepest networks, Gaussian weights left, orthogonal right."""
    axes, depth = canvas.subplots(1, 2, sharey=True), found.depths[-1]
    for ax, weights in zip(axes, ("gaussian", "orthogonal"), strict=True):
        for activation in dict.fromkeys(kind.activation for kind in found.kinds):
            kinds = [kind for kind in found.kinds if (kind.activation, kind.weights) == (activation, weights)]
            aside = 1.05 ** (len(ax.containers) - 1)  # points of one ratio stand beside one another
            distances = [found.comparison(kind, depth) for kind in kinds]
            errors = [one.ks_se for one in distances]
            places = [aside * kind.ratio for kind in kinds]
            points(places, [one.ks for one in distances], se=errors, label=name(activation), ax=ax)
        ax.set(xscale="log", yscale="log", xlabel="B/N", title=f"{weights} weights".capitalize())
        ratios = sorted({kind.ratio for kind in found.kinds})
        ax.set_xticks(ratios, [f"{ratio:.3g}" for ratio in ratios])
        ax.minorticks_off()
    _one_two_five(axes[0])
    axes[0].set_ylabel("KS distance to the law")
    axes[0].legend(fontsize=8)


def _one_two_five(ax: Axes) -> None:
    """Give a logarithmic vertical axis ticks at 1, 2 and 5 of every decade, and begin and end it at one."""
    low, high = ax.get_ylim()
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks = np.multiply.outer(10.0**decades, [1.0, 2.0, 5.0]).ravel()
    ticks = ticks[np.searchsorted(ticks, low, side="right") - 1 : np.searchsorted(ticks, high) + 1]
    ax.set_ylim(ticks[0], ticks[-1])
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    ax.yaxis.set_minor_locator(NullLocator())


def draw_blocks(found: BatchSpectra, canvas: Canvas) -> None:
    """Draw the share of the per-sample blocks against depth, a panel per batch, Gaussian weights, widest networks."""
    panels = canvas.subplots(1, len(found.batches), sharey=True, squeeze=False)[0]
    for ax, batch in zip(panels, found.batches, strict=True):
        for activation in dict.fromkeys(kind.activation for kind in found.kinds):
            kind = Kind(activation=activation, weights="gaussian", batch=batch, width=found.widest(batch))
            shares = [found.block_share(kind, depth) for depth in found.depths]
            theory = np.array([block_share(activation, batch_size=batch, depth=d) for d in found.depths])
            aside = 1.04 ** (len(ax.containers) - 1)
            points(np.array(found.depths) * aside, [s.value for s in shares], se=[s.se for s in shares],
                   label=name(activation), line=(np.array(found.depths), theory), ax=ax)  # fmt: skip
        ax.axhline(1 / batch, color="C5", lw=1, ls=":", label="1/B")
        ax.set(xscale="log", xlabel="depth L", title=f"B = {batch}", ylim=(0, 1))
        ax.set_xticks(found.depths, [str(depth) for depth in found.depths])
        ax.minorticks_off()
    panels[0].set_ylabel("share of ‖J‖² in the blocks")
    panels[-1].legend(fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 0.06))
