"""Do shallower networks stand larger steps? `rmtbn max-step`: appendix H of Bjorck et al. 2018, for the first step.

The largest step along the gradient that lowers the loss at initialisation, against depth; beside it what conditioning
says: the singular values of the Jacobian of the logits by the image. The measurements are those of
`rmtbn.measure.step_size` and `rmtbn.measure.jacobian_operator`.
"""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure as Canvas
from scipy import stats

from rmtbn.measure.jacobian_operator import jacobian_operator
from rmtbn.measure.step_size import largest_step
from rmtbn.plot.decades import LN10, set_decades
from rmtbn.plot.points import points
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Claim, Figure, Page, Section, Table
from rmtbn.result import Scalar
from rmtbn.sweep.grid import Cell, Study
from rmtbn.sweep.run import Records

from . import _paper_claims as judged
from ._image_networks import NAMES, image_cells, image_data, images, network
from ._options import Common, common, example
from ._paper_study import PaperStudy

DEPTHS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"quick": (8, 20), "default": (8, 20, 56, 110), "paper": (8, 14, 20, 32, 44, 56, 110)}
)
CHANGES: Mapping[str, Mapping[str, int]] = {"quick": {}, "default": {"examples": 64}, "paper": {}}
LOWEST: Mapping[str, float] = MappingProxyType({"none": 1e-6, "final": 1e-3})  # where the search begins
HIGHEST, ACCURACY = 100.0, 0.25
SINGLE = 4  # images whose Jacobians are measured
LABELS: Mapping[str, str] = {
    "step": "largest step",
    "sigma": "σ₁",
    "condition": "σ₁/σ₁₀",
}


def cell(
    *, seed: int, kind: str, depth: int, examples: int, data: str, device: str, dtype: str
) -> dict[str, pd.DataFrame]:
    """Measure one network.

    Returns
    -------
    dict
        "steps": one row with the largest step that lowers the loss (0 if none does) and the next one tried (inf if all
        do), and without norm, over a few images, the mean of ln σ₁ and of ln σ₁/σ₁₀ of the Jacobian of the logits.
    """
    batch = images(data, seed=seed, examples=examples, device=device, dtype=dtype)
    net = network(seed=seed, kind=kind, depth=depth, like=batch)
    found = largest_step(net, batch.inputs, batch.targets, accuracy=ACCURACY, lowest=LOWEST[kind], highest=HIGHEST)
    row = {"last": found.step, "above": found.above, "log_sigma": math.nan, "log_condition": math.nan}
    if kind == "none":
        logs = [_log_singular_values(net, image[None]) for image in batch.inputs[:SINGLE]]
        row["log_sigma"] = float(np.mean([one[0] for one in logs]))
        row["log_condition"] = float(np.mean([one[0] - one[batch.classes - 1] for one in logs]))
    return {"steps": pd.DataFrame([row])}


def _log_singular_values(net: Any, image: Any) -> np.ndarray:
    """Pull the logits back, 10 of them, rather than push 3072 pixels forward."""
    with jacobian_operator(net, image) as jacobian:
        rows = jacobian.apply_transpose(torch.eye(jacobian.outputs, dtype=jacobian.dtype, device=jacobian.device))
    return torch.linalg.svdvals(rows.double()).log().numpy(force=True)


def cells(options: Common, *, data: str) -> tuple[Cell, ...]:
    """Return a cell for each network, without norm and with, of each depth."""
    return tuple(
        one
        for kind in LOWEST
        for depth in DEPTHS[options.preset]
        for one in image_cells(options, data=data, axes={"kind": (kind,)}, **CHANGES[options.preset], depth=depth)
    )


class Steps:
    """The records: ln of the largest step, of σ₁ and of σ₁/σ₁₀ by kind and depth."""

    def __init__(self, records: Records) -> None:
        rows = records.table("steps")
        last = rows["last"].where(rows["last"] > 0, rows.above)
        step = np.sqrt(last * rows.above.where(np.isfinite(rows.above), last))
        self.rows = rows.assign(log_step=np.log(step))
        self.depths = tuple(int(depth) for depth in sorted(set(rows.depth)))
        self.examples, self.networks = int(rows.examples.iloc[0]), rows.seed.nunique()

    def log_mean(self, kind: str, depth: int, column: str) -> Scalar:
        """Average the logarithm of one of `LABELS` over the networks of a kind and depth."""
        values = self.rows[f"log_{column}"][(self.rows.kind == kind) & (self.rows.depth == depth)]
        return Scalar.over_networks(values.to_numpy(), symbol=column, label=LABELS[column])

    def log_gain(self, shallow: int, deep: int) -> Scalar:
        """Average ln of the largest step of the shallower network over that of the deeper, without norm."""
        plain = self.rows[self.rows.kind == "none"].pivot(index="seed", columns="depth", values="log_step")
        return Scalar.over_networks((plain[shallow] - plain[deep]).to_numpy(), symbol="ln α", label=LABELS["step"])

    def slope(self, column: str) -> tuple[Scalar, float]:
        """Fit ln of the largest step against ln of another column over depths; average over networks, with R²."""
        plain = self.rows[self.rows.kind == "none"]
        fits = [stats.linregress(own[f"log_{column}"], own.log_step) for _, own in plain.groupby("seed")]
        slopes = Scalar.over_networks([fit.slope for fit in fits], symbol="slope", label=LABELS[column])
        return slopes, float(np.mean([fit.rvalue**2 for fit in fits]))


