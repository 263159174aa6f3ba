"""Do signals, correlations and gradients travel through real networks as the mean field says? `rmtbn moments`.

Layer by layer, over ensembles of networks: the mean square of the pre-activations, the correlation of two inputs and
the gradient norm, with the recursions of infinite width and, for the lengths, their first correction in 1/N as lines;
plain and residual networks, with and without batch normalisation.
"""

from collections.abc import Mapping
from types import MappingProxyType

import click
import numpy as np
import pandas as pd
import torch
from torch import nn

from rmtbn import inits, rng
from rmtbn.activations import ACTIVATIONS
from rmtbn.data.pairs import correlated_pairs
from rmtbn.measure.ensemble_gradients import ensemble_log_gradients
from rmtbn.measure.ensemble_moments import ensemble_moments
from rmtbn.nets.mlp import mlp
from rmtbn.nets.resnet import residual_mlp
from rmtbn.plot.theme import STYLES
from rmtbn.report.render import write
from rmtbn.sweep.grid import Cell, Study, Value, grid
from rmtbn.theory.residual_moments import block_scale

from . import _moments_page
from ._moments_records import SCHEMES, Kind, Moments
from ._options import NORM, Common, common, echo_json, example

# Correlation of the pairs of inputs, of mean square 1. The mean field of batch normalisation is about batches whose
# examples are all alike in this: with norm batch they are orthogonal.
START = MappingProxyType({"none": 0.6, "batch": 0.0})
PAIRS = 8
BLOCKS = ("plain", "residual", "scaled")  # scaled: a residual network with branches times 1/√L

# σ_w², σ_b²: ordered, about critical and chaotic for the saturating φ; bounded, critical and growing for the others.
SATURATING = ((1.3, 0.1), (1.76, 0.05), (2.5, 0.3))
PLAIN: Mapping[str, tuple[tuple[float, float], ...]] = MappingProxyType(
    {
        "tanh": SATURATING,
        "erf": SATURATING,
        "hard_tanh": SATURATING,
        "relu": ((1.5, 0.1), (2.0, 0.0), (2.0, 0.1)),
        "gelu": ((1.5, 0.3), (1.9, 0.5), (2.0, 0.2)),
        "selu": ((0.6, 0.2), (0.8, 0.1), (0.95, 0.02)),
    }
)
OTHERS = (
    Kind(block="plain", activation="relu", norm="batch", sigma_w2=2.0, sigma_b2=0.0),
    Kind(block="plain", activation="tanh", norm="batch", sigma_w2=1.0, sigma_b2=0.0),
    Kind(block="residual", activation="relu", norm="none", sigma_w2=2.0, sigma_b2=0.0),
    Kind(block="scaled", activation="relu", norm="none", sigma_w2=2.0, sigma_b2=0.0),
    Kind(block="residual", activation="relu", norm="batch", sigma_w2=2.0, sigma_b2=0.0),
)
WIDTHS = MappingProxyType({"quick": (16, 32), "default": (64, 128, 256), "paper": (64, 128, 256, 512)})
# Layers, networks in a cell (10 of width 512 and depth 50 are 1 GB) and cells (seeds). Default: minutes on two cores.
GRID: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "quick": {"depth": 10, "networks": 8, "seeds": 1},
        "default": {"depth": 50, "networks": 10, "seeds": 3},
        "paper": {"depth": 50, "networks": 10, "seeds": 50},
    }
)


