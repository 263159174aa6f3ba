"""Do batch statistics survive a training loop? `rmtbn bn-modes`: eight facts, and the gap between train and eval mode.

The facts are those of torch's batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 2) and of what
loops do around it; each is measured on a network in training. The gap between evaluation with running statistics and
with those of the batch is measured in accuracy and layer by layer, against the momentum of batch norm and the size of
the batch. The means of the running average are laid over the law of `rmtbn.theory.running_average`.
"""

import copy
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import click
import pandas as pd

from rmtbn.sweep.grid import Cell, Study
from rmtbn.train.evaluation import statistics_gap, train_eval_gap
from rmtbn.train.loop import train as trained
from rmtbn.train.momentum_copies import MomentumCopies
from rmtbn.train.recipe import Recipe

from . import _bn_modes_page
from ._bn_modes_facts import FACTS
from ._bn_modes_held import held
from ._bn_modes_records import MOMENTA
from ._bn_modes_setting import Setting
from ._held_out import batched, divided, training_cells
from ._image_networks import image_data, network
from ._options import Common, common, example
from ._paper_study import PaperStudy

KIND = "batch"

# Depth, images, epochs, rate, networks (seeds); default: three minutes of one core. "paper" needs CIFAR-10 and a GPU.
SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "quick": {"depth": 8, "train": 64, "test": 128, "epochs": 2, "rate": 0.02, "networks": 2},
        "default": {"depth": 14, "train": 512, "test": 1280, "epochs": 8, "rate": 0.02, "networks": 5},
        "paper": {"depth": 20, "train": 40_960, "test": 9_040, "epochs": 30, "rate": 0.1, "networks": 5},
    }
)
# Batch size of the facts, and those of the gap.
BATCHES: Mapping[str, tuple[int, tuple[int, ...]]] = MappingProxyType(
    {"quick": (16, (8, 16)), "default": (32, (8, 32, 128)), "paper": (128, (32, 128, 512))}
)


def cell(
    *,
    seed: int,
    part: str,
    batch: int,
    rate: float,
    epochs: int,
    depth: int,
    train: int,
    test: int,
    data: str,
    device: str,
    dtype: str,
) -> dict[str, pd.DataFrame]:
    """Measure the facts on one network (part "facts") or its gap for each momentum (part "gap").

    Returns
    -------
    dict
        "facts": number of the fact, what is measured, what it should be, what it is. Or "accuracy": accuracy and loss
        on the test images by momentum and statistics; and "layers": by momentum and layer the errors of the running
        statistics, and at weights that are held, mean square error of the running mean and its law.
    """
    seen, held_out = divided(data, seed=seed, train=train, test=test, device=device, dtype=dtype)
    drawn = network(seed=seed, kind=KIND, depth=depth, like=seen)
    recipe = Recipe(rate=rate, epochs=epochs, batch_size=batch, schedule="constant", seed=seed)
    net = copy.deepcopy(drawn)
    copies = MomentumCopies(net, MOMENTA)
    if part == "facts":
        trained(net, seen, recipe)
        setting = Setting(drawn=drawn, trained=net, seen=seen, held_out=held_out, recipe=recipe)
        found = [(fact, *row) for fact, measure in FACTS.items() for row in measure(setting)]
        return {"facts": pd.DataFrame(found, columns=["fact", "what", "predicted", "measured"])}
    with copies.following():
        trained(net, seen, recipe)
    setting = Setting(drawn=drawn, trained=net, seen=seen, held_out=held_out, recipe=recipe)
    accuracy, layers = zip(*(_gaps(copies, momentum, setting) for momentum in MOMENTA), strict=True)
    return {"accuracy": pd.DataFrame(accuracy), "layers": pd.concat(layers).merge(held(setting, seed=seed))}


def _gaps(copies: MomentumCopies, momentum: float, setting: Setting) -> tuple[dict[str, float], pd.DataFrame]:
    """Measure the gap in accuracy and by layer with the running statistics of one momentum."""
    copies.put(momentum)
    size = setting.recipe.batch_size
    whole = [(x, y) for x, y in batched(setting.held_out, size) if len(y) == size]
    gap = train_eval_gap(setting.trained, whole)
    found = statistics_gap(setting.trained, [x for x, _ in batched(setting.seen, size)], batch_stats="batch")
    row = {
        "momentum": momentum,
        "batch_accuracy": gap.batch.accuracy,
        "running_accuracy": gap.running.accuracy,
        "batch_loss": gap.batch.loss,
        "running_loss": gap.running.loss,
    }
    layers = {"layer": range(len(found.layers)), "shift": found.mean_shift, "log_variance": found.log_variance_ratio}
    return row, pd.DataFrame({"momentum": momentum, **layers})


def cells(options: Common, *, data: str) -> tuple[Cell, ...]:
    """Return a cell for the facts of each network, and one for its gap at each batch size."""
    facts, gaps = BATCHES[options.preset]
    wanted = {"facts": (facts,), "gap": gaps}
    return tuple(
        one
        for part, batches in wanted.items()
        for one in training_cells(
            options, data=data, axes={"part": (part,), "batch": batches}, sizes=SIZES[options.preset]
        )
    )


ANALYSIS = PaperStudy(
    study=Study(name="bn-modes", version=1, compute=cell),
    cells=cells,
    claims=lambda _records: {},  # none of the paper's: what it takes for granted
    page=_bn_modes_page.page,
    numbers=_bn_modes_page.numbers,
)


@click.command(epilog=example("bn-modes --preset quick"))
@image_data
@partial(common, dtype="float32")
def command(*, options: Common, data: str) -> None:
    """Measure what a training loop does to batch statistics, and train mode against eval mode."""
    ANALYSIS.execute(options, data=data)
