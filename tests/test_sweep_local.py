"""The local engine: the records of the inline one, whatever dies."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import active_children
from pathlib import Path

import pandas as pd
import pytest
from sweep_cells import DRAW, GPU, LARGE, POISONED, PRODUCT, SLOW, THREADS, cells

from rmtbn._checks import InvalidArgumentError
from rmtbn.sweep.grid import Cell, Study, grid
from rmtbn.sweep.local import Local, WorkersDieError, local, visible_gpus
from rmtbn.sweep.run import CellsFailedError, advance, run
from rmtbn.sweep.store import FolderStore, MemoryStore
from rmtbn.sweep.threads import cores


class Killing(threading.Thread):
    """SIGKILL for a random worker of this process, again and again."""

    def __init__(self, *, times, seed, pause):
        super().__init__(daemon=True)
        self.times, self.draw, self.pause, self.killed, self.over = times, random.Random(seed), pause, 0, False
        self.gone = []

    def run(self):
        while self.killed < self.times and not self.over:
            time.sleep(self.draw.uniform(0, 2 * self.pause))
            workers = [worker.pid for worker in active_children() if worker.name == "rmtbn worker"]
            alive = [number for number in workers if number not in self.gone]
            if alive:
                self.gone.append(self.draw.choice(alive))
                os.kill(self.gone[-1], signal.SIGKILL)
                self.killed += 1


def disturbed(study, wanted, *, engine, store, times, pause):
    """The records of a run whose workers are killed at random."""
    killer = Killing(times=times, seed=1, pause=pause)
    killer.start()
    try:
        return run(study, wanted, store=store, engine=engine, progress=False), killer.killed
    finally:
        killer.over = True
        killer.join()


@pytest.fixture
def one_thread(monkeypatch):
    """One thread here and in workers: another number may change the last digits."""
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_local_engine_gives_the_records_of_the_inline_engine_bit_for_bit(one_thread):
    """table(local) = table(inline), the singular values of products to the last bit, at one thread each."""
    wanted = grid({"size": (40, 64)}, seeds=(1, 2))
    here = run(PRODUCT, wanted, store=MemoryStore()).table("values")
    there = run(PRODUCT, wanted, store=MemoryStore(), engine=local(2)).table("values")
    pd.testing.assert_frame_equal(here, there, check_exact=True)


def test_poisoned_cells_fail_alone_each_with_its_reason(tmp_path):
    """Segfault, kill, too much memory, sys.exit, an endless loop: five failures, the others are stored."""
    kinds = ("none", "segfault", "memory", "exit", "loop", "killed")
    wanted = grid({"kind": kinds}, seeds=(1, 2))[:-1]
    store = FolderStore(tmp_path)
    with pytest.raises(CellsFailedError) as caught:
        run(POISONED, [c for c in wanted if c.seed == 1 or c.parameters["kind"] == "none"], store=store,
            engine=local(2), seconds=2.0)  # fmt: skip
    reasons = {failure.cell.parameters["kind"]: failure.error for failure in caught.value.failures}
    assert set(reasons) == set(kinds) - {"none"}
    assert "SIGSEGV: a crash in compiled code), 3 times" in reasons["segfault"]
    assert "SIGKILL: killed, as by the system when out of memory), 3 times" in reasons["killed"]
    assert "MemoryError" in reasons["memory"]
    assert reasons["exit"] == "SystemExit: enough"
    assert reasons["loop"] == "took longer than 2 s"
    assert len(store.keys()) == 2
    assert len(store.failed()) == 5


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a limit on the data segment")
def test_a_cell_that_fills_the_memory_fails_alone():
    """2 GB for a worker: the cell that takes all it gets raises MemoryError, the next one in that worker is well."""
    wanted = grid({"kind": ("filled", "none")}, seeds=(1,))
    with pytest.raises(CellsFailedError) as caught:
        run(POISONED, wanted, store=MemoryStore(), engine=local(1, memory=2 * 10**9))
    (failure,) = caught.value.failures
    assert failure.cell.parameters["kind"] == "filled"
    assert "MemoryError" in failure.error


def test_workers_killed_at_random_change_nothing():
    """Results of 8 MB, three kills while they are computed and sent: every record as in an undisturbed run."""
    wanted = grid({"size": (10**6,)}, seeds=range(10))
    found, killed = disturbed(LARGE, wanted, engine=local(2), store=MemoryStore(), times=3, pause=0.4)
    assert killed >= 1
    expected = run(LARGE, wanted, store=MemoryStore())
    pd.testing.assert_frame_equal(found.table("large"), expected.table("large"))


@pytest.mark.slow
def test_twenty_kills_in_500_cells_change_nothing(tmp_path):
    """The final records equal an undisturbed run's."""
    wanted = grid({"seconds": (0.05,)}, seeds=range(500))
    found, killed = disturbed(SLOW, wanted, engine=local(2), store=FolderStore(tmp_path), times=20, pause=0.6)
    assert killed == 20
    expected = run(SLOW, wanted, store=MemoryStore())
    pd.testing.assert_frame_equal(found.table("draws"), expected.table("draws"))


