"""The maps of the mean field as sympy derives them from φ, for pages."""

from collections.abc import Iterator, Sequence
from functools import partial

from matplotlib.figure import Figure as Canvas

from rmtbn.plot.formulae import formulae
from rmtbn.report.page import Block, Figure
from rmtbn.theory import symbolic

SHOWN = ("phi", "length_map", "chi1", "correlation_map")
HEIGHT = 0.5  # of a line, inches


def formula_blocks(activations: Sequence[str]) -> Iterator[Block]:
    """Say what is shown, and show φ and its maps for each of the activations."""
    written = {name: symbolic.latex(name) for name in activations}
    lines = [maps[key] for maps in written.values() for key in SHOWN if key in maps]
    without = [name for name, maps in written.items() if "length_map" not in maps]
    missing = f"all maps of {', '.join(without)}" if without else "a map that is not here"
    yield (
        "sympy derives these from φ itself: the next length q′, the growth χ₁ of squared gradients, the next "
        "covariance q′c′ of two inputs of length q and correlation c. What has no closed form that it finds "
        f"({missing}) is integrated numerically."
    )
    yield Figure(
        draw=partial(_draw, lines),
        size=(9.0, HEIGHT * len(lines)),
        caption=f"Maps of {', '.join(activations)}; the tests hold each against quadrature.",
        alt="; ".join(lines),
    )


def _draw(lines: list[str], canvas: Canvas) -> None:
    formulae(lines, ax=canvas.subplots())
