"""Does batch normalisation keep examples apart? Ranks and gaps against depth and width: `rmtbn rank`.

For the outputs H of a layer, n examples of d units, K = H Hᵀ: the soft rank (tr K)²/tr K² and the orthogonality gap
‖K/tr K - I/n‖_F (Daneshmand et al. 2020, arXiv:2003.01652; 2021, arXiv:2106.03970) and the isometry gap
ln[(tr K/n)/(det K)^{1/n}] (Meterez et al. 2023, arXiv:2310.02012), without normalisation, with torch's batch
normalisation and with the uncentred one of these papers, against theory where there is one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import click
import numpy as np
import pandas as pd
import torch
from torch import nn

from rmtbn import inits, rng
from rmtbn.measure.rank import Ranks, ensemble_ranks
from rmtbn.nets.mlp import mlp
from rmtbn.nets.norms import NORMS
from rmtbn.plot.theme import STYLES
from rmtbn.report.render import write
from rmtbn.sweep.grid import Cell, Study

from . import _rank_page
from ._options import Common, common, echo_json, example
from ._rank_records import START, Kind, Ranked

POINTS = 17  # layers that are looked at, evenly spread, and as many of the first ones
WEIGHTS = ("gaussian", "orthogonal")
SIGMA_W = MappingProxyType({"linear": 1.0, "relu": 2**0.5})
IN_FLIGHT = 2**30  # bytes of weights, in float64, of the networks that are drawn and measured together
EPS = 1e-12  # of the norms, far below all variances, as theory has it

KINDS = tuple((a, n) for a in ("linear", "relu") for n in ("none", "batch", "uncentred"))
ISOMETRY = (("uncentred", "orthogonal"), ("uncentred", "gaussian"), ("none", "orthogonal"), ("none", "gaussian"))
# Depth and width of the profiles over depth, width of the comparison over batches with their sizes, widths n = d, and
# networks.
GRID: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "quick": {"width": 32, "depth": 12, "narrow": 8, "many": 60, "flat": 32, "networks": 4},
        "default": {"width": 128, "depth": 64, "narrow": 32, "many": 400, "flat": 128, "networks": 16},
        "paper": {"width": 512, "depth": 256, "narrow": 64, "many": 2000, "flat": 512, "networks": 32},
    }
)
BATCHES = MappingProxyType(
    {"quick": (4, 8, 16, 32), "default": (4, 8, 16, 22, 32, 48, 64, 128), "paper": (8, 16, 32, 45, 64, 96, 128, 256)}
)
SQUARE = MappingProxyType({"quick": (8, 16), "default": (16, 32, 64, 128), "paper": (16, 32, 64, 128, 256, 512)})


def cell(
    *, seed: int, part: str, activation: str, norm: str, weights: str, examples: int, width: int, depth: int,
    start: float, networks: int, device: str, dtype: str,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Measure ranks and gaps after chosen blocks of `networks` networks, block 0 being the input.

    The inputs are Gaussian with the correlation `start` between any two examples.

    Returns
    -------
    dict
        "ranks": one row per network and block.
    """
    place = {"device": torch.device(device), "dtype": getattr(torch, dtype)}
    labels = (activation, norm, weights, width)
    x = _inputs(norm, start, examples, width, generator=rng.torch_generator(seed, "inputs", part, examples, width))
    blocks, together = looked_at(depth), max(1, IN_FLIGHT // (8 * depth * width**2))
    found: list[Ranks] = []
    for first in range(0, networks, together):
        modules = [
            _network(activation, norm, weights, depth=depth, width=width,
                     generator=rng.torch_generator(seed, "weights", *labels, i)).to(**place)
            for i in range(first, min(first + together, networks))
        ]  # fmt: skip
        names = ["input", *(f"phi_{block}" for block in blocks[1:])]
        found.append(ensemble_ranks(modules, x.to(**place), layers=names))
    return {
        "ranks": pd.DataFrame(
            {
                "network": np.repeat(np.arange(networks), len(blocks)),
                "block": list(blocks) * networks,
                "log_rank": np.concatenate([one.log_participation for one in found]).ravel(),
                "log_gap": np.concatenate([one.log_orthogonality_gap for one in found]).ravel(),
                "isometry": np.concatenate([one.isometry_gap for one in found]).ravel(),
                "log_trace": np.concatenate([one.log_trace for one in found]).ravel(),
            }
        )
    }


def looked_at(depth: int) -> Sequence[int]:
    """Return the blocks that are looked at: the input, some of the first ones and some evenly spread."""
    early = np.unique(np.geomspace(1, depth, POINTS).round().astype(int))
    return [0, *np.unique([*early, *np.linspace(1, depth, POINTS).round().astype(int)]).tolist()]


def _network(
    activation: str, norm: str, weights: str, *, depth: int, width: int, generator: torch.Generator
) -> nn.Sequential:
    """Draw a network; the first layer, the identity, is where the input is looked at."""
    net = mlp(depth=depth, width=width, activation=activation, norm=norm).double()
    sigma_w = SIGMA_W[activation]
    inits.initialise(net, weights, generator=generator, activation=activation, sigma_w=sigma_w, sigma_b=0.0)
    for name, layer in net.named_children():
        if name.startswith("norm_"):
            layer.eps = EPS  # type: ignore[assignment]
    named = {"input": nn.Identity(), **dict(net.named_children())}
    whole = nn.Sequential()
    for name, layer in named.items():
        whole.add_module(name, layer)
    return whole


def _inputs(norm: str, start: float, examples: int, width: int, *, generator: torch.Generator) -> torch.Tensor:
    """Draw correlated Gaussian inputs, with each feature normalised as the layers do it."""
    own, common = (torch.randn(rows, width, generator=generator, dtype=torch.float64) for rows in (examples, 1))
    x = (1 - start) ** 0.5 * own + start**0.5 * common
    if norm == "batch":
        x = x - x.mean(0)
    return x if norm == "none" else x / x.square().mean(0).sqrt()


STUDY = Study(name="rank", version=1, compute=cell)


def kinds(preset: str) -> tuple[Kind, ...]:
    """Return the kinds of network of a preset."""
    sizes = GRID[preset]
    deep = Kind(part="depth", activation="linear", norm="none", weights="gaussian", examples=8, width=sizes["width"],
                depth=sizes["depth"], start=START)  # fmt: skip
    found = [replace(deep, activation=a, norm=n) for a, n in KINDS]
    found.append(replace(deep, part="recursion", width=sizes["narrow"], depth=sizes["narrow"]))
    flat = replace(deep, part="batches", norm="uncentred", width=sizes["flat"], start=0.0)
    found += [replace(flat, examples=n, depth=40 + 2 * n) for n in BATCHES[preset]]
    for d in SQUARE[preset]:
        square = replace(deep, examples=d, width=d, start=0.0)
        found += [replace(square, part="widths", activation=a, norm=n, depth=2 * d) for a, n in KINDS]
        if d <= sizes["narrow"]:
            found += [replace(square, part="isometry", norm=n, weights=w, depth=8 * d) for n, w in ISOMETRY]
    return tuple(found)


def cells(options: Common, wanted: Sequence[Kind]) -> tuple[Cell, ...]:
    """Return the cells of some kinds of network."""
    sizes = GRID[options.preset]
    place = {"device": options.device, "dtype": options.dtype}
    return tuple(
        Cell(
            parameters={
                **kind.parameters(),
                "networks": sizes["many"] if kind.part == "recursion" else sizes["networks"],
                **place,
            },
            seed=options.seed,
        )
        for kind in wanted
    )


@click.command(epilog=example("rank --activation relu --norm batch --examples 16 --preset quick"))
@click.option("--activation", type=click.Choice(list(SIGMA_W)), help="One kind of network.  [default: a grid]")
@click.option("--norm", type=click.Choice([n for n in NORMS if n in {"none", "batch", "uncentred"}]), default="batch",
              show_default=True, help="Of that kind.")  # fmt: skip
@click.option("--weights", type=click.Choice(WEIGHTS), default="gaussian", show_default=True, help="Of that kind.")
@click.option("--examples", type=click.IntRange(min=2), default=8, show_default=True, help="Of that kind: n.")
@common
def command(*, options: Common, activation: str | None, norm: str, weights: str, examples: int) -> None:
    """Measure how far examples stay apart, with batch normalisation and without.

    On one core the presets take 12 seconds, a minute and a half and, by estimate from its largest cells, 2 hours; a
    cell of the last needs 4 GB.
    """
    wanted = kinds(options.preset)
    if activation is not None:
        wanted = (replace(wanted[0], activation=activation, norm=norm, weights=weights, examples=examples),)
    records = options.run(STUDY, cells(options, wanted), folder="rank")
    ranked = Ranked(records)
    if options.as_json:
        echo_json(_rank_page.numbers(ranked))
        return
    path = options.out / "rank" / "index.html"
    write(_rank_page.page(ranked, manifest=records.manifest()), path, styles=STYLES)
    click.echo(path)