def driver(tmp_path, *, seconds, count, workers=2):
    """Another process that runs cells into a store."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from sweep_cells import SLOW\n"
        "from rmtbn.sweep.grid import grid\nfrom rmtbn.sweep.local import local\n"
        "from rmtbn.sweep.run import advance\nfrom rmtbn.sweep.store import FolderStore\n"
        "if __name__ == '__main__':\n"
        f"    wanted = grid({{'seconds': ({seconds},)}}, seeds=range({count}))\n"
        f"    tally = advance(SLOW, wanted, store=FolderStore(sys.argv[2]), engine=local({workers}))\n"
        "    print(tally.stored, tally.elsewhere, tally.interrupted)\n"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stored(path, count):
    """Wait until a store holds so many cells."""
    store, until = FolderStore(path), time.monotonic() + 60
    while len(store.keys()) < count:
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_a_killed_driver_loses_at_most_the_cells_in_flight(tmp_path):
    """SIGKILL after some of 12 cells: what is there is whole, its workers go, and the same run again completes it."""
    with driver(tmp_path, seconds=0.3, count=12) as process:
        stored(tmp_path, 3)
        process.send_signal(signal.SIGKILL)
    store = FolderStore(tmp_path)
    before = store.load(store.keys())
    assert 3 <= len(before) < 12
    wanted = grid({"seconds": (0.3,)}, seeds=range(12))
    tally = advance(SLOW, wanted, store=store, engine=local(2), progress=False)
    assert tally.stored + len(before) == 12
    assert {name: store.read(name).provenance for name in before} == {n: r.provenance for n, r in before.items()}


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_lets_what_is_in_flight_land(tmp_path, number):
    """The cells in flight are stored, the others are not begun, and the driver says that it was interrupted."""
    with driver(tmp_path, seconds=0.5, count=12) as process:
        stored(tmp_path, 2)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    count, _, interrupted = output.split()
    assert process.returncode == 0, errors
    assert interrupted == "True"
    assert int(count) == len(FolderStore(tmp_path).keys()) < 12


def test_two_drivers_on_one_store_store_each_cell_once(tmp_path):
    """What both store adds up to the number of cells."""
    with driver(tmp_path, seconds=0.05, count=30, workers=1) as one, driver(tmp_path, seconds=0.05, count=30) as two:
        outputs = [process.communicate(timeout=60)[0].split() for process in (one, two)]
    assert sum(int(output[0]) for output in outputs) == 30
    assert all(int(output[0]) + int(output[1]) == 30 for output in outputs)
    store = FolderStore(tmp_path)
    assert len(store.load(store.keys())) == 30


@pytest.mark.parametrize("explicit", [False, True])
def test_a_worker_has_its_share_of_the_cores_or_what_omp_num_threads_says(monkeypatch, explicit):
    """One worker has all cores; an explicit OMP_NUM_THREADS = 1 wins."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if explicit:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = run(THREADS, [Cell(parameters={}, seed=1)], store=MemoryStore(), engine=local(1)).table("threads")
    assert found["torch"].tolist() == [1 if explicit else cores()]


def test_each_worker_sees_its_own_gpu():
    """CUDA_VISIBLE_DEVICES of two workers: one name each, in turn."""
    wanted = [Cell(parameters={}, seed=seed) for seed in range(4)]
    found = run(GPU, wanted, store=MemoryStore(), engine=local(gpus=("5", "7"))).table("gpu")
    assert set(found["visible"]) == {"5", "7"}


def test_gpus_are_named_as_this_process_may_use_them(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert visible_gpus(2) == ("3", "5")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus(2) == ("0", "1")


def test_nothing_to_do_starts_no_process(monkeypatch):
    """No cells: no records, and no worker."""
    monkeypatch.setattr(Local, "_hire", lambda _: pytest.fail("a worker was started"))
    assert run(DRAW, [], store=MemoryStore(), engine=local(2)).records == ()


def test_no_worker_is_left_at_the_end():
    run(DRAW, cells(3), store=MemoryStore(), engine=local(2))
    assert not [child for child in active_children() if child.name == "rmtbn worker"]


def test_one_engine_serves_one_run_after_another():
    """Two studies through one engine, as a command of two studies has them."""
    engine = local(1)
    assert len(run(DRAW, cells(2), store=MemoryStore(), engine=engine).records) == 2
    assert len(run(SLOW, grid({"seconds": (0.0,)}, seeds=(1,)), store=MemoryStore(), engine=engine).records) == 1


def test_function_that_a_worker_cannot_import_is_refused():
    """A function inside a function has no name in a module."""

    def inner(*, seed):
        return {}

    study = Study(name="toy", version=1, compute=inner)
    with pytest.raises(InvalidArgumentError, match="`study` must be made of functions of a module"):
        run(study, [Cell(parameters={}, seed=1)], store=MemoryStore(), engine=local(1))


def test_study_that_breaks_where_it_is_imported_ends_the_run(tmp_path, monkeypatch):
    """No cell is blamed for it."""
    (tmp_path / "breaking.py").write_text(
        "import multiprocessing\nif multiprocessing.parent_process(): raise ImportError('no such library')\n"
        "def cell(*, seed): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import breaking

    study = Study(name="toy", version=1, compute=breaking.cell)
    with pytest.raises(WorkersDieError, match="workers cannot load the study: ImportError: no such library"):
        run(study, [Cell(parameters={}, seed=1)], store=MemoryStore(), engine=local(1))


def test_workers_that_die_before_they_are_ready_end_the_run(tmp_path, monkeypatch):
    """A few in a row, not one after the other for ever."""
    monkeypatch.setattr("rmtbn.sweep.local._STARTS", 2)
    (tmp_path / "dying.py").write_text(
        "import multiprocessing, os\nif multiprocessing.parent_process(): os._exit(3)\ndef cell(*, seed): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import dying

    study = Study(name="toy", version=1, compute=dying.cell)
    with pytest.raises(WorkersDieError, match=r"several workers in a row died before they were ready .*exit code 3"):
        run(study, [Cell(parameters={}, seed=1)], store=MemoryStore(), engine=local(1))


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"memory": 0}])
def test_less_than_one_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(InvalidArgumentError, match=rf"`{name}` must be an integer >= 1; got 0"):
        local(**wrong)