def claims(records: Records) -> Mapping[int, Claim]:
    """Judge claim 26."""
    found = Steps(records)
    gains = {pair: found.log_gain(*pair) for pair in pairwise(found.depths)}
    return {
        26: judged.claim(
            26,
            predicted="the largest step that lowers the loss is larger at each depth than at the next",
            measured=", ".join(f"{judged.geometric(g)} times ({a} to {b} layers)" for (a, b), g in gains.items()),
            verdict=judged.together(*(judged.above(gain, 0.0) for gain in gains.values())),
            evidence=f"The first step only, where the paper trains. {found.networks} networks of each depth without "
            f"norm, {found.examples} images, accuracy {ACCURACY:.0%}.",
        )
    }


def page(records: Records) -> Page:
    """Write the page."""
    found = Steps(records)
    steps = [number(math.exp(found.log_mean("none", d, "step").value), digits=2) for d in found.depths]
    ends = f"{steps[0]} at {found.depths[0]} layers and {steps[-1]} at {found.depths[-1]}"
    return Page(
        title="Do shallower networks stand larger steps?",
        summary=f"At initialisation without normalisation, the largest first step that lowers the loss is {ends}.",
        sections=(
            Section(title="The largest step against depth", blocks=tuple(_blocks(found))),
            Section(title="Claims", blocks=(judged.RULE, *claims(records).values())),
        ),
        manifest=records.manifest(),
    )


def _blocks(found: Steps) -> Iterator[Block]:
    about = f"{found.networks} networks of each kind and depth in Glorot's initialisation, {found.examples} images."
    yield (
        "The largest step along the gradient that lowers the loss on its own images: the end of the first run of "
        "steps that do. Beside it, what conditioning says: the largest singular value σ₁ of the Jacobian of the "
        f"logits by the image, and its ratio to the smallest, over {SINGLE} images."
    )
    yield Figure(
        draw=partial(_draw, found),
        size=(10.0, 4.4),
        caption="Left the largest step against depth, with batch norm (after the last block too) and without, as the "
        f"mean logarithm with one standard error. Right, without norm, σ₁ and σ₁/σ₁₀ of the Jacobian. {about}",
        alt="Left, the largest step falls by orders of magnitude with depth without normalisation and stays with it. "
        "Right, the largest singular value and the condition number against depth.",
    )
    yield Table(
        caption=f"Geometric means over networks. {about}",
        columns=("layers", *(f"{LABELS['step']}, {NAMES[k]}" for k in LOWEST), "σ₁, no norm", "σ₁/σ₁₀, no norm"),
        rows=tuple(_row(found, depth) for depth in found.depths),
    )
    if len(found.depths) < 3:  # two points are on any line
        return
    slopes = {column: found.slope(column) for column in ("sigma", "condition")}
    yield (
        "Were the largest step set by the square of σ₁ alone, its logarithm would fall with slope −2 against ln σ₁. "
        + " ".join(
            f"Against ln {LABELS[c]} the slope over depths is {with_error(one.value, one.se)} (R² {r2:.2f})."
            for c, (one, r2) in slopes.items()
        )
    )


def _row(found: Steps, depth: int) -> tuple[str, ...]:
    measured = [(kind, "step") for kind in LOWEST] + [("none", "sigma"), ("none", "condition")]
    return (str(depth), *(judged.geometric(found.log_mean(kind, depth, column)) for kind, column in measured))


def _draw(found: Steps, canvas: Canvas) -> None:
    left, right = canvas.subplots(1, 2)
    for kind in LOWEST:
        _series(found, kind, "step", label=NAMES[kind], ax=left)
    for column in ("sigma", "condition"):
        _series(found, "none", column, label=LABELS[column], ax=right)
    left.set_ylabel("largest step that lowers the loss")
    right.set_ylabel("singular values of ∂logits/∂image")
    for ax in (left, right):
        ax.set_xlabel("layers")
        ax.set_xscale("log")
        ax.set_xticks(found.depths, [str(depth) for depth in found.depths])
        ax.minorticks_off()
        set_decades(ax.yaxis)
        ax.legend()


def _series(found: Steps, kind: str, column: str, *, label: str, ax: Any) -> None:
    means = [found.log_mean(kind, depth, column) for depth in found.depths]
    value, se = np.array([(one.value, one.se) for one in means]).T / LN10
    points(list(found.depths), value, se=se, label=label, ax=ax)


def numbers(records: Records) -> dict[str, Any]:
    """Return the largest steps and singular values as logarithms with their errors, by kind and depth."""
    found = Steps(records)
    asked = {"none": tuple(LABELS), "final": ("step",)}
    return {
        kind: {
            str(depth): {f"log_{c}": _number(found.log_mean(kind, depth, c)) for c in columns} for depth in found.depths
        }
        for kind, columns in asked.items()
    }


def _number(one: Scalar) -> dict[str, float]:
    return {"value": one.value, "se": one.se}


ANALYSIS = PaperStudy(
    study=Study(name="max-step", version=2, compute=cell), cells=cells, claims=claims, page=page, numbers=numbers
)


@click.command(epilog=example("max-step --preset quick"))
@image_data
@partial(common, dtype="float32")
def command(*, options: Common, data: str) -> None:
    """Measure whether shallower networks stand larger steps (app. H)."""
    ANALYSIS.execute(options, data=data)
