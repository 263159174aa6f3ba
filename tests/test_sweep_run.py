"""Running a study: what is missing, once, whatever the order or the interruption."""

import itertools
import re

import pandas as pd
import pytest

from rmtbn import rng
from rmtbn.sweep.engine import Engine
from rmtbn.sweep.grid import Cell, Study, grid, key
from rmtbn.sweep.job import Failure, Landed, compute, work
from rmtbn.sweep.run import CellsFailedError, run
from rmtbn.sweep.store import FolderStore, MemoryStore, SetAsideWarning

CELLS = grid({"norm": ("none", "batch"), "depth": (1, 2, 4)}, seeds=(1, 2))


class Counted:
    """A cell function that remembers its calls, and can be told to raise at one of them."""

    def __init__(self):
        self.calls = []
        self.fuse = None

    def __call__(self, *, seed, norm, depth):
        self.calls.append((norm, depth, seed))
        if self.fuse is not None and len(self.calls) > self.fuse[0]:
            raise self.fuse[1]
        draws = rng.generator(seed, norm, depth).normal(size=depth)
        return {
            "profile": pd.DataFrame({"layer": range(depth), "value": draws}),
            "scalar": pd.DataFrame({"total": [draws.sum()], "logs": [list(draws)]}),
        }


@pytest.fixture
def cell():
    return Counted()


@pytest.fixture
def study(cell):
    return Study(name="toy", version=1, compute=cell)


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path):
    return FolderStore(tmp_path / "cells") if request.param == "folder" else MemoryStore()


def test_every_cell_is_computed_once_and_read_ever_after(study, cell, store):
    """First run: |cells| calls; second run: none, and the same tables."""
    first = run(study, CELLS, store=store)
    assert len(cell.calls) == len(CELLS)
    second = run(study, CELLS, store=store)
    assert len(cell.calls) == len(CELLS)
    for name in ("profile", "scalar"):
        pd.testing.assert_frame_equal(first.table(name), second.table(name))


