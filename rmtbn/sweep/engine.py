"""Engines: where jobs are computed, behind one interface; and the one that computes them in this process.

Another engine is another five methods. `work(study, job)` is what its workers call, `Landed` what it makes of the
answer; time-outs and lost workers are reported as `Lost`. See docs/studies.md.
"""

import abc
from collections import deque
from typing import final

from rmtbn.sweep.grid import Study
from rmtbn.sweep.job import Job, Landed, work


class Engine(abc.ABC):
    """Where jobs are computed. One engine serves one run after another, each from `start` to `cancel`."""

    @abc.abstractmethod
    def start(self, study: Study) -> None:
        """Make ready to compute cells of a study."""

    @abc.abstractmethod
    def capacity(self) -> int:
        """Return how many jobs may be in flight now; 0 while there is no worker yet."""

    @abc.abstractmethod
    def submit(self, job: Job) -> None:
        """Take a job; the caller keeps within `capacity`."""

    @abc.abstractmethod
    def landed(self, seconds: float) -> list[Landed]:
        """Wait until a job has landed, or for so many seconds, and return those that have; each once, in any order."""

    @abc.abstractmethod
    def cancel(self) -> None:
        """Stop at once what is in flight and what was started; nothing if there is nothing."""


@final
class Inline(Engine):
    """Jobs one after the other in this process, for tests and debugging; time limits are not kept."""

    def __init__(self) -> None:
        self._study: Study | None = None
        self._waiting: deque[Job] = deque()

    def start(self, study: Study) -> None:
        """Remember the study."""
        self._study = study

    def capacity(self) -> int:
        """Return 1."""
        return 1

    def submit(self, job: Job) -> None:
        """Keep the job until it is asked for."""
        self._waiting.append(job)

    def landed(self, seconds: float) -> list[Landed]:
        """Compute what was submitted, however long it takes."""
        del seconds
        if self._study is None or not self._waiting:
            return []
        job = self._waiting.popleft()
        return [Landed(job=job, outcome=work(self._study, job))]

    def cancel(self) -> None:
        """Forget what was submitted."""
        self._waiting.clear()


def inline() -> Inline:
    """Return the engine that computes jobs one after the other in this process."""
    return Inline()
