"""A quantity over a plane of two numbers, as colours; lines over it are the caller's."""

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes

from rmtbn import _checks


def plane(
    values: pd.DataFrame,
    *,
    label: str,
    limits: tuple[float, float],
    diverging: bool = False,
    colorbar: bool = True,
    ax: Axes,
) -> Axes:
    """Draw a quantity on a grid; every number of a row or column has its own stripe, however they are spaced.

    Parameters
    ----------
    values
        The quantity; index (y) and columns (x) are ascending numbers. NaN is left blank, what is beyond the limits has
        the last colour.
    label
        What the colours mean, for the colour bar.
    limits
        Values of the first and the last colour.
    diverging
        Whether the colours part at the middle of the limits (the style's map) rather than run from dark to light.
    colorbar
        Whether to add a colour bar, which one of several planes of the same limits needs.
    ax
        Where to draw; x and y stay in their own units.

    Raises
    ------
    InvalidArgumentError
        If the matrix is empty or its index or columns do not ascend.
    """
    x, y = values.columns.to_numpy(dtype=np.float64), values.index.to_numpy(dtype=np.float64)
    if values.empty or (np.diff(x) <= 0).any() or (np.diff(y) <= 0).any():
        raise _checks.fail("values", "a matrix whose index and columns are ascending numbers", values.shape)
    low, high = limits
    if not low < high:
        raise _checks.fail("limits", "two ascending numbers", limits)
    shown = np.ma.masked_invalid(np.clip(values.to_numpy(dtype=np.float64), low, high))
    cmap = rcParams["image.cmap"] if diverging else "viridis"
    mesh = ax.pcolormesh(_edges(x), _edges(y), shown, vmin=low, vmax=high, cmap=cmap, rasterized=True)
    figure = ax.get_figure()
    if colorbar and figure is not None:
        figure.colorbar(mesh, ax=ax, label=label)
    ax.grid(visible=False)
    return ax


def _edges(centres: np.ndarray) -> np.ndarray:
    """Edges half way between neighbours, the outer ones as far out as the next is in."""
    if centres.size == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])
