"""What does a sweep cost beside its cells, and what does it survive? `python benchmarks/sweep.py [QUESTION ...]`.

Questions (all but `kills` and `memory` if none is named; they take minutes):

- ``cells``: 2,000 cells that do nothing, with the store: two local workers, two of Ray (if installed), and for
  comparison a bare `concurrent.futures` pool that stores nothing. Wall time and CPU time of the driver per cell.
- ``writers``: one cell's file forced to the disk, by one thread and by eight at once.
- ``store``: 100,000 stored cells: to list them, to load the summary, to join them in one file, and to do both again.
- ``kills``: 500 cells, 20 workers killed at random: is every record as in an undisturbed run?
- ``memory``: 20,000 cells of 100 kB: resident memory of the driver along the way.
"""

import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from rmtbn.sweep.cluster import cluster
from rmtbn.sweep.compaction import compact
from rmtbn.sweep.engine import Engine, inline
from rmtbn.sweep.grid import Cell, Study, grid, key
from rmtbn.sweep.job import compute
from rmtbn.sweep.local import local
from rmtbn.sweep.parquet import encode
from rmtbn.sweep.record import record
from rmtbn.sweep.run import advance, run
from rmtbn.sweep.status import summary
from rmtbn.sweep.store import FolderStore, MemoryStore

CELLS, KILLS, KEPT, STORED = 2000, 20, 500, 100_000


def nothing(*, seed: int) -> dict[str, pd.DataFrame]:
    """One number."""
    return {"numbers": pd.DataFrame({"value": [float(seed)]})}


def waiting(*, seed: int) -> dict[str, pd.DataFrame]:
    """One number after 50 ms."""
    time.sleep(0.05)
    return nothing(seed=seed)


def large(*, seed: int) -> dict[str, pd.DataFrame]:
    """100 kB of numbers that do not compress."""
    return {"numbers": pd.DataFrame({"values": [np.random.default_rng(seed).normal(size=12_500)]})}


NOTHING = Study(name="nothing", version=1, compute=nothing)
WAITING = Study(name="waiting", version=1, compute=waiting)
LARGE = Study(name="large", version=1, compute=large)


