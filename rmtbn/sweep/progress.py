"""Progress on stderr: a bar on a terminal, a line a minute elsewhere, nothing for what is done in two seconds."""

import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

_DELAY = 2.0  # seconds: STYLE, rule 21
_INTERVAL = 60.0


class Progress:
    """How many of `total` cells are done, how fast, how long for the rest, and how many failed.

    Parameters
    ----------
    total
        How many there will be.
    label
        What they are, for example the name of the study.
    shown
        Whether anything is shown at all.
    clock
        What tells the seconds.
    """

    def __init__(
        self, *, total: int, label: str, shown: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total, self._label, self._clock = total, label, clock
        self._shown = shown
        self._done = self._failed = 0
        self._start = self._last = clock()
        self._bar: tqdm[Any] | None = None
        if shown and sys.stderr.isatty():
            self._bar = tqdm(total=total, desc=label, unit="cell", delay=_DELAY, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def add(self, *, failed: bool = False) -> None:
        """Count one more cell."""
        self._done += 1
        self._failed += failed
        if self._bar is not None:
            if failed:
                self._bar.set_postfix(failed=self._failed, refresh=False)
            self._bar.update()
        elif self._shown:
            self._line()

    def say(self, text: str) -> None:
        """Say something in a line of its own."""
        if self._bar is not None:
            self._bar.clear()
        if self._shown:
            sys.stderr.write(f"{self._label}: {text}\n")
            sys.stderr.flush()

    def _line(self) -> None:
        now = self._clock()
        if now - self._last < _INTERVAL:
            return
        spent = now - self._start
        left, failed = spent / self._done * (self._total - self._done), f", {self._failed} failed" * bool(self._failed)
        rate = f"{60 * self._done / spent:.3g} a minute"
        self.say(f"{self._done} of {self._total} cells after {spent:.0f} s, {rate}, about {left:.0f} s left{failed}")
        self._last = now