def cell(
    *, seed: int, block: str, activation: str, norm: str, sigma_w2: float, sigma_b2: float, depth: int, width: int,
    networks: int, device: str, dtype: str,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Measure `networks` networks of one kind at every layer.

    Returns
    -------
    dict
        "layers": one row per network and layer: log mean square of an example (averaged over them), 1 - c of the
        pairs, skewness and kurtosis over all entries, and log squared gradient norm, the gradient being that of a
        random linear function of the output.
    """
    place = {"device": torch.device(device), "dtype": getattr(torch, dtype)}
    labels = (block, activation, norm, sigma_w2, sigma_b2, width)
    modules = [
        _network(block, activation, norm, depth=depth, width=width, sigmas=(sigma_w2**0.5, sigma_b2**0.5),
                 generator=rng.torch_generator(seed, "weights", *labels, i)).to(**place)
        for i in range(networks)
    ]  # fmt: skip
    generator = rng.torch_generator(seed, "pairs", width)
    x = correlated_pairs(pairs=PAIRS, features=width, correlation=START[norm], generator=generator).to(**place)
    v = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(**place)
    found = ensemble_moments(modules, x)
    gradients = ensemble_log_gradients(modules, x, v)
    count = len(found.layers)
    return {
        "layers": pd.DataFrame(
            {
                "network": np.repeat(np.arange(networks), count),
                "layer": list(range(1, count + 1)) * networks,
                "log_q": found.example_log_second_moment.mean(axis=2).ravel(),
                "decorrelation": found.decorrelation.mean(axis=2).ravel(),
                "skewness": found.overall.skewness.ravel(),
                "kurtosis": found.overall.kurtosis.ravel(),
                "log_gradient": np.stack([gradients[name] for name in found.layers], axis=1).ravel(),
            }
        )
    }


def _network(
    block: str, activation: str, norm: str, *, depth: int, width: int, sigmas: tuple[float, float],
    generator: torch.Generator,
) -> nn.Module:  # fmt: skip
    if block == "plain":
        net = mlp(depth=depth, width=width, activation=activation, norm=norm).double()
    else:
        alpha = block_scale(SCHEMES[block], depth=depth)
        net = residual_mlp(depth=depth, width=width, activation=activation, norm=norm, alpha=alpha).double()
    sigma_w, sigma_b = sigmas
    return inits.initialise(
        net, "gaussian", generator=generator, activation=activation, sigma_w=sigma_w, sigma_b=sigma_b
    )


STUDY = Study(name="moments", version=1, compute=cell)


def kinds(preset: str) -> tuple[Kind, ...]:
    """Return the kinds of network of a preset; the quick one takes one point of each plain activation."""
    plain = tuple(
        Kind(block="plain", activation=activation, norm="none", sigma_w2=w, sigma_b2=b)
        for activation, points in PLAIN.items()
        for w, b in (points[:1] if preset == "quick" else points)
    )
    return (*plain, *OTHERS)


def cells(options: Common, wanted: tuple[Kind, ...]) -> tuple[Cell, ...]:
    """Return the cells of some kinds of network."""
    sizes = dict(GRID[options.preset])
    seeds = tuple(range(options.seed, options.seed + sizes.pop("seeds")))
    constants: dict[str, Value] = {**sizes, "device": options.device, "dtype": options.dtype}
    shared = {"width": WIDTHS[options.preset], **{name: (value,) for name, value in constants.items()}}
    found = [grid({**{k: (v,) for k, v in kind.parameters().items()}, **shared}, seeds=seeds) for kind in wanted]
    return tuple(one for group in found for one in group)


SIGMA = click.FloatRange(min=0)


@click.command(epilog=example("moments --activation tanh --sigma-w 1.5 --sigma-b 0.3 --preset quick"))
@click.option("--activation", type=click.Choice(list(ACTIVATIONS)), help="One kind of network.  [default: a grid]")
@click.option("--sigma-w", type=SIGMA, default=2**0.5, show_default="√2", help="Of that kind: σ_w.")
@click.option("--sigma-b", type=SIGMA, default=0.0, show_default=True, help="Of that kind: σ_b.")
@click.option("--norm", type=NORM, default="none", show_default=True, help="Of that kind.")
@click.option("--block", type=click.Choice(BLOCKS), default="plain", show_default=True, help="Of that kind.")
@common
def command(*, options: Common, activation: str | None, sigma_w: float, sigma_b: float, norm: str, block: str) -> None:
    """Measure signals, correlations and gradients at every layer."""
    one = Kind(block=block, activation=activation or "relu", norm=norm, sigma_w2=sigma_w**2, sigma_b2=sigma_b**2)
    wanted = kinds(options.preset) if activation is None else (one,)
    records = options.run(STUDY, cells(options, wanted), folder="moments")
    moments = Moments(records, start=START, batch=2 * PAIRS)
    if options.as_json:
        echo_json(_moments_page.numbers(moments))
        return
    path = options.out / "moments" / "index.html"
    write(_moments_page.page(moments, manifest=records.manifest()), path, styles=STYLES)
    click.echo(path)
