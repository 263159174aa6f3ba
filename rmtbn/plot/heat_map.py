"""A matrix of numbers as colours and text: schemes against depths."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rcParams
from matplotlib.axes import Axes

from rmtbn import _checks


def _short(value: float) -> str:
    if not np.isfinite(value):
        return "∞" if value > 0 else "−∞"
    return (f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}").replace("-", "−")


def _set_readable(ax: Axes) -> None:
    """Write each text in black or white, whichever stands out more from its cell (WCAG 2.2, relative luminance)."""
    mesh = ax.collections[0]
    shown = ~np.ma.getmaskarray(np.ma.asarray(mesh.get_array())).ravel()
    srgb = np.asarray(mesh.get_facecolor(), dtype=np.float64)[shown, :3]
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    for text, luminance in zip(ax.texts, linear @ (0.2126, 0.7152, 0.0722), strict=True):
        text.set_color("black" if luminance > 0.179 else "white")


def heat_map(
    values: pd.DataFrame,
    *,
    label: str,
    center: float = 0.0,
    limit: float | None = None,
    write: Callable[[float], str] = _short,
    ax: Axes,
) -> Axes:
    """Draw each value as a coloured cell with its number on it; colours diverge from `center`.

    Parameters
    ----------
    values
        The matrix; its index names the rows (schemes), its columns the columns (depths). NaN is left blank, and what
        is infinite has the last colour.
    label
        What the colours mean, for the colour bar.
    center, limit
        The neutral value, and how far from it the last colours are; None: the farthest finite value.
    write
        Turns a value into the text of its cell.
    ax
        Where to draw.

    Raises
    ------
    InvalidArgumentError
        If the matrix is empty.
    """
    if values.empty:
        raise _checks.fail("values", "a matrix of at least one row and one column", values.shape)
    numbers = values.to_numpy(dtype=np.float64)
    away = np.abs(numbers[np.isfinite(numbers)] - center)
    reach = float(away.max(initial=0.0)) or 1.0 if limit is None else _checks.real("limit", limit, above=0.0)
    low, high = center - reach, center + reach
    frame = pd.DataFrame(np.clip(numbers, low, high), index=values.index, columns=values.columns)
    texts = np.array([["" if np.isnan(value) else write(float(value)) for value in row] for row in numbers])
    sns.heatmap(frame, mask=frame.isna(), vmin=low, vmax=high, cmap=rcParams["image.cmap"], annot=texts, fmt="",
                annot_kws={"fontsize": 8.5}, linewidths=1.5, linecolor=rcParams["figure.facecolor"],
                cbar_kws={"label": label}, ax=ax)  # fmt: skip
    _set_readable(ax)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.tick_params(axis="y", rotation=0)
    return ax
