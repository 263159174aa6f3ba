"""Ctrl-C, and the signal by which a scheduler ends a job: what is in flight is finished, the rest is left for later."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptedSweep(KeyboardInterrupt):
    """The run was asked to stop; what was in flight is stored, and the same call goes on from there."""


class Stop:
    """Whether the run was asked to stop."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def stopping() -> Iterator[Stop]:
    """Note the first SIGINT or SIGTERM within; the second acts as it would have without.

    Only the main thread can see signals: elsewhere nothing changes.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in _SIGNALS}

    def note(_number: int, _frame: FrameType | None) -> None:
        stop.asked = True
        _restore(before)

    try:
        for number in _SIGNALS:
            signal.signal(number, note)
        yield stop
    finally:
        _restore(before)


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler if handler is not None else signal.SIG_DFL)
