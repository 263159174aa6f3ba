"""Colours over a plane."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rmtbn._checks import InvalidArgumentError
from rmtbn.plot.plane import plane

VALUES = pd.DataFrame([[0.0, 1.0, np.nan], [2.0, 3.0, 9.0]], index=[0.1, 0.3], columns=[1.0, 2.0, 4.0])


def test_cells_are_centred_on_their_numbers():
    """Edges half way between neighbours; NaN blank, beyond the limits the last colour."""
    ax = plane(VALUES, label="χ₁", limits=(0.0, 4.0), ax=Figure().subplots())
    mesh = ax.collections[0]
    corners = mesh.get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], [0.5, 1.5, 3.0, 5.0])
    np.testing.assert_allclose(corners[:, 0, 1], [0.0, 0.2, 0.4])
    shown = np.ma.asarray(mesh.get_array()).reshape(2, 3)
    assert np.ma.getmaskarray(shown)[0, 2]
    assert shown[1, 2] == 4.0
    assert mesh.get_clim() == (0.0, 4.0)
    assert ax.get_figure().axes[1].get_ylabel() == "χ₁"


def test_one_number_has_a_cell_of_width_one():
    ax = plane(
        pd.DataFrame([[1.0]], index=[3.0], columns=[2.0]),
        label="x",
        limits=(0, 1),
        diverging=True,
        ax=Figure().subplots(),
    )
    np.testing.assert_allclose(ax.collections[0].get_coordinates()[0, :, 0], [1.5, 2.5])


@pytest.mark.parametrize(
    ("values", "limits", "named"),
    [
        (VALUES.iloc[::-1], (0.0, 1.0), "`values`"),
        (VALUES.iloc[:0], (0.0, 1.0), "`values`"),
        (VALUES, (1.0, 1.0), "`limits`"),
    ],
)
def test_planes_that_cannot_be_drawn_are_refused(values, limits, named):
    with pytest.raises(InvalidArgumentError, match=named):
        plane(values, label="x", limits=limits, ax=Figure().subplots())
