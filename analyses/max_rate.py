"""What is the largest rate at which a network trains? `rmtbn max-rate`: appendix H of Bjorck et al. 2018.

Residual networks of rising depth, with batch normalisation and without, are trained for a while at rates on a
logarithmic grid, from the largest down to the first that trains. Beside it stands what the curvature at initialisation
allows, 2/λ_max (`rmtbn.measure.hessian`). `rmtbn max-step` is its sibling for a single step. Records and page:
`_max_rate_records`, `_max_rate_page`.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import click
import numpy as np
import pandas as pd

from rmtbn import rng
from rmtbn.data.labelled import Labelled
from rmtbn.measure.hessian import curvature
from rmtbn.sweep.grid import Cell, Study
from rmtbn.train.loop import train
from rmtbn.train.recipe import Recipe
from rmtbn.train.record import TrainingRecord

from . import _max_rate_page as written
from ._image_networks import image_cells, image_data, images, network
from ._max_rate_claims import claims
from ._max_rate_records import KINDS, Rates
from ._options import Common, common, example
from ._paper_study import PaperStudy

DEPTHS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"quick": (8, 20), "default": (8, 20, 56), "paper": (8, 14, 20, 32, 44, 56, 110)}
)
# Images that a network is trained on, how often, and how many at a time; halvings of the half decades between rates.
SIZES: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "quick": {"examples": 32, "batch": 16, "passes": 8, "halvings": 1, "networks": 3},
        "default": {"examples": 64, "batch": 16, "passes": 32, "halvings": 1, "networks": 3},
        "paper": {"examples": 6400, "batch": 128, "passes": 8, "halvings": 2, "networks": 10},
    }
)
HIGHEST, LOWEST = 10.0, 1e-5  # rates between which is searched
PER_DECADE = 2  # rates of the first search
JUDGED = 4  # the last of so many parts of training is judged
MARGIN = 2.0  # standard errors
CURVED = 32  # images of the Hessian
ACCURACY, PRODUCTS = 0.02, 40  # of its largest eigenvalue, and products at most


def cell(
    *,
    seed: int,
    kind: str,
    depth: int,
    examples: int,
    batch: int,
    passes: int,
    halvings: int,
    data: str,
    device: str,
    dtype: str,
) -> dict[str, pd.DataFrame]:
    """Search the largest rate at which one network trains.

    Returns
    -------
    dict
        "runs": for each rate that was tried the steps of the run, whether it diverged and whether it trained, its first
        loss, its last (mean and standard error over the steps of the last quarter; inf where it diverged), and that of
        the best constant prediction. "network": one row with the largest rate that trains (0 if none does), the next
        one tried (inf if all train), and at initialisation λ_max and λ_min of the Hessian with their bounds.
    """
    drawn = images(data, seed=seed, examples=examples, device=device, dtype=dtype)
    runs: list[dict[str, Any]] = []

    def trains(rate: float) -> bool:
        net = network(seed=seed, kind=kind, depth=depth, like=drawn)
        recipe = Recipe(rate=rate, epochs=passes, batch_size=batch, schedule="constant", seed=seed)
        runs.append({"rate": rate, **judged(train(net, drawn, recipe), drawn)})
        return bool(runs[-1]["trains"])

    last, above = largest_rate(trains, halvings=halvings)
    first = drawn.first(min(CURVED, examples))
    found = curvature(
        network(seed=seed, kind=kind, depth=depth, like=drawn).train(),
        first.inputs,
        first.targets,
        tolerance=ACCURACY,
        limit=PRODUCTS,
        generator=rng.torch_generator(seed, "curvature"),
    )
    row = {
        "last": last,
        "above": above,
        "curvature": found.largest,
        "curvature_bound": found.largest_bound,
        "lowest_curvature": found.smallest,
        "products": found.products,
    }
    return {"runs": pd.DataFrame(runs), "network": pd.DataFrame([row])}


def judged(record: TrainingRecord, drawn: Labelled) -> dict[str, Any]:
    """Say how a run ended, and whether it trained.

    It trained if it did not diverge and the mean loss of its last quarter is below the entropy of the classes of its
    images by more than `MARGIN` standard errors. The entropy is the loss of the best prediction that does not look at
    the image, so that a network that began at a loss of 1e3 and then died, with the same logits for every image, has
    not trained, and neither has one that is still on its way down from there.
    """
    losses = record.steps.loss.to_numpy()
    chance = entropy(drawn.targets.numpy(force=True), drawn.classes)
    mean, se = math.inf, 0.0
    if record.diverged_at is None:
        quarter = losses[-max(2, losses.size // JUDGED) :]
        mean, se = float(quarter.mean()), float(quarter.std(ddof=1) / math.sqrt(quarter.size))
    return {
        "steps": losses.size,
        "diverged": record.diverged_at is not None,
        "trains": mean + MARGIN * se < chance,
        "first_loss": float(losses[0]),
        "loss": mean,
        "loss_se": se,
        "chance": chance,
    }


def entropy(targets: np.ndarray, classes: int) -> float:
    """Return the entropy of the classes of some images, nats: ln 10 for ten classes that are equally frequent."""
    shares = np.bincount(targets, minlength=classes) / targets.size
    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum())


def largest_rate(trains: Callable[[float], bool], *, halvings: int) -> tuple[float, float]:
    """Return the largest rate of a logarithmic grid at which a network trains, and the next one, at which it does not.

    Rates are tried from the largest down, half a decade apart, which supposes nothing about those in between and is
    cheap: runs at rates far too large end within a few steps. The interval is then halved. The first is 0 if no rate
    trains, the second inf if the largest does.
    """
    count = round(PER_DECADE * math.log10(HIGHEST / LOWEST)) + 1
    rates = [float(f"{rate:.3g}") for rate in np.geomspace(HIGHEST, LOWEST, count)]
    last = next((rate for rate in rates if trains(rate)), 0.0)
    if last in (0.0, rates[0]):
        return last, rates[-1] if last == 0 else math.inf
    above = rates[rates.index(last) - 1]
    for _ in range(halvings):
        middle = math.sqrt(last * above)
        last, above = (middle, above) if trains(middle) else (last, middle)
    return last, above


def cells(options: Common, *, data: str) -> tuple[Cell, ...]:
    """Return a cell for each network, without norm and with, of each depth."""
    return tuple(
        one
        for kind in KINDS
        for depth in DEPTHS[options.preset]
        for one in image_cells(options, data=data, axes={"kind": (kind,)}, **SIZES[options.preset], depth=depth)
    )


def numbers(records: Any) -> dict[str, Any]:
    """Return largest rates, curvatures and ratios as logarithms with their errors, by kind and depth."""
    return Rates(records).numbers()


ANALYSIS = PaperStudy(
    study=Study(name="max-rate", version=1, compute=cell),
    cells=cells,
    claims=claims,
    page=written.page,
    numbers=numbers,
)


@click.command(epilog=example("max-rate --preset quick"))
@image_data
@partial(common, dtype="float32")
def command(*, options: Common, data: str) -> None:
    """Measure the largest rate that trains against depth (app. H)."""
    ANALYSIS.execute(options, data=data)
