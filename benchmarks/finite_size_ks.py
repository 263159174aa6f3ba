"""Distance of finite Gaussian products from their N → ∞ law and from its neighbours, in units of 1/N.

For products of L Gaussian N × N matrices, 20 networks pooled, the table gives N·KS to Fuss–Catalan of L factors (the
mean over repetitions and half its range: what the allowance κ/N of `rmtbn.compare` must cover) and to the laws of L - 1
and L + 1 factors (what it must not cover). The alternative a user would reach for stands in the last column: scipy's
5 % critical value for as many independent draws, which no wrong law of the table exceeds before N is large.

    python benchmarks/finite_size_ks.py
"""

import numpy as np
import torch
from scipy import stats

from rmtbn import rng
from rmtbn.compare import compare
from rmtbn.inits import initialise
from rmtbn.measure.jacobian import spectrum
from rmtbn.nets.mlp import mlp
from rmtbn.result import EmpiricalSpectrum
from rmtbn.theory.fuss_catalan import FussCatalan

DEPTHS = (1, 4, 16)
NETWORKS = 20
REPETITIONS = {16: 16, 32: 16, 64: 8, 128: 8, 256: 3, 512: 2}  # by width; about 2.5 minutes of one core


def main() -> None:
    """Measure and print."""
    print(f"{'L':>3} {'N':>4} {'N·KS':>6} {'±':>5} {'to L-1':>7} {'to L+1':>7} {'i.i.d. 5 %':>11}")
    for depth in DEPTHS:
        means = [row(depth, width) for width in REPETITIONS]
        slope, _ = np.polyfit(np.log(list(REPETITIONS)), np.log(means), 1)
        print(f"    L = {depth}: KS falls as N^{slope:.2f}\n")


def row(depth: int, width: int) -> float:
    """Print one line of the table and return the mean KS distance."""
    measured = [pooled(depth, width, seed) for seed in range(REPETITIONS[width])]
    own = width * np.array([distance(depth, one) for one in measured])
    below, above = (width * distance(other, measured[0]) for other in (depth - 1, depth + 1))
    iid = width * stats.kstwo(NETWORKS * width).isf(0.05)
    print(
        f"{depth:3} {width:4} {own.mean():6.2f} {np.ptp(own) / 2:5.2f} {below:7.1f} {above:7.1f} {iid:11.1f}",
        flush=True,
    )
    return float(own.mean()) / width


def distance(depth: int, measured: EmpiricalSpectrum) -> float:
    """KS distance to the law of `depth` factors; there is none of 0 factors."""
    return compare(FussCatalan(depth=depth), measured).ks if depth else np.nan


def pooled(depth: int, width: int, seed: int) -> EmpiricalSpectrum:
    """Spectra of 20 linear networks: every singular value, whatever the depth."""
    x = torch.zeros(1, width, dtype=torch.float64)
    module = mlp(depth=depth, width=width, activation="linear").double()
    found = []
    for network in range(NETWORKS):
        generator = rng.torch_generator(seed, "finite size", depth, width, network)
        initialise(module, "gaussian", generator=generator, sigma_w=1.0)
        found.append(spectrum(module, x))
    return EmpiricalSpectrum.pool(found)


if __name__ == "__main__":
    main()
