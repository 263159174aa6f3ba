"""Progress on stderr: a bar on a terminal, a line a minute elsewhere, nothing for what is done in two seconds."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

_DELAY = 2.0  # seconds: STYLE, rule 21
_INTERVAL = 60.0


def track(items: Iterable[T], *, total: int, label: str, clock: Callable[[], float] = time.monotonic) -> Iterator[T]:
    """Pass `items` on and show on stderr how many of `total` have come.

    Parameters
    ----------
    items
        What is counted.
    total
        How many there will be.
    label
        What they are, for example the name of the study.
    clock
        What tells the seconds.
    """
    if sys.stderr.isatty():
        return iter(tqdm(items, total=total, desc=label, unit="cell", delay=_DELAY, file=sys.stderr))
    return _lines(items, total=total, label=label, clock=clock)


def _lines(items: Iterable[T], *, total: int, label: str, clock: Callable[[], float]) -> Iterator[T]:
    start = last = clock()
    for done, item in enumerate(items, start=1):
        now = clock()
        if now - last >= _INTERVAL:
            left = (now - start) / done * (total - done)
            sys.stderr.write(f"{label}: {done} of {total} cells after {now - start:.0f} s, about {left:.0f} s left\n")
            sys.stderr.flush()
            last = now
        yield item
