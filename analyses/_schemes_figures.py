"""The figures of `rmtbn schemes`: what is drawn where."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from rmtbn import inits
from rmtbn.plot.decades import LN10
from rmtbn.plot.depth_profile import depth_profile
from rmtbn.plot.heat_map import heat_map
from rmtbn.plot.spectrum_density import spectrum_density
from rmtbn.report.number import number
from rmtbn.result import DepthProfile

from ._failure import CONDITION, CORRELATION, RANGE
from ._predictions import Network
from ._schemes_records import NAMES, PANELS, Schemes

# The uniform schemes have the variances of the normal ones and lie on them in every figure; the tables have all.
SHOWN = ("he_normal", "glorot_normal", "torch_default", "orthogonal", "critical", "gaussian")
DENSITIES = (("relu", "he_normal"), ("relu", "orthogonal"), ("tanh", "critical"), ("tanh", "orthogonal"))
DENSITY_DEPTHS = (1, 4, 16)
THRESHOLDS = {  # on the axes of the figures: log10 of the squared gradient norm and of κ
    "log_gradient": (-2 * RANGE / LN10, 2 * RANGE / LN10),
    "log_condition": (CONDITION / LN10,),
    "correlation": (CORRELATION,),
}


def panel_name(activation: str, norm: str) -> str:
    """Name a panel: "ReLU, no normalisation"."""
    return f"{NAMES[activation]}, {NAMES[norm]}"


def growth(schemes: Schemes, panel: tuple[str, str]) -> pd.DataFrame:
    """Gradient norm at layer 1 against its value at depth 1, log10: one row per scheme, one column per depth."""
    rows = {s: schemes.summary((*panel, s)).set_index("depth").log_gradient for s in inits.INITS}
    logs = pd.DataFrame(rows).T
    return logs.sub(logs[1], axis=0) / (2 * LN10)


def whole(value: float) -> str:
    """Write a number as the nearest integer."""
    return number(round(value), digits=1) if np.isfinite(value) else number(value)


def heat_maps(schemes: Schemes, canvas: Canvas) -> None:
    """Draw the growth of the gradient by scheme and depth, a heat map per panel."""
    for panel, ax in zip(PANELS, canvas.subplots(2, 2).flat, strict=True):
        label = "log₁₀ of the gradient norm"
        heat_map(growth(schemes, panel), label=label, limit=9.0, write=whole, ax=ax)
        ax.set_title(panel_name(*panel))


def profiles(
    schemes: Schemes,
    quantity: tuple[str, str, str],
    theory: Callable[[Network, int], DepthProfile] | None,
    canvas: Canvas,
) -> None:
    """Draw a quantity (column, symbol, label) against depth, with its prediction if there is one."""
    column, symbol, label = quantity
    panels = canvas.subplots(2, 2, sharex=True, sharey=column == "correlation")
    for panel, ax in zip(PANELS, panels.flat, strict=True):
        for scheme in SHOWN:
            key = (*panel, scheme)
            predicted = theory(schemes.network(key), schemes.deepest) if theory else None
            measured = schemes.profile(key, column, symbol=symbol, label=label)
            depth_profile(measured, theory=predicted, label=scheme, log_depth=True, ax=ax)
        ax.set_title(panel_name(*panel))
        _thresholds(column, ax)
    _outer_labels(panels)
    _legend(canvas, panels.flat)


def _thresholds(column: str, ax: Axes) -> None:
    """Draw where a quantity fails, as far as it is in sight; the signal fails against its own value at depth 1."""
    ax.autoscale_view()
    low, high = ax.get_ylim()
    for level in THRESHOLDS.get(column, ()):
        if low < level < high:
            ax.axhline(level, ls=":", lw=1.2, color=rcParams["ytick.color"], zorder=1, label="fails")


def _outer_labels(panels: np.ndarray) -> None:
    """Name the axes at the left and at the bottom only; the numbers stay at each."""
    for ax in panels[:-1].flat:
        ax.set_xlabel("")
    for ax in panels[:, 1:].flat:
        ax.set_ylabel("")


def _legend(canvas: Canvas, panels: Iterable[Axes]) -> None:
    """Put one legend under all panels; theory is a line of no scheme's colour, and stands last."""
    handles: dict[str, Any] = {}
    for ax in panels:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    for name in ("theory", "fails"):
        if name in handles:
            handles[name] = handles.pop(name)
    if "theory" in handles and len(handles) > 2:
        handles["theory"] = Line2D([], [], color=rcParams["text.color"])
    canvas.legend(handles.values(), handles, loc="outside lower center", ncols=4)


def densities(schemes: Schemes, canvas: Canvas) -> None:
    """Draw the spectra and their laws, a row per kind of network and a column per depth."""
    panels = canvas.subplots(len(DENSITIES), len(DENSITY_DEPTHS), squeeze=False)
    for (activation, scheme), row in zip(DENSITIES, panels, strict=True):
        for depth, ax in zip(DENSITY_DEPTHS, row, strict=True):
            law = schemes.law(activation, scheme, depth)
            spectrum_density(schemes.spectrum(activation, scheme, depth), law=law, ax=ax)
            ax.set_title(f"{NAMES[activation]}, {scheme}, depth {depth}")
    _outer_labels(panels)
    _legend(canvas, panels.flat[:1])
