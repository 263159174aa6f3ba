"""The looks of figures."""

import matplotlib as mpl
import numpy as np
import pytest

from rmtbn._checks import InvalidArgumentError
from rmtbn.plot.theme import STYLES, style


def luminance(color) -> float:
    """Relative luminance of WCAG 2.2."""
    srgb = np.array(mpl.colors.to_rgb(color))
    return float(np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722))


def contrast(one, two) -> float:
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", ["light", "dark"])
def test_lines_and_letters_stand_out_from_the_paper(name):
    """Contrast ≥ 3 : 1 for lines, ≥ 4.5 : 1 for letters (WCAG 2.2, 1.4.11 and 1.4.3)."""
    settings = STYLES[name]
    paper = settings["figure.facecolor"]
    colors = [entry["color"] for entry in settings["axes.prop_cycle"]]
    assert len(set(colors)) == 8
    assert min(contrast(color, paper) for color in colors) >= 3
    for letters in ("text.color", "axes.labelcolor", "xtick.labelcolor"):
        assert contrast(settings[letters], paper) >= 4.5


@pytest.mark.parametrize("name", ["light", "dark"])
def test_colour_map_is_neutral_in_the_middle(name):
    """The middle is the paper's end of the scale, both ends are far from it and from each other."""
    with style(name):
        colors = mpl.colormaps[mpl.rcParams["image.cmap"]]
        paper = mpl.rcParams["figure.facecolor"]
    assert contrast(colors(0.5), paper) < 1.2
    assert min(contrast(colors(end), paper) for end in (0.0, 1.0)) > 7
    assert np.linalg.norm(np.subtract(colors(0.0), colors(1.0))) > 0.3


def test_style_holds_only_inside_its_context():
    before = dict(mpl.rcParams)
    with style("dark"):
        assert mpl.rcParams["figure.facecolor"] == "#15181b"
    assert dict(mpl.rcParams) == before


def test_unknown_style_is_refused():
    with pytest.raises(InvalidArgumentError, match="`name` must be one of 'light', 'dark'; got 'sepia'"):
        style("sepia")
