"""Progress: a bar on a terminal, a line a minute elsewhere, nothing for what is short."""

import contextlib
import io
import time

import pytest

from rmtbn.sweep.progress import Progress


class Stream(io.StringIO):
    def __init__(self, *, terminal: bool):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


def shown(total: int, *, terminal: bool, clock=time.monotonic, failing=()) -> str:
    """What counting to `total` writes to stderr."""
    stream = Stream(terminal=terminal)
    with (
        contextlib.redirect_stderr(stream),
        contextlib.closing(Progress(total=total, label="toy", clock=clock)) as progress,
    ):
        for i in range(total):
            progress.add(failed=i in failing)
    return stream.getvalue()


def ticking(step: float):
    """A clock that is read once at the start and once per item."""
    times = iter(range(1000))
    return lambda: step * next(times)


@pytest.mark.parametrize("terminal", [False, True])
def test_short_work_is_silent(terminal):
    assert shown(5, terminal=terminal) == ""


def test_long_work_off_a_terminal_writes_a_line_a_minute():
    """25 s an item: a line after items 3, 6, 9 (75 s, 150 s, 225 s), with rate, time left and failures."""
    lines = shown(10, terminal=False, clock=ticking(25.0), failing=(4, 5)).splitlines()
    assert len(lines) == 3
    assert lines[0] == "toy: 3 of 10 cells after 75 s, 2.4 a minute, about 175 s left"
    assert lines[2] == "toy: 9 of 10 cells after 225 s, 2.4 a minute, about 25 s left, 2 failed"


def test_long_work_on_a_terminal_shows_a_bar(monkeypatch):
    monkeypatch.setattr("rmtbn.sweep.progress._DELAY", 0.0)
    text = shown(5, terminal=True, failing=(3,))
    assert "toy: 100%" in text
    assert "5/5" in text
    assert "cell/s" in text
    assert "failed=1" in text
