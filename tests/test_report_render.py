"""The pages that readers open: self-contained, accessible, the same in light and dark."""

import base64
import itertools
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from markupsafe import Markup

from rmtbn.report.page import VERDICTS, Claim, Figure, Page, Section, Table
from rmtbn.report.render import entries, render, render_index, write, write_index

VOID = {"meta", "source", "img", "br", "hr", "link"}


class Tree(HTMLParser):
    """Tags with their attributes and text, in order; fails on tags that do not match."""

    def __init__(self, html: str):
        super().__init__()
        self.nodes, self.open = [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.nodes.append({"tag": tag, "text": "", "inside": [node["tag"] for node in self.open], **dict(attrs)})
        if tag not in VOID:
            self.open.append(self.nodes[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for node in self.open:
            node["text"] += data

    def all(self, *tags):
        return [node for node in self.nodes if node["tag"] in tags]


def draw(figure):
    figure.subplots().plot([0, 1], [0, 1])


FIGURE = Figure(draw=draw, caption="A line. Seeds 1 to 3.", alt='It rises from "0" to 1.', size=(4.0, 3.0))
TABLE = Table(
    caption="Growth & depth",
    columns=("Scheme", "Growth", "Depth"),
    rows=(("he_normal", "1.003 ± 0.012", "> 256"), ("<script>alert(1)</script>", "—", "≈ 16")),
)


def claim(verdict: str) -> Claim:
    return Claim(
        statement=f"Gradients are {verdict} to explode",
        source="arXiv:1902.08129, §4",
        predicted="1.467",
        measured="1.469 ± 0.003",
        verdict=verdict,
        evidence="within 4 errors",
    )


PAGE = Page(
    title="How initialisations fail <with> depth",
    summary="Two of seven schemes survive & the rest do not.",
    sections=(
        Section(title="Question", blocks=("a < b & c", Markup("λ<sub>max</sub>"), FIGURE, TABLE)),
        Section(title="Ergebnisse: σ₁", blocks=(*map(claim, VERDICTS), claim("supported"))),
    ),
    manifest={"seeds": "1 to 3", "float32_matmul": "highest", "finished": "2026-01-02T03:04:05+00:00"},
)


@pytest.fixture(scope="module")
def html():
    return render(PAGE)


@pytest.fixture(scope="module")
def tree(html):
    return Tree(html)


def test_page_needs_no_other_file(html, tree):
    """No address of an asset leaves the page; scripts hold data only; the page forbids itself all else."""
    assert not tree.all("link", "iframe", "object", "video")
    assert "@import" not in html
    assert "url(" not in html
    for node in tree.all("img", "source"):
        assert (node.get("src") or node.get("srcset")).startswith("data:image/")
    assert [node["type"] for node in tree.all("script")] == ["application/json"]
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in html


def test_links_stay_on_the_page_or_lead_to_the_list(tree):
    ids = {node["id"] for node in tree.nodes if "id" in node}
    for node in tree.all("a"):
        assert node["href"] == "../index.html" or node["href"].removeprefix("#") in ids


def test_ids_are_unique(tree):
    ids = [node["id"] for node in tree.nodes if "id" in node]
    assert len(set(ids)) == len(ids)


def test_text_is_escaped_and_markup_is_not(html, tree):
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "a &lt; b &amp; c" in html
    assert "λ<sub>max</sub>" in html
    assert tree.all("title")[0]["text"] == PAGE.title
    assert tree.all("img")[0]["alt"] == FIGURE.alt


def test_headings_are_in_order(tree):
    """One h1 first, and no level is skipped on the way down."""
    levels = [int(node["tag"][1]) for node in tree.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(deeper <= level + 1 for level, deeper in itertools.pairwise(levels))
    assert [node["text"] for node in tree.all("h2")] == ["Contents", "Question", "Ergebnisse: σ₁", "How this was made"]


def test_keyboard_reaches_content_and_everything_that_scrolls(tree):
    first = tree.all("a")[0]
    assert (first["href"], first["class"]) == ("#main", "skip")
    assert tree.all("main")[0]["id"] == "main"
    scrolling = [node for node in tree.nodes if "scroll" in (node.get("class") or "").split()]
    assert len(scrolling) == 2
    for node in scrolling:
        assert node["tabindex"] == "0"
        assert node["role"] == "region"
        assert node.get("aria-label") or node.get("aria-labelledby")


def test_contents_lists_every_section_and_the_manifest(tree):
    inside = [node for node in tree.all("a") if "nav" in node["inside"]]
    assert [node["text"] for node in inside] == ["Question", "Ergebnisse: σ₁", "How this was made"]


def test_figures_come_in_light_and_dark(tree):
    """Two pictures, the dark one chosen by the reader's screen; each is drawn in its own ink."""
    source, image = tree.all("source", "img")
    assert source["media"] == "(prefers-color-scheme: dark)"
    assert source["srcset"] != image["src"]
    assert (image["width"], image["height"]) == ("384", "288")
    pictures = [base64.b64decode(node.partition(",")[2]).decode() for node in (image["src"], source["srcset"])]
    for svg, ink, other in zip(pictures, ("#1d2126", "#e4e7ea"), ("#e4e7ea", "#1d2126"), strict=True):
        assert svg.startswith("<?xml")
        assert ink in svg
        assert other not in svg


def test_colour_schemes_are_both_declared(html, tree):
    assert {"name": "color-scheme", "content": "light dark"}.items() <= tree.all("meta")[2].items()
    assert "@media (prefers-color-scheme: dark)" in html


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def test_all_letters_stand_out_from_their_paper(html):
    """Contrast ≥ 4.5 : 1 (WCAG 2.2, 1.4.3) of every ink on both papers, in light and dark."""
    schemes = re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", scheme))
        for ink in ("ink", "quiet", "link", "good", "bad", "open"):
            for paper in ("paper", "raised"):
                assert contrast(colors[ink], colors[paper]) >= 4.5, (ink, paper)


def test_tables_are_accessible_and_numbers_are_set_right(tree):
    assert tree.all("caption")[0]["text"] == "Table 1. Growth & depth"
    columns = [node for node in tree.all("th") if node.get("scope") == "col"]
    assert [(node["text"], node.get("class")) for node in columns] == [
        ("Scheme", None),
        ("Growth", "number"),
        ("Depth", "number"),
    ]
    rows = [node for node in tree.all("th") if node.get("scope") == "row"]
    assert [node["text"] for node in rows] == ["he_normal", "<script>alert(1)</script>"]
    assert [node.get("class") for node in tree.all("td")] == ["number"] * 4


@pytest.mark.parametrize(
    ("text", "numeric"),
    [
        ("1.003 ± 0.012", True),
        ("(3.20 ± 0.11) × 10⁻⁷", True),
        ("> 256", True),
        ("−∞", True),
        ("12.5%", True),
        ("—", True),
        ("16: ill-conditioned", False),
        ("2 networks", False),
        ("he_normal", False),
    ],
)
def test_column_is_set_right_if_all_its_cells_are_numbers(text, numeric):
    table = Table(caption="c", columns=("a", "b"), rows=(("x", "1.5"), ("y", text)))
    page = Page(title="t", summary="s", sections=(Section(title="x", blocks=(table,)),), manifest={})
    assert {node.get("class") for node in Tree(render(page)).all("td")} == {"number" if numeric else None}


def test_claims_say_all_they_hold_and_their_verdict_in_words(tree):
    """The verdict is written out: colour is never the only sign."""
    articles = tree.all("article")
    assert len(articles) == 4
    for article, verdict in zip(articles, (*VERDICTS, "supported"), strict=True):
        words = article["text"].split()
        assert verdict in words[words.index("explode") :]
        for text in ("1.467", "1.469 ± 0.003", "within 4 errors", "arXiv:1902.08129, §4"):
            assert text in article["text"]
    counts = [" ".join(node["text"].split()) for node in tree.all("span") if "badge" in node.get("class", "")][:3]
    assert counts == ["✓ 2 supported", "✗ 1 contradicted", "? 1 inconclusive"]


def test_manifest_is_shown_at_the_end(tree):
    names = [node["text"] for node in tree.all("dt")][-3:]
    values = [node["text"] for node in tree.all("dd")][-3:]
    assert names == ["seeds", "float32 matmul", "finished"]
    assert values == list(PAGE.manifest.values())


def test_rendering_is_a_function_of_the_page(html):
    """Twice the same page, twice the same bytes."""
    assert render(PAGE) == html


def test_styles_of_figures_are_those_of_the_caller():
    styles = {"light": {"axes.edgecolor": "#123456"}, "dark": {"axes.edgecolor": "#654321"}}
    source, image = Tree(render(PAGE, styles=styles)).all("source", "img")
    assert b"#123456" in base64.b64decode(image["src"].partition(",")[2])
    assert b"#654321" in base64.b64decode(source["srcset"].partition(",")[2])


def test_styles_leave_no_trace():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    render(PAGE)
    assert dict(mpl.rcParams) == before


def test_dense_figures_become_png():
    """The smaller of the two forms is kept."""

    def cloud(figure):
        figure.subplots().plot([i * 7919 % 1000 for i in range(5000)], [i * 104729 % 997 for i in range(5000)], ",")

    dense = Figure(draw=cloud, caption="c", alt="a")
    page = Page(title="t", summary="s", sections=(Section(title="x", blocks=(dense,)),), manifest={})
    assert Tree(render(page)).all("img")[0]["src"].startswith("data:image/png;base64,")


def test_pages_are_written_in_one_step(tmp_path, monkeypatch):
    """A crash leaves the old page and no other file."""
    path = tmp_path / "schemes" / "index.html"
    write(PAGE, path)
    before = path.read_text(encoding="utf-8")

    def crash(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(path), "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write(Page(title="new", summary="s", sections=(), manifest={}), path)
    assert path.read_text(encoding="utf-8") == before
    assert list(path.parent.iterdir()) == [path]


def test_list_names_every_report_with_its_verdicts_and_date(tmp_path):
    """The list is made from the pages themselves; what is not a report is passed over."""
    write(PAGE, tmp_path / "schemes" / "index.html")
    plain = Page(title="A first", summary="Nothing claimed.", sections=(), manifest={})
    write(plain, tmp_path / "first" / "index.html")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text("<p>not ours</p>")
    write_index(entries(tmp_path), tmp_path / "index.html")
    tree = Tree((tmp_path / "index.html").read_text(encoding="utf-8"))
    links = [node for node in tree.all("a") if "main" in node["inside"]]
    assert [(node["href"], node["text"]) for node in links] == [
        ("first/index.html", "A first"),
        ("schemes/index.html", PAGE.title),
    ]
    assert all((tmp_path / node["href"]).is_file() for node in links)
    text = " ".join(tree.all("main")[0]["text"].split())
    assert PAGE.summary in text
    assert "✓ 2 supported ✗ 1 contradicted ? 1 inconclusive" in text
    assert tree.all("time")[0]["text"] == "2026-01-02"


def test_list_of_nothing_says_so():
    assert "There are no reports here yet." in Tree(render_index(())).all("main")[0]["text"]


def test_markup_in_titles_is_plain_in_the_list(tmp_path):
    page = Page(title=Markup("λ<sub>1</sub> &amp; depth"), summary="s", sections=(), manifest={})
    write(page, tmp_path / "a" / "index.html")
    assert entries(tmp_path)[0].title == "λ1 & depth"


def test_rendering_imports_no_torch():
    script = "import sys, rmtbn.report.render; assert not {'torch', 'matplotlib', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
