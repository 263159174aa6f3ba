"""The Ray engine: the records of the inline one, whatever dies. Skipped without the extra `cluster`."""

import contextlib
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from sweep_cells import DRAW, POISONED, PRODUCT, SLOW, cells

from rmtbn._checks import InvalidArgumentError
from rmtbn.sweep.cluster import cluster
from rmtbn.sweep.grid import grid
from rmtbn.sweep.run import CellsFailedError, run
from rmtbn.sweep.store import FolderStore, MemoryStore


@pytest.fixture(scope="module")
def ray():
    """A cluster of this machine's own for all tests here, without what Ray opens and leaves open."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield ray
    ray.shutdown()


pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of Ray's own files and sockets
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]


@pytest.fixture
def one_thread(monkeypatch):
    """One thread here and in workers: another number may change the last digits."""
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("ray")
def test_ray_gives_the_records_of_the_inline_engine_bit_for_bit(one_thread):
    """table(ray) = table(inline), the singular values of products to the last bit, at one thread each."""
    wanted = grid({"size": (40, 64)}, seeds=(1, 2))
    here = run(PRODUCT, wanted, store=MemoryStore()).table("values")
    there = run(PRODUCT, wanted, store=MemoryStore(), engine=cluster(workers=2)).table("values")
    pd.testing.assert_frame_equal(here, there, check_exact=True)


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_poisoned_cells_fail_alone_each_with_its_reason(tmp_path):
    """Segfault, too much memory, sys.exit, an endless loop: four failures, the others are stored."""
    kinds = ("segfault", "memory", "exit", "loop")
    wanted = [*grid({"kind": kinds}, seeds=(1,)), *grid({"kind": ("none",)}, seeds=(1, 2, 3))]
    store = FolderStore(tmp_path)
    with pytest.raises(CellsFailedError) as caught:
        run(POISONED, wanted, store=store, engine=cluster(workers=2), seconds=2.0)
    reasons = {failure.cell.parameters["kind"]: failure.error for failure in caught.value.failures}
    assert set(reasons) == set(kinds)
    assert "the worker died" in reasons["segfault"]
    assert reasons["segfault"].endswith("3 times")
    assert "MemoryError" in reasons["memory"]
    assert reasons["exit"] == "SystemExit: enough"
    assert reasons["loop"] == "took longer than 2 s"
    assert len(store.keys()) == 3


class Killing(threading.Thread):
    """SIGKILL for a random process that computes for Ray, again and again."""

    def __init__(self, *, times, pause):
        super().__init__(daemon=True)
        self.times, self.draw, self.pause, self.killed, self.over = times, random.Random(1), pause, 0, False
        self.gone = []

    def run(self):
        while self.killed < self.times and not self.over:
            time.sleep(self.draw.uniform(0, 2 * self.pause))
            alive = [number for number in actors() if number not in self.gone]
            if alive:
                self.gone.append(self.draw.choice(alive))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.gone[-1], signal.SIGKILL)
                    self.killed += 1


def actors():
    """Processes of this machine that Ray named after our actor."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if (folder / "cmdline").read_bytes().startswith(b"ray::_Actor"):
                found.append(int(folder.name))
    return found


def disturbed(wanted, *, store, times, pause):
    """The records of a run whose workers are killed at random, and how many were."""
    killer = Killing(times=times, pause=pause)
    killer.start()
    try:
        return run(SLOW, wanted, store=store, engine=cluster(workers=2), progress=False), killer.killed
    finally:
        killer.over = True
        killer.join()


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes by /proc")
def test_workers_killed_at_random_change_nothing():
    """Two kills: every record as in an undisturbed run."""
    wanted = grid({"seconds": (0.1,)}, seeds=range(30))
    found, killed = disturbed(wanted, store=MemoryStore(), times=2, pause=0.7)
    assert killed >= 1
    expected = run(SLOW, wanted, store=MemoryStore())
    pd.testing.assert_frame_equal(found.table("draws"), expected.table("draws"))


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes by /proc")
def test_twenty_kills_in_500_cells_change_nothing(tmp_path):
    """The final records equal an undisturbed run's."""
    wanted = grid({"seconds": (0.05,)}, seeds=range(500))
    found, killed = disturbed(wanted, store=FolderStore(tmp_path), times=20, pause=0.6)
    assert killed == 20
    expected = run(SLOW, wanted, store=MemoryStore())
    pd.testing.assert_frame_equal(found.table("draws"), expected.table("draws"))


@pytest.mark.usefixtures("ray")
def test_study_of_a_file_goes_to_the_workers_with_its_code(tmp_path, monkeypatch):
    """A module that no worker can import is sent by value."""
    (tmp_path / "carried.py").write_text(
        "import pandas as pd\nfrom rmtbn.sweep.grid import Study\nFACTOR = 3\n"
        "def cell(*, seed):\n    return {'t': pd.DataFrame({'value': [FACTOR * seed]})}\n"
        "STUDY = Study(name='carried', version=1, compute=cell)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import carried

    found = run(carried.STUDY, grid({}, seeds=(1, 2)), store=MemoryStore(), engine=cluster(workers=1)).table("t")
    assert found["value"].tolist() == [3, 6]


@pytest.mark.usefixtures("ray")
def test_a_fraction_of_a_cpu_makes_room_for_more_workers():
    """num_cpus = 0.5 on two cores: four actors."""
    engine = cluster(num_cpus=0.5)
    engine.start(DRAW)
    try:
        engine.capacity()
        assert len(engine._workers) == 4
    finally:
        engine.cancel()


@pytest.mark.usefixtures("ray")
def test_one_engine_serves_one_run_after_another():
    engine = cluster(workers=1)
    assert len(run(DRAW, cells(2), store=MemoryStore(), engine=engine).records) == 2
    assert len(run(SLOW, grid({"seconds": (0.0,)}, seeds=(1,)), store=MemoryStore(), engine=engine).records) == 1


def test_without_ray_the_engine_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidArgumentError, match=r"`engine` .*rmtbn\[cluster\].*'ray'"):
        cluster()


@pytest.mark.parametrize(
    "wrong", [{"workers": 0}, {"num_cpus": 0.0}, {"num_gpus": -1.0}], ids=lambda wrong: next(iter(wrong))
)
def test_numbers_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(InvalidArgumentError, match=f"`{name}` must be"):
        cluster(**wrong)
