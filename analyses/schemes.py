"""How, and at what depth, does each initialisation scheme fail, and does batch normalisation save it? `rmtbn schemes`.

Networks of growing depth are the first L blocks of one deep network, on real images. Four things can go wrong with
depth, and the first to do so is the failure: the loss gradient at the first layer or the forward signal leaves
[1e-3, 1e3] of its value at depth 1, the condition number of the input-output Jacobian passes 1e6, or two inputs become
alike (c > 0.99).
"""

from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType

import click
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from rmtbn import inits, rng
from rmtbn.data.labelled import Labelled
from rmtbn.measure.gradients import log_gradient_norms
from rmtbn.measure.jacobian import prefix_spectra
from rmtbn.measure.moments import activation_moments, pair_correlations
from rmtbn.nets.mlp import mlp
from rmtbn.plot.theme import STYLES
from rmtbn.report.render import write
from rmtbn.result import EmpiricalSpectrum
from rmtbn.sweep.grid import Cell, Study, Value, grid

from . import _schemes_page
from ._options import DATA_HELP, Common, common, echo_json, enough, example, load
from ._schemes_records import Schemes, numbers

SCHEMES = tuple(inits.INITS)
ACTIVATIONS = ("relu", "tanh")
NORMS = ("none", "batch")
GAUSSIAN_SIGMA_W = 2.0  # of the scheme "gaussian": in the chaotic phase of tanh, twice the critical variance of ReLU

# Depth and width; networks (seeds); examples in the batch for moments and gradients; width and batch of the batch
# Jacobian, which has (batch · width)² entries. Default: minutes on two cores; paper: for a GPU.
GRID: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "quick": {"max_depth": 16, "width": 64, "networks": 2, "examples": 32, "bn_width": 16, "bn_batch": 6},
        "default": {"max_depth": 256, "width": 128, "networks": 4, "examples": 128, "bn_width": 24, "bn_batch": 6},
        "paper": {"max_depth": 256, "width": 512, "networks": 16, "examples": 512, "bn_width": 128, "bn_batch": 16},
    }
)


def cell(
    *,
    seed: int,
    scheme: str,
    norm: str,
    activation: str,
    data: str,
    max_depth: int,
    width: int,
    examples: int,
    bn_width: int,
    bn_batch: int,
    device: str,
    dtype: str,
) -> dict[str, pd.DataFrame]:
    """Measure one network at the depths 1, 2, 4, …, `max_depth`.

    Returns
    -------
    dict
        "inputs": mean square and mean correlation of pairs of the inputs, mean square of those where the Jacobian is
        measured. "layers": per layer of the deepest network,
        log mean square of the pre-activations, mean correlation of pairs of examples, log squared gradient norm.
        "depths": per depth, log squared gradient norm at layer 1 and figures of the spectrum. "spectra": per depth, all
        log singular values of the Jacobian, of one example (norm none) or of a batch.
    """
    labels = (scheme, norm, activation)
    source = load(data).take(examples, generator=rng.torch_generator(seed, "examples"))
    kind = {"device": torch.device(device), "dtype": getattr(torch, dtype)}

    def network(width: int, classes: int | None) -> nn.Sequential:
        net = mlp(depth=max_depth, width=width, activation=activation, norm=norm, out_features=classes)
        return inits.initialise(
            net.to(**kind),  # first: it rounds what is drawn
            scheme,
            generator=rng.torch_generator(seed, "weights", width, *labels),
            activation=activation,
            sigma_w=GAUSSIAN_SIGMA_W if scheme == "gaussian" else None,
        )

    def inputs(width: int, count: int) -> Labelled:
        return source.embedded(width, generator=rng.torch_generator(seed, "embedding")).to(**kind).first(count)

    deep = network(width, source.classes)
    jacobian_width, batch = (bn_width, bn_batch) if norm == "batch" else (width, 1)
    at = inputs(jacobian_width, batch).inputs
    spectra = _spectra(network(jacobian_width, None), at, max_depth)
    images = inputs(width, examples)
    return {
        "inputs": _inputs(images.inputs, at),
        "layers": _layers(deep, images),
        "depths": _depths(deep, images, spectra, batch=batch if norm == "batch" else None),
        "spectra": pd.DataFrame(
            {
                "depth": list(spectra),
                "log_singular_values": [list(spectrum.by_network[0]) for spectrum in spectra.values()],
            }
        ),
    }


