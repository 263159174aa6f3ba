"""Where in the plane of σ_w² and σ_b² does a signal survive, and does it say what can be trained? `rmtbn phase`.

Below the line χ₁ = 1 inputs become alike (order), above it they lose each other (chaos), both over the depth scale ξ_c,
which diverges on the line (Poole et al. 2016, arXiv:1606.05340). Schoenholz et al. 2017 (arXiv:1611.01232) find that
networks deeper than about 6 ξ_c cannot be trained: here many networks at once, on handwritten digits.
"""

from collections.abc import Mapping
from types import MappingProxyType

import click
import numpy as np
import pandas as pd
import torch

from rmtbn import inits, rng
from rmtbn.activations import ACTIVATIONS
from rmtbn.data.digits import digits
from rmtbn.data.pairs import correlated_pairs
from rmtbn.measure.ensemble_moments import ensemble_moments
from rmtbn.nets.mlp import mlp
from rmtbn.plot.theme import STYLES
from rmtbn.report.render import write
from rmtbn.sweep.grid import Cell, Study, Value, grid
from rmtbn.theory import mean_field
from rmtbn.train.ensemble import accuracies, train_ensemble

from . import _phase_page
from ._options import Common, common, echo_json, example
from ._phase_records import Phase

TRAINING_EXAMPLES = 1400  # of the 1,797 digits; the others are for the accuracy
START = 0.6  # correlation of the pairs whose fate is followed

# Points of the plane where correlations are measured, σ_w² and σ_b², and depths that are trained.
POINTS = MappingProxyType(
    {
        "quick": ((1.0, 2.5), (0.05, 0.2)),
        "default": ((0.5, 1.0, 1.5, 2.5, 3.0, 4.0), (0.05, 0.2)),
        "paper": ((0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0), (0.05, 0.1, 0.2, 0.3)),
    }
)
DEPTHS = MappingProxyType(
    {"quick": (2, 8), "default": (8, 16, 24, 32, 48, 64, 96), "paper": (10, 20, 40, 60, 80, 100, 140, 200, 300)}
)
# Width, networks and layers for correlations; σ_w² from 1 to 4 in so many steps, width, SGD steps, batch and seeds for
# training. The paper trains 300 units by 200 steps. Default: minutes on two cores.
GRID: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "quick": {"width": 64, "networks": 8, "layers": 16, "weights": 4, "units": 32, "steps": 40, "seeds": 1},
        "default": {"width": 256, "networks": 20, "layers": 30, "weights": 10, "units": 64, "steps": 300, "seeds": 2},
        "paper": {"width": 1000, "networks": 50, "layers": 60, "weights": 31, "units": 300, "steps": 200, "seeds": 4},
    }
)
LEARNING_RATE = 0.003  # 10⁻³ is the paper's; three times it shows as much of the plane after as many steps on digits
BATCH = 64
TRAINING_BIAS = 0.05  # σ_b² of the trained networks: the paper's, section 5


