"""Densities of laws: areas are masses, atoms are drawn at their masses."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from rmtbn._checks import InvalidArgumentError
from rmtbn.plot.law_density import law_density
from rmtbn.theory.bn_mean_field import batch_jacobian_law
from rmtbn.theory.fuss_catalan import FussCatalan
from rmtbn.theory.jacobian import jacobian_law
from rmtbn.theory.marchenko_pastur import MarchenkoPastur


def area(line):
    x, density = line.get_xydata().T
    return np.trapezoid(np.nan_to_num(density), x)


def test_a_bulk_of_few_decades_is_drawn_against_lambda():
    """Marchenko–Pastur, c = 1/4: ∫ρ dλ = 1 between (1 ± 1/2)²."""
    ax = law_density({"c": MarchenkoPastur(ratio=0.25)}, ax=Figure().subplots())
    (line,) = ax.get_lines()
    assert area(line) == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(line.get_xdata()[[0, -1]], [0.25, 2.25], rtol=1e-9)
    assert ax.get_ylabel() == "density"


def test_laws_of_many_decades_are_drawn_over_decades_with_one_line_each():
    """∫ρ d log10 λ = 1, but for the 0.5 % that are out of sight; names in the legend."""
    ax = law_density({f"L = {depth}": FussCatalan(depth=depth) for depth in (1, 50)}, ax=Figure().subplots())
    assert [line.get_label() for line in ax.get_lines()] == ["L = 1", "L = 50"]
    for line in ax.get_lines():
        assert area(line) == pytest.approx(0.995, abs=2e-3)
    assert ax.get_ylabel() == "density per decade"


def test_zeros_are_written_and_other_atoms_are_markers_at_their_mass():
    """Orthogonal hard tanh at depth 2: masses 1 - p at 0 and 2p - 1 at p⁻²."""
    law = jacobian_law("hard_tanh", depth=2, weights="orthogonal", sigma_b=0.2)
    p = 1 - law.atoms[0][1]
    figure = Figure()
    ax = law_density({"law": law}, decades=True, ax=figure.subplots())
    masses = figure.axes[1]
    ((place, height),) = masses.get_lines()[0].get_xydata()
    assert (place, height) == (pytest.approx(-2 * math.log10(p)), pytest.approx(2 * p - 1))
    assert f"{1 - p:.1%}" in ax.get_lines()[0].get_label()


def test_the_axis_is_as_high_as_the_density_away_from_a_divergence():
    """Marchenko–Pastur at c = 1 has ρ ~ λ^(-1/2) at 0, which does not squeeze the rest."""
    ax = law_density({"c": MarchenkoPastur(ratio=1.0)}, decades=False, ax=Figure().subplots())
    assert 0.5 < ax.get_ylim()[1] < 10


def test_nothing_to_draw_is_refused():
    """No law: no axes."""
    with pytest.raises(InvalidArgumentError, match=r"laws.*one or more"):
        law_density({}, ax=Figure().subplots())


def test_a_law_without_an_upper_edge_ends_where_nothing_is_left():
    """The batch Jacobian's law has a power tail: 0.5 % of the bulk is out of sight below, 0.01 % of all above."""
    law = batch_jacobian_law("linear", batch_size=6, depth=2)
    ax = law_density({"B = 6": law}, ax=Figure().subplots())
    (line,) = ax.get_lines()
    bulk = 1 - law.atoms[0][1]
    assert area(line) == pytest.approx(0.995 * bulk - 1e-4, abs=2e-4)
    assert line.get_xdata()[-1] == pytest.approx(math.log10(float(law.ppf(1 - 1e-4))))
    assert math.isinf(law.log_bulk[1])
