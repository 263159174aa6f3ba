"""Formulae on axes."""

import pytest
from matplotlib.figure import Figure

from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS
from rmtbn.plot.formulae import formulae
from rmtbn.theory import symbolic


def test_formulae_stand_one_under_the_other():
    """From the top, at the left, between dollar signs; nothing else is drawn."""
    ax = Figure().subplots()
    assert formulae(["a", r"\frac{b}{c}"], ax=ax) is ax
    assert [text.get_text() for text in ax.texts] == ["$a$", r"$\frac{b}{c}$"]
    assert [text.get_position() for text in ax.texts] == [(0.0, 0.75), (0.0, 0.25)]
    assert not ax.axison


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_derived_map_can_be_drawn(name):
    """What sympy derives for φ is within what matplotlib knows of LaTeX."""
    formulae(list(symbolic.latex(name).values()), ax=Figure().subplots())


def test_what_cannot_be_drawn_is_refused():
    """Environments, for example; the message names the formula."""
    with pytest.raises(InvalidArgumentError, match=r"`latex` must be formulae that mathtext can draw; got .*cases"):
        formulae([r"\begin{cases} x \end{cases}"], ax=Figure().subplots())
