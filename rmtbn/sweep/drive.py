"""The driver: cells go to an engine, as many as it takes, and what comes back goes to the store.

It holds the cells in flight and those being written, and nothing of the others but their parameters.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

import pandas as pd

from rmtbn.sweep.engine import Engine
from rmtbn.sweep.grid import Cell, Study, key
from rmtbn.sweep.interrupt import Stop, stopping
from rmtbn.sweep.job import Failure, Job, Landed, Lost, Outcome, alone
from rmtbn.sweep.provenance import software
from rmtbn.sweep.record import Record, record
from rmtbn.sweep.store import Store

ATTEMPTS = 3  # of a job whose worker is lost: one bad machine or kill is bad luck, three are the cell's doing
# Forcing a file to the disk takes 5 ms or more, of eight at once little more: benchmarks/sweep.py.
_WRITERS = 8
_WRITING = 64  # files that may wait to be written: beyond that the engine waits
_TICK = 1.0  # seconds after which a signal is noticed at the latest


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What a drive did.

    Parameters
    ----------
    stored
        Cells computed and stored.
    elsewhere
        Cells that another driver had stored before they were begun here, or before they were stored here.
    failures
        Cells that failed.
    known
        How many of them had failed before and were not tried again.
    interrupted
        Whether it was asked to stop, with cells left.
    """

    stored: int
    elsewhere: int
    failures: tuple[Failure, ...]
    known: int = 0
    interrupted: bool


def drive(
    study: Study, jobs: Iterable[Job], *, store: Store, engine: Engine, watch: Callable[[Outcome | None], None]
) -> Tally:
    """Have an engine compute jobs, and store what lands.

    A job whose worker is lost is computed again after the others, three times in all; a job of several cells of which
    one fails is computed again cell by cell. SIGINT and SIGTERM let what is in flight land and leave the rest.

    Parameters
    ----------
    study, jobs
        What to compute. Cells that turn out to be stored when their turn comes are passed over.
    store, engine
        Where results go, and where they come from; the engine is cancelled at the end.
    watch
        Called with each outcome once it is stored, and with None for a cell that was passed over.
    """
    driver = _Driver(study, jobs, store=store, watch=watch)
    try:
        with stopping() as stop, driver.writers:
            engine.start(study)
            driver.loop(engine, stop)
    finally:
        engine.cancel()
    return driver.tally(interrupted=stop.asked and driver.waiting)


class _Driver:
    def __init__(
        self, study: Study, jobs: Iterable[Job], *, store: Store, watch: Callable[[Outcome | None], None]
    ) -> None:
        self.writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="rmtbn store")
        self._study, self._store, self._watch = study, store, watch
        self._jobs = self._missing(jobs)
        self._again: deque[Job] = deque()
        self._writing: dict[Future[bool], Outcome] = {}
        self._next = next(self._jobs, None)
        self._stored = self._elsewhere = 0
        self._failures: list[Failure] = []

    @property
    def waiting(self) -> bool:
        """Whether there are jobs that were not begun."""
        return bool(self._again) or self._next is not None

    def loop(self, engine: Engine, stop: Stop) -> None:
        """Keep the engine busy until all has landed and is written."""
        flying = 0
        while flying or (self.waiting and not stop.asked):
            while self.waiting and not stop.asked and flying < engine.capacity():
                engine.submit(self._pop())
                flying += 1
            for landed in engine.landed(_TICK):
                flying -= 1
                self._take(landed)
            self._written(at_most=_WRITING)
        self._written(at_most=0)

    def tally(self, *, interrupted: bool) -> Tally:
        """Sum up."""
        return Tally(
            stored=self._stored, elsewhere=self._elsewhere, failures=tuple(self._failures), interrupted=interrupted
        )

    def _missing(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Leave out the cells that another driver has stored meanwhile."""
        for job in jobs:
            cells = tuple(cell for cell in job.cells if not self._store.has(self._key(cell)))
            for _ in range(len(job.cells) - len(cells)):
                self._elsewhere += 1
                self._watch(None)
            if cells:
                yield replace(job, cells=cells)

    def _pop(self) -> Job:
        """Take the next job: what was lost comes last, when a bad time for workers may be over."""
        job = self._next
        if job is None:
            return self._again.popleft()
        self._next = next(self._jobs, None)
        return job

    def _take(self, landed: Landed) -> None:
        """Store what landed, or see to it that it is computed again."""
        job, outcome = landed.job, landed.outcome
        if len(job.cells) > 1 and (isinstance(outcome, Lost) or any(isinstance(one, Failure) for one in outcome)):
            self._again.extend(alone(job))
        elif not isinstance(outcome, Lost):
            for one in outcome:
                self._write(one)
        elif outcome.again and job.attempt < ATTEMPTS:
            self._again.append(replace(job, attempt=job.attempt + 1))
        else:
            times = f", {job.attempt} times" if outcome.again else ""
            self._write(Failure(cell=job.cells[0], error=outcome.reason + times, trace=outcome.reason))

    def _write(self, outcome: Outcome) -> None:
        self._writing[self.writers.submit(self._stored_now, outcome)] = outcome

    def _stored_now(self, outcome: Outcome) -> bool:
        """Store an outcome, in one of the threads that write; say whether it is a new cell."""
        name = self._key(outcome.cell)
        if isinstance(outcome, Failure):
            self._store.fail(failure_record(self._study, outcome))
            return False
        return self._store.add(name, outcome.content)

    def _written(self, *, at_most: int) -> None:
        """Count what is written; wait until at most so many files are not."""
        while self._writing:
            patience = None if len(self._writing) > at_most else 0
            done, _ = wait(self._writing, timeout=patience, return_when=FIRST_COMPLETED)
            if not done:
                return
            for future in done:
                outcome, new = self._writing.pop(future), future.result()
                if isinstance(outcome, Failure):
                    self._failures.append(outcome)
                else:
                    self._stored += new
                    self._elsewhere += not new
                self._watch(outcome)

    def _key(self, cell: Cell) -> str:
        return key(self._study.name, self._study.version, cell)


def failure_record(study: Study, failure: Failure) -> Record:
    """Make the record of a failure: its error and traceback, beside the parameters."""
    table = pd.DataFrame({"failure_error": [failure.error], "failure_trace": [failure.trace]})
    return record(study, failure.cell, frames={"failure": table}, provenance=software())


def recorded_failure(found: Record) -> Failure:
    """Read a failure from its record."""
    (row,) = found.tables["failure"].to_pylist()
    return Failure(cell=found.cell, error=row["failure_error"], trace=row["failure_trace"])