@contextmanager
def timed(what: str, count: int) -> Iterator[None]:
    """Print wall time and CPU time of this process, in all and for one of so many."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    each = f"{1e3 * wall / count:8.3f} ms each" if count > 1 else " " * 16
    print(f"{what:58s} {wall:8.2f} s {each}, CPU of this process {cpu:7.2f} s", flush=True)


def engines() -> dict[str, Callable[[], Engine]]:
    """Return those that are installed, two workers each."""
    found: dict[str, Callable[[], Engine]] = {"local": lambda: local(2)}
    try:
        cluster()
    except ValueError:
        print("ray is not installed: local only")
    else:
        found["ray"] = lambda: cluster(workers=2)
    return found


def cells() -> None:
    """Time cells that do nothing, start of the workers included."""
    wanted = grid({}, seeds=range(CELLS))
    for name, make in engines().items():
        with tempfile.TemporaryDirectory() as folder, timed(f"{CELLS} cells, {name}, stored", CELLS):
            assert advance(NOTHING, wanted, store=FolderStore(folder), engine=make(), progress=False).stored == CELLS
    with timed(f"{CELLS} cells, concurrent.futures, nothing stored", CELLS), pool() as bare:
        list(bare.map(compute, [NOTHING] * CELLS, wanted))


def pool() -> ProcessPoolExecutor:
    """Return what a user would do instead."""
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


def writers() -> None:
    """Time files that are forced to the disk, alone and together."""
    found = [made(seed) for seed in range(200)]
    for threads in (1, 8):
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(threads) as writing:
            store = FolderStore(folder)
            with timed(f"200 files forced to the disk, {threads} at once", 200):
                list(writing.map(store.add, *zip(*found, strict=True)))


def made(seed: int) -> tuple[str, bytes]:
    """Return key and file of a cell that was not computed."""
    cell = Cell(parameters={"width": 128, "norm": "none", "dtype": "float64"}, seed=seed)
    frames = {"numbers": pd.DataFrame({"layer": [1, 2, 3, 4], "value": np.arange(4.0) + seed})}
    provenance = {"wall_seconds": 0.5, "finished": "2026-01-01", "commit": "unknown", "torch": "2.6", "numpy": "2.0"}
    return key("nothing", 1, cell), encode(record(NOTHING, cell, frames=frames, provenance=provenance))


def store() -> None:
    """Time a large store; its files are written without forcing them to the disk, which is not the question."""
    with tempfile.TemporaryDirectory() as folder:
        with timed(f"write {STORED} files, not forced", STORED):
            for seed in range(STORED):
                name, content = made(seed)
                (Path(folder) / f"{name}.parquet").write_bytes(content)
        _read(folder, "one file each")
        with timed(f"join {STORED} cells in one file", STORED):
            assert compact(FolderStore(folder), "nothing", 1) == STORED
        _read(folder, "in one file")


def _read(folder: str, how: str) -> None:
    with timed(f"list {STORED} cells, {how}", 1):
        assert len(FolderStore(folder).keys()) == STORED
    with timed(f"summary of {STORED} cells, {how}", 1):
        assert len(summary(FolderStore(folder))) == STORED


def kills() -> None:
    """Kill workers at random and compare the records."""
    wanted = grid({}, seeds=range(KEPT))
    expected = run(WAITING, wanted, store=MemoryStore(), progress=False).table("numbers")
    for name, make in engines().items():
        with tempfile.TemporaryDirectory() as folder, timed(f"{KEPT} cells of 50 ms, {KILLS} kills, {name}", KEPT):
            killer = threading.Thread(target=kill, args=(b"ray::_Actor" if name == "ray" else b"",), daemon=True)
            killer.start()
            found = run(WAITING, wanted, store=FolderStore(folder), engine=make(), progress=False).table("numbers")
        print(f"{'':58s} equal to an undisturbed run: {found.equals(expected)}; killed: {KILLED}")
        killer.join()
        KILLED.clear()


KILLED: list[int] = []


def kill(named: bytes) -> None:
    """SIGKILL for a random worker, 20 times within the run."""
    draw = random.Random(1)
    while len(KILLED) < KILLS:
        time.sleep(draw.uniform(0.0, 1.2))
        there = [p.pid for p in multiprocessing.active_children() if p.pid] if not named else processes(named)
        alive = [number for number in there if number not in KILLED]
        if alive:
            KILLED.append(draw.choice(alive))
            os.kill(KILLED[-1], signal.SIGKILL)


def processes(named: bytes) -> list[int]:
    """Return the processes of Linux whose command starts like this."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(named):
                found.append(int(folder.name))
        except OSError:  # gone meanwhile
            continue
    return found


def memory() -> None:
    """Print the resident memory of the driver along 20,000 cells of 100 kB, 2 GB in all."""
    for name, make in (("inline", inline), *engines().items()):
        with tempfile.TemporaryDirectory() as folder:
            sizes = []
            for part in range(4):  # of one sweep: each call finds what is there and goes on
                wanted = grid({}, seeds=range(20_000))
                advance(LARGE, wanted, store=FolderStore(folder), engine=make(), progress=False, at_most=5000)
                sizes.append(resident())
                del wanted, part
        print(f"resident after 5,000, 10,000, 15,000, 20,000 cells, {name}: {', '.join(f'{s:.0f}' for s in sizes)} MB")


def resident() -> float:
    """Return the memory that this process holds, MB (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


QUESTIONS = MappingProxyType({"cells": cells, "writers": writers, "store": store, "kills": kills, "memory": memory})

if __name__ == "__main__":
    for question in sys.argv[1:] or ["cells", "writers", "store"]:
        QUESTIONS[question]()
