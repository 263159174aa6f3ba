"""Studies of a user's own: a Python file, or a TOML grid of a built-in one."""

import sys

import pytest
from sweep_cells import DRAW

from rmtbn._checks import InvalidArgumentError
from rmtbn.sweep.grid import Cell
from rmtbn.sweep.plan import place, plans, remember
from rmtbn.sweep.run import run
from rmtbn.sweep.source import from_python, from_toml
from rmtbn.sweep.status import status
from rmtbn.sweep.store import MemoryStore

CELL = "import pandas as pd\ndef cell(*, seed, a, b):\n    return {'t': pd.DataFrame({'c': [a * b + seed]})}\n"
STUDIES = {"draw": "sweep_cells:DRAW"}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file that can be imported, and forget its module afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)

    def written(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    yield written
    for name in set(sys.modules) - before:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def test_a_file_with_a_cell_and_a_grid_is_a_study(write):
    """|GRID| · |SEEDS| cells of the study that has the file's name."""
    path = write("first_walk.py", CELL + "GRID = {'a': (1, 2), 'b': (0.5,)}\nSEEDS = range(3)\nVERSION = 4\n")
    asked = from_python(path)
    assert (asked.study.name, asked.study.version, len(asked.cells)) == ("first_walk", 4, 6)
    assert run(asked.study, asked.cells, store=MemoryStore()).table("t")["c"].tolist()[:3] == [0.5, 1.5, 2.5]


def test_a_file_may_bring_its_own_study_and_cells(write):
    path = write(
        "second_walk.py",
        CELL + "from rmtbn.sweep.grid import Cell, Study\nSTUDY = Study(name='own', version=2, compute=cell)\n"
        "CELLS = [Cell(parameters={'a': 1, 'b': 2}, seed=5)]\n",
    )
    asked = from_python(path)
    assert (asked.study.name, len(asked.cells)) == ("own", 1)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("no_grid.py", CELL, "`file` must be a file that defines `cell` and GRID"),
        ("no_cell.py", "GRID = {'a': (1,)}\n", "`file` must be a file that defines `cell` and GRID"),
        ("two-words.py", CELL, "`file` must be a Python file with a name that can be imported"),
        ("random.py", CELL, "`file` must be named as no other module that is imported"),
    ],
)
def test_file_that_is_no_study_is_refused(write, name, text, said):
    with pytest.raises(InvalidArgumentError, match=said):
        from_python(write(name, text))


def test_toml_gives_the_grid_of_a_built_in_study(write):
    """Lists are axes, single values constants."""
    asked = from_toml(write("g.toml", 'study = "draw"\nseeds = [1, 5]\n[grid]\nsize = [2, 3]\n'), STUDIES)
    assert asked.study is DRAW
    assert asked.cells[1] == Cell(parameters={"size": 2}, seed=5)
    more = from_toml(write("h.toml", 'study = "draw"\nseeds = {first = 3, count = 4}\n[grid]\nsize = 2\n'), STUDIES)
    assert [cell.seed for cell in more.cells] == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("study = ", "`file` must be TOML"),
        ('study = "walk"', "`study` must be one of 'draw'; got 'walk'"),
        ('study = "draw"', "`grid` must be with a value of every parameter of draw; got 'a grid without size'"),
        ('study = "draw"\n[grid]\nsize = 1\nwidth = 2', "`grid` must be one of 'size'; got 'width'"),
        ('study = "draw"\nseed = 1', "`file` must be of study, seeds and .grid. only; got 'seed'"),
        ('study = "draw"\nseeds = 1\n[grid]\nsize = 1', "`seeds` must be a list of integers"),
        ('study = "draw"\nseeds = [-1]\n[grid]\nsize = 1', "`seeds` must be an integer >= 0; got -1"),
        ('study = "draw"\n[grid]\nsize = [1, 1]', "`size` must be a non-empty sequence of different values"),
    ],
)
def test_toml_that_is_no_grid_is_refused_with_what_is_wrong(write, text, said):
    with pytest.raises(InvalidArgumentError, match=said):
        from_toml(write("g.toml", text), STUDIES)


def test_plan_comes_back_with_its_study_and_cells():
    """load(plans(remember(study, cells))) = study, cells; types and the order of parameters stay."""
    store = MemoryStore()
    wanted = [Cell(parameters={"size": 2, "a": 1.0, "b": True, "c": "1"}, seed=7), Cell(parameters={"size": 3}, seed=1)]
    remember(store, DRAW, wanted)
    (plan,) = plans(store)
    assert plan.load() is DRAW
    assert list(plan.cells) == wanted
    assert list(plan.cells[0].parameters) == ["size", "a", "b", "c"]
    assert [type(value) for value in plan.cells[0].parameters.values()] == [int, float, bool, str]


def test_plan_that_stays_the_same_is_not_written_again():
    store = MemoryStore()
    remember(store, DRAW, [Cell(parameters={"size": 2}, seed=1)])
    store.blobs.put = None
    remember(store, DRAW, [Cell(parameters={"size": 2}, seed=1)])


def test_study_of_a_file_is_found_again(write):
    """By the file, from another process as well: only its path is kept."""
    path = write("third_walk.py", CELL + "GRID = {'a': (1,), 'b': (2,)}\n")
    asked = from_python(path)
    assert place(asked.study) == f"{path}:STUDY"
    store = MemoryStore()
    remember(store, asked.study, asked.cells)
    del sys.modules["third_walk"]
    assert plans(store)[0].load().name == "third_walk"


def test_study_of_another_version_is_refused(monkeypatch):
    """The cells of a store are those of the version that was asked for."""
    from dataclasses import replace

    store = MemoryStore()
    remember(store, DRAW, [Cell(parameters={"size": 2}, seed=1)])
    monkeypatch.setattr("sweep_cells.DRAW", replace(DRAW, version=2))
    with pytest.raises(InvalidArgumentError, match="`study` must be version 1 of draw"):
        plans(store)[0].load()


def test_study_that_is_nowhere_says_so():
    from rmtbn.sweep.grid import Study

    store = MemoryStore()
    remember(store, Study(name="lost", version=1, compute=dict), [Cell(parameters={}, seed=1)])
    with pytest.raises(InvalidArgumentError, match=r"`study` must be found again by its module.*'lost'"):
        plans(store)[0].load()


def test_what_is_no_plan_is_passed_over():
    store = MemoryStore()
    store.blobs.put("_plans/x.plan", b"half a pl")
    store.blobs.put("_plans/notes.txt", b"mine")
    assert plans(store) == []


def test_status_counts_and_estimates():
    """4 of 6 done in t seconds: the other 2 take t/4 · 2 on one worker."""
    from sweep_cells import cells

    store = MemoryStore()
    found = run(DRAW, cells(4), store=store)
    seconds = sum(record.provenance["wall_seconds"] for record in found.records)
    state = status("draw", 1, cells=cells(6), store=store)
    assert (state.study, state.cells, state.done, state.failed) == ("draw", 6, 4, 0)
    assert state.seconds == pytest.approx(seconds)
    assert state.left == pytest.approx(seconds / 4 * 2)
    assert status("draw", 1, cells=cells(4), store=store).left == 0.0
    nothing = status("draw", 2, cells=cells(4), store=store)
    assert nothing.done == 0
    assert nothing.left != nothing.left  # unknown
