"""Time the mean-field recursion of q, c and χ for many networks at once.

1,000 layers, 100 points of the (σ_w, σ_b) plane, on one core: `rmtbn.theory.propagation` against what a user would
write, a loop over the layers with `scipy.integrate.quad` (nested for c), timed on a few layers of one point and scaled.
neural-tangents is timed too where it is installed. Times are of the processor, so that other programs do not count.

Run: OMP_NUM_THREADS=1 python benchmarks/propagation.py
"""

import importlib.util
import math
import time
from collections.abc import Callable
from statistics import mean, stdev

import numpy as np
from scipy import integrate

from rmtbn.theory import moment_table
from rmtbn.theory.propagation import propagation

DEPTH, TURNS, PLAIN_LAYERS = 1000, 5, 2
SIGMA_W, SIGMA_B = (grid.ravel() for grid in np.meshgrid(np.linspace(0.7, 2.0, 10), np.linspace(0.1, 0.7, 10)))


def ours(name: str) -> float:
    """Seconds for all points and layers, tables made anew."""
    moment_table.length_table.cache_clear()
    moment_table.pair_table.cache_clear()
    start = time.process_time()
    propagation(0.6, name, q0=1.0, depth=DEPTH, sigma_w=SIGMA_W, sigma_b=SIGMA_B)
    return time.process_time() - start


def gaussian(f: Callable[[float], float]) -> float:
    """E f(z) by `quad`."""
    return integrate.quad(lambda z: f(z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi), -10, 10)[0]


def pair(f: Callable[[float], float], q: float, c: float) -> float:
    """E f(h₁)f(h₂) by nested `quad`."""
    root, across = math.sqrt(q), math.sqrt(1 - c * c)
    return gaussian(lambda z: f(root * z) * gaussian(lambda y: f(root * (c * z + across * y))))


def plain(phi: Callable[[float], float], dphi: Callable[[float], float]) -> float:
    """Seconds of a loop with `quad`, scaled from a few layers of one point to all."""
    q, c, start = 1.0, 0.6, time.process_time()
    for _ in range(PLAIN_LAYERS):
        following = 2 * pair(phi, q, 1.0) + 0.1
        pair(dphi, q, 1.0), pair(dphi, q, c)
        c, q = (2 * pair(phi, q, c) + 0.1) / following, following
    return (time.process_time() - start) / PLAIN_LAYERS * DEPTH * SIGMA_W.size


def neural_tangents() -> float:
    """Seconds of neural-tangents for erf (its closed form) over all points, one after another."""
    from neural_tangents import stax  # noqa: PLC0415

    x = np.array([[1.0, 0.0], [0.6, 0.8]]) * np.sqrt(2)
    start = time.process_time()
    for w, b in zip(SIGMA_W, SIGMA_B, strict=True):
        layers = [stax.Dense(512, W_std=float(w), b_std=float(b)), stax.Erf()] * DEPTH
        stax.serial(*layers)[2](x, x, "nngp").block_until_ready()
    return time.process_time() - start


def main() -> None:
    scalar = {
        "erf": (math.erf, lambda h: 2 / math.sqrt(math.pi) * math.exp(-h * h)),
        "tanh": (math.tanh, lambda h: 1 - math.tanh(h) ** 2),
    }
    for name in ("erf", "tanh", "hard_tanh", "relu"):
        times = [ours(name) for _ in range(TURNS)]
        print(f"{name:10s} rmtbn {mean(times):.3f} ± {stdev(times):.3f} s", end="")
        if name in scalar:
            alternative = plain(*scalar[name])
            print(f"   loop with quad about {alternative:.3g} s: {alternative / mean(times):.2g} times as long", end="")
        print()
    if importlib.util.find_spec("neural_tangents"):
        print(f"neural-tangents, erf {neural_tangents():.3g} s")


if __name__ == "__main__":
    main()
