"""The local engine: the records of the inline one, whatever dies."""

import os
import signal

import pandas as pd
import pytest

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.sweep.grid import Study, grid
from rmtbn.sweep.local import Local, local
from rmtbn.sweep.run import CellsFailedError, run
from rmtbn.sweep.store import FolderStore, MemoryStore

CELLS = grid({"size": (1, 2, 3, 4, 5)}, seeds=(1, 2))


def draw(*, seed, size):
    """A cell function that a fresh process can import."""
    return {"draws": pd.DataFrame({"draw": rng.generator(seed, size).normal(size=size)})}


def fragile(*, seed, size):
    """Dies without a word, as a process out of memory does, at one cell; raises at another."""
    if (seed, size) == (1, 3):
        os.kill(os.getpid(), signal.SIGKILL)
    if (seed, size) == (2, 4):
        raise ValueError("not this one")
    return draw(seed=seed, size=size)


def test_local_engine_gives_the_records_of_the_inline_engine():
    """table(local) = table(inline), row by row, bit for bit."""
    study = Study(name="toy", version=1, compute=draw)
    here = run(study, CELLS, store=MemoryStore()).table("draws")
    there = run(study, CELLS, store=MemoryStore(), engine=local(2)).table("draws")
    pd.testing.assert_frame_equal(here, there, check_exact=True)


def test_a_killed_worker_and_a_raising_cell_cost_their_own_cells_only(tmp_path):
    """10 cells, one SIGKILL, one exception: 8 stored, 2 failures, each with its reason."""
    store = FolderStore(tmp_path)
    with pytest.raises(CellsFailedError) as caught:
        run(Study(name="toy", version=1, compute=fragile), CELLS, store=store, engine=local(2))
    assert len(store.keys()) == 8
    reasons = {(f.cell.seed, f.cell.parameters["size"]): f.error for f in caught.value.failures}
    assert set(reasons) == {(1, 3), (2, 4)}
    assert "process died" in reasons[1, 3]
    assert reasons[2, 4] == "ValueError: not this one"


def test_nothing_to_do_starts_no_process(monkeypatch):
    """No cells: no records, and no worker."""
    monkeypatch.setattr(Local, "_hire", lambda _: pytest.fail("a worker was started"))
    assert run(Study(name="toy", version=1, compute=draw), [], store=MemoryStore(), engine=local(2)).records == ()


def test_fewer_than_one_worker_is_refused():
    """`workers` >= 1."""
    with pytest.raises(InvalidArgumentError, match=r"`workers` must be an integer >= 1; got 0"):
        local(0)
