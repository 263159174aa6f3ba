"""Which law do the singular values of a batch-normalised network follow? `rmtbn bn-jacobian`.

Batch statistics couple the examples, so that the Jacobian J is that of all outputs of a batch by all its inputs, B·N ×
B·N. On 1^⊥ its squared singular values follow a free product of inverse χ² layers for N → ∞ at fixed B
(docs/derivations/batch_norm_jacobian.md; fixed points and rates: Yang et al. 2019, arXiv:1902.08129). Networks are laid
over it, over B, depth, activation and weights; with their zeros and the share of ‖J‖² in the per-sample blocks.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

import click
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from rmtbn import inits, rng
from rmtbn.activations import ACTIVATIONS
from rmtbn.measure.batch_blocks import blocks
from rmtbn.measure.batch_jacobian import BatchSpectrum, spectrum
from rmtbn.nets.mlp import mlp
from rmtbn.plot.theme import STYLES
from rmtbn.report.render import write
from rmtbn.sweep.grid import Cell, Study, Value

from . import _bn_jacobian_page
from ._bn_jacobian_records import BatchSpectra, Kind
from ._options import Common, common, echo_json, example

CHOSEN = ("linear", "relu", "tanh")
WEIGHTS = ("gaussian", "orthogonal")
DEPTHS = MappingProxyType({"quick": (1, 4), "default": (1, 2, 4, 8), "paper": (1, 2, 4, 8, 16)})
# (B, N) at every depth, one N for each B: densities, zeros, blocks.
PROFILED: Mapping[str, tuple[tuple[int, int], ...]] = MappingProxyType(
    {
        "quick": ((4, 24), (8, 24)),
        "default": ((4, 64), (8, 128), (16, 32), (24, 24)),
        "paper": ((4, 128), (8, 256), (16, 256), (32, 128), (64, 64)),
    }
)
# (B, N) at the greatest depth alone: more distances against B/N.
DEEPEST: Mapping[str, tuple[tuple[int, int], ...]] = MappingProxyType(
    {
        "quick": ((8, 12),),
        "default": ((8, 32), (8, 64)),
        "paper": ((8, 64), (8, 128), (16, 64), (16, 128), (32, 32), (32, 64)),
    }
)
# Values of all networks of a kind together, about, and fewest networks: larger batches need fewer networks for the same
# error. Largest B·N, the dimension of J, of a batch that is asked for by itself.
GRID: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "quick": {"values": 400, "fewest": 2, "largest": 192},
        "default": {"values": 2_000, "fewest": 3, "largest": 1_024},
        "paper": {"values": 60_000, "fewest": 8, "largest": 4_096},
    }
)
RESOLVED = 1e-6  # relative error of the least value, up to which it may come from the assembled matrix
MOST = 10_000  # networks of a cell, so that seeds share none


def cell(
    *, seed: int, activation: str, weights: str, batch: int, width: int, depth: int, spread: float, networks: int,
    device: str, dtype: str,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Measure the batch Jacobians of some networks of one kind at a batch of the fixed point's spread.

    Returns
    -------
    dict
        "spectra": one row per network, with its log singular values on 1^⊥ (leaked ones as zeros), how many of each
        kind of zero there are, and squared norms of the per-sample blocks and of all.
    """
    rows, place = [], {"device": torch.device(device), "dtype": getattr(torch, dtype)}
    for network in range(networks):
        labels = (activation, weights, batch, width, depth, seed * MOST + network)
        module = mlp(depth=depth, width=width, activation=activation, norm="batch").double()
        sigmas = {"sigma_w": 1.0, "sigma_b": 0.0}
        inits.initialise(module, weights, generator=rng.torch_generator(seed, "weights", *labels),
                         activation=activation, **sigmas)  # fmt: skip
        x = _inputs(batch, width, spread=spread, generator=rng.torch_generator(seed, "inputs", *labels)).to(**place)
        module = module.to(**place)
        found, diagonal = _spectrum(module, x), blocks(module, x)
        rows.append(
            {
                "network": network,
                "log_singular_values": list(found.without_leak.by_network[0]),
                "relative_error": found.spectrum.relative_error,
                "method": found.spectrum.method,
                "zeros": found.zeros,
                "leaked": found.leaked,
                "block_norm": diagonal.share * diagonal.squared_norm,
                "whole_norm": diagonal.squared_norm,
            }
        )
    return {"spectra": pd.DataFrame(rows)}


