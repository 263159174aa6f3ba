"""Threads of a worker: its share of the cores, unless the user said otherwise.

Sums and factorisations depend in their last digits on how many threads share them: results agree bit for bit between
engines that give a cell the same number, which OMP_NUM_THREADS fixes for all.
"""

import os
import sys

from threadpoolctl import threadpool_limits

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(workers: int) -> int:
    """Return the threads of one of so many workers: OMP_NUM_THREADS if it is set, else an equal share of the cores."""
    return asked() or max(1, cores() // workers)


def asked() -> int | None:
    """Return the number in OMP_NUM_THREADS, the outermost if it lists several; None if it is not set."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def announce(threads: int) -> None:
    """Tell the libraries that this process has yet to load; variables that are set are left as they are."""
    for name in _VARIABLES:
        os.environ.setdefault(name, str(threads))


def keep_to(threads: int) -> None:
    """Tell the libraries that this process has loaded."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.get_num_threads()  # has torch settle its own number now, which would replace ours later
    threadpool_limits(limits=threads)
