"""The documentation keeps its word: examples run, names exist, files that are mentioned are there."""

import ast
import contextlib
import doctest
import importlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "rmtbn").rglob("*.py"), *(ROOT / "analyses").rglob("*.py")])
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def module_name(path):
    """Dotted name as installed: `analyses/schemes.py` is rmtbn.analyses.schemes."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "rmtbn" else ("rmtbn", *parts)).removesuffix(".__init__")


def python_blocks():
    """Every block of Python in the documentation, with the place of its first line."""
    for page in PAGES:
        text = page.read_text()
        for block in PYTHON_BLOCK.finditer(text):
            line = text[: block.start(1)].count("\n") + 1
            yield pytest.param(block[1], id=f"{page.relative_to(ROOT)}:{line}")


@pytest.mark.parametrize("code", list(python_blocks()))
def test_examples_of_the_documentation_run(code, tmp_path, monkeypatch):
    """A block of Python runs as it stands, with warnings as errors, and leaves no file."""
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        exec(compile(code, "example", "exec"), {"__name__": "example"})
    assert shown.getvalue().strip() or "print" not in code
    assert not list(tmp_path.iterdir())


def test_readme_has_an_example_of_about_ten_lines():
    """The README shows the library in use."""
    found = PYTHON_BLOCK.search((ROOT / "README.md").read_text())
    if found is None:
        pytest.skip("no README with an example yet")
    assert 5 <= len(found[1].splitlines()) <= 20


@pytest.mark.parametrize("path", [path for path in SOURCES if ">>>" in path.read_text()], ids=module_name)
def test_examples_in_docstrings_run(path):
    """Every `>>>` of a module is run and shows what is written under it."""
    module = importlib.import_module(module_name(path))
    found = doctest.testmod(module)
    assert found.failed == 0
    assert found.attempted == len(re.findall(r"^ *>>> ", path.read_text(), re.MULTILINE))


def defined_names():
    """Every name that the package defines: functions, classes, arguments, fields, constants and columns of tables."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.arg):
                yield node.arg
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, ast.Dict):
                yield from (key.value for key in node.keys if isinstance(key, ast.Constant))


def test_names_of_the_notation_exist():
    """docs/notation.md, second column: each name in backquotes is a name of the code."""
    rows = [
        line.split("|") for line in (ROOT / "docs" / "notation.md").read_text().splitlines() if line.startswith("| ")
    ]
    names = {
        name for row in rows[2:] for text in re.findall("`([^`]+)`", row[2]) for name in re.findall(r"[a-z_]\w*", text)
    }
    assert len(names) > 30
    assert names - {"k"} <= set(defined_names()), sorted(names - set(defined_names()))


def missing(named, files):
    """Names of `named(file)` that are no file of the repository, by the file that names them."""
    found = {
        str(path.relative_to(ROOT)): [name for name in named(path) if not (ROOT / name).exists()] for path in files
    }
    return {path: names for path, names in found.items() if names}


def test_links_between_documents_lead_somewhere():
    """A relative link or picture in a document is a file or folder of the repository."""

    def linked(page):
        links = re.findall(r"\]\(([^)#]+)", page.read_text())
        return [page.parent / link.strip("<>") for link in links if "://" not in link]

    assert not missing(linked, PAGES)


def test_documents_name_files_that_exist():
    """`rmtbn/theory/finite_width.py` in a document, `docs/derivations/lyapunov.md` too, is a file of the repository."""
    pattern = re.compile(r"`((?:rmtbn|analyses|tests|docs|benchmarks)/[\w/.-]+\.\w+)`")
    assert not missing(lambda page: pattern.findall(page.read_text()), PAGES)


def test_derivations_that_the_code_names_are_written():
    """docs/derivations/x.md in a docstring is a file of the repository."""
    pattern = re.compile(r"docs/derivations/\w+\.md|benchmarks/\w+\.py")
    assert not missing(lambda path: pattern.findall(path.read_text()), SOURCES)


def test_tests_that_the_derivations_name_exist():
    """`test_…` in a derivation is the name of a test."""
    written = "\n".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    for page in (ROOT / "docs" / "derivations").glob("*.md"):
        for name in re.findall(r"`(test_\w+)(?:\[[^`]*)?`", page.read_text()):
            assert f"def {name}(" in written, f"{page.name}: {name}"
