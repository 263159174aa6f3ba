"""The local engine: jobs in processes of this machine, a lost process costing its own job only.

NOTE: not pebble, which the plan named. Its workers write into one shared pipe: one that was killed while it wrote 24 MB
broke the pool in both of two trials, and 290 and 297 of 300 tasks were lost with it. Here each worker has its own pipe,
which is thrown away with it.
"""

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import final

from rmtbn import _checks
from rmtbn.sweep.engine import Engine
from rmtbn.sweep.grid import Study
from rmtbn.sweep.job import Job, Landed, Lost
from rmtbn.sweep.threads import cores, share
from rmtbn.sweep.worker import READY, Refused, serve

_STARTS = 10  # workers in a row that may die before they are ready: then it is not bad luck
_GRACE = 5.0  # seconds that a killed process may take to go


class WorkersDieError(RuntimeError):
    """Workers die before they can compute anything."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    slot: int
    job: Job | None = None
    ready: bool = False
    deadline: float | None = None

    def begin(self) -> None:
        """Start the clock of the job, from when the worker can compute it."""
        limit = self.job.limit if self.job is not None else None
        self.deadline = time.monotonic() + limit if limit is not None and self.ready else None


@final
class Local(Engine):
    """Jobs in processes that are started afresh (spawn) when they are needed, and reused."""

    def __init__(self, *, workers: int, gpus: Sequence[str], memory: int | None) -> None:
        self._count, self._gpus, self._memory = workers, gpus, memory
        self._threads = share(workers)
        self._workers: list[_Worker] = []
        self._pickled = b""
        self._deaths = 0.0

    def start(self, study: Study) -> None:
        """Pickle the study; processes start with the first jobs."""
        self.cancel()
        try:
            self._pickled = pickle.dumps(study)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise _checks.fail("study", "made of functions of a module, for workers to import", error) from None

    def capacity(self) -> int:
        """Return the number of workers."""
        return self._count

    def submit(self, job: Job) -> None:
        """Give the job to a worker that has none."""
        worker = next((worker for worker in self._workers if worker.job is None), None) or self._hire()
        worker.job = job
        worker.begin()
        with suppress(BrokenPipeError, ConnectionResetError):  # it has just died: `landed` will see that
            worker.pipe.send(job)

    def landed(self, seconds: float) -> list[Landed]:
        """Wait for messages, deaths and deadlines."""
        until = min([time.monotonic() + seconds, *(w.deadline for w in self._workers if w.deadline is not None)])
        wait([worker.pipe for worker in self._workers], timeout=max(0.0, until - time.monotonic()))
        found = [self._heard(worker) for worker in tuple(self._workers)]
        return [one for one in found if one is not None]

    def cancel(self) -> None:
        """Kill all workers."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join(_GRACE)
            worker.pipe.close()
        self._workers.clear()

    def _hire(self) -> _Worker:
        """Start a worker in the first slot that is free; its slot decides its GPU."""
        slot = min(set(range(self._count)) - {worker.slot for worker in self._workers})
        here, there = multiprocessing.Pipe()
        gpu = self._gpus[slot % len(self._gpus)] if self._gpus else None
        spawn = multiprocessing.get_context("spawn")
        options = {"count": self._threads, "gpu": gpu, "memory": self._memory}
        process = spawn.Process(target=serve, args=(there, self._pickled), kwargs=options, name="rmtbn worker")
        process.start()
        there.close()  # so that its death closes the pipe
        worker = _Worker(process=process, pipe=here, slot=slot)
        self._workers.append(worker)
        return worker

    def _heard(self, worker: _Worker) -> Landed | None:
        try:
            message = worker.pipe.recv() if worker.pipe.poll() else None
        except (EOFError, OSError, pickle.UnpicklingError):  # in the middle of a message, or before one
            return self._died(worker)
        if message is READY:
            worker.ready, self._deaths = True, 0.0
            worker.begin()
        elif isinstance(message, Refused):
            raise WorkersDieError(f"workers cannot load the study: {message.error}")
        elif message is not None and worker.job is not None:
            job, worker.job, worker.deadline = worker.job, None, None
            return Landed(job=job, outcome=message)
        elif worker.deadline is not None and time.monotonic() > worker.deadline and worker.job is not None:
            self._dismiss(worker)
            return Landed(job=worker.job, outcome=Lost(reason=f"took longer than {worker.job.limit:g} s", again=False))
        return None

    def _died(self, worker: _Worker) -> Landed | None:
        code = self._dismiss(worker)
        job = worker.job
        if worker.ready:
            return None if job is None else Landed(job=job, outcome=Lost(reason=_said(code)))
        self._deaths += 0.1 if code == -signal.SIGKILL else 1  # a kill comes from outside, and may be bad luck
        if self._deaths >= _STARTS:
            said = f"several workers in a row died before they were ready ({_said(code)})"
            raise WorkersDieError(f"{said}; a script that calls `run` needs its `if __name__ == '__main__':`")
        if job is not None:  # which it never began
            self.submit(job)
        return None

    def _dismiss(self, worker: _Worker) -> int | None:
        """Make sure that a worker is gone, and return its exit code."""
        self._workers.remove(worker)
        worker.process.join(0.1)
        worker.process.kill()
        worker.process.join(_GRACE)
        worker.pipe.close()
        return worker.process.exitcode


def local(workers: int | None = None, *, gpus: Sequence[str] = (), memory: int | None = None) -> Local:
    """Return the engine that computes jobs in `workers` processes of this machine.

    Parameters
    ----------
    workers
        Number of processes, >= 1; None: one per GPU named, or one per core this process may use. Each gets its share
        of the cores for threads, or OMP_NUM_THREADS if that is set. Studies are pickled: their functions are
        functions of a module.
    gpus
        What CUDA_VISIBLE_DEVICES is to be for one worker each ("0", "1", ...), in turn; empty: as it is.
    memory
        Bytes of memory that a worker may fill (its data segment, Linux): beyond, a cell fails by MemoryError. None: no
        limit.

    Raises
    ------
    InvalidArgumentError
        For fewer than one worker or byte.
    """
    count = (len(gpus) or cores()) if workers is None else _checks.integer("workers", workers, at_least=1)
    limit = None if memory is None else _checks.integer("memory", memory, at_least=1)
    return Local(workers=count, gpus=tuple(gpus), memory=limit)


def visible_gpus(count: int) -> tuple[str, ...]:
    """Name the GPUs of this process, of which there are `count`, as CUDA_VISIBLE_DEVICES names them."""
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(named[:count] or [str(i) for i in range(count)])


def _said(code: int | None) -> str:
    """Say how a process ended, by its exit code."""
    if code is None or code >= 0:
        return f"the process died (exit code {code})"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    usual = {"SIGKILL": "killed, as by the system when out of memory", "SIGSEGV": "a crash in compiled code"}
    return f"the process died ({name}: {usual.get(name, 'a crash, or killed')})"