def _spectrum(module: nn.Module, x: Tensor) -> BatchSpectrum:
    """Measure the spectrum by the assembled matrix where that resolves all but the leaks, as of one layer, or two."""
    found = spectrum(module, x, method="dense")
    logs, floors = found.without_leak.by_network[0], found.spectrum.log_floor
    known = logs[np.isfinite(logs)]
    resolved = floors is None or known.size == 0 or float(floors[0] - known.min()) <= math.log(RESOLVED)
    return found if resolved else spectrum(module, x)


def _inputs(batch: int, width: int, *, spread: float, generator: torch.Generator) -> Tensor:
    """Draw inputs that are alike uncorrelated: their Gram matrix on 1^⊥ is N·spread exactly where N >= B, else nearly.

    The first layer then meets what all later ones meet.
    """
    draws = torch.randn(width, batch, generator=generator, dtype=torch.float64)
    rows = torch.linalg.qr(draws).Q.mT * width**0.5 if width >= batch else draws.mT
    rows = rows * spread**0.5
    return rows - rows.mean(dim=0)


STUDY = Study(name="bn-jacobian", version=2, compute=cell)


def cells(options: Common, *, activation: str | None = None, batch_size: int | None = None) -> tuple[Cell, ...]:
    """Return the cells of a preset; of one activation or one batch only if asked for."""
    constants: dict[str, Value] = {"device": options.device, "dtype": options.dtype}
    return tuple(
        Cell(
            parameters={
                **kind.parameters(),
                "depth": depth,
                "networks": _networks(kind, depth, options.preset),
                **constants,
            },
            seed=options.seed,
        )
        for a in (CHOSEN if activation is None else (activation,))
        for w in WEIGHTS
        for (b, n), depths in _sizes(options.preset, batch_size)
        for kind in [Kind(activation=a, weights=w, batch=b, width=n)]
        for depth in depths
    )


def _sizes(preset: str, batch_size: int | None) -> list[tuple[tuple[int, int], tuple[int, ...]]]:
    """Return pairs (B, N), each with its depths; of one batch with all widths that are not too large for it."""
    every = DEPTHS[preset]
    if batch_size is None:
        return [(pair, every) for pair in PROFILED[preset]] + [(pair, every[-1:]) for pair in DEEPEST[preset]]
    widths = sorted({width for _, width in PROFILED[preset] + DEEPEST[preset]})
    small = [width for width in widths if batch_size * width <= GRID[preset]["largest"]]
    return [((batch_size, width), every) for width in small or widths[:1]]


def _networks(kind: Kind, depth: int, preset: str) -> int:
    """Count the networks of a cell: more of the shallow ones, which cost little."""
    sizes = GRID[preset]
    return max(1, 4 // depth) * max(sizes["fewest"], sizes["values"] // ((kind.batch - 1) * kind.width))


@click.command(epilog=example("bn-jacobian --activation relu --batch-size 8 --preset quick"))
@click.option(
    "--activation", type=click.Choice(list(ACTIVATIONS)), help="One activation.  [default: linear, relu, tanh]"
)
@click.option("--batch-size", type=click.IntRange(min=4), help="One batch.  [default: several]")
@common
def command(*, options: Common, activation: str | None, batch_size: int | None) -> None:
    """Lay batch-normalised networks over the law of their batch Jacobian.

    On one core the presets take half a minute, three minutes and, by estimate from its largest cells, a day; a cell of
    the last needs 2 GB.
    """
    wanted = cells(options, activation=activation, batch_size=batch_size)
    records = options.run(STUDY, wanted, folder="bn-jacobian")
    found = BatchSpectra(records.table("spectra"))
    if options.as_json:
        echo_json(_bn_jacobian_page.numbers(found))
        return
    path = options.out / "bn-jacobian" / "index.html"
    write(_bn_jacobian_page.page(found, manifest=records.manifest()), path, styles=STYLES)
    click.echo(path)
