"""How fast do gradients explode under batch normalisation, and when does it help all the same? `rmtbn bn-explosion`.

The growth per layer of the squared gradient norm and of ‖J‖_F² is measured in networks with batch normalisation and
without, over batches and activations, and held against the mean field (Yang et al. 2019, arXiv:1902.08129). Deep
networks show where a fixed point is not stable; residual networks show why normalisation helps those (Bjorck et al.
2018, arXiv:1806.02375).
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import click
import numpy as np
import pandas as pd
import torch
from torch import nn

from rmtbn import inits, rng
from rmtbn.measure.explosion import Explosion, explosion
from rmtbn.nets.mlp import mlp
from rmtbn.nets.resnet import residual_mlp
from rmtbn.plot.theme import STYLES
from rmtbn.report.render import write
from rmtbn.sweep.grid import Cell, Study, Value

from . import _bn_explosion_page
from ._bn_explosion_records import ACTIVATIONS, Explosions, Kind
from ._options import Common, common, echo_json, example

MOST = 10_000  # networks of a cell, so that seeds share none
IN_FLIGHT = 2**30  # bytes of weights, in float64, of the networks that are drawn and measured together
DEEP = (("relu", "none"), ("relu", "batch"), ("tanh", "batch"), ("gelu", "batch"), ("silu", "batch"))
CURVES = ("linear", "relu", "tanh")  # of the deviation against width
SKIPS = tuple((block, norm) for block in ("plain", "residual") for norm in ("none", "batch"))
BATCHES = MappingProxyType(
    {
        "quick": (6, 16, 32),
        "default": (4, 8, 16, 32, 64, 128, 256, 512),
        "paper": (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 200, 256, 512),
    }
)
WIDTHS = MappingProxyType({"quick": (16, 32), "default": (32, 64, 128, 256), "paper": (64, 128, 256, 512, 1024)})
# Width and layers of the rates, layers and batch of the deep and the residual networks, and networks: `examples` over
# the batch, at most `most` and at least `fewest`.
GRID: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "quick": {"width": 32, "depth": 12, "deep": 24, "deep_batch": 32, "blocks": 16, "block_batch": 8,
                  "examples": 128, "fewest": 6, "most": 8},
        "default": {"width": 256, "depth": 20, "deep": 60, "deep_batch": 128, "blocks": 64, "block_batch": 16,
                    "examples": 1024, "fewest": 6, "most": 24},
        "paper": {"width": 1024, "depth": 50, "deep": 100, "deep_batch": 128, "blocks": 100, "block_batch": 32,
                  "examples": 8192, "fewest": 16, "most": 100},
    }
)  # fmt: skip


def cell(
    *, seed: int, part: str, block: str, activation: str, norm: str, batch: int, width: int, depth: int,
    networks: int, device: str, dtype: str,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Measure ln ‖∂ℓ/∂h^l‖² and ln ‖J_l v‖² at every layer of `networks` critical networks.

    At ReLU's criticality, He's scale, the branch of a residual block keeps the length of its input.

    Returns
    -------
    dict
        "layers": one row per network and layer. In a residual network a layer is a block.
    """
    place = {"device": torch.device(device), "dtype": getattr(torch, dtype)}
    law = inits.weight_law("critical", activation, fan_in=width)
    labels = {"block": block, "activation": activation, "norm": norm}
    x = torch.randn(batch, width, generator=rng.torch_generator(seed, "inputs", batch, width), dtype=torch.float64)
    generator = rng.torch_generator(seed, "directions", part, *labels.values(), batch, width)
    found, together = list[Explosion](), max(1, IN_FLIGHT // (8 * depth * width**2))
    for first in range(0, networks, together):
        modules = [
            _network(labels, law, depth=depth, width=width, seed=seed * MOST + i).to(**place)
            for i in range(first, min(first + together, networks))
        ]
        found.append(explosion(modules, x.to(**place), generator=generator))
    count = len(found[0].layers)
    return {
        "layers": pd.DataFrame(
            {
                "network": np.repeat(np.arange(networks), count),
                "layer": list(range(1, count + 1)) * networks,
                "log_gradient": np.concatenate([one.log_gradient for one in found]).ravel(),
                "log_jacobian": np.concatenate([one.log_jacobian for one in found]).ravel(),
            }
        )
    }


def _network(kind: Mapping[str, str], law: inits.WeightLaw, *, depth: int, width: int, seed: int) -> nn.Sequential:
    make = mlp if kind["block"] == "plain" else residual_mlp
    net = make(depth=depth, width=width, activation=kind["activation"], norm=kind["norm"]).double()
    generator = rng.torch_generator(seed, "weights", *kind.values(), width)
    return inits.initialise(net, "gaussian", generator=generator, sigma_w=law.sigma_w, sigma_b=law.sigma_b)


STUDY = Study(name="bn-explosion", version=1, compute=cell)


def kinds(preset: str, *, activation: str | None = None, batch_size: int | None = None) -> tuple[Kind, ...]:
    """Return the kinds of network of a preset; of one activation or one batch only if asked for."""
    sizes, width = GRID[preset], GRID[preset]["width"]
    batches = BATCHES[preset] if batch_size is None else (batch_size,)
    chosen = ACTIVATIONS if activation is None else (activation,)
    rates = Kind(
        part="rates", block="plain", activation="relu", norm="batch", batch=16, width=width, depth=sizes["depth"]
    )
    found = [replace(rates, activation=a, batch=b) for a in chosen for b in batches]
    found += [replace(rates, activation=a, norm="none") for a in chosen]
    if activation is None and batch_size is None:
        found += [replace(rates, part="widths", activation=a, width=w) for a in CURVES for w in WIDTHS[preset]]
        deep = replace(rates, part="deep", batch=sizes["deep_batch"], depth=sizes["deep"])
        found += [replace(deep, activation=a, norm=n) for a, n in DEEP]
        skips = replace(rates, part="skips", batch=sizes["block_batch"], width=width // 2, depth=sizes["blocks"])
        found += [replace(skips, block=b, norm=n) for b, n in SKIPS]
    return tuple(found)


def cells(options: Common, wanted: tuple[Kind, ...]) -> tuple[Cell, ...]:
    """Return the cells of some kinds of network: smaller batches are measured on more networks."""
    sizes = GRID[options.preset]
    constants: dict[str, Value] = {"device": options.device, "dtype": options.dtype}
    return tuple(
        Cell(parameters={**kind.parameters(), "networks": _networks(kind.batch, sizes), **constants}, seed=options.seed)
        for kind in wanted
    )


def _networks(batch: int, sizes: Mapping[str, int]) -> int:
    return min(sizes["most"], max(sizes["fewest"], sizes["examples"] // batch))


@click.command(epilog=example("bn-explosion --activation relu --batch-size 64 --preset quick"))
@click.option("--activation", type=click.Choice(ACTIVATIONS), help="One activation.  [default: all]")
@click.option("--batch-size", type=click.IntRange(min=4), help="One batch.  [default: a grid from 4 to 512]")
@common
def command(*, options: Common, activation: str | None, batch_size: int | None) -> None:
    """Measure how fast gradients explode, with batch normalisation and without.

    On one core the presets take 20 seconds, two minutes and, by estimate from its largest cells, 9 hours; a cell of the
    last needs 3 GB.
    """
    wanted = kinds(options.preset, activation=activation, batch_size=batch_size)
    records = options.run(STUDY, cells(options, wanted), folder="bn-explosion")
    explosions = Explosions(records)
    if options.as_json:
        echo_json(_bn_explosion_page.numbers(explosions))
        return
    path = options.out / "bn-explosion" / "index.html"
    write(_bn_explosion_page.page(explosions, manifest=records.manifest()), path, styles=STYLES)
    click.echo(path)
