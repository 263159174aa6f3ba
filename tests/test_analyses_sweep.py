"""`rmtbn sweep` as a user meets it, and the options of every command that say which cells are computed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pandas as pd
import pytest
from click.testing import CliRunner
from rmtbn.analyses import sweep
from rmtbn.analyses.__main__ import main

from rmtbn.sweep.store import FolderStore

STUDY = """
import time
import pandas as pd

GRID = {"width": (8, 16), "depth": (2, 4), "wait": (0.0,)}
SEEDS = (1, 2)

def cell(*, seed, width, depth, wait):
    time.sleep(wait)
    if width == 16 and seed == 2 and not FIXED:
        raise ZeroDivisionError("of the width")
    return {"norms": pd.DataFrame({"layer": range(depth), "norm": [float(width + seed)] * depth})}

FIXED = False
"""


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A file of its own name for each test, in the working directory, forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "norms_of_walks.py"
    path.write_text(STUDY.replace("FIXED = False", "FIXED = True"))
    yield path
    sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("name", sweep.command.commands)
def test_every_subcommand_has_help_and_an_example_that_can_be_parsed(name, study):
    """One line of help, an example whose options exist, and help for every option."""
    command = sweep.command.commands[name]
    shown = call("sweep", name, "--help").stdout
    assert f"Example:\n    rmtbn sweep {name} " in shown
    assert all(option.help for option in command.params if isinstance(option, click.Option))
    *_, example = command.epilog.splitlines()
    _, _, called, *arguments = example.split()
    assert called == name
    for file in ("study.py", "study.toml"):
        Path(file).write_text("")
    command.make_context(name, arguments)


def test_a_study_is_run_looked_at_joined_and_exported(study):
    """8 cells: 3, then the others, one file, and a table with parameters."""
    assert call("sweep", "run", study, "--dry-run").stdout == "norms_of_walks: 0 of 8 cells done\n"
    assert not Path("reports").exists()
    assert call("sweep", "run", study, "--limit", 3).stdout.startswith("norms_of_walks: 3 of 8 cells done; the others")
    assert "3 of 8 cells done" in call("sweep", "status", "reports/norms_of_walks").stdout
    assert call("sweep", "resume", "reports/norms_of_walks").stdout == "norms_of_walks: 8 of 8 cells done\n"
    assert call("sweep", "compact", "reports/norms_of_walks").stdout == "norms_of_walks: 8 cells in one file\n"
    assert len(list(Path("reports/norms_of_walks/cells").glob("*.parquet"))) == 1
    found = call("sweep", "export", "reports/norms_of_walks", "--table", "norms", "--to", "norms.csv")
    assert found.stdout == "norms.csv\n"
    rows = pd.read_csv("norms.csv")
    assert list(rows.columns) == ["study", "width", "depth", "wait", "seed", "layer", "norm"]
    assert len(rows) == 2 * 2 * (2 + 4)
    assert (rows["norm"] == rows["width"] + rows["seed"]).all()


def test_all_tables_are_exported_into_a_folder(study):
    call("sweep", "run", study)
    call("sweep", "export", "reports/norms_of_walks", "--to", "tables")
    assert sorted(path.name for path in Path("tables").iterdir()) == ["cells.parquet", "norms.parquet"]
    cells = pd.read_parquet("tables/cells.parquet")
    assert len(cells) == 8
    assert {"key", "study", "seed", "width", "wall_seconds", "commit"} <= set(cells.columns)


def test_only_the_cells_asked_for_are_computed(study):
    """--only, twice: those with both."""
    shown = call("sweep", "run", study, "--only", "width=8", "--only", "depth=4").stdout
    assert shown == "norms_of_walks: 2 of 2 cells done\n"
    assert "2 of 8 cells done" in call("sweep", "status", "reports/norms_of_walks").stdout


def test_failures_are_recorded_shown_and_retried_when_asked(study):
    """2 of 8 fail: exit code 1; they are not tried again but with --retry-failed."""
    study.write_text(STUDY)
    first = call("sweep", "run", study)
    assert first.exit_code == 1
    assert first.stderr.count("\n") == 1
    assert "2 of 8 cells failed, the others are stored: norms_of_walks(width=16, depth=2" in first.stderr
    shown = call("sweep", "status", "reports/norms_of_walks").stdout
    assert "6 of 8 cells done, 2 failed" in shown
    assert "ZeroDivisionError: of the width" in shown
    numbers = json.loads(call("sweep", "status", "reports/norms_of_walks", "--json").stdout)
    assert "Traceback" in numbers["failures"][0]["trace"]
    sys.modules.pop(study.stem)
    study.write_text(STUDY.replace("FIXED = False", "FIXED = True"))
    again = call("sweep", "resume", "reports/norms_of_walks")
    assert again.exit_code == 1
    assert "were not tried again" in again.stderr
    assert call("sweep", "resume", "reports/norms_of_walks", "--retry-failed").stdout.endswith("8 of 8 cells done\n")


def test_damaged_cells_are_named_and_computed_again(study):
    """A truncated file: status names it as set aside, resume replaces it."""
    call("sweep", "run", study)
    file = next(Path("reports/norms_of_walks/cells").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.warns(UserWarning, match=f"{file.name} was set aside"):
        shown = call("sweep", "status", "reports/norms_of_walks").stdout
    assert "7 of 8 cells done" in shown
    assert f"set aside: {file.name}" in shown
    assert call("sweep", "resume", "reports/norms_of_walks").stdout.endswith("8 of 8 cells done\n")


def test_a_store_may_be_anywhere_that_fsspec_knows(study, tmp_path):
    url = f"memory://{tmp_path}"
    assert call("sweep", "run", study, "--out", url).stdout == "norms_of_walks: 8 of 8 cells done\n"
    assert call("sweep", "status", f"{url}/norms_of_walks").stdout == "norms_of_walks: 8 of 8 cells done\n"
    assert not Path("reports").exists()


def test_a_toml_grid_of_a_built_in_study_is_run(study):
    """width-depth, at sizes of its own."""
    Path("small.toml").write_text(
        'study = "width-depth"\nseeds = {first = 1, count = 2}\n[grid]\nactivation = ["relu"]\nnorm = "none"\n'
        'width = 16\neighths = 2\nbatch = 4\ndevice = "cpu"\ndtype = "float64"\n'
    )
    assert call("sweep", "run", "small.toml").stdout == "width-depth: 2 of 2 cells done\n"
    assert call("sweep", "resume", "reports/small").stdout == "width-depth: 2 of 2 cells done\n"


@pytest.mark.parametrize("name", sweep.STUDIES)
def test_every_built_in_study_is_found(name):
    """And is imported by its own name, for `resume` and for workers."""
    import importlib
    import operator

    from rmtbn.sweep.plan import place

    module, _, variable = sweep.STUDIES[name].partition(":")
    study = operator.attrgetter(variable)(importlib.import_module(module))
    assert study.name == name
    assert place(study) == sweep.STUDIES[name]


WRONG = {
    "no such file": (("run", "nowhere.py"), "nowhere.py"),
    "file that is no study": (("run", "empty.py"), "`cell` and GRID"),
    "unknown parameter": (("run", "{study}", "--only", "height=3"), "'height'"),
    "value that no cell has": (("run", "{study}", "--only", "width=9"), "8, 16"),
    "no value": (("run", "{study}", "--only", "width"), "name=value"),
    "folder without cells": (("status", "."), "a folder with cells in it"),
    "nothing asked of the folder": (("resume", "nowhere"), "nowhere"),
    "address without ray": (("run", "{study}", "--address", "auto"), "`address`"),
    "limit of time in this process": (("run", "{study}", "--cell-seconds", "1"), "cell_seconds"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_clear_line(case, study):
    """Exit code 2, one line, nothing written."""
    Path("empty.py").write_text("")
    arguments, named = WRONG[case]
    result = call("sweep", *[a.format(study=study) for a in arguments])
    sys.modules.pop("empty", None)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert named in result.stderr
    assert not Path("reports").exists()


def test_table_that_is_not_there_is_refused(study):
    call("sweep", "run", study)
    assert "'norms'" in call("sweep", "export", "reports/norms_of_walks", "--table", "norm", "--to", "n.csv").stderr
    assert ".parquet" in call("sweep", "export", "reports/norms_of_walks", "--table", "norms", "--to", "n.txt").stderr


SMALL = ("spectrum", "--depth", "3", "--width", "6", "--networks", "3", "--activation", "relu", "--init", "he_normal")


def test_every_study_command_can_say_what_it_would_do(tmp_path):
    """--dry-run: nothing written; --limit: no page until all cells are there; then the page."""
    assert call(*SMALL, "--out", tmp_path, "--dry-run").stdout == "spectrum: 0 of 3 cells done\n"
    assert not list(tmp_path.iterdir())
    part = call(*SMALL, "--out", tmp_path, "--limit", 2)
    assert part.exit_code == 0
    assert part.stdout.startswith("spectrum: 2 of 3 cells done; the others would take about ")
    assert not (tmp_path / "spectrum" / "index.html").exists()
    assert "2 of 3 cells done" in call("sweep", "status", tmp_path / "spectrum").stdout
    assert call("sweep", "resume", tmp_path / "spectrum").stdout == "spectrum: 3 of 3 cells done\n"
    assert call(*SMALL, "--out", tmp_path, "--only", "seed=1").stdout.endswith("index.html\n")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_ctrl_c_stores_what_is_in_flight_and_says_how_to_go_on(study):
    """Exit code 1, one line; the store holds the cells that were begun."""
    study.write_text(STUDY.replace("0.0,", "0.7,").replace("FIXED = False", "FIXED = True"))
    command = [
        sys.executable,
        "-m",
        "rmtbn.analyses",
        "sweep",
        "run",
        str(study),
        "--engine",
        "local",
        "--workers",
        "1",
    ]
    store, until = FolderStore("reports/norms_of_walks/cells"), time.monotonic() + 60
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not store.keys():
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output == ""
    assert errors.startswith("Error: interrupted: what was begun of norms_of_walks is stored, ")
    assert errors.endswith("; rmtbn sweep resume reports/norms_of_walks goes on\n")
    assert 1 <= len(store.keys()) < 8
