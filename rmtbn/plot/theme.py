"""The looks of a figure, for light and for dark pages: rcParams, with colours that the colour-blind can tell apart."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import seaborn  # noqa: F401 - brings the colour map icefire, dark in the middle
from cycler import cycler

from rmtbn import _checks

LIGHT = ("#0173b2", "#c25500", "#029e73", "#b35fa3", "#9d6b3f", "#6b7178", "#8a7500", "#3d87b8")
DARK = ("#56b4e9", "#de8f05", "#1fb98c", "#cc78bc", "#ca9161", "#a0a8b0", "#ece133", "#fbafe4")
"""Blue, orange, green, purple, brown, grey, yellow, and another blue or pink: seaborn's "colorblind" (Okabe and Ito's
colours), dimmed on light paper and lifted on dark until each stands out from it 3 : 1 (WCAG 2.2, criterion 1.4.11)."""


def _style(*, paper: str, ink: str, quiet: str, rule: str, colors: tuple[str, ...], cmap: str) -> dict[str, Any]:
    inks = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor")
    quiets = ("axes.edgecolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys(inks, ink),
        **dict.fromkeys(quiets, quiet),
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.labelsize": 10,
        "axes.linewidth": 0.8,
        "axes.prop_cycle": cycler(color=colors),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "figure.facecolor": paper,
        "font.size": 9.5,
        "grid.color": rule,
        "grid.linewidth": 0.6,
        "image.cmap": cmap,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "lines.linewidth": 1.5,
        "lines.markersize": 4.5,
        "savefig.dpi": 200,
        "xtick.major.width": 0.8,
        "ytick.major.width": 0.8,
    }


STYLES: Mapping[str, Mapping[str, Any]] = {
    "light": _style(paper="#fdfdfb", ink="#1d2126", quiet="#59616a", rule="#e3e5e2", colors=LIGHT, cmap="RdBu_r"),
    "dark": _style(paper="#15181b", ink="#e4e7ea", quiet="#a0a8b0", rule="#2b3036", colors=DARK, cmap="icefire"),
}


def style(name: str = "light") -> AbstractContextManager[None]:
    """Return the context in which figures look as in the reports: "light" or "dark".

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> with style("dark"):
    ...     axes = Figure().subplots()
    """
    settings: dict[Any, Any] = dict(STYLES[_checks.one_of("name", name, STYLES)])
    return mpl.rc_context(settings)
