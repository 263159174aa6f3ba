"""Is it the larger rate that helps? `rmtbn learning-rates`: figure 1 and sections 3 and 3.1 of Bjorck et al. 2018.

Residual networks with several norms, with none, and with one alone after the last block, trained to the end at large
and small rates: accuracy along training, the gap between training and test images, epochs to the plateau. Records,
claims and page: `_learning_rates_records`, `_learning_rates_claims`, `_learning_rates_page`.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import click
import pandas as pd
import torch

from rmtbn.data.labelled import Labelled
from rmtbn.sweep.grid import Cell, Study
from rmtbn.train.evaluation import Evaluation, evaluate
from rmtbn.train.loop import train as trained
from rmtbn.train.recipe import Recipe

from . import _learning_rates_page as written
from ._held_out import divided, training_cells
from ._image_networks import image_data, network
from ._learning_rates_claims import claims
from ._learning_rates_records import LARGE, MIDDLE, SMALL
from ._options import Common, common, example
from ._paper_study import PaperStudy

# The paper's rates; with one norm after the last block it reports 0.03 as the largest, and for other norms only that
# large rates do.
RATES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "none": (LARGE, MIDDLE, SMALL),
        "final": (LARGE, MIDDLE, SMALL),
        "only_final": (LARGE, 0.03, MIDDLE),
        "layer": (LARGE,),
        "group": (LARGE,),
        "instance": (LARGE,),
    }
)
# Epochs by rate; the paper's (section 3.1) are 165, 1320 and 2400.
EPOCHS: Mapping[str, Mapping[float, int]] = MappingProxyType(
    {
        "quick": {LARGE: 2, 0.03: 2, MIDDLE: 4, SMALL: 6},
        "default": {LARGE: 12, 0.03: 12, MIDDLE: 30, SMALL: 60},
        "paper": {LARGE: 165, 0.03: 165, MIDDLE: 1320, SMALL: 2400},
    }
)
# Depth, images, mini-batch, networks (seeds); "paper" needs CIFAR-10 and a GPU: test images are part of its 50,000.
SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "quick": {"depth": 8, "train": 128, "test": 128, "batch": 16, "networks": 2, "augment": False},
        "default": {"depth": 56, "train": 512, "test": 512, "batch": 32, "networks": 3, "augment": False},
        "paper": {"depth": 110, "train": 45_000, "test": 5_000, "batch": 128, "networks": 3, "augment": True},
    }
)
TEST_BATCH = 500


def cell(
    *,
    seed: int,
    kind: str,
    rate: float,
    epochs: int,
    batch: int,
    depth: int,
    train: int,
    test: int,
    augment: bool,
    data: str,
    device: str,
    dtype: str,
) -> dict[str, pd.DataFrame]:
    """Train one network. Networks of one seed begin with the same weights and see the same images.

    Returns
    -------
    dict
        "curves": for each epoch mean loss and accuracy over its mini-batches, and those of the test images after it.
        "ends", one row: whether training diverged, and loss and accuracy of the network as it is after training on the
        training images and on the test images, both in eval mode with running statistics.
    """
    seen, held_out = divided(data, seed=seed, train=train, test=test, device=device, dtype=dtype)
    net = network(seed=seed, kind=kind, depth=depth, like=seen)
    recipe = Recipe(rate=rate, epochs=epochs, batch_size=batch, augment=augment, seed=seed)
    found = trained(net, seen, recipe, test=held_out)
    columns = ["epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]
    on_train, on_test = _evaluated(net, seen), _evaluated(net, held_out)
    row = {
        "diverged": found.diverged_at is not None,
        "train_loss": on_train.loss,
        "train_accuracy": on_train.accuracy,
        "test_loss": on_test.loss,
        "test_accuracy": on_test.accuracy,
    }
    return {"curves": found.epochs[columns], "ends": pd.DataFrame([row])}


def _evaluated(net: Any, images: Labelled) -> Evaluation:
    return evaluate(
        net, zip(torch.split(images.inputs, TEST_BATCH), torch.split(images.targets, TEST_BATCH), strict=True)
    )


def cells(options: Common, *, data: str) -> tuple[Cell, ...]:
    """Return a cell for each network of each kind at each of its rates."""
    return tuple(
        one
        for kind, rates in RATES.items()
        for rate in rates
        for one in training_cells(
            options,
            data=data,
            axes={"kind": (kind,), "rate": (rate,), "epochs": (EPOCHS[options.preset][rate],)},
            sizes=SIZES[options.preset],
        )
    )


ANALYSIS = PaperStudy(
    study=Study(name="learning-rates", version=1, compute=cell),
    cells=cells,
    claims=claims,
    page=written.page,
    numbers=written.numbers,
)


@click.command(epilog=example("learning-rates --preset quick"))
@image_data
@partial(common, dtype="float32")
def command(*, options: Common, data: str) -> None:
    """Train at large and small rates, with several norms and without (fig. 1)."""
    ANALYSIS.execute(options, data=data)
