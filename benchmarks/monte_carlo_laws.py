"""Do real networks follow the laws? 20 networks of width 1000 against twelve laws at depths 1, 4 and 16.

Six activations with Gaussian and with orthogonal weights. For each law: the KS distance of the pooled networks with
its jackknife error and its p-value over networks, the same to two wrong laws (one layer more; the other weights), and,
where φ′ is 0 somewhere, the distance given the ranks of the layers, which differ by chance by √N. Then the rate: the
distance at widths 16 to 128 over 4 N networks, whose noise falls as 1/N like the bias of the law. The alternative that
a user would reach for, the i.i.d. critical value of 5 %, stands beside each distance.

GELU (σ_b² = 0.3, where q* attracts, if barely: χ_q = 0.983): at N = 1000 its distances are 0.0040, 0.0026, 0.0044 at
L = 1, 4, 16 with Gaussian and 0.0056, 0.0033, 0.0036 with orthogonal weights, accepted; L + 1 layers and the other
weights are refused (p = 0.0005). (At L = 1 with orthogonal weights a table of the law is not enough: it smears the 2 %
that pile up within 1e-8 of one λ, which made 0.0209.) Over N = 16 ... 128 it falls as N^-0.94, N^-0.85, N^-0.98
(Gaussian; at L = 16 N^-1.05 on other seeds, N^-0.99 with orthogonal weights). The lengths of its layers scatter widely:
N Var ln q_16 is about 50, that of the first layer 1.9, and the mean of ln q_16 is 20/N to 35/N below ln q*. But the law
hardly depends on them: given the lengths of each network (`rmtbn.theory.given_layers`) N·KS of 20 networks is 1.1, 1.2,
1.2, 1.2 where without it is 1.2, 1.4, 1.2, 1.9. They are noise that networks average out, not what sets the rate.

Every cell is stored under --out, so that an interrupted run goes on; the whole takes about an hour of one core.
--networks 0 or one width of --widths leave out one half.

    python benchmarks/monte_carlo_laws.py --out FOLDER
"""

import argparse
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch
from rmtbn.analyses._laws_networks import STUDY, Kind
from scipy import stats

from rmtbn.activations import activation
from rmtbn.compare import GivenLaws, compare, compare_given
from rmtbn.result import EmpiricalSpectrum
from rmtbn.sweep.grid import Cell
from rmtbn.sweep.run import run
from rmtbn.sweep.store import FolderStore
from rmtbn.theory.given_layers import law_given_ranks, zero_share

DEPTHS = (1, 4, 16)
SIGMA_B: Mapping[str, float] = MappingProxyType(
    {"linear": 0.0, "relu": 0.0, "hard_tanh": 0.05**0.5, "tanh": 0.05**0.5, "erf": 0.05**0.5, "gelu": 0.3**0.5}
)
KINDS = tuple(Kind(activation=a, weights=w, sigma_b=b) for a, b in SIGMA_B.items() for w in ("gaussian", "orthogonal"))
CHUNK = 16  # networks of a cell at small widths
GIVEN = 20  # networks of a comparison given ranks, which leave little noise


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "monte_carlo_laws")
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--widths", type=int, nargs="*", default=[16, 32, 64, 128])
    parser.add_argument("--activations", nargs="*", default=list(SIGMA_B), choices=list(SIGMA_B))
    asked = parser.parse_args()
    chosen = [kind for kind in KINDS if kind.activation in asked.activations]
    torch.set_num_threads(1)
    store = FolderStore(asked.out)
    print(f"{asked.networks} networks of width {asked.width}: KS to the law and to wrong ones", flush=True)
    for kind in chosen if asked.networks else ():
        full(kind, store, width=asked.width, networks=asked.networks)
    print(f"\nRates: KS over 4 N networks at N = {asked.widths}", flush=True)
    for kind in chosen if len(asked.widths) > 1 else ():
        rates(kind, store, asked.widths)


def measured(kind: Kind, store: FolderStore, *, width: int, networks: int, chunk: int) -> pd.DataFrame:
    """Draw networks in cells of `chunk`, or take them from the store."""
    shared = kind.parameters(width=width, depths=DEPTHS, device="cpu", dtype="float64")
    seeds = range(1, 1 + math.ceil(networks / chunk))
    cells = [Cell(parameters={**shared, "networks": min(chunk, networks)}, seed=seed) for seed in seeds]
    return run(STUDY, cells, store=store, progress=False).table("spectra")


