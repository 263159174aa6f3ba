"""Progress: a bar on a terminal, a line a minute elsewhere, nothing for what is short."""

import io
import sys

import pytest

from rmtbn.sweep.progress import track


@pytest.fixture
def stderr(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def ticking(step: float):
    """A clock that is read once at the start and once per item."""
    times = iter(range(1000))
    return lambda: step * next(times)


@pytest.mark.parametrize("terminal", [False, True])
def test_short_work_is_silent(stderr, monkeypatch, terminal):
    monkeypatch.setattr(stderr, "isatty", lambda: terminal, raising=False)
    assert list(track(range(5), total=5, label="toy")) == list(range(5))
    assert stderr.getvalue() == ""


def test_long_work_off_a_terminal_writes_a_line_a_minute(stderr):
    """25 s an item: a line after items 3, 6, 9 (75 s, 150 s, 225 s), with the time that is left."""
    assert len(list(track(range(10), total=10, label="toy", clock=ticking(25.0)))) == 10
    lines = stderr.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == "toy: 3 of 10 cells after 75 s, about 175 s left"
    assert lines[2] == "toy: 9 of 10 cells after 225 s, about 25 s left"


def test_long_work_on_a_terminal_shows_a_bar(stderr, monkeypatch):
    monkeypatch.setattr("rmtbn.sweep.progress._DELAY", 0.0)
    monkeypatch.setattr(stderr, "isatty", lambda: True, raising=False)
    assert list(track(range(5), total=5, label="toy")) == list(range(5))
    assert "toy: 100%" in stderr.getvalue()
    assert "5/5" in stderr.getvalue()
