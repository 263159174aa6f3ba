"""Hold the error that long products state for their singular values against the true one.

Chains of 40 random factors in float32, pushed forward as networks are, against the same factors in float64, whose own
error is 1e-5 of theirs. Kinds: Gaussian; with the slopes of a tanh network; orthogonal with slopes 1 and 0.01; sparse
(one entry in ten); with log-normal rows (σ = 1.5); near the identity; and the transposed chains of all. Chains with a
factor that float32 cannot tell from a singular one are left out. A row gives, for one width, quantiles of (largest
error of all ln σ) / (stated error), for generic chains and for those near the identity, whose stated error is far too
large, apart.

Run: OMP_NUM_THREADS=1 python benchmarks/stated_error.py [width chains_of_each_kind]...
"""

import math
import sys
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from rmtbn import rng
from rmtbn.linalg import product as products
from rmtbn.linalg import product_values
from rmtbn.linalg.push_forward import push_forward

DEPTH = 40
PLAN = {8: 60, 16: 60, 32: 60, 64: 40, 128: 20, 256: 6, 512: 2}
IDENTITY = "near the identity"


def gaussian(n: int, draws: torch.Generator) -> Tensor:
    return torch.randn(n, n, generator=draws, dtype=torch.float64) / math.sqrt(n)


def orthogonal(n: int, draws: torch.Generator) -> Tensor:
    q, r = torch.linalg.qr(gaussian(n, draws))
    return q * r.diagonal().sign()


def tanh_slopes(n: int, draws: torch.Generator) -> Tensor:
    return (1 - torch.randn(n, 1, generator=draws, dtype=torch.float64).tanh() ** 2) * gaussian(n, draws)


def two_slopes(n: int, draws: torch.Generator) -> Tensor:
    on = torch.rand(n, 1, generator=draws, dtype=torch.float64) < 0.5
    return torch.where(on, 1.0, 0.01) * orthogonal(n, draws)


def sparse(n: int, draws: torch.Generator) -> Tensor:
    kept = torch.rand(n, n, generator=draws, dtype=torch.float64) < max(0.1, 3.0 * math.log(n) / n)
    return kept * gaussian(n, draws)


def log_normal_rows(n: int, draws: torch.Generator) -> Tensor:
    return (1.5 * torch.randn(n, 1, generator=draws, dtype=torch.float64)).exp() * gaussian(n, draws)


def near_identity(n: int, draws: torch.Generator) -> Tensor:
    return torch.eye(n, dtype=torch.float64) + 0.1 * gaussian(n, draws)


KINDS: Mapping[str, Callable[[int, torch.Generator], Tensor]] = {
    "gaussian": gaussian,
    "tanh slopes": tanh_slopes,
    "slopes 1 and 0.01": two_slopes,
    "sparse": sparse,
    "log-normal rows": log_normal_rows,
    IDENTITY: near_identity,
}


def logs(factors: list[Tensor]) -> tuple[Tensor, float, int]:
    """All log singular values of a chain, the stated error, and the number of re-factorisations."""
    n, dtype = factors[0].shape[-1], factors[0].dtype
    steps = [[partial(_moved, factor)] for factor in factors]
    product, _ = push_forward(products.identity(n, dtype=dtype), torch.zeros(n, dtype=dtype), steps)
    found = product_values.log_singular_values(product)
    return found.values, float(found.relative_error), product.pushes


def _moved(factor: Tensor, point: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    return point, factor @ columns


def shares(n: int, kind: str, chain: int) -> tuple[list[float], float, float]:
    """Return true over stated error of a chain and of its transpose, the stated error and the length of blocks."""
    draws = rng.torch_generator(chain, "stated error", kind, n)
    factors = [KINDS[kind](n, draws).float() for _ in range(DEPTH)]
    found, stated, pushes = [], 0.0, 0
    for chain_of in (factors, [factor.mT.contiguous() for factor in reversed(factors)]):
        values, stated, pushes = logs(chain_of)
        truth, _, _ = logs([factor.double() for factor in chain_of])
        if bool((values.isfinite() == truth.isfinite()).all()):  # else a factor is singular to float32
            found.append(float((values - truth).nan_to_num().abs().max()) / stated)
    return found, stated, DEPTH / pushes


def main(*plan: str) -> None:
    """Print one row for each width and kind, and one for all generic chains of a width."""
    widths = dict(zip(map(int, plan[::2]), map(int, plan[1::2]), strict=True)) if plan else PLAN
    torch.set_num_threads(1)
    print("true over stated error: median, 99 %, largest; share above 1; stated (one); steps in a block")
    for n, chains in widths.items():
        generic: list[float] = []
        for kind in KINDS:
            results = [shares(n, kind, chain) for chain in range(chains)]
            found = [share for result in results for share in result[0]]
            generic += found if kind != IDENTITY else []
            print(row(n, kind, found) + f"  {results[-1][1]:.1e}  {results[-1][2]:.1f}", flush=True)
        print(row(n, "generic", generic), flush=True)


def row(n: int, name: str, found: list[float]) -> str:
    """One line of the table."""
    middle, high, top = np.quantile(found, [0.5, 0.99, 1.0])
    over = float(np.mean(np.array(found) > 1.0))
    return f"{n:4d}  {name:18s} {len(found):4d}  {middle:.3g}  {high:.3g}  {top:.3g}  {over:.2%}"


if __name__ == "__main__":
    main(*sys.argv[1:])
