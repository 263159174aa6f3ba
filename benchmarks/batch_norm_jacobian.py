"""Time and weigh the batch Jacobian against `torch.func.jacrev` and an SVD, turn by turn.

`torch.func` refuses torch's batch normalisation in train mode, which moves its running statistics; so the alternatives
use its own remedy, `replace_all_batch_norm_modules_`. "jacrev" is what a user writes; "jacrev, frozen" the same with
parameters that take no gradient, without which the vmapped backward pass keeps a graph. Each then takes `svdvals`,
whose small values are rounding noise. Time is the CPU time of one thread, at 8 layers; memory the peak of a process of
its own, over what the network takes, at 50 layers (or as asked). Values are compared above 1e-8 of the largest, and all
of them together by Σ ln σ on 1^⊥ = Σ_l (n ln|det W_l| + Σ_f ln|det of the n × n map of feature f|).

Figures of 2026-11-23 on idle cores, linear: one thread, product .92 ± .02 times jacrev's CPU time, dense .36, frozen
.66. Wall time on two threads, the product over jacrev, medians of 6 to 9 turns in five processes: linear .94 to 1.04,
tanh .85 to 1.00, ReLU .81 to .91; single turns .6 to 1.2, as jacrev's own time varies by half. Memory at 50 layers:
product 349 MB, dense 72, jacrev 6,935, frozen 205.

Run: OMP_NUM_THREADS=1 python benchmarks/batch_norm_jacobian.py [activation] [turns] [depth for memory]
"""

import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from statistics import mean, stdev

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jacrev, replace_all_batch_norm_modules_

from rmtbn import rng
from rmtbn.inits import initialise
from rmtbn.measure.batch_jacobian import spectrum
from rmtbn.measure.column_maps import Blocks
from rmtbn.measure.contrasts import chained
from rmtbn.nets.mlp import mlp

BATCH, WIDTH, DEPTH = 16, 128, 8
RESOLVED = math.log(1e-8)


def problem(activation: str, depth: int) -> tuple[nn.Module, Tensor]:
    """Draw a Gaussian network in float64 and a batch."""
    module = mlp(depth=depth, width=WIDTH, activation=activation, norm="batch").double()
    generator = rng.torch_generator(1, "benchmark")
    initialise(module, "gaussian", generator=generator, sigma_w=1.0, sigma_b=0.0)
    return module, torch.randn(BATCH, WIDTH, generator=generator, dtype=torch.float64)


def by_jacrev(module: nn.Module, x: Tensor) -> np.ndarray:
    """Log singular values of all of J as a user would have them."""
    replace_all_batch_norm_modules_(module)
    matrix = jacrev(module)(x).reshape(x.numel(), x.numel())
    return torch.linalg.svdvals(matrix).detach().log().numpy()


def by_frozen_jacrev(module: nn.Module, x: Tensor) -> np.ndarray:
    """Do the same without gradients of the parameters."""
    return by_jacrev(module.requires_grad_(False), x)


def by_product(module: nn.Module, x: Tensor) -> np.ndarray:
    """All log singular values right."""
    return spectrum(module, x, space="whole").spectrum.by_network[0]


def by_dense(module: nn.Module, x: Tensor) -> np.ndarray:
    """Those above rounding."""
    return spectrum(module, x, space="whole", method="dense").spectrum.by_network[0]


WAYS: Mapping[str, Callable[[nn.Module, Tensor], np.ndarray]] = {
    "jacrev": by_jacrev,
    "jacrev, frozen": by_frozen_jacrev,
    "product": by_product,
    "dense": by_dense,
}


def seconds(way: str, activation: str) -> tuple[float, np.ndarray]:
    """CPU time of one measurement, and its values."""
    module, x = problem(activation, DEPTH)
    start = time.process_time()
    values = WAYS[way](module, x)
    return time.process_time() - start, values


def peak(way: str, activation: str, depth: int) -> float:
    """Megabytes that a process of its own took at most for one measurement."""
    command = [sys.executable, __file__, "--peak", way, activation, str(depth)]
    small_heap = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back to the system
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=small_heap).stdout)


def weigh(way: str, activation: str, depth: int) -> None:
    """Print the growth of the peak memory of this process during one measurement."""
    module, x = problem(activation, depth)
    WAYS[way](nn.BatchNorm1d(2).double(), torch.randn(4, 2, dtype=torch.float64))  # loads what it needs
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    WAYS[way](module, x)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def log_determinant(module: nn.Module, x: Tensor) -> float:
    """Σ ln σ on 1^⊥, layer by layer."""
    with chained(module, x, centred=True) as links:
        total, n = 0.0, links.batch_size - 1
        for move in links.maps:
            matrix, count = (move.blocks, 1) if isinstance(move, Blocks) else (move.weight, n)
            total += count * float(torch.linalg.slogdet(matrix).logabsdet.sum())
    return total


def main(activation: str = "linear", turns: str = "3", depth: str = "50") -> None:
    """Print times, ratios, agreement and memory."""
    torch.set_num_threads(1)
    # first of all, as a new process starts at the peak of the one it comes from
    megabytes = {way: peak(way, activation, int(depth)) for way in WAYS}
    found: dict[str, list[tuple[float, np.ndarray]]] = {way: [] for way in WAYS}
    for _ in range(int(turns)):
        for way in WAYS:
            found[way].append(seconds(way, activation))
    times = {way: [one[0] for one in runs] for way, runs in found.items()}
    print(f"{activation}, B = {BATCH}, N = {WIDTH}: CPU seconds at {DEPTH} layers, MB at {depth}")
    for way, own in times.items():
        ratios = [a / b for a, b in zip(own, times["jacrev"], strict=True)]
        spent, ratio = (f"{mean(values):.2f} ± {stdev(values):.2f}" for values in (own, ratios))
        print(f"{way:15s} {spent} s, {ratio} times jacrev; {megabytes[way]:.0f} MB", flush=True)
    oracle, values = found["jacrev"][0][1], found["product"][0][1]
    known = oracle > oracle[0] + RESOLVED
    apart = np.abs(values - oracle)[known].max()
    print(f"above 1e-8 of the top ({known.sum()} values): ln σ differs from jacrev's by {apart:.2g} at most")
    if activation != "relu":
        finite = values[np.isfinite(values)]
        expected = log_determinant(*problem(activation, DEPTH))
        print(f"Σ ln σ of all {finite.size}: {math.fsum(finite):.9f}, by determinants of layers {expected:.9f}")


if __name__ == "__main__":
    weigh(*sys.argv[2:4], int(sys.argv[4])) if sys.argv[1:2] == ["--peak"] else main(*sys.argv[1:])
