"""Axes of powers of ten that may leave the floating range: drawn in log10, labelled with the numbers themselves."""

import math
from collections.abc import Iterable
from typing import final

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import AutoLocator, Formatter, Locator, MaxNLocator

LN10 = math.log(10.0)


def set_decades(axis: Axis) -> None:
    """Label an axis whose coordinate is log10 of a quantity by the quantity: 0.5, 1, 2 or 10⁻⁴⁰⁰."""
    axis.set_major_locator(_DecadeLocator())
    axis.set_major_formatter(_DecadeFormatter())


@final
class _DecadeLocator(Locator):
    """Whole decades where there are several, 1, 2, 5 within a few, round numbers within one."""

    def __call__(self) -> list[float]:
        assert self.axis is not None
        return self.tick_values(*self.axis.get_view_interval())

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        low, high = sorted((vmin, vmax))
        if high - low > 2.5:
            most = 7 if self.axis is None else min(7, max(2, self.axis.get_tick_space()))
            ticks = np.asarray(MaxNLocator(most, integer=True, steps=[1, 2, 4, 5, 10]).tick_values(low, high))
        elif high - low > 0.9:
            whole = np.arange(math.floor(low), math.ceil(high) + 1)
            ticks = np.add.outer(whole, np.log10([1.0, 2.0, 5.0])).ravel()
        else:
            shift = math.floor(low)  # keeps the powers in range
            numbers = np.asarray(AutoLocator().tick_values(10.0 ** (low - shift), 10.0 ** (high - shift)))
            ticks = np.log10(numbers[numbers > 0]) + shift
        return [float(tick) for tick in ticks]


@final
class _DecadeFormatter(Formatter):
    """Powers of ten where all ticks are whole decades, else numbers, with a power where they are large or small."""

    def format_ticks(self, values: Iterable[float]) -> list[str]:
        """Return the labels of all ticks, in one manner."""
        ticks = np.asarray(list(values), dtype=np.float64)
        whole = np.allclose(ticks, np.round(ticks), rtol=0, atol=1e-6)
        return [_power(tick) if whole else _number(tick) for tick in ticks]

    def __call__(self, x: float, pos: int | None = None) -> str:  # noqa: ARG002 - the signature of matplotlib
        return _number(x)


def _power(x: float) -> str:
    return f"$10^{{{round(x)}}}$"


def _number(x: float) -> str:
    power = math.floor(x + 1e-9)
    if -3 <= power <= 3:
        return f"{10.0**x:.4g}"
    return f"${10.0 ** (x - power):.4g}\\times10^{{{power}}}$"
