"""Render a page into one self-contained HTML file, and the list of all pages into another."""

import itertools
import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import jinja2
from markupsafe import Markup

from rmtbn.report.page import VERDICTS, Block, Claim, Figure, Page, Table
from rmtbn.report.picture import STYLES, Style, picture

_NUMBER = re.compile(r"(|—|none|[<>≤≥≈~]?\s?\(?[+\-−]?[\d∞][\d.,%/ ()∞±×+\-−⁻⁰¹²³⁴⁵⁶⁷⁸⁹]*)")
_DATA_ID = "rmtbn-page"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A page as the list of reports shows it: title, summary, verdict counts, date, and where it is."""

    title: str
    summary: str
    verdicts: Mapping[str, int]
    date: str
    href: str


def render(page: Page, *, styles: Mapping[str, Style] = STYLES) -> str:
    """Return the page as HTML that needs no other file: styles and pictures are inside, and there are no scripts.

    Parameters
    ----------
    page
        What to show.
    styles
        The matplotlib styles of figures under "light" and "dark", for example `rmtbn.plot.theme.STYLES`.
    """
    counters: dict[type, Iterator[int]] = {kind: itertools.count(1) for kind in (Figure, Table, Claim)}
    sections = [
        {
            "title": section.title,
            "id": _slug(section.title, number=number),
            "blocks": [_block(block, counters=counters, styles=styles) for block in section.blocks],
        }
        for number, section in enumerate(page.sections, start=1)
    ]
    data = asdict(_entry(page))
    return _template("page.html.j2").render(page=page, sections=sections, data=data, data_id=_DATA_ID)


def write(page: Page, path: Path, *, styles: Mapping[str, Style] = STYLES) -> None:
    """Render a page and write it to `path` in one step; folders that do not exist are made."""
    _write(path, render(page, styles=styles))


def entries(folder: Path) -> tuple[Entry, ...]:
    """Return an entry for each report in ``folder/*/index.html``, by title; other files are passed over."""
    found = ((file, _data(file.read_text(encoding="utf-8"))) for file in folder.glob("*/index.html"))
    listed = [Entry(**{**data, "href": file.relative_to(folder).as_posix()}) for file, data in found if data]
    return tuple(sorted(listed, key=lambda entry: (entry.title, entry.href)))


def render_index(listed: Iterable[Entry]) -> str:
    """Return the page that lists reports."""
    return _template("index.html.j2").render(entries=tuple(listed))


def write_index(listed: Iterable[Entry], path: Path) -> None:
    """Write the page that lists reports to `path`, in one step; the entries' addresses are relative to its folder."""
    _write(path, render_index(listed))


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rmtbn.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["VERDICTS"] = VERDICTS
    return environment


def _template(name: str) -> jinja2.Template:
    return _environment().get_template(name)


def _slug(title: str, *, number: int) -> str:
    words = re.findall("[a-z0-9]+", _plain(title).lower())
    return "-".join([f"s{number}", *words])


def _block(block: Block, *, counters: Mapping[type, Iterator[int]], styles: Mapping[str, Style]) -> dict[str, Any]:
    """Say what the template needs to know of a block: its kind, its number among its kind, and what was worked out."""
    if isinstance(block, str):
        return {"kind": "text", "text": block}
    found: dict[str, Any] = {"kind": type(block).__name__.lower(), "number": next(counters[type(block)]), "it": block}
    if isinstance(block, Figure):
        found["picture"] = picture(block, styles=styles)
    if isinstance(block, Table):
        columns = range(len(block.columns))
        found["numeric"] = [all(_NUMBER.fullmatch(_plain(row[i])) for row in block.rows) for i in columns]
    return found


def _entry(page: Page) -> Entry:
    date = page.manifest.get("finished", "")
    return Entry(title=_plain(page.title), summary=_plain(page.summary), verdicts=page.verdicts, date=date, href="")


def _plain(text: str) -> str:
    return text.striptags() if isinstance(text, Markup) else text


class _DataReader(HTMLParser):
    """Collect the data that `render` left in a page for `entries`."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = False
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag == "script" and ("id", _DATA_ID) in attrs

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.text += data

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - the parser's signature
        self.inside = False


def _data(html: str) -> dict[str, Any] | None:
    reader = _DataReader()
    reader.feed(html)
    return cast("dict[str, Any]", json.loads(reader.text)) if reader.text else None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
