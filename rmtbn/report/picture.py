"""Draw a figure for a page: once for light and once for dark screens, as data inside the page."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rmtbn.report.page import Figure

Style = Mapping[str, Any]
"""A matplotlib style: names and values of its rcParams."""

_DPI = 200  # sharp on a screen of two pixels per CSS pixel
_CSS_PIXELS = 96  # per inch, by definition
_INK_OF = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")


def ink(color: str) -> dict[str, Any]:
    """Return the plainest style whose lines and letters have one colour, for a page of another."""
    return dict.fromkeys(_INK_OF, color)


STYLES: Mapping[str, Style] = {"light": ink("#1d2126"), "dark": ink("#e4e7ea")}
"""What is used if the caller brings no styles: matplotlib's own, in the inks of the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A drawn figure: data addresses of its light and dark form, and its size in CSS pixels."""

    light: str
    dark: str
    width: int
    height: int


def picture(figure: Figure, *, styles: Mapping[str, Style]) -> Picture:
    """Draw a figure in both styles; the background stays transparent, so that the page shows through."""
    width, height = (round(inches * _CSS_PIXELS) for inches in figure.size)
    light, dark = (_address(figure, style=styles[name]) for name in ("light", "dark"))
    return Picture(light=light, dark=dark, width=width, height=height)


def _address(figure: Figure, *, style: Style) -> str:
    """Draw as SVG and as PNG and keep the smaller; both are the same bytes whenever the drawing is the same."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to load, and pages without figures do not need it
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure as Canvas  # noqa: PLC0415

    settings: dict[Any, Any] = {**style, "svg.hashsalt": "rmtbn", "svg.fonttype": "path"}
    with mpl.rc_context(settings):
        canvas = Canvas(figsize=figure.size, layout="constrained")
        FigureCanvasAgg(canvas)
        figure.draw(canvas)
        canvas.draw_without_rendering()
        canvas.set_layout_engine("none")  # both forms keep what was laid out once
        png, svg = io.BytesIO(), io.BytesIO()
        canvas.savefig(png, format="png", dpi=_DPI, transparent=True, metadata={"Software": None})
        canvas.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    kind, content = min(("svg+xml", svg.getvalue()), ("png", png.getvalue()), key=lambda pair: len(pair[1]))
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
