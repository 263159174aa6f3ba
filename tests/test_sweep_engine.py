"""Another engine is another five methods: here one of threads, as one for Dask or submitit would be."""

import inspect
import sys
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import pandas as pd
import pytest
from sweep_cells import DRAW, cells

from rmtbn.sweep.engine import Engine, inline
from rmtbn.sweep.grid import Study
from rmtbn.sweep.job import Job, Landed, Lost, work
from rmtbn.sweep.run import CellsFailedError, run
from rmtbn.sweep.store import MemoryStore


class Threads(Engine):
    """Jobs in threads. With a client of Dask for the executor it would be an engine for Dask."""

    def __init__(self, workers):
        self.workers = workers
        self.running: dict[Future, Job] = {}

    def start(self, study):
        self.study = study
        self.client = ThreadPoolExecutor(self.workers)

    def capacity(self):
        return 2 * self.workers  # one that is computed and one that waits, each

    def submit(self, job):
        self.running[self.client.submit(work, self.study, job)] = job

    def landed(self, seconds):
        done, _ = wait(self.running, timeout=seconds, return_when=FIRST_COMPLETED)
        return [self.answer(future, self.running.pop(future)) for future in done]

    def answer(self, future, job):
        error = future.exception()
        return Landed(job=job, outcome=future.result() if error is None else Lost(reason=repr(error)))

    def cancel(self):
        self.client.shutdown(cancel_futures=True)
        self.running.clear()


def test_engine_of_a_third_party_is_one_short_file():
    """Its class is under 80 lines, and it needs nothing of ours but `Engine`, `Job`, `Landed`, `Lost` and `work`."""
    assert len(inspect.getsource(Threads).splitlines()) < 80


def test_its_records_are_those_of_the_inline_engine():
    """table(threads) = table(inline) to the last bit."""
    engines = (Threads(3), inline())
    found = [run(DRAW, cells(20), store=MemoryStore(), engine=engine).table("draws") for engine in engines]
    pd.testing.assert_frame_equal(*found, check_exact=True)


class Losing(Threads):
    """Loses the jobs whose seed it is told, so many times each."""

    def __init__(self, times, *, again=True):
        super().__init__(1)
        self.times, self.again, self.seen = times, again, []

    def answer(self, future, job):
        self.seen.append((job.cells[0].seed, job.attempt))
        if self.times.get(job.cells[0].seed, 0) >= job.attempt:
            return Landed(job=job, outcome=Lost(reason="gone", again=self.again))
        return super().answer(future, job)


def test_lost_job_is_computed_again():
    """Lost twice, landed the third time: the records of an undisturbed run, and 3 attempts."""
    engine = Losing({1: 2})
    found = run(DRAW, cells(3), store=MemoryStore(), engine=engine).table("draws")
    assert sorted(engine.seen) == [(0, 1), (1, 1), (1, 2), (1, 3), (2, 1)]
    pd.testing.assert_frame_equal(found, run(DRAW, cells(3), store=MemoryStore()).table("draws"))


@pytest.mark.parametrize(("again", "attempts", "said"), [(True, 3, "gone, 3 times"), (False, 1, "gone")])
def test_job_that_is_always_lost_fails_alone_with_its_reason(again, attempts, said):
    """Three times, or once where another worker would not help."""
    engine, store = Losing({1: 99}, again=again), MemoryStore()
    with pytest.raises(CellsFailedError, match="1 of 3 cells failed") as caught:
        run(DRAW, cells(3), store=store, engine=engine)
    (failure,) = caught.value.failures
    assert (failure.cell.seed, failure.error) == (1, said)
    assert engine.seen.count((1, attempts)) == 1
    assert (1, attempts + 1) not in engine.seen
    assert len(store.keys()) == 2


class Counting(Threads):
    """Remembers how many jobs were in flight."""

    most = 0

    def submit(self, job):
        super().submit(job)
        self.most = max(self.most, len(self.running))


def test_no_more_jobs_are_in_flight_than_the_engine_takes():
    """max in flight = capacity, however many cells there are."""
    engine = Counting(2)
    run(DRAW, cells(50), store=MemoryStore(), engine=engine)
    assert engine.most == engine.capacity() == 4


class Late(Threads):
    """Has no room for the first two times it is asked."""

    asked = 0

    def capacity(self):
        self.asked += 1
        return 0 if self.asked < 3 else 1


def test_engine_without_a_worker_yet_is_waited_for():
    assert len(run(DRAW, cells(2), store=MemoryStore(), engine=Late(1)).records) == 2


def test_cells_are_taken_from_a_generator_of_jobs_one_at_a_time():
    """The driver asks for the next job when there is room for it, not before."""
    from rmtbn.sweep.drive import drive

    taken = []

    def jobs():
        for cell in cells(30):
            taken.append(cell)
            yield Job(cells=(cell,))

    seen = []
    drive(DRAW, jobs(), store=MemoryStore(), engine=inline(), watch=lambda _: seen.append(len(taken)))
    assert len(seen) == 30
    assert seen[0] < 30


def test_inline_engine_does_nothing_before_it_is_asked():
    calls = []
    study = Study(name="toy", version=1, compute=lambda *, seed: calls.append(seed))
    engine = inline()
    engine.start(study)
    assert engine.landed(1.0) == []
    engine.submit(Job(cells=(cells(1)[0],)))
    engine.cancel()
    assert engine.landed(1.0) == []
    assert calls == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_the_driver_is_flat():
    """20,000 cells of 100 kB: the resident memory after 5,000 and after 20,000 differs by less than 20 MB."""
    from pathlib import Path

    from sweep_cells import LARGE

    from rmtbn.sweep.blobs import Blobs, MemoryBlobs
    from rmtbn.sweep.drive import drive
    from rmtbn.sweep.grid import Cell
    from rmtbn.sweep.store import Store

    class Nowhere(Store):
        """Forgets what it is given."""

        def add(self, key, content):
            return bool(key and content)

    def resident():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * 4096 / 2**20

    sizes = []

    def watch(_):
        watch.count += 1
        if watch.count % 5000 == 0:
            sizes.append(resident())

    watch.count = 0
    blobs: Blobs = MemoryBlobs()
    jobs = (Job(cells=(Cell(parameters={"size": 12_500}, seed=seed),)) for seed in range(20_000))
    drive(LARGE, jobs, store=Nowhere(blobs), engine=inline(), watch=watch)
    assert sizes[-1] - sizes[0] < 20
