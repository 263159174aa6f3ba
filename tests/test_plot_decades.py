"""Axes in decades."""

import itertools

import pytest
from matplotlib.figure import Figure

from rmtbn.plot.decades import set_decades


def labels(low: float, high: float) -> list[str]:
    """The labels of an axis from 10^low to 10^high, of the ticks that are in sight."""
    figure = Figure()
    ax = figure.subplots()
    ax.set_ylim(low, high)
    set_decades(ax.yaxis)
    figure.draw_without_rendering()
    return [tick.label1.get_text() for tick in ax.yaxis.get_major_ticks() if low <= tick.get_loc() <= high]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-4.0, 0.0, ["$10^{-4}$", "$10^{-3}$", "$10^{-2}$", "$10^{-1}$", "$10^{0}$"]),
        (-500.0, -300.0, [f"$10^{{{k}}}$" for k in (-480, -440, -400, -360, -320)]),
        (-0.01, 1.01, ["1", "2", "5", "10"]),
        (-0.001, 0.302, ["1", "1.2", "1.4", "1.6", "1.8", "2"]),
        (399.999, 400.302, [rf"${m}\times10^{{400}}$" for m in ("1", "1.2", "1.4", "1.6", "1.8", "2")]),
    ],
)
def test_ticks_are_labelled_by_the_quantity_at_any_exponent(low, high, expected):
    """The tick at log10 x is labelled x, beyond the floating range as well."""
    assert labels(low, high) == expected


def test_labels_of_a_narrow_axis_do_not_touch():
    """Axes one inch wide, at 9.5 points: the boxes of neighbouring labels are apart."""
    figure = Figure(figsize=(1.6, 1.6), layout="constrained")
    ax = figure.subplots()
    ax.set_xlim(-53.0, 3.0)
    set_decades(ax.xaxis)
    figure.draw_without_rendering()
    ticks = [tick for tick in ax.xaxis.get_major_ticks() if -53.0 <= tick.get_loc() <= 3.0]
    boxes = [tick.label1.get_window_extent() for tick in ticks]
    assert len(boxes) >= 2
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


@pytest.mark.parametrize("span", [0.01, 0.1, 0.5, 0.89, 0.91, 1.5, 2.4, 2.6, 5.0, 30.0, 1000.0])
@pytest.mark.parametrize("low", [-700.3, -3.7, 0.0, 12.9])
def test_every_axis_has_two_to_ten_different_labels(low, span):
    found = labels(low, low + span)
    assert 2 <= len(found) <= 10
    assert len(set(found)) == len(found)
