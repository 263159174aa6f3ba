"""Matrices as colours and text."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rmtbn._checks import InvalidArgumentError
from rmtbn.plot.heat_map import heat_map
from rmtbn.plot.theme import style

VALUES = pd.DataFrame(
    [[0.0, -1.5, np.nan], [3.0, -12.0, np.inf]], index=["he_normal", "orthogonal"], columns=[1, 16, 256]
)


@pytest.fixture
def ax():
    return Figure().subplots()


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_each_cell_shows_its_number_and_masked_cells_none(ax):
    """Rows from the top; NaN blank; infinity written."""
    assert heat_map(VALUES, label="log₁₀ gradient norm", ax=ax) is ax
    assert texts(ax) == ["0", "−1.5", "3", "−12", "∞"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["he_normal", "orthogonal"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "16", "256"]


def test_colours_diverge_from_the_centre(ax):
    """clim = center ± limit; what is beyond has the last colour; NaN is masked."""
    heat_map(VALUES, label="x", center=1.0, limit=4.0, ax=ax)
    mesh = ax.collections[0]
    assert mesh.get_clim() == (-3.0, 5.0)
    shown = np.ma.asarray(mesh.get_array()).reshape(2, 3)
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), [[False, False, True], [False, False, False]])
    np.testing.assert_array_equal(shown.compressed(), [0.0, -1.5, 3.0, -3.0, 5.0])


def test_scale_reaches_the_farthest_finite_value(ax):
    heat_map(VALUES, label="x", ax=ax)
    assert ax.collections[0].get_clim() == (-12.0, 12.0)


def test_equal_values_and_all_masked_have_a_scale():
    for value in (2.0, np.nan):
        ax = heat_map(pd.DataFrame([[value]]), label="x", center=2.0, ax=Figure().subplots())
        assert ax.collections[0].get_clim() == (1.0, 3.0)


@pytest.mark.parametrize("name", ["light", "dark"])
def test_texts_stand_out_from_their_cells(name):
    """Contrast ≥ 4.5 : 1 in every cell (WCAG 2.2, 1.4.3)."""
    with style(name):
        ax = heat_map(pd.DataFrame([np.linspace(-1, 1, 21)]), label="x", ax=Figure().subplots())
    for text, color in zip(ax.texts, ax.collections[0].get_facecolor(), strict=True):
        both = []
        for rgb in (mpl.colors.to_rgb(text.get_color()), color[:3]):
            srgb = np.asarray(rgb)
            linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
            both.append(linear @ (0.2126, 0.7152, 0.0722) + 0.05)
        assert max(both) / min(both) >= 4.5


def test_caller_may_write_the_cells(ax):
    heat_map(VALUES.iloc[:, :2], label="x", write=lambda value: f"{value:+.1f}", ax=ax)
    assert texts(ax) == ["+0.0", "-1.5", "+3.0", "-12.0"]


def test_empty_matrix_is_refused(ax):
    with pytest.raises(InvalidArgumentError, match=r"`values` must be a matrix of at least one row.*\(0, 0\)"):
        heat_map(pd.DataFrame(), label="x", ax=ax)


def test_limit_is_checked(ax):
    with pytest.raises(InvalidArgumentError, match="`limit` must be a finite number > 0"):
        heat_map(VALUES, label="x", limit=0.0, ax=ax)
