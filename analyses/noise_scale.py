"""Is α/|B| all that matters? `rmtbn noise-scale`: accuracy over rates and batch sizes, with batch norm and without.

Smith & Le 2018 (arXiv:1710.06451): the noise of SGD has the scale α N/|B|, so that test accuracy depends on rate and
batch through α/|B|. De & Smith 2020 (arXiv:2002.10444): the large rates that batch norm permits are of use at large
batches only; at small ones the best rate is small anyway. Networks are trained for a number of epochs, at constant
rate, for every rate and batch of a grid whose rates and batches rise by one factor: batches share values of α/|B|.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import click
import pandas as pd

from rmtbn.sweep.grid import Cell, Study
from rmtbn.train.batchnorm import recalibrate
from rmtbn.train.channel_moments import tracking_norms
from rmtbn.train.evaluation import evaluate
from rmtbn.train.loop import train as trained
from rmtbn.train.recipe import Recipe

from . import _noise_scale_page
from ._held_out import batched, divided, training_cells
from ._image_networks import image_data, network
from ._noise_scale_records import KINDS
from ._options import Common, common, example
from ._paper_study import PaperStudy

FACTOR = 4  # from one rate to the next, and from one batch size to the next
TEST_BATCH = 500

# Depth, images, epochs, networks (seeds); default: some minutes of one core. "paper" needs CIFAR-10 and a GPU.
SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "quick": {"depth": 8, "train": 64, "test": 128, "epochs": 2, "networks": 2, "augment": False},
        "default": {"depth": 14, "train": 512, "test": 1280, "epochs": 12, "networks": 5, "augment": False},
        "paper": {"depth": 20, "train": 40_000, "test": 10_000, "epochs": 100, "networks": 3, "augment": True},
    }
)
# First rate and how many, first batch size and how many.
GRID: Mapping[str, tuple[float, int, int, int]] = MappingProxyType(
    {"quick": (0.008, 3, 8, 2), "default": (0.002, 5, 8, 3), "paper": (0.0005, 8, 32, 4)}
)


def cell(
    *,
    seed: int,
    kind: str,
    rate: float,
    batch: int,
    epochs: int,
    depth: int,
    train: int,
    test: int,
    augment: bool,
    data: str,
    device: str,
    dtype: str,
) -> dict[str, pd.DataFrame]:
    """Train one network and test it. Networks of one seed begin with the same weights and see the same images.

    Returns
    -------
    dict
        "runs", one row: whether training diverged, mean loss and accuracy of the last epoch, and test accuracy with the
        running statistics as training left them (`stored`) and averaged anew over the training images (`accuracy`).
    """
    seen, held_out = divided(data, seed=seed, train=train, test=test, device=device, dtype=dtype)
    net = network(seed=seed, kind=kind, depth=depth, like=seen)
    recipe = Recipe(rate=rate, epochs=epochs, batch_size=batch, schedule="constant", augment=augment, seed=seed)
    found = trained(net, seen, recipe)
    batches = batched(held_out, TEST_BATCH)
    row = {
        "diverged": found.diverged_at is not None,
        "train_loss": float(found.epochs.train_loss.iloc[-1]),
        "train_accuracy": float(found.epochs.train_accuracy.iloc[-1]),
        "stored": evaluate(net, batches).accuracy,
    }
    if tracking_norms(net):
        recalibrate(net, [x for x, _ in batched(seen, batch)])
    return {"runs": pd.DataFrame([{**row, "accuracy": evaluate(net, batches).accuracy}])}


def cells(options: Common, *, data: str) -> tuple[Cell, ...]:
    """Return a cell for each network, batch size and rate."""
    first_rate, rates, first_batch, batches = GRID[options.preset]
    axes = {
        "kind": KINDS,
        "batch": tuple(first_batch * FACTOR**place for place in range(batches)),
        "rate": tuple(first_rate * FACTOR**place for place in range(rates)),
    }
    return training_cells(options, data=data, axes=axes, sizes=SIZES[options.preset])


ANALYSIS = PaperStudy(
    study=Study(name="noise-scale", version=1, compute=cell),
    cells=cells,
    claims=lambda _records: {},  # none of Bjorck et al.; those of other papers are on its page
    page=_noise_scale_page.page,
    numbers=_noise_scale_page.numbers,
)


@click.command(epilog=example("noise-scale --preset quick"))
@image_data
@partial(common, dtype="float32")
def command(*, options: Common, data: str) -> None:
    """Measure whether accuracy depends on rate and batch through their ratio."""
    ANALYSIS.execute(options, data=data)
