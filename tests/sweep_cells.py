"""Cells for the tests of sweeps: functions of a module, which worker processes import."""

import ctypes
import os
import signal
import time

import numpy as np
import pandas as pd

from rmtbn import rng
from rmtbn.sweep.grid import Group, Study, grid


def draw(*, seed, size):
    """Some numbers that depend on the parameters and the seed alone."""
    return {"draws": pd.DataFrame({"draw": rng.generator(seed, size).normal(size=size)})}


def product(*, seed, size):
    """Linear algebra, whose last digits would tell two ways of computing apart."""
    import torch

    matrix = torch.randn(size, size, dtype=torch.float64, generator=rng.torch_generator(seed, "matrix"))
    values = torch.linalg.svdvals(matrix @ torch.linalg.qr(matrix)[0])
    return {"values": pd.DataFrame({"log_singular_values": [values.log().tolist()]})}


def poisoned(*, seed, kind):
    """Healthy for `kind` "none"; else ends, or never ends, in one of the ways that kill a process."""
    if kind == "segfault":
        ctypes.string_at(0)
    elif kind == "memory":
        np.ones(2**62 // 8)
    elif kind == "filled":
        taken = []
        while True:
            taken.append(np.ones(2**24))
    elif kind == "loop":
        while True:
            pass
    elif kind == "exit":
        raise SystemExit("enough")
    elif kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(seed=seed, size=2)


def slow(*, seed, seconds):
    """A cell that takes its time."""
    time.sleep(seconds)
    return draw(seed=seed, size=2)


def large(*, seed, size):
    """A result that takes a while to be passed on: 8 bytes per entry."""
    return {"large": pd.DataFrame({"values": [rng.generator(seed).normal(size=size)]})}


def threads(*, seed):
    """How many threads torch uses here."""
    import torch

    return {"threads": pd.DataFrame({"torch": [torch.get_num_threads()], "omp": [os.environ.get("OMP_NUM_THREADS")]})}


def gpu(*, seed):
    """Which GPU this process sees."""
    time.sleep(0.2)  # so that no worker takes all cells
    return {"gpu": pd.DataFrame({"visible": [os.environ.get("CUDA_VISIBLE_DEVICES", "")]})}


def total(*, seed, size, scale):
    """A sum, alone."""
    values = rng.generator(seed, size).normal(size=size)
    return {"sums": pd.DataFrame({"total": [float(np.sum(scale * values))], "calls": [1]})}


def totals(cells):
    """The sums of cells of one size, all at once; refuses the seed 13."""
    if any(cell.seed == 13 for cell in cells):
        raise ValueError("seed 13")
    size = cells[0].parameters["size"]
    values = np.stack([rng.generator(cell.seed, size).normal(size=size) for cell in cells])
    found = np.array([cell.parameters["scale"] for cell in cells]) * values.sum(axis=1)
    return [{"sums": pd.DataFrame({"total": [float(one)], "calls": [len(cells)]})} for one in found]


def eight(parameters):
    """Eight cells in a call on a GPU, one on the CPU."""
    return 8 if parameters.get("device") == "cuda" else 1


DRAW = Study(name="draw", version=1, compute=draw)
PRODUCT = Study(name="product", version=1, compute=product)
POISONED = Study(name="poisoned", version=1, compute=poisoned)
SLOW = Study(name="slow", version=1, compute=slow)
LARGE = Study(name="large", version=1, compute=large)
THREADS = Study(name="threads", version=1, compute=threads)
GPU = Study(name="gpu", version=1, compute=gpu)
TOTALS = Study(name="totals", version=1, compute=total, group=Group(compute=totals, same=("size",), size=eight))


def cells(count):
    """So many cells of `draw`."""
    return grid({"size": (3,)}, seeds=range(count))