@pytest.mark.parametrize("done", [0, 1, 7, 11])
def test_interrupted_run_resumes_with_what_is_missing(study, cell, store, done):
    """Ctrl-C in cell `done` + 1: `done` cells are stored; the next run makes |cells| − done calls."""
    cell.fuse = (done, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(study, CELLS, store=store)
    assert len(store.keys()) == done
    cell.calls, cell.fuse = [], None
    resumed = run(study, CELLS, store=store)
    assert len(cell.calls) == len(CELLS) - done
    undisturbed = run(study, CELLS, store=MemoryStore())
    pd.testing.assert_frame_equal(resumed.table("profile"), undisturbed.table("profile"))


def test_results_do_not_depend_on_the_order_of_cells(study, store):
    """table(cells) and table(reversed cells) are equal up to the order of rows."""
    columns = ["norm", "depth", "seed", "layer"]
    forward = run(study, CELLS, store=store).table("profile").sort_values(columns, ignore_index=True)
    backward = run(study, CELLS[::-1], store=MemoryStore()).table("profile").sort_values(columns, ignore_index=True)
    pd.testing.assert_frame_equal(forward, backward)


class Backwards(Engine):
    """A whole engine: takes all jobs at once and lands them in reverse."""

    def __init__(self):
        self.jobs, self.cancelled = [], 0

    def start(self, study):
        self.study = study

    def capacity(self):
        return 100

    def submit(self, job):
        self.jobs.append(job)

    def landed(self, seconds):
        assert seconds > 0
        jobs, self.jobs = self.jobs[::-1], []
        return [Landed(job=job, outcome=work(self.study, job)) for job in jobs]

    def cancel(self):
        self.cancelled += 1


def test_records_come_in_the_order_asked_for_whatever_lands_first(study):
    """An engine that lands backwards gives the same records."""
    landed_backwards = run(study, CELLS, store=MemoryStore(), engine=Backwards())
    pd.testing.assert_frame_equal(
        landed_backwards.table("profile"), run(study, CELLS, store=MemoryStore()).table("profile")
    )


def test_adding_cells_moves_no_other_cell(study, store):
    few = run(study, CELLS[3:5], store=store).table("scalar")
    more = run(study, CELLS, store=MemoryStore()).table("scalar")
    pd.testing.assert_frame_equal(few, more[3:5].reset_index(drop=True))


def test_cell_named_twice_is_computed_once(study, cell, store):
    assert len(run(study, [*CELLS[:2], CELLS[0]], store=store).records) == 2
    assert len(cell.calls) == 2


def test_bad_file_is_computed_again(study, cell, store):
    run(study, CELLS, store=store)
    bad = key(study.name, study.version, CELLS[4])
    store.blobs.put(f"{bad}.parquet", b"half a cell")
    cell.calls = []
    with pytest.warns(SetAsideWarning, match=bad):
        records = run(study, CELLS, store=store)
    assert cell.calls == [(CELLS[4].parameters["norm"], CELLS[4].parameters["depth"], CELLS[4].seed)]
    assert len(records.records) == len(CELLS)


def test_new_version_of_a_study_is_computed_anew(study, cell, store):
    run(study, CELLS, store=store)
    run(Study(name="toy", version=2, compute=cell), CELLS, store=store)
    assert len(cell.calls) == 2 * len(CELLS)
    assert len(store.keys()) == 2 * len(CELLS)


def test_failed_cell_is_named_and_the_others_are_stored(study, cell, store):
    """Cells 6 to 12 raise: 5 are stored, the error names the parameters and the message, a retry computes 7."""
    cell.fuse = (5, ValueError("loss is not finite"))
    message = re.escape(
        "7 of 12 cells failed, the others are stored: toy(norm='none', depth=4, seed=2): ValueError: loss"
    )
    with pytest.raises(CellsFailedError, match=message) as caught:
        run(study, CELLS, store=store)
    assert len(caught.value.failures) == 7
    assert "; and 4 more" in str(caught.value)
    assert "Traceback" in caught.value.failures[0].trace
    assert len(store.keys()) == 5
    cell.calls, cell.fuse = [], None
    assert len(run(study, CELLS, store=store, retry_failed=True).records) == len(CELLS)
    assert len(cell.calls) == 7
    assert store.failed() == []


def test_failures_are_kept_with_their_traceback_and_not_tried_again_unasked(study, cell, store):
    """One failure of 12: recorded with parameters and traceback; the next run says so and calls nothing."""
    cell.fuse = (11, ValueError("loss is not finite"))
    with pytest.raises(CellsFailedError, match="1 of 12 cells failed"):
        run(study, CELLS, store=store)
    cell.calls, cell.fuse = [], None
    with pytest.raises(CellsFailedError, match=r"1 of 12 .*; 1 failed before and were not tried again") as again:
        run(study, CELLS, store=store)
    assert cell.calls == []
    (failure,) = again.value.failures
    assert failure.cell == CELLS[-1]
    assert "in __call__" in failure.trace
    (name,) = store.failed()
    assert name == key(study.name, study.version, CELLS[-1])
    assert store.failure(name).cell == CELLS[-1]


def test_cell_that_returns_no_tables_is_a_failure(store):
    def returns_number(*, seed):
        return 3

    study = Study(name="wrong", version=1, compute=returns_number)
    with pytest.raises(CellsFailedError, match="`tables` must be a non-empty mapping"):
        run(study, [Cell(parameters={}, seed=1)], store=store)


def test_engine_is_cancelled_when_the_run_is_interrupted(study, cell):
    """So that a pool can stop its workers; at the end of a run that goes well, too."""
    engine = Backwards()
    run(study, CELLS, store=MemoryStore(), engine=engine)
    assert engine.cancelled == 1
    cell.fuse = (len(cell.calls) + 1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(study, CELLS, store=MemoryStore(), engine=engine)
    assert engine.cancelled == 2


def test_tables_carry_parameters_and_seed(study, store):
    """One row per layer of each cell, with the cell's parameters beside it."""
    table = run(study, CELLS, store=store).table("profile")
    assert list(table.columns) == ["norm", "depth", "seed", "layer", "value"]
    assert len(table) == 2 * 2 * (1 + 2 + 4)
    for (norm, depth, seed), rows in table.groupby(["norm", "depth", "seed"]):
        assert list(rows["value"]) == list(rng.generator(seed, norm, depth).normal(size=depth))


def test_unknown_table_is_refused_with_the_known_ones(study, store):
    with pytest.raises(ValueError, match="`name` must be one of 'profile', 'scalar'; got 'profiles'"):
        run(study, CELLS[:1], store=store).table("profiles")


def test_manifest_says_what_was_computed_and_how(study, store):
    """Values of each parameter, seeds, versions, and the sum of the wall times."""
    records = run(study, CELLS, store=store)
    manifest = records.manifest()
    assert manifest["study"] == "toy, version 1"
    assert (manifest["cells"], manifest["norm"], manifest["depth"]) == ("12", "none, batch", "1, 2, 4")
    assert manifest["seeds"] == "1, 2"
    total = sum(record.provenance["wall_seconds"] for record in records.records)
    assert manifest["wall_seconds"] == f"{total:.1f}"
    assert {"rmtbn", "torch", "numpy", "python", "platform", "commit", "finished"} <= set(manifest)
    assert all(isinstance(value, str) and value for value in manifest.values())


def test_manifest_names_a_run_of_seeds_by_its_ends(study):
    cells = grid({"norm": ("none",), "depth": (1,)}, seeds=range(3, 13))
    assert run(study, cells, store=MemoryStore()).manifest()["seeds"] == "3 to 12"


def test_failure_says_what_and_where(study, cell):
    cell.fuse = (0, ZeroDivisionError("by zero"))
    failure = compute(study, CELLS[0])
    assert isinstance(failure, Failure)
    assert failure.error == "ZeroDivisionError: by zero"
    assert "in __call__" in failure.trace


def test_run_writes_nothing_for_what_is_done_at_once(study, capfd):
    run(study, itertools.islice(CELLS, 3), store=MemoryStore())
    assert capfd.readouterr() == ("", "")
