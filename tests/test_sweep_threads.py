"""How many threads a worker has."""

import pytest

from rmtbn.sweep import threads


@pytest.mark.parametrize(("cores", "workers", "expected"), [(8, 2, 4), (7, 2, 3), (2, 5, 1), (16, 1, 16)])
def test_share_is_cores_over_workers(monkeypatch, cores, workers, expected):
    """max(1, cores // workers)."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "cores", lambda: cores)
    assert threads.share(workers) == expected


@pytest.mark.parametrize(("text", "expected"), [("3", 3), ("4,2", 4), ("", 8), ("many", 8), ("0", 8)])
def test_omp_num_threads_wins_where_it_is_a_number(monkeypatch, text, expected):
    """The first of a list; what is no number >= 1 is as if it were not set."""
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    monkeypatch.setattr(threads, "cores", lambda: 8)
    assert threads.share(1) == expected


def test_variables_that_are_set_stay(monkeypatch):
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    import os

    threads.announce(2)
    assert (os.environ["MKL_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"]) == ("5", "2")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")


def test_loaded_libraries_keep_to_their_number():
    """torch.get_num_threads() after keep_to(1); restored."""
    import torch

    before = torch.get_num_threads()
    threads.keep_to(1)
    assert torch.get_num_threads() == 1
    threads.keep_to(before)
