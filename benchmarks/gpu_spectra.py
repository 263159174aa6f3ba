"""Price all singular values of deep Jacobians on a GPU: share of the card's matrix rate, and memory.

Rows for N = 512 ... 4,096 and depth up to 1,000, one network and ensembles, in float64 and float32. The rate of the
card is measured first, by products of matrices of the same size and dtype. The share is that of the floating-point
operations that pushing the basis through the layers takes, 2 N^3 per layer, in all the time taken: what re-factorising
and the values on the CPU cost shows as what is missing to 1. TF32 is off.

Figures: not yet measured on a GPU (no card was at hand when this was written). Date, device and rows go here.

Run: python benchmarks/gpu_spectra.py       (without a CUDA device: small sizes on the CPU, to see that it runs)
     python benchmarks/gpu_spectra.py --device cpu --widths 64 128 --depths 20 --networks 1 4
"""

import argparse
import math
import resource
import time

import torch
from torch import Tensor, nn
from torch.func import jacrev

from rmtbn.measure.ensemble_jacobian import ensemble_spectrum

DTYPES = {"float64": torch.float64, "float32": torch.float32}
_PRODUCTS, _SECONDS = 10, 0.5  # the rate of the card is the best of so many products within so much time


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def matrix_rate(width: int, count: int, dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations per second of products of `count` pairs of matrices."""
    a, b = torch.randn(2, count, width, width, dtype=dtype, device=device)
    best, end = math.inf, clock(device) + _SECONDS
    while clock(device) < end:
        start = clock(device)
        for _ in range(_PRODUCTS):
            torch.matmul(a, b)
        best = min(best, clock(device) - start)
    return _PRODUCTS * count * 2.0 * width**3 / best


def networks(width: int, depth: int, count: int, *, dtype: torch.dtype, device: torch.device) -> list[nn.Module]:
    """Tanh networks near the critical point, drawn where they are used."""
    generator = torch.Generator(device).manual_seed(0)
    made: list[nn.Module] = []
    for _ in range(count):
        layers: list[nn.Module] = []
        for _ in range(depth):
            layer = nn.Linear(width, width, bias=False, device="meta")
            draws = torch.randn(width, width, generator=generator, dtype=dtype, device=device)
            layer.weight = nn.Parameter(draws * (1.05 / math.sqrt(width)), requires_grad=False)
            layers += [layer, nn.Tanh()]
        made.append(nn.Sequential(*layers))
    return made


def peak_memory(device: torch.device) -> float:
    """Peak in GiB since the last reset; of the whole process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def loop_seconds(modules: list[nn.Module], x: Tensor) -> float:
    """Time what a user would do: jacrev and svdvals, one network after another."""
    start = clock(x.device)
    for module in modules:
        torch.linalg.svdvals(jacrev(lambda v, module=module: module(v[None])[0])(x[0]))
    return clock(x.device) - start


def row(width: int, depth: int, count: int, *, dtype: torch.dtype, device: torch.device) -> None:
    rate = matrix_rate(width, count, dtype, device)
    modules = networks(width, depth, count, dtype=dtype, device=device)
    x = torch.randn(1, width, dtype=dtype, device=device)
    cells = [f"N={width:5d} L={depth:5d} networks={count:3d} {str(dtype)[6:]:8s} card {rate / 1e12:7.3f} Tflop/s"]
    for method in ("product", "dense"):
        ensemble_spectrum(modules[:1], x, method=method)  # libraries are loaded now
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        start = clock(device)
        found = ensemble_spectrum(modules, x, method=method, memory_budget=2**35)
        taken = clock(device) - start
        share = count * depth * 2.0 * width**3 / taken / rate
        cells.append(f"{method} {taken:8.3f} s, share {share:.3f}, {peak_memory(device):.2f} GiB")
        if method == "product":
            cells.append(f"stated error {found.relative_error:.0e}")
    cells.append(f"loop of jacrev+svdvals {loop_seconds(modules, x):8.3f} s")
    print("   ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    there = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if there else "cpu")
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 1024, 2048, 4096] if there else [64])
    parser.add_argument("--depths", type=int, nargs="+", default=[50, 200, 1000] if there else [20])
    parser.add_argument("--networks", type=int, nargs="+", default=[1, 16] if there else [1, 4])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    options = parser.parse_args()
    device = torch.device(options.device)
    print(torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU", torch.__version__)
    budget = 0.5 * (torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else 2**32)
    for dtype in (DTYPES[name] for name in options.dtypes):
        for width in options.widths:
            for depth in options.depths:
                for count in options.networks:
                    weights = count * depth * width**2 * dtype.itemsize
                    if weights + 20 * count * width**2 * dtype.itemsize > budget:
                        print(f"N={width} L={depth} networks={count}: the weights alone do not fit, left out")
                        continue
                    row(width, depth, count, dtype=dtype, device=device)


if __name__ == "__main__":
    main()
