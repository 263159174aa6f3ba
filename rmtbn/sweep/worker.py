"""What a worker process does: load the study, then compute one job after the other until its driver is gone."""

import enum
import os
import pickle
import signal
import threading
import traceback
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import Final

from rmtbn.sweep import threads
from rmtbn.sweep.grid import Study
from rmtbn.sweep.job import work


class Message(enum.Enum):
    """What a worker says beside outcomes."""

    READY = enum.auto()


READY: Final = Message.READY


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The study could not be loaded here."""

    error: str


def serve(pipe: Connection, pickled: bytes, *, count: int, gpu: str | None, memory: int | None) -> None:
    """Compute the jobs that come through a pipe, until it is closed.

    Parameters
    ----------
    pipe
        Where jobs come from and answers go: `READY`, then the outcomes of each job; or `Refused`.
    pickled
        The study.
    count
        Threads.
    gpu
        What CUDA_VISIBLE_DEVICES is to be; None: as it is.
    memory
        Bytes that may be filled; None: no limit.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the driver decides
    threading.Thread(target=_leave_with_driver, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        study = load(pickled, count)
        _limit(memory)
    except Exception as error:  # whatever an import raises is for the driver to say
        pipe.send(Refused(error=traceback.format_exception_only(error)[-1].strip()))
        return
    try:
        pipe.send(READY)
        while True:
            pipe.send(work(study, pipe.recv()))
    except (EOFError, OSError):  # the driver is gone
        return


def load(pickled: bytes, count: int) -> Study:
    """Load a study and what it imports, within so many threads."""
    explicit = threads.asked() is not None
    threads.announce(count)
    study: Study = pickle.loads(pickled)
    if not explicit:
        threads.keep_to(count)
    return study


def _limit(memory: int | None) -> None:
    if memory is None:
        return
    import resource  # noqa: PLC0415 - Unix only

    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _leave_with_driver() -> None:
    """End this process in the middle of a cell if its driver dies, by whatever signal."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
