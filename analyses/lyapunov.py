"""How fast do the singular values of a Jacobian grow or fall per layer? `rmtbn lyapunov`.

The Lyapunov exponents λ_k = lim ln(σ_k)/L over activations, widths, laws of the weights, with batch normalisation and
without: for linear networks against Newman's values, for ReLU against the exact ones of their width, for others
against the mean field, whose ½ ln χ₁ is the largest exponent of a wide network; under batch normalisation against
½ ln λ_G.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import click
import pandas as pd
import torch

from rmtbn import inits, rng
from rmtbn.activations import ACTIVATIONS
from rmtbn.measure.growth import growth
from rmtbn.nets.mlp import mlp
from rmtbn.plot.theme import STYLES
from rmtbn.report.render import write
from rmtbn.sweep.grid import Cell, Study, Value, grid

from . import _lyapunov_page
from ._lyapunov_records import Exponents, numbers
from ._lyapunov_theory import Kind, input_square
from ._options import NORM, Common, common, echo_json, example

CHUNK = 5  # networks in a cell
FIRST = 4  # smallest depth that is recorded; then its doubles


def _kind(activation: str, norm: str, init: str, sigma_w2: float, sigma_b2: float = 0.0) -> Kind:
    return Kind(activation=activation, norm=norm, init=init, sigma_w2=sigma_w2, sigma_b2=sigma_b2)


# tanh in the ordered phase, on the critical line and in the chaotic phase.
KINDS = (
    _kind("linear", "none", "gaussian", 1.0),
    _kind("linear", "none", "orthogonal", 1.0),
    _kind("relu", "none", "gaussian", 2.0),
    _kind("relu", "none", "orthogonal", 2.0),
    _kind("tanh", "none", "gaussian", 1.3, 0.1),
    _kind("tanh", "none", "gaussian", 1.7609546396, 0.05),
    _kind("tanh", "none", "gaussian", 3.0, 0.05),
    _kind("tanh", "none", "orthogonal", 1.7609546396, 0.05),
    _kind("linear", "batch", "gaussian", 1.0),
    _kind("relu", "batch", "gaussian", 1.0),
    _kind("relu", "batch", "orthogonal", 1.0),
    _kind("tanh", "batch", "gaussian", 1.0),
)
WIDTHS = MappingProxyType({"quick": (8, 16), "default": (16, 32, 64), "paper": (64, 128, 256)})
# Layers and seeds (of `CHUNK` networks) by norm; examples of the batch. Default: two minutes on two cores.
GRID: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "quick": {"depth": 16, "batch_depth": 8, "seeds": 1, "batch_seeds": 1, "batch": 4},
        "default": {"depth": 256, "batch_depth": 64, "seeds": 2, "batch_seeds": 1, "batch": 8},
        "paper": {"depth": 1024, "batch_depth": 128, "seeds": 10, "batch_seeds": 2, "batch": 8},
    }
)


def cell(
    *, seed: int, activation: str, norm: str, init: str, sigma_w2: float, sigma_b2: float, width: int, depth: int,
    batch: int, device: str, dtype: str,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Measure all singular values of `CHUNK` networks of one kind after L, L/2, L/4 and so on layers.

    Returns
    -------
    dict
        "spectra": one row per network and layer. Under batch normalisation the Jacobian is that of the whole batch.
    """
    kind = _kind(activation, norm, init, sigma_w2, sigma_b2)
    place = {"device": torch.device(device), "dtype": getattr(torch, dtype)}
    depths = [depth // 2**i for i in range(depth.bit_length()) if depth // 2**i >= FIRST][::-1]
    rows = []
    for network in range(CHUNK):
        module = mlp(depth=depth, width=width, activation=activation, norm=norm).to(**place)
        labels = (activation, norm, init, sigma_w2, sigma_b2, width, network)
        generator = rng.torch_generator(seed, "weights", *labels)
        inits.initialise(module, init, generator=generator, activation=activation, **kind.sigmas())
        x = torch.randn(batch, width, generator=rng.torch_generator(seed, "input", *labels), dtype=torch.float64)
        x = x * (input_square(kind) / x.square().mean(1, keepdim=True)).sqrt()
        found = growth([module], x.to(**place), after=[f"phi_{d}" for d in depths])
        values, errors = found.log_singular_values[0].tolist(), found.relative_error.tolist()
        rows += [(network, d, values[i], errors[i]) for i, d in enumerate(depths)]
    columns = ("network", "layer", "log_singular_values", "relative_error")
    return {"spectra": pd.DataFrame(rows, columns=list(columns))}


STUDY = Study(name="lyapunov", version=1, compute=cell)


def cells(options: Common, wanted: tuple[Kind, ...]) -> tuple[Cell, ...]:
    """Return the cells of some kinds of network."""
    found: list[Cell] = []
    for kind in wanted:
        prefix, sizes = "batch_" if kind.norm == "batch" else "", GRID[options.preset]
        constants: dict[str, Value] = {
            **kind.parameters(),
            "depth": sizes[f"{prefix}depth"],
            "batch": sizes["batch"] if kind.norm == "batch" else 1,
            "device": options.device,
            "dtype": options.dtype,
        }
        axes = {**{name: (value,) for name, value in constants.items()}, "width": WIDTHS[options.preset]}
        found += grid(axes, seeds=range(options.seed, options.seed + sizes[f"{prefix}seeds"]))
    return tuple(found)


SIGMA = click.FloatRange(min=0, min_open=True)
INITS = click.Choice(["gaussian", "orthogonal"])


@click.command(epilog=example("lyapunov --activation tanh --sigma-w 1.5 --sigma-b 0.3 --preset quick"))
@click.option("--activation", type=click.Choice(list(ACTIVATIONS)), help="One kind of network.  [default: a grid]")
@click.option("--norm", type=NORM, default="none", show_default=True, help="Of that kind.")
@click.option("--init", type=INITS, default="gaussian", show_default=True, help="Of that kind: law of the weights.")
@click.option("--sigma-w", type=SIGMA, default=1.0, show_default=True, help="Of that kind: σ_w.")
@click.option("--sigma-b", type=click.FloatRange(min=0), default=0.0, show_default=True, help="Of that kind: σ_b.")
@common
def command(*, options: Common, activation: str | None, **kind: Any) -> None:
    """Measure how fast singular values grow or fall with depth."""
    one = _kind(activation or "linear", kind["norm"], kind["init"], kind["sigma_w"] ** 2, kind["sigma_b"] ** 2)
    wanted = KINDS if activation is None else (one,)
    for asked in wanted:
        asked.check()
    records = options.run(STUDY, cells(options, wanted), folder="lyapunov")
    exponents = Exponents(records)
    if options.as_json:
        echo_json(numbers(exponents))
        return
    path = options.out / "lyapunov" / "index.html"
    write(_lyapunov_page.page(exponents, manifest=records.manifest()), path, styles=STYLES)
    click.echo(path)