def correlation_cell(
    *, seed: int, activation: str, sigma_w2: float, sigma_b2: float, width: int, networks: int, layers: int,
    device: str, dtype: str,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Measure 1 - c of pairs of inputs at every layer of `networks` networks; lengths start at their fixed point."""
    point = mean_field.fixed_point(activation, sigma_w=sigma_w2**0.5, sigma_b=sigma_b2**0.5)
    q = point.q if 0 < point.q < np.inf else 1.0
    length = (q - sigma_b2) / sigma_w2 if q > sigma_b2 else 1.0  # of inputs, so that q¹ = q*
    modules = [
        _network(seed, i, activation, sigma_w2, sigma_b2, depth=layers, width=width, device=device, dtype=dtype)
        for i in range(networks)
    ]
    generator = rng.torch_generator(seed, "pairs", width)
    pairs = correlated_pairs(pairs=4, features=width, correlation=START, mean_square=length, generator=generator)
    x = pairs.to(device=torch.device(device), dtype=getattr(torch, dtype))
    found = ensemble_moments(modules, x).decorrelation.mean(axis=2)
    rows = {"network": np.repeat(np.arange(networks), layers), "layer": list(range(1, layers + 1)) * networks}
    return {"correlations": pd.DataFrame({**rows, "decorrelation": found.ravel()})}


def training_cell(
    *, seed: int, activation: str, depth: int, weights: int, units: int, steps: int, device: str, dtype: str
) -> dict[str, pd.DataFrame]:
    """Train networks of one depth with σ_w² from 1 to 4, all at once, and measure their accuracy on other digits."""
    sigma_w2 = np.linspace(1.0, 4.0, weights)
    data = digits().to(device=torch.device(device), dtype=getattr(torch, dtype))
    order = torch.randperm(len(data.targets), generator=rng.torch_generator(seed, "split"))
    x, y = data.inputs.flatten(1)[order], data.targets[order]
    modules = [
        _network(seed, i, activation, float(w), TRAINING_BIAS, depth=depth, width=units, device=device, dtype=dtype,
                 in_features=x.shape[1], out_features=data.classes)
        for i, w in enumerate(sigma_w2)
    ]  # fmt: skip
    train_ensemble(
        modules,
        x[:TRAINING_EXAMPLES],
        y[:TRAINING_EXAMPLES],
        steps=steps,
        batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        generator=rng.torch_generator(seed, "batches"),
    )
    accuracy = accuracies(modules, x[TRAINING_EXAMPLES:], y[TRAINING_EXAMPLES:])
    return {"accuracies": pd.DataFrame({"sigma_w2": sigma_w2, "accuracy": accuracy})}


def _network(
    seed: int, number: int, activation: str, sigma_w2: float, sigma_b2: float, *, depth: int, width: int, device: str,
    dtype: str, in_features: int | None = None, out_features: int | None = None,
) -> torch.nn.Sequential:  # fmt: skip
    net = mlp(depth=depth, width=width, activation=activation, in_features=in_features, out_features=out_features)
    net = net.to(device=torch.device(device), dtype=getattr(torch, dtype))
    generator = rng.torch_generator(seed, "weights", activation, width, depth, number)
    return inits.initialise(
        net, "gaussian", generator=generator, activation=activation, sigma_w=sigma_w2**0.5, sigma_b=sigma_b2**0.5
    )


CORRELATIONS = Study(name="phase-correlations", version=1, compute=correlation_cell)
TRAINING = Study(name="phase-training", version=1, compute=training_cell)


def correlation_cells(options: Common, activation: str) -> tuple[Cell, ...]:
    """Return the cells of the plane."""
    weights, biases = POINTS[options.preset]
    sizes = {name: GRID[options.preset][name] for name in ("width", "networks", "layers")}
    constants: dict[str, Value] = {"activation": activation, **sizes, "device": options.device, "dtype": options.dtype}
    axes = {"sigma_w2": weights, "sigma_b2": biases}
    return grid({**axes, **{name: (value,) for name, value in constants.items()}}, seeds=(options.seed,))


def training_cells(options: Common, activation: str) -> tuple[Cell, ...]:
    """Return the cells of the trainability map."""
    sizes = {name: GRID[options.preset][name] for name in ("weights", "units", "steps")}
    constants: dict[str, Value] = {"activation": activation, **sizes, "device": options.device, "dtype": options.dtype}
    seeds = tuple(range(options.seed, options.seed + GRID[options.preset]["seeds"]))
    return grid({"depth": DEPTHS[options.preset], **{name: (v,) for name, v in constants.items()}}, seeds=seeds)


@click.command(epilog=example("phase --activation tanh --preset quick"))
@click.option("--activation", type=click.Choice(list(ACTIVATIONS)), default="tanh", show_default=True, help="φ.")
@common
def command(*, options: Common, activation: str) -> None:
    """Map order and chaos over σ_w and σ_b, and what can be trained."""
    correlations = options.run(CORRELATIONS, correlation_cells(options, activation), folder="phase")
    training = options.run(TRAINING, training_cells(options, activation), folder="phase")
    phase = Phase(correlations, training)
    if options.as_json:
        echo_json(_phase_page.numbers(phase))
        return
    path = options.out / "phase" / "index.html"
    write(_phase_page.page(phase, manifest=training.manifest()), path, styles=STYLES)
    click.echo(path)
