"""The local engine: cells in processes of this machine, a dead process costing its own cell only."""

import itertools
import multiprocessing
import os
from collections.abc import Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait

from pebble import ProcessExpired, ProcessPool
from threadpoolctl import threadpool_limits

from rmtbn import _checks
from rmtbn.sweep.engine import Engine, Failure, Outcome, compute
from rmtbn.sweep.grid import Cell, Study

_AHEAD = 2  # cells in flight per worker: one computed, one waiting, so that 10⁵ cells do not queue in memory


def local(workers: int | None = None) -> Engine:
    """Return an engine that computes cells in `workers` processes, started afresh (spawn) and reused.

    Parameters
    ----------
    workers
        Number of processes, >= 1; one per core this process may use if None. Each gets its share of the cores for
        torch's threads. Study and cells are pickled: the cell function is a function of a module.

    Raises
    ------
    InvalidArgumentError
        For fewer than one worker.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = cores if workers is None else _checks.integer("workers", workers, at_least=1)

    def engine(study: Study, cells: Iterable[Cell]) -> Generator[Outcome]:
        queue = iter(cells)
        first = list(itertools.islice(queue, count * _AHEAD))
        if not first:
            return
        spawn = multiprocessing.get_context("spawn")
        threads = max(1, cores // count)
        pool = ProcessPool(max_workers=min(count, len(first)), context=spawn)
        running: dict[Future[Outcome], Cell] = {}
        try:
            running.update((pool.schedule(_compute, args=(study, cell, threads)), cell) for cell in first)
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    cell = running.pop(future)
                    running.update(
                        (pool.schedule(_compute, args=(study, new, threads)), new) for new in itertools.islice(queue, 1)
                    )
                    yield _outcome(future, cell)
        finally:
            pool.stop()  # type: ignore[no-untyped-call]
            pool.join()

    return engine


def _outcome(future: "Future[Outcome]", cell: Cell) -> Outcome:
    try:
        return future.result()
    except ProcessExpired as error:
        said = f"the process died (exit code {error.exitcode}): out of memory, or a crash in compiled code"
        return Failure(cell=cell, error=said, trace=said)


def _compute(study: Study, cell: Cell, threads: int) -> Outcome:
    """Compute a cell in a worker that keeps to its share of the cores (the study has loaded what it needs by now)."""
    with threadpool_limits(limits=threads):
        return compute(study, cell)
