"""The singular values of one kind of network, and the law over them: `rmtbn spectrum`."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
import pandas as pd
import torch
from matplotlib.figure import Figure as Canvas

from rmtbn import _checks, inits, rng
from rmtbn.activations import ACTIVATIONS
from rmtbn.measure import planner
from rmtbn.measure.batch_statistics import OPTIONS
from rmtbn.measure.jacobian import METHODS
from rmtbn.measure.jacobian import spectrum as measure_spectrum
from rmtbn.nets.mlp import mlp
from rmtbn.plot.theme import STYLES, style
from rmtbn.report.render import write
from rmtbn.sweep.grid import Cell, Study, grid

from . import _spectrum_page
from ._options import DATA_HELP, NORM, Common, common, echo_json, enough, example, load

GRID: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "quick": {"depth": 8, "width": 32, "networks": 2},
        "default": {"depth": 50, "width": 128, "networks": 4},
        "paper": {"depth": 50, "width": 1000, "networks": 10},
    }
)


def cell(
    *,
    seed: int,
    depth: int,
    width: int,
    activation: str,
    init: str,
    norm: str,
    data: str,
    batch_size: int,
    device: str,
    dtype: str,
    sigma_w: float | None = None,
    sigma_b: float | None = None,
    batch_stats: str | None = None,
    method: str = "auto",
    floor: float | None = None,
    memory: int | None = None,
) -> dict[str, pd.DataFrame]:
    """Measure the Jacobian of one network over a batch: of one input, but for batch normalisation.

    Running statistics are those of this very batch, taken in one pass before.
    """
    examples = load(data).take(batch_size, generator=rng.torch_generator(seed, "examples"))
    images = examples.embedded(width, generator=rng.torch_generator(seed, "embedding"))
    kind = {"device": torch.device(device), "dtype": getattr(torch, dtype)}
    network = inits.initialise(
        mlp(depth=depth, width=width, activation=activation, norm=norm).to(**kind),  # first: it rounds what is drawn
        init,
        generator=rng.torch_generator(seed, "weights", width, init, norm, activation),  # as in `rmtbn schemes`
        activation=activation,
        sigma_w=sigma_w,
        sigma_b=sigma_b,
    )
    inputs = images.to(**kind).inputs
    if batch_stats == "running":
        _take_statistics(network, inputs)
    found = measure_spectrum(
        network, inputs, method=method, batch_stats=batch_stats, floor=floor, memory_budget=memory, seed=seed
    )
    return {
        "spectrum": pd.DataFrame(
            {
                "log_singular_values": [list(found.by_network[0])],
                "relative_error": [found.relative_error],
                "route": [found.method],
                "reason": [found.reason],
                "log_floor": [-math.inf if found.log_floor is None else float(found.log_floor[0])],
                "cdf_error": [found.cdf_error],
                "q0": [float(images.inputs.square().mean())],
            }
        )
    }


def _take_statistics(network: torch.nn.Module, inputs: torch.Tensor) -> None:
    """Let batch normalisation keep the statistics of these inputs as its running ones."""
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm1d):
            layer.reset_running_stats()
            layer.momentum = None  # the cumulative mean: of one batch, its own
    with torch.no_grad():
        network.train()(inputs)


STUDY = Study(name="spectrum", version=3, compute=cell)


def cells(options: Common, network: Mapping[str, Any]) -> tuple[Cell, ...]:
    """Return one cell per network; sizes that were not given come from the preset."""
    given = {name: value for name, value in network.items() if value is not None}
    sizes: dict[str, Any] = {**GRID[options.preset], **given, "device": options.device, "dtype": options.dtype}
    networks = sizes.pop("networks")
    if sizes["norm"] == "none":
        if sizes.get("batch_stats"):
            raise _checks.fail("batch_stats", "given with the norm 'batch' only", sizes["batch_stats"])
        sizes["batch_size"] = 1
    elif sizes["batch_size"] == 1:
        raise _checks.fail("batch_size", "at least 2 for the norm 'batch'", 1)
    if "floor" in sizes:
        _checks.real("floor", sizes["floor"], above=0.0, below=1.0)
    sigmas = {name: sizes.get(name) for name in ("sigma_w", "sigma_b")}
    law = inits.weight_law(sizes["init"], sizes["activation"], fan_in=sizes["width"], **sigmas)
    _checks.real("sigma_w", law.sigma_w, above=0.0)
    enough(load(sizes["data"]), sizes["batch_size"])
    _affordable(sizes)
    axes = {name: (value,) for name, value in sizes.items()}
    return grid(axes, seeds=range(options.seed, options.seed + networks))


def _affordable(sizes: Mapping[str, Any]) -> None:
    """Refuse what does not fit in memory before anything is drawn."""
    depth, width, batch = (int(sizes[name]) for name in ("depth", "width", "batch_size"))
    dtype, device = getattr(torch, sizes["dtype"]), torch.device(sizes["device"])
    weights = depth * width**2 * torch.finfo(dtype).bits // 8
    memory = sizes.get("memory") or planner.default_memory(device)
    if weights >= memory:
        raise _checks.fail("memory", f"more than {weights:,} bytes, which the weights take", f"{memory:,}")
    examples = batch if sizes["norm"] == "batch" and sizes.get("batch_stats") != "running" else 1
    n = examples * width
    size = planner.Size(
        groups=batch // examples, inputs=n, outputs=n, widest=n, layers=depth, push=2.0 * depth * width * n
    )
    kind: dict[str, Any] = {"method": sizes["method"], "floor": sizes.get("floor"), "dtype": dtype, "device": device}
    planner.plan(size, memory_budget=memory - weights, **kind)


def _memory(_ctx: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    return None if text is None else _bytes(text)


def _bytes(text: str) -> int:
    """Read 500MB, 4GB, 2e9."""
    found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?) ?([kMGT]?)i?B?", text.strip())
    try:
        number = float(found[1]) * 1000 ** " kMGT".index(found[2] or " ") if found else 0.0
    except ValueError:
        number = 0.0
    if number < 1:
        raise _checks.fail("memory", "a number of bytes such as 500MB or 4GB", text)
    return int(number)


def _in_a_folder(_ctx: click.Context, _option: click.Parameter, png: Path | None) -> Path | None:
    if png is not None and not png.parent.is_dir():
        raise _checks.fail("png", "a file in a folder that exists", str(png))
    return png


SIZE = click.IntRange(min=1)
SIGMA = click.FloatRange(min=0)
PNG = click.Path(path_type=Path, dir_okay=False)
BATCH_STATS_HELP = "Statistics of norm batch: of the batch, which couples its examples, or running.  [default: batch]"
METHOD_HELP = "Route: every value (product), to rounding (dense), density (slq) or values (lanczos) above a floor."
FLOOR_HELP = "Smallest λ over the largest to tell from 0.  [default: all values; 1e-6 for slq, lanczos]"


@click.command(epilog=example("spectrum --depth 50 --width 128 --activation tanh --init critical --json"))
@click.option("--depth", type=SIZE, help="Layers.  [default: by preset, 8, 50, 50]")
@click.option("--width", type=SIZE, help="Units of each layer.  [default: by preset, 32, 128, 1000]")
@click.option("--networks", type=SIZE, help="Networks, one seed each.  [default: by preset, 2, 4, 10]")
@click.option("--activation", type=click.Choice(list(ACTIVATIONS)), default="tanh", show_default=True, help="φ.")
@click.option("--init", type=click.Choice(list(inits.INITS)), default="critical", show_default=True, help="Scheme.")
@click.option("--sigma-w", type=SIGMA, help="Standard deviation of √N·W (init gaussian, orthogonal).")
@click.option("--sigma-b", type=SIGMA, help="Standard deviation of the biases (gaussian, orthogonal, critical).")
@click.option("--norm", type=NORM, default="none", show_default=True, help="Normalisation.")
@click.option("--batch-size", type=SIZE, default=8, show_default=True, help="Examples of the batch, for norm batch.")
@click.option("--batch-stats", type=click.Choice(OPTIONS), help=BATCH_STATS_HELP)
@click.option("--method", type=click.Choice(METHODS), default="auto", show_default=True, help=METHOD_HELP)
@click.option("--floor", type=float, help=FLOOR_HELP)
@click.option("--memory", callback=_memory, help="Bytes that may be used, such as 4GB.  [default: half the machine's]")
@click.option("--data", default="gaussian", show_default=True, help=DATA_HELP)
@click.option("--png", type=PNG, callback=_in_a_folder, help="Write the figure here too.")
@common
def command(*, options: Common, png: Path | None, **network: Any) -> None:
    """Measure a network's singular values and lay the law over them."""
    wanted = cells(options, network)
    records = options.run(STUDY, wanted, folder="spectrum")
    measured = _spectrum_page.Measured(records)
    if png is not None:
        _draw(measured, png)
    if options.as_json:
        echo_json(_spectrum_page.numbers(measured))
        return
    path = options.out / "spectrum" / "index.html"
    page = _spectrum_page.page(measured, data=load(network["data"]).name, manifest=records.manifest())
    write(page, path, styles=STYLES)
    click.echo(_spectrum_page.text(measured))
    click.echo(path)


def _draw(measured: _spectrum_page.Measured, png: Path) -> None:
    with style("light"):
        canvas = Canvas(figsize=(7.2, 4.2), layout="constrained")
        _spectrum_page.density(measured, canvas)
        canvas.savefig(png, format="png")
