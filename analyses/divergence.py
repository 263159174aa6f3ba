"""When and where does too large a step blow up? `rmtbn divergence`: figure 4 of Bjorck et al. 2018, section 3.2.

Short training runs at rising rates, until the loss of a mini-batch is above 1e3 or not finite. The update that did it
is then applied in parts, and the channels of three layers are looked at. The measurement is that of
`rmtbn.measure.divergence`; the page is that of `_divergence_page`.
"""

import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import click
import numpy as np
import pandas as pd

from rmtbn.data.labelled import Labelled
from rmtbn.measure.divergence import FirstDivergence, first_divergence, partial_updates
from rmtbn.measure.loss import loss_at
from rmtbn.nets.numbering import paper_layers
from rmtbn.report.number import number
from rmtbn.report.page import Claim, Page
from rmtbn.sweep.grid import Cell, Study
from rmtbn.sweep.run import Records

from . import _divergence_page as written
from . import _paper_claims as judged
from ._divergence_page import DECADES, THRESHOLD, TIMES, Runs
from ._image_networks import early_layers, image_cells, image_data, images, mini_batches, network
from ._options import Common, common, example
from ._paper_study import PaperStudy

# The ladder of rates, which ends where the first update makes the loss infinite; with norm, the rate of the paper.
RATES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {"none": (1e-4, 3e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2), "final": (0.1,)}
)
FOLLOWED = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)  # the first of these that diverges is looked at, in whole decades
SIZES: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "quick": {"batches": 6, "parts": 5},
        "default": {"examples": 64, "batches": 6, "parts": 5},
        "paper": {"batches": 40, "parts": 20},
    }
)
# Decades of claim 13 differ by factors between networks without norm, so that four leave it open.
NETWORKS: Mapping[str, Mapping[str, int]] = MappingProxyType({"quick": {}, "default": {"none": 8}, "paper": {}})
FIRST = 4  # claim 12: updates before the divergence, fewer than
VARIANCES, MEANS = 2.0, 1.0  # claim 13: decades of variance and of size of the mean, more than


def cell(
    *,
    seed: int,
    kind: str,
    depth: int,
    examples: int,
    data: str,
    device: str,
    dtype: str,
    batches: int,
    parts: int,
) -> dict[str, pd.DataFrame]:
    """Train one network for a few mini-batches at each rate, each time from its initialisation.

    Returns
    -------
    dict
        "runs": rate, updates before the divergence (NaN if there was none), and the loss of each mini-batch by place.
        "channels": for the update that diverged at the smallest rate of `FOLLOWED` that does, the mean and ln variance
        of every channel at layers 8, 44 and 80 of 110, after each part of it; empty if none diverged.
    """
    first = images(data, seed=seed, examples=examples, device=device, dtype=dtype)
    drawn = list(mini_batches(data, seed=seed, examples=examples, number=batches, like=first))
    net = network(seed=seed, kind=kind, depth=depth, like=first)
    runs: dict[float, FirstDivergence] = {}
    for rate in RATES[kind]:
        runs[rate] = first_divergence(
            net, [(one.inputs, one.targets) for one in drawn], learning_rate=rate, threshold=_threshold(net, drawn[0])
        )
        if runs[rate].step == 1 and math.isinf(runs[rate].losses[1]):
            break
    losses = [
        {"rate": rate, "batch": place, "loss": loss, "updates": math.nan if run.step is None else float(run.step)}
        for rate, run in runs.items()
        for place, loss in enumerate(run.losses)
    ]
    followed = {rate: run for rate, run in runs.items() if rate in FOLLOWED and run.step}
    return {"runs": pd.DataFrame(losses), **_path(net, followed, parts=parts, depth=depth)}


def _threshold(net: Any, first: Labelled) -> float:
    """Return the loss that counts as divergence.

    NOTE: the paper's is 1e3; ResNet-110 without norm may begin above it, and then it is ten times where it begins.
    """
    began = loss_at(net, first.inputs, first.targets, parameters={})
    return max(THRESHOLD, TIMES * began) if math.isfinite(began) else THRESHOLD


