"""Measured points with error bars against a variable, and a line of theory in the same colour."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from rmtbn import _checks

_MARKERS = "osD^vPXp"  # colours are not the only sign


def points(
    x: ArrayLike,
    y: ArrayLike,
    *,
    se: ArrayLike,
    label: str,
    line: tuple[ArrayLike, ArrayLike] | None = None,
    ax: Axes,
) -> Axes:
    """Draw points with one standard error, and a line; call again for another series.

    Parameters
    ----------
    x, y, se
        Of one shape (points,); a standard error that is not finite gets no bar, a point that is not finite no place.
    label
        Name of the series in the legend, which the caller adds; the first line is called "theory" there.
    line
        (x, y) of the prediction.
    ax
        Where to draw.

    Raises
    ------
    InvalidArgumentError
        If `x`, `y` and `se` differ in shape.
    """
    place, value, error = (np.asarray(v, dtype=np.float64) for v in (x, y, se))
    if not place.shape == value.shape == error.shape or place.ndim != 1:
        raise _checks.fail("x", "of the shape of `y` and `se`, (points,)", (place.shape, value.shape, error.shape))
    marker = _MARKERS[len(ax.containers) % len(_MARKERS)]
    shown = np.isfinite(place) & np.isfinite(value)
    bars = np.where(np.isfinite(error), error, 0.0)[shown]
    drawn = ax.errorbar(place[shown], value[shown], yerr=bars, fmt=marker, capsize=2, label=label, zorder=3)
    if line is not None:
        named = "theory" in ax.get_legend_handles_labels()[1]
        ax.plot(*line, "-", color=drawn.lines[0].get_color(), zorder=2, label="_theory" if named else "theory")
    return ax
