"""What a report says, as plain data: a page of sections of paragraphs, figures, tables and claims.

Text is plain and escaped when rendered; a `markupsafe.Markup` string goes through as HTML, for ``λ<sub>max</sub>``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rmtbn import _checks

if TYPE_CHECKING:
    import matplotlib.figure

VERDICTS = ("supported", "contradicted", "inconclusive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A checkable statement of a source beside what was measured.

    Parameters
    ----------
    statement
        The statement, in a sentence.
    source
        Where it is made: paper, section, equation.
    predicted, measured
        The two numbers with their errors, as text.
    verdict
        "supported", "contradicted" or "inconclusive", by a rule on the numbers and their errors.
    evidence
        The rule and what it was applied to: networks, sample counts, figure or table.
    """

    statement: str
    source: str
    predicted: str
    measured: str
    verdict: str
    evidence: str

    def __post_init__(self) -> None:
        _checks.one_of("verdict", self.verdict, VERDICTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A drawing with its caption and its text alternative.

    Parameters
    ----------
    draw
        Draws on the empty matplotlib figure it is given. It is called twice, in the light and in the dark style, so its
        colours must come from the style (``"C0"``, the style's text colour) and it must draw the same both times.
    caption
        What is shown: paper figure, parameters, seeds, sample count.
    alt
        What a reader sees in it, for those who do not.
    size
        Width and height in inches.
    """

    draw: Callable[["matplotlib.figure.Figure"], None]
    caption: str
    alt: str
    size: tuple[float, float] = (7.2, 4.2)

    def __post_init__(self) -> None:
        if not self.alt.strip() or not self.caption.strip():
            raise _checks.fail("alt", "a non-empty text, like the caption", self.alt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of texts; columns of numbers are set right and their digits line up.

    Parameters
    ----------
    caption
        What is listed.
    columns
        Headings, one per column; the first column names the rows.
    rows
        One text per column each; `rmtbn.report.number` writes numbers with their errors.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise _checks.fail("rows", f"of {len(self.columns)} cells, one per column", row)


Block = str | Figure | Table | Claim
"""What a section is made of; a string is a paragraph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and what stands under it, in order."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole report.

    Parameters
    ----------
    title
        The question, or the name of the study.
    summary
        The answer in one or two sentences; the list of all reports repeats it.
    sections
        The body; no two sections have the same title.
    manifest
        How it was made: parameters, seeds, versions, device, dtype, TF32 flag, commit, wall time. ``finished`` is the
        date that the list of reports shows.
    """

    title: str
    summary: str
    sections: tuple[Section, ...]
    manifest: Mapping[str, str]

    def __post_init__(self) -> None:
        titles = [section.title for section in self.sections]
        if len(set(titles)) < len(titles):
            raise _checks.fail("sections", "of different titles", titles)

    @property
    def verdicts(self) -> dict[str, int]:
        """How many claims of the page have each verdict."""
        claims = [block for section in self.sections for block in section.blocks if isinstance(block, Claim)]
        return {verdict: sum(claim.verdict == verdict for claim in claims) for verdict in VERDICTS}