def _path(net: Any, runs: Mapping[float, FirstDivergence], *, parts: int, depth: int) -> dict[str, pd.DataFrame]:
    """Apply the update of the smallest rate in parts."""
    columns = ("rate", "part", "layer", "channel", "mean", "log_variance")
    if not runs:
        return {"channels": pd.DataFrame(columns=columns, dtype=float)}
    rate, run = min(runs.items(), key=lambda item: item[0])
    assert run.batch is not None
    shown, names = early_layers(depth), paper_layers(net)
    found = partial_updates(
        net,
        *run.batch,
        update=(run.before, run.after),
        layers=[names[layer] for layer in shown],
        fractions=np.linspace(0, 1, parts + 1),
    )
    channels = [
        (rate, part, layer, channel, mean, log_variance)
        for part, moments in zip(found.fractions, found.moments, strict=True)
        for layer, one in zip(shown, moments, strict=True)
        for channel, (mean, log_variance) in enumerate(zip(one.mean, one.log_variance, strict=True))
    ]
    return {"channels": pd.DataFrame(channels, columns=columns).astype(float)}


def cells(options: Common, *, data: str) -> tuple[Cell, ...]:
    """Return a cell for each network, without norm and with."""
    sizes = {kind: dict(SIZES[options.preset]) for kind in RATES}
    for kind, networks in NETWORKS[options.preset].items():
        sizes[kind]["networks"] = networks
    return tuple(
        one
        for kind, changes in sizes.items()
        for one in image_cells(options, data=data, axes={"kind": (kind,)}, **changes)
    )


def claims(records: Records) -> Mapping[int, Claim]:
    """Judge claims 12 and 13."""
    found = Runs(records)
    latest = found.latest()
    counted = f"{latest.networks} networks without norm, depth {found.depth}, mini-batches of {found.examples}."
    spans = {column: found.span(column, whole=True) for column in DECADES}
    more = found.more("log_variance")
    return {
        12: judged.claim(
            12,
            predicted=f"fewer than {FIRST} updates before the divergence",
            measured=written.mean(latest),
            verdict=judged.below(latest, FIRST),
            evidence="Of each network the run that went on longest, at the smallest rate that diverges and all larger "
            f"ones; a run that does not diverge counts with its {found.batches} mini-batches. {counted} {found.rule} "
            f"{found.above} of {found.networks} networks begin above {number(THRESHOLD)}.",
        ),
        13: judged.claim(
            13,
            predicted=f"after the update, variances grow from {found.ends} by more than {number(VARIANCES)} decades "
            f"and means by more than {number(MEANS)}; variances by more than before it",
            measured=", ".join(f"{judged.geometric(span)} decades ({DECADES[c]})" for c, span in spans.items()),
            verdict=judged.together(
                judged.above(spans["log_variance"], math.log(VARIANCES)),
                judged.above(spans["log_mean"], math.log(MEANS)),
                judged.above(more, 0.0),
            ),
            evidence=f"The decades are {judged.geometric(more)} times those before the update. They differ by factors "
            "between networks and are averaged as logarithms; fewer than a tenth count as a tenth. Where numbers leave "
            f"the floating range, the last part of the update before it. {counted}",
        ),
    }


def page(records: Records) -> Page:
    """Write the page."""
    return written.page(records, claims(records))


ANALYSIS = PaperStudy(
    study=Study(name="divergence", version=1, compute=cell),
    cells=cells,
    claims=claims,
    page=page,
    numbers=written.numbers,
)


@click.command(epilog=example("divergence --preset quick"))
@image_data
@partial(common, dtype="float32")
def command(*, options: Common, data: str) -> None:
    """Measure when and where a step that is too large blows up (fig. 4)."""
    ANALYSIS.execute(options, data=data)
