"""A quantity against depth: measured points with error bars, the prediction as a line."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from rmtbn import _checks
from rmtbn.plot.decades import LN10, set_decades
from rmtbn.result import DepthProfile

_MARKERS = "osD^vPXp"  # colours are not the only sign


def depth_profile(
    measured: DepthProfile,
    *,
    theory: DepthProfile | None = None,
    label: str = "measured",
    log_depth: bool = False,
    ax: Axes,
) -> Axes:
    """Draw a measured profile, and its prediction in the same colour; call again for another series.

    Logarithmic profiles get an axis of powers of ten, at any exponent. Exact zeros (log value −∞) are triangles at the
    lower edge, what overflowed (∞) at the upper; error bars are one standard error, and absent for a single network.

    Parameters
    ----------
    measured, theory
        Of one kind: both logarithms or neither.
    label
        Name of the series in the legend, which the caller adds; the first line of theory is called "theory" there.
    log_depth
        Whether depth runs in powers of two; layer 0 has no place then and is left out.
    ax
        Where to draw.

    Raises
    ------
    InvalidArgumentError
        If one of the two is a logarithm and the other is not.
    """
    if theory is not None and theory.is_log != measured.is_log:
        raise _checks.fail("theory", f"of `is_log` = {measured.is_log}, like `measured`", theory.is_log)
    marker = _MARKERS[len(ax.containers) % len(_MARKERS)]
    depth, value, se = _drawn(measured, log_depth=log_depth)
    finite = np.isfinite(value)
    bars = np.where(np.isfinite(se), se, 0.0)[finite]
    points = ax.errorbar(depth[finite], value[finite], yerr=bars, fmt=marker, capsize=2, label=label, zorder=3)
    color = points.lines[0].get_color()
    for place, sign, shape in ((0.0, -np.inf, "v"), (1.0, np.inf, "^")):
        if (value == sign).any():
            _at_edge(depth[value == sign], place=place, shape=shape, color=color, ax=ax)
    if theory is not None:
        _line(theory, log_depth=log_depth, color=color, ax=ax)
    _axes(measured, log_depth=log_depth, ax=ax)
    return ax


def _drawn(profile: DepthProfile, *, log_depth: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    unit = LN10 if profile.is_log else 1.0
    shown = profile.depth > 0 if log_depth else np.ones(profile.depth.shape, dtype=bool)
    return profile.depth[shown], profile.value[shown] / unit, profile.se[shown] / unit


def _at_edge(depth: np.ndarray, *, place: float, shape: str, color: Any, ax: Axes) -> None:
    edge = ax.get_xaxis_transform()
    ax.plot(depth, np.full(depth.shape, place), shape, color=color, transform=edge, clip_on=False, mfc="none")


def _line(theory: DepthProfile, *, log_depth: bool, color: Any, ax: Axes) -> None:
    depth, value, _ = _drawn(theory, log_depth=log_depth)
    named = "theory" in ax.get_legend_handles_labels()[1]
    ax.plot(
        depth,
        np.where(np.isfinite(value), value, np.nan),
        "-",
        color=color,
        zorder=2,
        label="_theory" if named else "theory",
    )


def _axes(profile: DepthProfile, *, log_depth: bool, ax: Axes) -> None:
    ax.set_xlabel("depth")
    ax.set_ylabel(f"{profile.label} {profile.symbol}")
    if profile.is_log:
        set_decades(ax.yaxis)
    if log_depth:
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
