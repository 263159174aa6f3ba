"""Which law do the singular values of a batch-normalised network follow? `rmtbn bn-jacobian`.

Batch statistics couple the examples, so that the Jacobian J is that of all outputs of a batch by all its inputs, B·N ×
B·N. On 1^⊥ its squared singular values follow a free product of inverse χ² layers for N → ∞ at fixed B
(docs/derivations/batch_norm_jacobian.md; fixed points and rates: Yang et al. 2019, arXiv:1902.08129). Networks are laid
over it, over B, depth, activation and weights; with their zeros and the share of ‖J‖² in the per-sample blocks.
"""

from collections.abc import Mapping
from types import MappingProxyType

import click
import pandas as pd
import torch
from torch import Tensor

from rmtbn import inits, rng
from rmtbn.activations import ACTIVATIONS
from rmtbn.measure.batch_blocks import blocks
from rmtbn.measure.batch_jacobian import spectrum
from rmtbn.nets.mlp import mlp
from rmtbn.plot.theme import STYLES
from rmtbn.report.render import write
from rmtbn.sweep.grid import Cell, Study, Value

from . import _bn_jacobian_page
from ._bn_jacobian_records import BatchSpectra, Kind
from ._options import Common, common, echo_json, example

CHOSEN = ("linear", "relu", "tanh")
WEIGHTS = ("gaussian", "orthogonal")
BATCHES = MappingProxyType({"quick": (4, 8), "default": (4, 8, 16, 32), "paper": (8, 16, 32, 64)})
WIDTHS = MappingProxyType({"quick": (12, 24), "default": (32, 64), "paper": (64, 128, 256)})
DEPTHS = MappingProxyType({"quick": (1, 4), "default": (1, 2, 4, 8), "paper": (1, 2, 4, 8, 16)})
# Values of all networks of a kind together, about, and fewest networks: larger batches need fewer networks for the same
# error. Largest B·N, the dimension of J. Default: four minutes of one core.
GRID: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "quick": {"values": 400, "fewest": 2, "largest": 192},
        "default": {"values": 3_000, "fewest": 2, "largest": 1_024},
        "paper": {"values": 100_000, "fewest": 8, "largest": 8_192},
    }
)
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
        found, diagonal = spectrum(module, x), blocks(module, x)
        rows.append(
            {
                "network": network,
                "log_singular_values": list(found.without_leak.by_network[0]),
                "relative_error": found.spectrum.relative_error,
                "zeros": found.zeros,
                "leaked": found.leaked,
                "block_norm": diagonal.share * diagonal.squared_norm,
                "whole_norm": diagonal.squared_norm,
            }
        )
    return {"spectra": pd.DataFrame(rows)}


def _inputs(batch: int, width: int, *, spread: float, generator: torch.Generator) -> Tensor:
    """Draw inputs that are alike uncorrelated: their Gram matrix on 1^⊥ is N·spread exactly where N >= B, else nearly.

    The first layer then meets what all later ones meet.
    """
    draws = torch.randn(width, batch, generator=generator, dtype=torch.float64)
    rows = torch.linalg.qr(draws).Q.mT * width**0.5 if width >= batch else draws.mT
    rows = rows * spread**0.5
    return rows - rows.mean(dim=0)


STUDY = Study(name="bn-jacobian", version=1, compute=cell)


def cells(options: Common, *, activation: str | None = None, batch_size: int | None = None) -> tuple[Cell, ...]:
    """Return the cells of a preset; of one activation or one batch only if asked for."""
    batches = BATCHES[options.preset] if batch_size is None else (batch_size,)
    kinds = [
        Kind(activation=a, weights=w, batch=b, width=n)
        for a in (CHOSEN if activation is None else (activation,))
        for w in WEIGHTS
        for b in batches
        for n in WIDTHS[options.preset]
        if batch_size is not None or b * n <= GRID[options.preset]["largest"]
    ]
    constants: dict[str, Value] = {"device": options.device, "dtype": options.dtype}
    return tuple(
        Cell(
            parameters={**kind.parameters(), "depth": depth, "networks": _networks(kind, options.preset), **constants},
            seed=options.seed,
        )
        for kind in kinds
        for depth in DEPTHS[options.preset]
    )


def _networks(kind: Kind, preset: str) -> int:
    sizes = GRID[preset]
    return max(sizes["fewest"], sizes["values"] // ((kind.batch - 1) * kind.width))


@click.command(epilog=example("bn-jacobian --activation relu --batch-size 8 --preset quick"))
@click.option(
    "--activation", type=click.Choice(list(ACTIVATIONS)), help="One activation.  [default: linear, relu, tanh]"
)
@click.option("--batch-size", type=click.IntRange(min=4), help="One batch.  [default: several]")
@common
def command(*, options: Common, activation: str | None, batch_size: int | None) -> None:
    """Lay batch-normalised networks over the law of their batch Jacobian."""
    wanted = cells(options, activation=activation, batch_size=batch_size)
    records = options.run(STUDY, wanted, folder="bn-jacobian")
    found = BatchSpectra(records.table("spectra"))
    if options.as_json:
        echo_json(_bn_jacobian_page.numbers(found))
        return
    path = options.out / "bn-jacobian" / "index.html"
    write(_bn_jacobian_page.page(found, manifest=records.manifest()), path, styles=STYLES)
    click.echo(path)
