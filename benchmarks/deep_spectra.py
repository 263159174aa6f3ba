"""Price all singular values of a deep Jacobian beside `torch.func.jacrev` and `svdvals`.

Rows: time of both routes against jacrev + svdvals at N = 512, L = 50; an ensemble of 16 networks at N = 128, L = 100
against a loop; exponents of depth and width; peak memory at depth 200 against jacrev, and at depth 100 and 5,000.
The routes run turn by turn in one process; times are processor time on one thread, which does not see other programs,
and wall time on several, ratios the median over the turns. Memory is the peak of a process of its own, above that of
its start.

jacrev's values are wrong below eps of the largest; those of the product route are all right to the error printed.

Figures of 2026-11-23, two-core AMD EPYC. One network near the critical point, N = 512, L = 50, over jacrev + svdvals.
Two threads, wall time, medians of ten turns for each of three networks: product 2.5 to 2.7 (tanh) and 0.60 to 0.71
(ReLU) in float64, 3.15 to 3.9 and 0.94 to 1.16 in float32 (states 2e-4 and 1e-4); dense 0.89 to 0.96 (tanh) and 0.33
(ReLU) in float64, 1.00 to 1.07 and 0.40 to 0.49 in float32. All move by a tenth from run to run.
A loop over 16 networks at N = 128, L = 100, over the ensemble in one pass, two threads, medians of 20 processes of 8 to
24 turns: dense 1.49 to 1.92 (float64) and 1.55 to 2.12 (float32); one thread 1.3 and 1.4. The product route takes 3.6
and 2.7 times as long as the loop (one thread 4.2 and 3.3).
Depth exponent 1.04 to 1.09 (N = 64, L = 50 … 3,200). Width, L = 10, float64: 2.94 and 2.99 on two threads (N = 512 …
4,096), 2.94 on one (512 … 2,048).
Memory, parameters with gradients: dense 1.3 MiB and product 3.0 MiB against jacrev's 204 at N = 256, L = 200; the
product at N = 128 takes 1.0 MiB at depth 100 and 6.2 MiB at 5,000 (the list of layers).

Run: python benchmarks/deep_spectra.py [--threads 1] [--turns 3] [--quick]
"""

import argparse
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jacrev

from rmtbn.measure.ensemble_jacobian import ensemble_spectrum
from rmtbn.measure.jacobian import spectrum

# What is freed goes back to the system. By default glibc's heap fragments at this alignment, by 0 to 200 MiB at 200
# layers and differently in every run.
SMALL_HEAP = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
CRITICAL = {"tanh": (nn.Tanh, 1.05), "relu": (nn.ReLU, math.sqrt(2.0))}  # near the critical point at these widths


def network(width: int, depth: int, name: str, dtype: torch.dtype, *, seed: int = 0) -> nn.Sequential:
    activation, gain = CRITICAL[name]
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layer = nn.Linear(width, width, bias=False)
        layer.weight.data = torch.randn(width, width, generator=generator) * gain / math.sqrt(width)
        layers += [layer, activation()]
    return nn.Sequential(*layers).to(dtype).requires_grad_(False)


