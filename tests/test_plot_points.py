"""Points with error bars over a line."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from rmtbn._checks import InvalidArgumentError
from rmtbn.plot.points import points


@pytest.fixture
def ax():
    return Figure().subplots()


def test_points_and_line_have_one_colour(ax):
    """The line is called theory once, whatever the number of series."""
    for label in ("relu", "tanh"):
        assert points([1, 2], [3, 4], se=[0.1, 0.2], label=label, line=([1, 2], [3, 4]), ax=ax) is ax
    assert [c.lines[0].get_color() for c in ax.containers] == [
        line.get_color() for line in ax.lines if line.get_ls() == "-"
    ]
    assert sorted(ax.get_legend_handles_labels()[1]) == ["relu", "tanh", "theory"]


def test_values_and_bars_are_those_given(ax):
    """One standard error each way; what is not finite has no place, an unknown error no bar."""
    points([1, 2, 3], [1.0, np.inf, 3.0], se=[0.5, 0.5, np.inf], label="x", ax=ax)
    data = ax.containers[0].lines[0]
    np.testing.assert_array_equal(data.get_xydata(), [[1, 1], [3, 3]])
    segments = ax.containers[0].lines[2][0].get_segments()
    np.testing.assert_array_equal(segments[0][:, 1], [0.5, 1.5])
    np.testing.assert_array_equal(segments[1][:, 1], [3.0, 3.0])


def test_series_that_do_not_match_are_refused(ax):
    with pytest.raises(InvalidArgumentError, match="`x` must be of the shape"):
        points([1, 2], [1.0], se=[0.1], label="x", ax=ax)
