"""How much do networks of one kind differ, and is it depth over width that decides? `rmtbn width-depth`.

At initialisation ‖Jv‖² differs from network to network, and its logarithm is nearly Gaussian. For He's ReLU networks
its mean is -β/2 and its variance β = 5 Σ 1/n_l, that is 5 L/N (Hanin & Nica 2019, arXiv:1812.05994); linear networks
have 2 for 5, and for other activations the first order in 1/N is known too. Under batch normalisation there is no such
law: its points stand without a line.
"""

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from rmtbn import inits, rng
from rmtbn.measure.ensemble import pushed
from rmtbn.measure.ensemble_tangents import ensemble_log_growth, push_on
from rmtbn.nets.mlp import mlp
from rmtbn.report.page import Claim, Page
from rmtbn.sweep.grid import Cell, Group, Study, Value, grid
from rmtbn.sweep.run import Records

from . import _width_depth_page
from ._options import Common, common, example
from ._paper_study import PaperStudy
from ._together import at, cells_in_a_call
from ._width_depth_claims import fluctuations

KINDS = (("linear", "none"), ("relu", "none"), ("tanh", "none"), ("relu", "batch"), ("tanh", "batch"))
SCHEMES = MappingProxyType({"linear": "lecun_normal", "relu": "he_normal", "tanh": "critical"})
CHUNK = 10  # networks in a cell: 10 of width 200 and depth 100 are 320 MB

# The largest depth as a share of the width in eighths, networks of each kind, and the batch of
# batch normalisation. Default: minutes on two cores.
WIDTHS = MappingProxyType({"quick": (16, 32), "default": (50, 100, 200), "paper": (50, 100, 200, 400)})
GRID: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "quick": {"eighths": 4, "networks": 20, "batch": 8},
        "default": {"eighths": 4, "networks": 100, "batch": 32},
        "paper": {"eighths": 8, "networks": 1000, "batch": 32},
    }
)


def cell(
    *, seed: int, activation: str, norm: str, width: int, eighths: int, batch: int, device: str, dtype: str
) -> dict[str, pd.DataFrame]:
    """Measure ln ‖J_l v‖² in `CHUNK` networks at the depths width/8, 2·width/8, … up to `eighths` of them.

    Returns
    -------
    dict
        "growth": one row per network and depth.
    """
    kind: dict[str, Any] = {"activation": activation, "norm": norm, "width": width, "eighths": eighths, "batch": batch}
    modules, x, v = _drawn(seed, **kind, device=device, dtype=dtype)
    found = ensemble_log_growth(modules, x, v)
    return _tables(found, _depths(width, eighths), chosen=slice(None))


def _drawn(
    seed: int, *, activation: str, norm: str, width: int, eighths: int, batch: int, device: str, dtype: str
) -> tuple[list[torch.nn.Sequential], torch.Tensor, torch.Tensor]:
    """Draw the networks of a cell, their inputs and the tangent there."""
    place = {"device": torch.device(device), "dtype": getattr(torch, dtype)}
    modules = []
    for i in range(CHUNK):
        net = mlp(depth=_depths(width, eighths)[-1], width=width, activation=activation, norm=norm)
        generator = rng.torch_generator(seed, "weights", activation, norm, width, i)
        inits.initialise(net, SCHEMES[activation], generator=generator, activation=activation)
        modules.append(net.to(**place))
    generator = rng.torch_generator(seed, "input and tangent", width)
    drawn = torch.randn(2, batch if norm == "batch" else 1, width, generator=generator, dtype=torch.float64)
    x = drawn[0] / drawn[0].square().mean(1, keepdim=True).sqrt()
    return modules, x.to(**place), drawn[1].to(**place)


def _depths(width: int, eighths: int) -> list[int]:
    return [max(1, width * k // 8) for k in range(1, eighths + 1)]


def _tables(
    found: Mapping[str, npt.NDArray[np.float64]], depths: list[int], *, chosen: slice
) -> dict[str, pd.DataFrame]:
    """Tabulate the growth of one cell's networks."""
    return {
        "growth": pd.DataFrame(
            {
                "depth": np.repeat(depths, CHUNK),
                "network": list(range(CHUNK)) * len(depths),
                "log_norm": np.concatenate([found[f"phi_{depth}"][chosen] for depth in depths]),
            }
        )
    }


def together(cells: Sequence[Cell]) -> list[dict[str, pd.DataFrame]]:
    """Measure the networks of several cells of one kind and width in one call, each at its own inputs and tangent."""
    drawn = [_drawn(cell.seed, **cell.parameters) for cell in cells]
    modules = [at(module, x) for nets, x, _ in drawn for module in nets]
    tangents = torch.stack([v / v.double().norm().to(v.dtype) for nets, _, v in drawn for _ in nets])
    with pushed(modules, torch.zeros_like(drawn[0][1])) as states:
        found = {state.name: logs for state, logs in push_on(states, tangents)}
    depths = _depths(cells[0].parameters["width"], cells[0].parameters["eighths"])
    return [_tables(found, depths, chosen=slice(CHUNK * i, CHUNK * (i + 1))) for i in range(len(cells))]


def how_many(parameters: Mapping[str, Any]) -> int:
    """Return how many cells go in one call."""
    width, depth = parameters["width"], _depths(parameters["width"], parameters["eighths"])[-1]
    return cells_in_a_call(parameters, weights=CHUNK * depth * width**2)


SAME = ("activation", "norm", "width", "eighths", "batch", "device", "dtype")
GROUP = Group(compute=together, same=SAME, size=how_many)
STUDY = Study(name="width-depth", version=1, compute=cell, group=GROUP)


def cells(options: Common) -> tuple[Cell, ...]:
    """Return the cells of a preset."""
    sizes = dict(GRID[options.preset])
    seeds = tuple(range(options.seed, options.seed + sizes.pop("networks") // CHUNK))
    constants: dict[str, Value] = {**sizes, "device": options.device, "dtype": options.dtype}
    shared = {"width": WIDTHS[options.preset], **{name: (value,) for name, value in constants.items()}}
    kinds = [grid({"activation": (activation,), "norm": (norm,), **shared}, seeds=seeds) for activation, norm in KINDS]
    return tuple(itertools.chain.from_iterable(kinds))


def claims(records: Records) -> Mapping[int, Claim]:
    """Judge claim 31."""
    return {31: fluctuations(records.table("growth"))}


def page(records: Records) -> Page:
    """Write the page."""
    return _width_depth_page.page(_width_depth_page.Growth(records), manifest=records.manifest())


def numbers(records: Records) -> Mapping[str, Any]:
    """Return the statistics and laws of every kind, width and depth."""
    return _width_depth_page.numbers(_width_depth_page.Growth(records))


ANALYSIS = PaperStudy(study=STUDY, cells=cells, claims=claims, page=page, numbers=numbers, of_images=False)


@click.command(epilog=example("width-depth --preset quick --json"))
@common
def command(*, options: Common) -> None:
    """Measure how much networks differ, against depth over width."""
    ANALYSIS.execute(options)