def inputs(width: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(1, width, generator=torch.Generator().manual_seed(1)).to(dtype)


def plain(module: nn.Module, x: Tensor) -> Tensor:
    return torch.linalg.svdvals(jacrev(lambda v: module(v[None])[0])(x[0]))


def seconds(run: Callable[[], object]) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    run()
    return clock() - start


def turns(routes: dict[str, Callable[[], object]], count: int) -> dict[str, list[float]]:
    """Seconds of each route, turn by turn, after one turn to warm up."""
    for run in routes.values():
        run()
    rounds = [{name: seconds(run) for name, run in routes.items()} for _ in range(count)]
    return {name: [one[name] for one in rounds] for name in routes}


def row(label: str, times: dict[str, list[float]]) -> None:
    names = list(times)
    base = times[names[0]]
    cells = [f"{names[0]} {median(base):.3f} s"]
    for name in names[1:]:
        ratios = sorted(ours / theirs for ours, theirs in zip(times[name], base, strict=True))
        cells.append(f"{name} {median(times[name]):.3f} s = {median(ratios):.2f} x [{ratios[0]:.2f}, {ratios[-1]:.2f}]")
    print(f"{label:34s} " + "   ".join(cells), flush=True)


def times(width: int, depth: int, count: int) -> None:
    for name in CRITICAL:
        for dtype in (torch.float64, torch.float32):
            module, x = network(width, depth, name, dtype), inputs(width, dtype)
            found = turns(
                {
                    "jacrev+svdvals": lambda m=module, v=x: plain(m, v),
                    "product": lambda m=module, v=x: spectrum(m, v, method="product"),
                    "dense": lambda m=module, v=x: spectrum(m, v, method="dense"),
                },
                count,
            )
            error = spectrum(module, x, method="product").relative_error
            row(f"N={width} L={depth} {name} {str(dtype)[6:]} (error {error:.0e})", found)


def ensembles(width: int, depth: int, count: int) -> None:
    for dtype in (torch.float64, torch.float32):
        modules, x = [network(width, depth, "tanh", dtype, seed=i) for i in range(16)], inputs(width, dtype)
        found = turns(
            {
                "loop of jacrev+svdvals": lambda m=modules, v=x: [plain(one, v) for one in m],
                "product": lambda m=modules, v=x: ensemble_spectrum(m, v),
                "dense": lambda m=modules, v=x: ensemble_spectrum(m, v, method="dense"),
            },
            count,
        )
        row(f"16 networks N={width} L={depth} {str(dtype)[6:]}", found)


def exponent(label: str, sizes: list[int], make: Callable[[int], tuple[nn.Module, Tensor]], count: int) -> None:
    """Slope of the log of the time against the log of the size, by least squares; fewer turns of what takes long."""
    found = []
    for size in sizes:
        module, x = make(size)
        routes = {"product": lambda m=module, v=x: spectrum(m, v, method="product")}
        found.append(min(turns(routes, max(1, count * sizes[0] // size))["product"]))
    slope = np.polyfit(np.log(sizes), np.log(found), 1)[0]
    cells = ", ".join(f"{size}: {value:.3f} s" for size, value in zip(sizes, found, strict=True))
    print(f"{label:34s} exponent {slope:.2f}   ({cells})", flush=True)


def memory(route: str, width: int, depth: int) -> float:
    """Peak memory in MiB of a fresh process above its start, on a network that uses one layer again and again."""
    command = [sys.executable, __file__, "--memory", route, str(width), str(depth)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=SMALL_HEAP).stdout)


def measure_memory(route: str, width: int, depth: int) -> None:
    torch.set_num_threads(1)
    one, x = network(width, 1, "tanh", torch.float64), inputs(width, torch.float64)
    one.requires_grad_(True)  # as networks are that are to be trained
    small = {"jacrev": plain, "dense": lambda m, v: spectrum(m, v, method="dense"), "product": spectrum}
    run = small[route] if route != "product" else lambda m, v: spectrum(m, v, method="product")
    run(one, x)  # libraries are loaded now
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(nn.Sequential(*list(one) * depth), x)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def memories(*, deep: int) -> None:
    """Print peaks: first of all, as a new process starts at the peak of the one it comes from."""
    top = {route: memory(route, 256, 200) for route in ("jacrev", "dense", "product")}
    cells = "   ".join(f"{route} {mib:.1f} MiB ({mib / top['jacrev']:.2f})" for route, mib in top.items())
    print(f"{'peak memory, N=256 L=200':34s} {cells}", flush=True)
    cells = "   ".join(f"L={depth}: {memory('product', 128, depth):.1f} MiB" for depth in (100, deep))
    print(f"{'memory of the product, N=128':34s} {cells}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small sizes, seconds")
    parser.add_argument("--memory", nargs=3, metavar=("ROUTE", "WIDTH", "DEPTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        measure_memory(options.memory[0], int(options.memory[1]), int(options.memory[2]))
        return
    memories(deep=1000 if options.quick else 5000)
    torch.set_num_threads(options.threads)
    width, count = (128, 1) if options.quick else (512, options.turns)
    times(width, 50, count)
    ensembles(32 if options.quick else 128, 100, count)
    double = torch.float64
    depths = [50, 100, 200] if options.quick else [50, 200, 800, 3200]
    exponent("depth, N=64", depths, lambda n: (network(64, n, "tanh", double), inputs(64, double)), count)
    widths = [64, 128, 256] if options.quick else [512, 1024, 2048, 4096]  # the rate of matrix products has settled
    exponent("width, L=10", widths, lambda n: (network(n, 10, "tanh", double), inputs(n, double)), count)


if __name__ == "__main__":
    main()
