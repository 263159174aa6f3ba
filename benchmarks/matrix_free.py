"""Time the matrix-free density of a wide, deep network's Jacobian against the dense spectrum, and its distance from it.

Networks of 50 layers at He's and the critical initialisation: `jacobian.spectrum(method="slq")` against
`method="dense"` (assemble and SVD, what a user would do), turn by turn in one process, in processor seconds. W₁ is
∫ |F - F_dense| d ln λ over λ above 1e-6 of the largest, F over all N values; the criterion of the project is W₁ < 0.02
in at most a third of the time at N = 4,096.

Measured on one core that others shared (2026-11-23, torch 2.13.0 on the CPU, one turn each; share of dense's processor
time, W₁; both leave dead units of ReLU networks out):
            relu, he_normal     tanh, critical
N = 1,024   0.68, 0.0070        0.62, 0.0055    float64
N = 2,048   0.31, 0.0053        0.32, 0.0085    float32
N = 4,096   0.22, 0.0043        0.28, 0.0044    float32, dense 25 s and 92 s
N = 4,096   0.27, 0.0059        0.28, 0.0046    float64, dense 49 s and 157 s

Run: OMP_NUM_THREADS=1 python benchmarks/matrix_free.py [width ...] [--dtype float32] [--turns 1] [--device cpu]
"""

import argparse
import math
import time
from statistics import mean, stdev

import numpy as np
import torch
from torch import nn

from rmtbn import inits, rng
from rmtbn.measure import jacobian
from rmtbn.nets.mlp import mlp
from rmtbn.result import EmpiricalSpectrum

DEPTH, FLOOR = 50, 1e-6
KINDS = {"relu": "he_normal", "tanh": "critical"}


def network(width: int, activation: str, dtype: torch.dtype, device: str) -> nn.Module:
    module = mlp(depth=DEPTH, width=width, activation=activation).to(dtype=dtype, device=device)
    generator = rng.torch_generator(1, "benchmark", "weights")
    return inits.initialise(module, KINDS[activation], generator=generator, activation=activation)


def distance(found: EmpiricalSpectrum, expected: EmpiricalSpectrum) -> float:
    floor = 2 * expected.log_singular_values[0] + math.log(FLOOR)
    first, second = (np.maximum(2 * s.log_singular_values, floor) for s in (found, expected))
    return float(np.mean(np.abs(first - second)))


def timed(module: nn.Module, x: torch.Tensor, method: str) -> tuple[EmpiricalSpectrum, float]:
    start = time.process_time() if x.device.type == "cpu" else time.perf_counter()
    found = jacobian.spectrum(module, x, method=method, floor=FLOOR)
    return found, (time.process_time() if x.device.type == "cpu" else time.perf_counter()) - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("widths", nargs="*", type=int, default=[256, 512])
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--turns", type=int, default=1)
    given = parser.parse_args()
    dtype = getattr(torch, given.dtype)
    for width in given.widths:
        for activation in KINDS:
            module = network(width, activation, dtype, given.device)
            x = torch.randn(1, width, generator=rng.torch_generator(1, "benchmark", "input"), dtype=dtype)
            ratios, seconds = [], []
            for _ in range(given.turns):
                dense, slow = timed(module, x.to(given.device), "dense")
                slq, fast = timed(module, x.to(given.device), "slq")
                ratios.append(fast / slow)
                seconds.append(slow)
            spread = f" ± {stdev(ratios):.2g}" if given.turns > 1 else ""
            above = np.mean(2 * dense.log_singular_values > 2 * dense.log_singular_values[0] + math.log(FLOOR))
            print(
                f"N = {width}, {activation}, {given.dtype}: {mean(ratios):.3g}{spread} of the time of dense "
                f"({mean(seconds):.3g} s), W₁ {distance(slq, dense):.2g}, {above:.1%} of λ above the floor, "
                f"resolved to {math.exp(slq.log_lam_floor - 2 * slq.log_singular_values[0]):.1g}"
            )


if __name__ == "__main__":
    main()
