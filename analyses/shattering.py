"""Do the gradients of deep networks shatter? `rmtbn shattering`: Balduzzi et al. 2017 (arXiv:1702.08591), Figure 1.

The gradient of the output is followed along a line of inputs, u + t v for 256 t in [-2, 2], u ⟂ v of equal length, and
its autocorrelation laid beside white and brown noise: one input unit t and biases as large as its weights. At pairs of
independent inputs, the correlation of the two gradients is laid over the laws of `rmtbn.theory.shattering`. The
measurement is that of `rmtbn.measure.shattering`; statistics of batch normalisation are held at those of the inputs.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import click
import pandas as pd
import torch
from torch import Tensor, nn

from rmtbn import inits, rng
from rmtbn.inits.looks_linear import looks_linear
from rmtbn.measure.shattering import input_gradients
from rmtbn.nets.mlp import mlp
from rmtbn.nets.residual_mlp import residual_mlp
from rmtbn.sweep.grid import Cell, Study, grid

from . import _shattering_page
from ._options import Common, common, example
from ._paper_study import PaperStudy
from ._shattering_records import KINDS

REACH = 2.0  # the line is followed for t in [-2, 2], as in the paper

# Width, inputs in a batch, points on the line and networks (seeds). Width and points are those of the paper from
# "default" on; its depths are 1, 24 and 50.
SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "quick": {"depth": (1, 2, 5), "width": 64, "examples": 32, "points": 128, "networks": 4},
        "default": {"depth": (1, 2, 5, 10, 24, 50), "width": 200, "examples": 128, "points": 256, "networks": 24},
        "paper": {"depth": (1, 2, 5, 10, 24, 50), "width": 200, "examples": 128, "points": 256, "networks": 200},
    }
)


def cell(
    *, seed: int, kind: str, depth: int, width: int, examples: int, points: int, device: str, dtype: str
) -> dict[str, pd.DataFrame]:
    """Measure one network, at orthogonal inputs and along the line that the first two of them span.

    Returns
    -------
    dict
        "pairs": means over the inputs of ‖g‖², and over their pairs of ⟨g, g'⟩, one row. "curve": ∂f/∂t along the line.
    """
    place = {"device": torch.device(device), "dtype": getattr(torch, dtype)}
    inputs = orthogonal_inputs(seed, width=width, examples=examples)
    t = torch.linspace(-REACH, REACH, points, dtype=torch.float64)[:, None]
    net = network(seed=seed, kind=kind, depth=depth, width=width).to(**place)
    gradients = _gradients(net, inputs.to(**place))
    along = _gradients(net, (inputs[0] + t * inputs[1]).to(**place)) @ inputs[1].numpy()
    own = float((gradients**2).sum()) / examples
    cross = (float((gradients.sum(axis=0) ** 2).sum()) / examples - own) / (examples - 1)
    return {
        "pairs": pd.DataFrame([{"own": own, "cross": cross}]),
        "curve": pd.DataFrame({"t": t[:, 0].numpy(), "gradient": along}),
    }


def orthogonal_inputs(seed: int, *, width: int, examples: int) -> Tensor:
    """Draw orthogonal inputs of mean square 1: their cosine is exactly 0, that of the law."""
    drawn = torch.randn(width, examples, generator=rng.torch_generator(seed, "inputs"), dtype=torch.float64)
    return torch.linalg.qr(drawn)[0].T * width**0.5


def network(*, seed: int, kind: str, depth: int, width: int) -> nn.Sequential:
    """Draw a network of `rmtbn.theory.shattering` ("plain", "residual", …) or a looks-linear one, with one output."""
    generator = rng.torch_generator(seed, "weights", kind, depth)
    build = residual_mlp if kind.startswith("residual") else mlp
    body = build(depth=depth, width=width, norm="batch" if kind.endswith("batch") else "none")
    net = nn.Sequential(body, nn.Linear(width, 1, bias=False))
    if kind == "looks_linear":
        return looks_linear(net, generator=generator)
    return inits.initialise(net, "he_normal", generator=generator, activation="relu")


def _gradients(net: nn.Sequential, x: Tensor) -> Any:
    """Differentiate the output at every input, statistics held at those of the batch."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.momentum = 1.0  # the running statistics are those of the last batch
    net.train()
    with torch.no_grad():
        net(x)
    return input_gradients(net.eval(), x)


def cells(options: Common) -> tuple[Cell, ...]:
    """Return a cell for each network of each kind and depth."""
    sizes = dict(SIZES[options.preset])
    networks = sizes.pop("networks")
    axes = {"kind": KINDS, "depth": sizes.pop("depth")}
    constants = {**sizes, "device": options.device, "dtype": options.dtype}
    shared = {name: (value,) for name, value in constants.items()}
    return grid({**axes, **shared}, seeds=tuple(range(options.seed, options.seed + networks)))


ANALYSIS = PaperStudy(
    study=Study(name="shattering", version=1, compute=cell),
    cells=cells,
    claims=lambda _records: {},  # none of Bjorck et al.; those of its own paper are on its page
    page=_shattering_page.page,
    numbers=_shattering_page.numbers,
    of_images=False,
)


@click.command(epilog=example("shattering --preset quick"))
@common
def command(*, options: Common) -> None:
    """Measure how alike gradients at different inputs are, against depth."""
    ANALYSIS.execute(options)
