"""The engine of a Ray cluster: jobs in actors, as many as fit, on whatever machines there are.

Ray decides where an actor lives; what it is told to compute, for how long, and whether again if it is lost, is decided
here, so that a cell has the same fate as on one machine. Needs the extra ``rmtbn[cluster]``.
"""

import math
import os
import pickle
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from rmtbn import _checks
from rmtbn.sweep import threads
from rmtbn.sweep.engine import Engine
from rmtbn.sweep.grid import Study
from rmtbn.sweep.job import Job, Landed, Lost, Outcome, work
from rmtbn.sweep.local import WorkersDieError

if TYPE_CHECKING:
    import ray

_STARTS = 10  # actors in a row that may be lost before they are ready
_LOOK = 10.0  # seconds between looks at how large the cluster is


class _Actor:
    """What Ray makes an actor of: a worker that computes jobs of one study."""

    def __init__(self, pickled: bytes, count: int) -> None:
        self._pickled, self._count = pickled, count

    def ready(self) -> None:
        """Load the study; what that raises is said by this call."""
        self._study: Study = pickle.loads(self._pickled)
        threads.keep_to(self._count)

    def work(self, job: Job) -> tuple[Outcome, ...]:
        """Compute a job."""
        return work(self._study, job)


@dataclass(slots=True, kw_only=True, eq=False)
class _Worker:
    handle: Any
    waits_for: "ray.ObjectRef[Any]"
    ready: bool = False
    job: Job | None = None
    deadline: float | None = None


@final
class Cluster(Engine):
    """Jobs in actors of a Ray cluster, which are started as there is room for them, and reused."""

    def __init__(self, *, address: str | None, workers: int | None, num_cpus: float, num_gpus: float) -> None:
        self._address, self._most = address, workers
        self._needs = {"CPU": num_cpus, "GPU": num_gpus}
        self._threads = threads.asked() or max(1, int(num_cpus))
        self._workers: list[_Worker] = []
        self._pickled = b""
        self._deaths = 0
        self._room, self._looked = 0, -_LOOK
        self._began = False

    def start(self, study: Study) -> None:
        """Join the cluster, or start one of this machine."""
        ray = _ray()
        self.cancel()
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            joined = self._address or os.environ.get("RAY_ADDRESS")
            own = None if joined else _whole(self._most, self._needs["CPU"])
            ray.init(address=joined, num_cpus=own, log_to_driver=False, logging_level="error")
            self._began = True
        self._pickled = _by_value(study)
        self._looked = -_LOOK

    def capacity(self) -> int:
        """Return the number of actors that are up, and see to it that there are as many as there is room for."""
        for _ in range(self._size() - len(self._workers)):
            self._hire()
        return sum(worker.ready for worker in self._workers)

    def submit(self, job: Job) -> None:
        """Give the job to an actor that has none."""
        worker = next(worker for worker in self._workers if worker.ready and worker.job is None)
        worker.job = job
        worker.waits_for = worker.handle.work.remote(job)
        worker.deadline = None if job.limit is None else time.monotonic() + job.limit

    def landed(self, seconds: float) -> list[Landed]:
        """Wait for answers, losses and deadlines."""
        until = min([time.monotonic() + seconds, *(w.deadline for w in self._workers if w.deadline is not None)])
        waited = {w.waits_for: w for w in self._workers if w.job is not None or not w.ready}
        if not waited:
            time.sleep(min(seconds, 0.1))
            return []
        done, _ = _ray().wait(list(waited), num_returns=1, timeout=max(0.0, until - time.monotonic()))
        more, _ = _ray().wait(list(waited), num_returns=len(waited), timeout=0)
        found = [self._heard(waited[ref]) for ref in dict.fromkeys([*done, *more])]
        return [one for one in (*found, *self._late()) if one is not None]

    def cancel(self) -> None:
        """Kill all actors; leave the cluster, if it was joined here."""
        for worker in self._workers:
            _ray().kill(worker.handle, no_restart=True)
        self._workers.clear()
        if self._began:
            _ray().shutdown()
            self._began = False

    def _size(self) -> int:
        """Count the actors that the cluster has room for, looking again from time to time: it may grow or shrink."""
        if time.monotonic() - self._looked >= _LOOK:
            there = _ray().cluster_resources()
            self._room = min(int(there.get(name, 0.0) / need) for name, need in self._needs.items() if need > 0)
            self._looked = time.monotonic()
        return self._room if self._most is None else min(self._room, self._most)

    def _hire(self) -> None:
        kind = _ray().remote(max_restarts=0, num_cpus=self._needs["CPU"], num_gpus=self._needs["GPU"])(_Actor)
        handle = kind.remote(self._pickled, self._threads)
        self._workers.append(_Worker(handle=handle, waits_for=handle.ready.remote()))

    def _heard(self, worker: _Worker) -> Landed | None:
        ray = _ray()
        try:
            outcome = ray.get(worker.waits_for)
        except ray.exceptions.RayTaskError as error:  # what `ready` raises: `work` raises nothing
            raise WorkersDieError(f"workers cannot load the study: {_first_line(error)}") from None
        except ray.exceptions.RayError as error:
            return self._died(worker, _first_line(error))
        if not worker.ready:
            worker.ready, self._deaths = True, 0
            return None
        job, worker.job, worker.deadline = worker.job, None, None
        return None if job is None else Landed(job=job, outcome=outcome)

    def _died(self, worker: _Worker, said: str) -> Landed | None:
        self._workers.remove(worker)
        self._deaths += not worker.ready
        if self._deaths >= _STARTS:
            raise WorkersDieError(f"{self._deaths} workers in a row died before they were ready: {said}")
        return None if worker.job is None else Landed(job=worker.job, outcome=Lost(reason=f"the worker died: {said}"))

    def _late(self) -> list[Landed]:
        found = []
        for worker in tuple(self._workers):
            if worker.job is not None and worker.deadline is not None and time.monotonic() > worker.deadline:
                _ray().kill(worker.handle, no_restart=True)
                self._workers.remove(worker)
                reason = f"took longer than {worker.job.limit:g} s"
                found.append(Landed(job=worker.job, outcome=Lost(reason=reason, again=False)))
        return found


