"""Time the mean field of batch normalisation, and the law of a batch Jacobian.

100 pairs (B, φ), fixed point and all eigenvalues, on one core: `bn_mean_field.fixed_point` against what a user would
write for the rate alone, `scipy.integrate.quad` nested over two coordinates of the sphere, timed on a few pairs and
scaled. Then the law at B = 8 (one layer from its sample, product, 200 values of the density and of F) against the
Monte Carlo that it replaces: one network of width 128, its batch Jacobian and singular values, which scatter by 0.02.

Run: OMP_NUM_THREADS=1 python benchmarks/batch_norm.py
"""

import math
import time
from collections.abc import Callable
from statistics import mean, stdev

import numpy as np
import torch
from scipy import integrate

from rmtbn.inits import initialise
from rmtbn.nets.mlp import mlp
from rmtbn.theory.batch_norm import directions, layer_law, sphere
from rmtbn.theory.bn_mean_field import batch_jacobian_law, fixed_point

NAMES = ("linear", "relu", "leaky_relu", "tanh", "erf", "hard_tanh", "gelu", "silu", "selu")
SIZES = (4, 6, 8, 12, 16, 24, 32, 48, 96, 128, 200, 512)
PAIRS = [(name, size) for size in SIZES for name in NAMES][:100]
TURNS, PLAIN = 5, ((math.tanh, lambda u: 1 - math.tanh(u) ** 2, 8), (math.erf, lambda u: math.exp(-u * u), 24))


def ours() -> float:
    """CPU seconds for the 100 pairs, quadrature rules made anew."""
    sphere.sphere_rule.cache_clear()
    start = time.process_time()
    for name, size in PAIRS:
        fixed_point(name, batch_size=size)
    return time.process_time() - start


def pair(f: Callable[[float], float], size: int) -> float:
    """E f(u₁)f(u₂) by nested `quad` over t₁ and, given it, t₂."""
    n, c0 = size - 1, -1 / (size - 1)
    root = math.sqrt(1 - c0 * c0)

    def inner(t: float) -> float:
        def value(s: float) -> float:
            u2 = math.sqrt(n) * (c0 * t + root * math.sqrt(1 - t * t) * s)
            return f(u2) * (1 - s * s) ** ((n - 4) / 2)

        return f(math.sqrt(n) * t) * (1 - t * t) ** ((n - 3) / 2) * integrate.quad(value, -1, 1)[0]

    return integrate.quad(inner, -1, 1)[0]


def plain() -> float:
    """CPU seconds of three pair expectations (φφ, φ′φ′, uφ′uφ′) for 100 pairs, scaled from a few."""
    start = time.process_time()
    for phi, dphi, size in PLAIN:
        pair(phi, size), pair(dphi, size), pair(lambda u, dphi=dphi: u * dphi(u), size)
    return (time.process_time() - start) / len(PLAIN) * 100


def law(name: str) -> tuple[float, float]:
    """CPU seconds for the law of one layer, and for 200 points of the density and of F at depth 4."""
    layer_law.layer_law.cache_clear()
    start = time.process_time()
    found = batch_jacobian_law(name, batch_size=8, depth=4)
    middle = time.process_time()
    x = np.linspace(-8, 5, 200)
    found.log_pdf_log(x), found.cdf_log(x)
    return middle - start, time.process_time() - middle


def network(name: str) -> float:
    """CPU seconds for the dense batch Jacobian of one network, B = 8, N = 128, L = 4, and its singular values."""
    module = mlp(depth=4, width=128, activation=name, norm="batch").double()
    for layer in module:
        if isinstance(layer, torch.nn.BatchNorm1d):
            layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
            layer.num_batches_tracked = None
    initialise(module, "gaussian", generator=torch.Generator().manual_seed(1), sigma_w=1.0, sigma_b=0.0)
    x = torch.randn(8, 128, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    start = time.process_time()
    torch.linalg.svdvals(torch.func.jacrev(module)(x).reshape(1024, 1024))
    return time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    times, alternative = [ours() for _ in range(TURNS)], plain()
    print(f"100 pairs (B, φ): rmtbn {mean(times):.2f} ± {stdev(times):.2f} s of one core")
    print(f"  nested quad, the rate alone: about {alternative:.3g} s, {alternative / mean(times):.2g} times as long")
    print(f"samples of directions: {directions.VALUES} eigenvalues per law")
    for name in ("linear", "relu", "tanh"):
        layer, product = law(name)
        print(f"{name:8s} law {layer:.2f} s, its values {product:.2f} s; one network {network(name):.2f} s")


if __name__ == "__main__":
    main()
