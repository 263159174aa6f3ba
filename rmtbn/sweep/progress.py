"""Progress on stderr: a bar on a terminal, a line a minute elsewhere, nothing for what is done in two seconds."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

from tqdm import tqdm

T = TypeVar("T")

_DELAY = 2.0  # seconds: STYLE, rule 21
_INTERVAL = 60.0


def track(
    items: Iterable[T],
    *,
    total: int,
    label: str,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[T]:
    """Pass `items` on and show how many of `total` have come.

    Parameters
    ----------
    items
        What is counted.
    total
        How many there will be.
    label
        What they are, for example the name of the study.
    stream, clock
        Where to write (stderr) and what tells the seconds.
    """
    stream = sys.stderr if stream is None else stream
    if stream.isatty():
        return iter(tqdm(items, total=total, desc=label, unit="cell", delay=_DELAY, file=stream))
    return _lines(items, total=total, label=label, stream=stream, clock=clock)


def _lines(items: Iterable[T], *, total: int, label: str, stream: TextIO, clock: Callable[[], float]) -> Iterator[T]:
    start = last = clock()
    for done, item in enumerate(items, start=1):
        now = clock()
        if now - last >= _INTERVAL:
            left = (now - start) / done * (total - done)
            stream.write(f"{label}: {done} of {total} cells after {now - start:.0f} s, about {left:.0f} s left\n")
            stream.flush()
            last = now
        yield item