def pooled(rows: pd.DataFrame) -> EmpiricalSpectrum:
    """Spectra of all networks of a table of one depth."""
    error = float(rows.relative_error.max())
    return EmpiricalSpectrum(
        by_network=np.array(rows.log_singular_values.tolist()), relative_error=error, method="product"
    )


def full(kind: Kind, store: FolderStore, *, width: int, networks: int) -> None:
    """Print the comparison of one law at each depth."""
    table = measured(kind, store, width=width, networks=networks, chunk=1)
    other = Kind(activation=kind.activation, sigma_b=kind.sigma_b,
                 weights="gaussian" if kind.weights == "orthogonal" else "orthogonal")  # fmt: skip
    iid = stats.kstwo(networks * width).isf(0.05)
    for depth in DEPTHS:
        rows = table[table.depth == depth]
        spectrum = pooled(rows)
        right = compare(kind.law(depth), spectrum)
        deeper, swapped = (compare(law, spectrum) for law in (kind.law(depth + 1), other.law(depth)))
        print(
            f"{kind.activation:9} {kind.weights:10} L={depth:2} KS {right.ks:.5f} ± {right.ks_se:.5f}"
            f" p {right.ks_pvalue:.4f} {right.verdict:20} i.i.d. 5 % {iid:.5f}"
            f" | L+1 {deeper.ks:.4f} p {deeper.ks_pvalue:.4f} {deeper.verdict}"
            f" | other {swapped.ks:.4f} p {swapped.ks_pvalue:.4f} {swapped.verdict}",
            flush=True,
        )
        if has_zeros(kind):
            given, deeper_given = given_ranks(kind, rows), given_ranks(kind, rows, surplus=1)
            print(
                f"{'':25} zeros {right.zeros.measured:.5f} ± {right.zeros.se:.5f}"
                f" free {right.zeros.predicted:.5f} at this N {finite_zeros(kind, width, depth):.5f}"
                f" | given ranks KS {given.ks:.5f} ± {given.ks_se:.5f} p {given.ks_pvalue:.4f}"
                f" | L+1 {deeper_given.ks:.4f} p {deeper_given.ks_pvalue:.4f}",
                flush=True,
            )


def has_zeros(kind: Kind) -> bool:
    """Whether φ′ is 0 somewhere and 1 elsewhere."""
    return 0.0 in (activation(kind.activation).slopes or ())


def given_ranks(kind: Kind, rows: pd.DataFrame, *, surplus: int = 0) -> GivenLaws:
    """Compare networks with the laws for their own ranks; with `surplus` layers too many, of the mean rank."""
    sigma_w = kind.exact_law(1).sigma_w
    alive = rows[[min(shares) > 0 for shares in rows.active]]
    laws = [
        law_given_ranks([*shares, *[float(np.mean(shares))] * surplus], weights=kind.free_weights, sigma_w=sigma_w)
        for shares in alive.active
    ]
    return compare_given(laws, pooled(alive))


def finite_zeros(kind: Kind, width: int, depth: int) -> float:
    """Predicted share of zeros at this width: the free law has 1 - p."""
    p = 1 - sum(mass for lam, mass in kind.law(1).atoms if lam == 0)
    return zero_share(p, width=width, depth=depth)


def rates(kind: Kind, store: FolderStore, widths: Sequence[int]) -> None:
    """Print the distances at growing widths and their log-log slopes."""
    tables = {n: measured(kind, store, width=n, networks=4 * n, chunk=CHUNK) for n in widths}
    for depth in DEPTHS:
        chosen = {n: table[table.depth == depth] for n, table in tables.items()}
        free = [compare(kind.law(depth), pooled(rows)).ks for rows in chosen.values()]
        print(
            f"{kind.activation:9} {kind.weights:10} L={depth:2} N·KS {scaled(widths, free)}: {slope(widths, free)}",
            flush=True,
        )
        if has_zeros(kind):
            given = [given_ranks(kind, rows.iloc[:GIVEN]).ks for rows in chosen.values()]
            print(f"{'given ranks':>25} N·KS {scaled(widths, given)}: {slope(widths, given)}", flush=True)


def scaled(widths: Sequence[int], distances: Sequence[float]) -> str:
    """Write N·KS."""
    return " ".join(f"{n * d:.2f}" for n, d in zip(widths, distances, strict=True))


def slope(widths: Sequence[int], distances: Sequence[float]) -> str:
    """Write the log-log slope, if there is a distance."""
    if not min(distances) > 1e-12:
        return "none to fall"
    return f"falls as N^{np.polyfit(np.log(widths), np.log(distances), 1)[0]:.2f}"


if __name__ == "__main__":
    main()