def cluster(
    address: str | None = None, *, workers: int | None = None, num_cpus: float = 1.0, num_gpus: float = 0.0
) -> Cluster:
    """Return the engine that computes jobs on a Ray cluster.

    Parameters
    ----------
    address
        Of a cluster that runs, "auto" for the one this machine belongs to, or as ``ray://host:10001``; None: what
        RAY_ADDRESS says, or else one of this machine's cores that is started for the run.
    workers
        Actors at most, >= 1; None: as many as the cluster has room for.
    num_cpus, num_gpus
        What an actor takes of a machine: its threads, and the share of a GPU (0.25: four actors on one).

    Raises
    ------
    InvalidArgumentError
        For numbers out of their range, or if Ray is not installed.
    """
    most = None if workers is None else _checks.integer("workers", workers, at_least=1)
    cpus = _checks.real("num_cpus", num_cpus, above=0.0)
    gpus = _checks.real("num_gpus", num_gpus, at_least=0.0)
    _ray()
    return Cluster(address=address, workers=most, num_cpus=cpus, num_gpus=gpus)


def _ray() -> Any:
    """Import Ray when it is needed: it is an extra, and heavy."""
    try:
        import ray  # noqa: PLC0415
    except ImportError:
        raise _checks.fail("engine", "one that is installed (for ray: pip install 'rmtbn[cluster]')", "ray") from None
    return ray


def _whole(workers: int | None, num_cpus: float) -> int:
    """Cores of a cluster of this machine's own: those it has, or what the workers asked for need."""
    return threads.cores() if workers is None else math.ceil(workers * num_cpus)


def _by_value(study: Study) -> bytes:
    """Pickle a study with the code of its functions, unless that is rmtbn's, which every machine has."""
    from ray import cloudpickle  # noqa: PLC0415

    functions = [study.compute, *([study.group.compute, study.group.size] if study.group else [])]
    names = {getattr(function, "__module__", "") for function in functions}
    own = [sys.modules[name] for name in names if name in sys.modules and name.partition(".")[0] != "rmtbn"]
    modules = [module for module in own if module.__name__ != "__main__"]  # which is by value anyway
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        pickled: bytes = cloudpickle.dumps(study)
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
    return pickled


def _first_line(error: Exception) -> str:
    """Say in one line what Ray says in many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = [line.partition("Worker exit detail: ")[2] for line in lines if "Worker exit detail: " in line]
    said = (detail or lines[-1:] or [type(error).__name__])[0]
    return said.partition(" If the process was killed")[0]  # what follows is advice on Ray's options
