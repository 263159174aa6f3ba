"""Formulae in LaTeX, one under the other, as matplotlib's mathtext draws them."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.mathtext import MathTextParser

from rmtbn import _checks


def formulae(latex: Sequence[str], *, size: float = 12.0, ax: Axes) -> Axes:
    """Write formulae from the top of the axes, which are switched off.

    Parameters
    ----------
    latex
        LaTeX without dollar signs, within what mathtext knows (no environments).
    size
        Of the letters, in points.
    ax
        Where to write; a line for each formula, all of one height.

    Raises
    ------
    InvalidArgumentError
        For a formula that mathtext cannot draw.
    """
    for place, formula in enumerate(latex):
        if not _can_be_drawn(formula):
            raise _checks.fail("latex", "formulae that mathtext can draw", formula)
        ax.text(0.0, 1 - (place + 0.5) / len(latex), f"${formula}$", size=size, va="center", transform=ax.transAxes)
    ax.set_axis_off()
    return ax


def _can_be_drawn(formula: str) -> bool:
    try:
        MathTextParser("path").parse(f"${formula}$")
    except ValueError:
        return False
    return True
