"""Profiles over depth: what is drawn is what was given."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from rmtbn._checks import InvalidArgumentError
from rmtbn.plot.depth_profile import depth_profile
from rmtbn.result import DepthProfile

DEPTH = np.arange(6.0)


def profile(value, *, se=0.1, is_log=False, depth=DEPTH) -> DepthProfile:
    value = np.asarray(value, dtype=float)
    return DepthProfile(
        depth=depth, value=value, se=np.full(value.shape, se), symbol="q", label="activation variance", is_log=is_log
    )


@pytest.fixture
def ax():
    return Figure().subplots()


def drawn(ax, series: int = 0):
    """Coordinates of the points of a series, and the ends of its error bars."""
    points, _, (bars,) = ax.containers[series].lines
    return points.get_xydata(), np.array(bars.get_segments())


def test_points_carry_the_values_and_bars_the_errors(ax):
    """(depth, value), from value − se to value + se."""
    value = np.linspace(1.0, 2.0, 6)
    assert depth_profile(profile(value), ax=ax) is ax
    points, bars = drawn(ax)
    np.testing.assert_array_equal(points, np.stack([DEPTH, value], axis=1))
    np.testing.assert_allclose(bars[:, :, 1], np.stack([value - 0.1, value + 0.1], axis=1), rtol=1e-14)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("depth", "activation variance q")


def test_logarithms_are_drawn_in_decades(ax):
    """y = value / ln 10 and se / ln 10, at exponents no float holds."""
    value = np.log(10.0) * np.array([0.0, -100.0, -200.0, -300.0, -400.0, -500.0])
    depth_profile(profile(value, se=np.log(10.0), is_log=True), ax=ax)
    points, bars = drawn(ax)
    np.testing.assert_allclose(points[:, 1], [0, -100, -200, -300, -400, -500], atol=1e-12)
    np.testing.assert_allclose(bars[:, 1, 1] - bars[:, 0, 1], 2.0, rtol=1e-9)
    ax.figure.draw_without_rendering()
    assert "$10^{-500}$" in [label.get_text() for label in ax.get_yticklabels()]


def test_theory_is_a_line_in_the_colour_of_its_points(ax):
    for shift in (0.0, 1.0):
        depth_profile(profile(DEPTH + shift), theory=profile(DEPTH**2 + shift, se=0.0), label=f"{shift}", ax=ax)
    lines = [line for line in ax.get_lines() if line.get_linestyle() == "-"]
    assert len(lines) == 2
    for series, line in enumerate(lines):
        np.testing.assert_array_equal(line.get_ydata(), DEPTH**2 + series)
        assert line.get_color() == ax.containers[series].lines[0].get_color()
    assert lines[0].get_color() != lines[1].get_color()


def test_legend_names_each_series_and_theory_once(ax):
    for name in ("he_normal", "orthogonal"):
        depth_profile(profile(DEPTH), theory=profile(DEPTH), label=name, ax=ax)
    assert sorted(ax.get_legend_handles_labels()[1]) == ["he_normal", "orthogonal", "theory"]


def test_series_differ_by_marker_too(ax):
    for _ in range(8):
        depth_profile(profile(DEPTH), ax=ax)
    assert len({container.lines[0].get_marker() for container in ax.containers}) == 8


def test_depth_runs_in_powers_of_two_without_the_input(ax):
    depth_profile(profile([9.0, 1.0, 2.0], depth=np.array([0.0, 1.0, 256.0])), log_depth=True, ax=ax)
    points, _ = drawn(ax)
    np.testing.assert_array_equal(points, [[1.0, 1.0], [256.0, 2.0]])
    ax.figure.draw_without_rendering()
    assert ax.get_xscale() == "log"
    assert "256" in [label.get_text() for label in ax.get_xticklabels()]


def test_zeros_and_overflows_are_marked_at_the_edges(ax):
    """log value −∞ at the lower edge, ∞ at the upper; neither is a point."""
    depth_profile(profile([0.0, -1.0, -np.inf, -2.0, np.inf, np.nan], is_log=True), ax=ax)
    assert list(drawn(ax)[0][:, 0]) == [0.0, 1.0, 3.0]
    edges = {line.get_marker(): line.get_xydata().tolist() for line in ax.get_lines() if line.get_marker() in "v^"}
    assert edges == {"v": [[2.0, 0.0]], "^": [[4.0, 1.0]]}


def test_single_network_has_no_error_bars(ax):
    depth_profile(profile(DEPTH, se=np.inf), ax=ax)
    _, bars = drawn(ax)
    np.testing.assert_array_equal(bars[:, 0, 1], bars[:, 1, 1])


def test_logarithm_and_plain_value_are_not_mixed(ax):
    with pytest.raises(InvalidArgumentError, match="`theory` must be of `is_log` = True, like `measured`; got False"):
        depth_profile(profile(DEPTH, is_log=True), theory=profile(DEPTH), ax=ax)