def _depths(
    network: nn.Sequential, images: Labelled, spectra: Mapping[int, EmpiricalSpectrum], *, batch: int | None
) -> pd.DataFrame:
    rows = [
        {
            "depth": depth,
            "log_gradient": _gradients(_first_blocks(network, depth), images)[0],
            **_figures(spectrum, batch=batch),
        }
        for depth, spectrum in spectra.items()
    ]
    return pd.DataFrame(rows)


def _inputs(images: Tensor, at: Tensor) -> pd.DataFrame:
    alike = pair_correlations(nn.Sequential(nn.Identity()), images, layers=["0"]).mean()
    squares = {name: [float(x.square().mean())] for name, x in (("q0", images), ("jacobian_q0", at))}
    return pd.DataFrame({**squares, "c0": [float(alike)]})


def _layers(network: nn.Sequential, images: Labelled) -> pd.DataFrame:
    hidden = _linear_layers(network)
    with np.errstate(invalid="ignore"):
        correlation = pair_correlations(network, images.inputs, layers=hidden).mean(axis=1)
    moments = activation_moments(network, images.inputs, layers=hidden)
    return pd.DataFrame(
        {
            "layer": range(1, len(hidden) + 1),
            "log_q": [m.log_second_moment for m in moments],
            "correlation": correlation,
            "log_gradient": _gradients(network, images),
        }
    )


def _gradients(network: nn.Sequential, images: Labelled) -> list[float]:
    """Log squared norms of the gradient of the cross-entropy at the pre-activations of the hidden layers."""

    def loss(logits: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, images.targets)

    return list(log_gradient_norms(network, images.inputs, loss, layers=_linear_layers(network)))


def _linear_layers(network: nn.Sequential) -> list[str]:
    return [name for name, _ in network.named_children() if name.startswith("linear_")]


def _first_blocks(network: nn.Sequential, depth: int) -> nn.Sequential:
    """Return the network of the first `depth` blocks with the same readout."""
    names = [name for name, _ in network.named_children()]
    kept = (*names[: names.index(f"phi_{depth}") + 1], "readout")
    return nn.Sequential(OrderedDict((name, network.get_submodule(name)) for name in kept))


def _spectra(network: nn.Sequential, x: Tensor, depth: int) -> dict[int, EmpiricalSpectrum]:
    depths = [2**k for k in range(depth.bit_length()) if 2**k <= depth]
    found = prefix_spectra(network, x, after=[f"phi_{at}" for at in depths])
    return {at: found[f"phi_{at}"] for at in depths}


def _figures(spectrum: EmpiricalSpectrum, *, batch: int | None) -> dict[str, float]:
    """Largest and median log σ and the log condition number, of the non-zero values.

    Under batch normalisation the condition number is that of the B - 2 directions per feature which it keeps: it
    removes the mean over the batch, and the scale up to ε. A few features of ReLU keep their scale: the last 1 % is
    left out for that.
    """
    log_sigma = spectrum.by_network[0]
    kept = log_sigma[np.isfinite(log_sigma)]
    counted = len(kept) if batch is None else max(1, int(0.99 * min(len(kept), (1 - 2 / batch) * len(log_sigma))))
    return {
        "log_sigma_max": float(kept[0]),
        "log_sigma_median": float(np.median(kept)),
        "log_condition": float(kept[0] - kept[counted - 1]),
        "zeros": spectrum.zero_fraction,
        "relative_error": spectrum.relative_error,
    }


STUDY = Study(name="schemes", version=3, compute=cell)


def cells(options: Common, *, data: str) -> tuple[Cell, ...]:
    """Return the cells of a preset."""
    sizes = dict(GRID[options.preset])
    seeds = range(options.seed, options.seed + sizes.pop("networks"))
    axes = {"activation": ACTIVATIONS, "norm": NORMS, "scheme": SCHEMES, "data": (data,)}
    constants: dict[str, Value] = {**sizes, "device": options.device, "dtype": options.dtype}
    return grid({**axes, **{name: (value,) for name, value in constants.items()}}, seeds=tuple(seeds))


@click.command(epilog=example("schemes --preset quick --data digits"))
@click.option("--data", default="digits", show_default=True, help=DATA_HELP)
@common
def command(*, options: Common, data: str) -> None:
    """Find how, and at what depth, each initialisation scheme fails."""
    enough(load(data), GRID[options.preset]["examples"])
    records = options.run(STUDY, cells(options, data=data), folder="schemes")
    schemes = Schemes(records, gaussian_sigma_w=GAUSSIAN_SIGMA_W)
    if options.as_json:
        echo_json(numbers(schemes))
        return
    path = options.out / "schemes" / "index.html"
    write(_schemes_page.page(schemes, data=load(data).name, manifest=records.manifest()), path, styles=STYLES)
    click.echo(path)
