"""Pages as data."""

import dataclasses

import pytest

from rmtbn._checks import InvalidArgumentError
from rmtbn.report.page import VERDICTS, Claim, Figure, Page, Section, Table


def claim(verdict: str) -> Claim:
    return Claim(statement="s", source="arXiv:1806.02375", predicted="1", measured="2", verdict=verdict, evidence="e")


def test_verdicts_are_counted_over_all_sections():
    """Σ over verdicts = number of claims."""
    sections = (
        Section(title="a", blocks=("text", claim("supported"), claim("contradicted"))),
        Section(title="b", blocks=(claim("supported"),)),
    )
    page = Page(title="t", summary="s", sections=sections, manifest={})
    assert page.verdicts == {"supported": 2, "contradicted": 1, "inconclusive": 0}
    assert tuple(page.verdicts) == VERDICTS


def test_pages_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        claim("supported").verdict = "contradicted"


def test_unknown_verdict_is_refused():
    with pytest.raises(InvalidArgumentError, match=r"`verdict` must be one of 'supported', .*; got 'true'"):
        claim("true")


@pytest.mark.parametrize("texts", [{"alt": " ", "caption": "c"}, {"alt": "a", "caption": ""}])
def test_figure_without_a_text_alternative_or_caption_is_refused(texts):
    with pytest.raises(InvalidArgumentError, match="`alt` must be a non-empty text"):
        Figure(draw=print, **texts)


def test_row_of_the_wrong_length_is_refused():
    with pytest.raises(InvalidArgumentError, match=r"`rows` must be of 2 cells.*'only one'"):
        Table(caption="c", columns=("a", "b"), rows=(("1", "2"), ("only one",)))


def test_two_sections_of_one_title_are_refused():
    section = Section(title="Spectra", blocks=())
    with pytest.raises(InvalidArgumentError, match="`sections` must be of different titles"):
        Page(title="t", summary="s", sections=(section, section), manifest={})
