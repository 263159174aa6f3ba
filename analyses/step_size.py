"""How far along the gradient does the loss fall? `rmtbn step-size`: figure 3 of Bjorck et al. 2018.

L(w - α ∇L(w))/L(w) on the batch of the gradient, for steps α on a logarithmic grid, at initialisation. The measurement
is that of `rmtbn.measure.step_size`.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import click
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from rmtbn.measure.step_size import relative_losses
from rmtbn.plot.decades import set_decades
from rmtbn.report.number import number
from rmtbn.report.page import Block, Claim, Figure, Page, Section, Table
from rmtbn.result import Scalar
from rmtbn.sweep.grid import Cell, Study
from rmtbn.sweep.run import Records

from . import _paper_claims as judged
from ._image_networks import NAMES, image_cells, image_data, images, network
from ._options import Common, common, example
from ._paper_study import PaperStudy

# Powers of ten between which steps are tried, by kind; they contain the end of the lowering steps. Steps per decade.
WIDE, FULL = (-4, 1), (-7, 2)
SPANS: Mapping[str, Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        "quick": dict.fromkeys(("none", "batch", "final", "only_final"), WIDE),
        "default": {"none": (-6, -2), "batch": (-3, 0), "final": (-3, 1), "only_final": (-3, 0)},
        "paper": dict.fromkeys(("none", "batch", "final", "only_final"), FULL),
    }
)
PER_DECADE = {"quick": 2, "default": 2, "paper": 6}
NETWORKS: Mapping[str, Mapping[str, int]] = {"quick": {}, "default": {"networks": 3}, "paper": {}}
WIDER = 10.0  # claim 11: by this factor at least
SHOWN = (1e-3, 1e3)  # relative losses in the figure
LABELS: Mapping[str, str] = {
    "limit": "largest step α",
    "best": "smallest relative loss",
    "promise": "α‖∇L‖²/L there",
    "loss": "loss L",
    "gradient_norm": "‖∇L‖",
}


def cell(
    *,
    seed: int,
    kind: str,
    depth: int,
    examples: int,
    data: str,
    device: str,
    dtype: str,
    low: int,
    high: int,
    per_decade: int,
) -> dict[str, pd.DataFrame]:
    """Measure one network at steps from 10^low to 10^high.

    Returns
    -------
    dict
        "curve": step and relative loss (inf where the loss is not finite). "start": one row with the loss, the norm of
        its gradient, and the end of the first run of steps that lower the loss.
    """
    batch = images(data, seed=seed, examples=examples, device=device, dtype=dtype)
    net = network(seed=seed, kind=kind, depth=depth, like=batch)
    steps = np.logspace(low, high, (high - low) * per_decade + 1)
    found = relative_losses(net, batch.inputs, batch.targets, steps=steps)
    limit = _end(found.steps, found.relative_loss)
    start = {"loss": found.loss, "gradient_norm": found.gradient_norm, "limit": limit}
    curve = {"step": found.steps, "relative_loss": found.relative_loss}
    return {"curve": pd.DataFrame(curve), "start": pd.DataFrame([start])}


def _end(steps: np.ndarray, relative: np.ndarray) -> float:
    """Return where the relative loss first rises through 1, on the line between two points of the doubly log plot.

    A loss that is not finite there puts it half way. Where all steps lower the loss, or none, it is the last step or
    the first, and the true end lies beyond.
    """
    lowers = relative < 1
    first = int(lowers.argmax())
    rise = first + int(np.append(lowers[first:], False).argmin())  # the first step after the run
    if not lowers.any() or rise == steps.size:
        return float(steps[rise - 1 if lowers.any() else 0])
    before, after = np.log(relative[rise - 1]), np.log(relative[rise])
    part = before / (before - after) if np.isfinite(after) else 0.5
    return float(steps[rise - 1] ** (1 - part) * steps[rise] ** part)


def cells(options: Common, *, data: str) -> tuple[Cell, ...]:
    """Return a cell for each network of each kind."""
    changes = {"per_decade": PER_DECADE[options.preset], **NETWORKS[options.preset]}
    return tuple(
        one
        for kind, (low, high) in SPANS[options.preset].items()
        for one in image_cells(options, data=data, axes={"kind": (kind,)}, low=low, high=high, **changes)
    )


class Steps:
    """The records: relative losses, and by network the numbers of `LABELS`."""

    def __init__(self, records: Records) -> None:
        self.curve = records.table("curve")
        self.rows = self._numbers(records.table("start"))
        self.depth, self.examples = int(self.rows.depth.iloc[0]), int(self.rows.examples.iloc[0])
        self.networks = self.rows.seed.nunique()
        self.kinds = tuple(dict.fromkeys(self.rows.kind))
        self.factor = 10 ** (1 / self.rows.per_decade.iloc[0])

    def _numbers(self, rows: pd.DataFrame) -> pd.DataFrame:
        lowest = self.curve.groupby(["kind", "seed"]).relative_loss.min()
        best = [lowest[kind, seed] for kind, seed in zip(rows.kind, rows.seed, strict=True)]
        return rows.assign(best=best, promise=rows.limit * rows.gradient_norm**2 / rows.loss)

    def log_mean(self, kind: str, column: str) -> Scalar:
        """Average the logarithm of one of `LABELS` over the networks of a kind."""
        values = np.log(self.rows[column][self.rows.kind == kind])
        return Scalar.over_networks(values.to_numpy(), symbol=column, label=LABELS[column])

    def log_gain(self, kind: str, column: str) -> Scalar:
        """Average by how much the logarithm is larger than without norm, on the same weights and images."""
        by_kind = np.log(self.rows.pivot(index="seed", columns="kind", values=column))
        return Scalar.over_networks((by_kind[kind] - by_kind["none"]).to_numpy(), symbol=column, label=LABELS[column])


def claims(records: Records) -> Mapping[int, Claim]:
    """Judge claim 11."""
    found = Steps(records)
    gains = {kind: found.log_gain(kind, "limit") for kind in ("batch", "final")}
    promised = ", ".join(f"{judged.geometric(found.log_gain(k, 'promise'))} ({NAMES[k]})" for k in gains)
    return {
        11: judged.claim(
            11,
            predicted=f"the largest step that lowers the loss is more than {number(WIDER)} times that without norm",
            measured=", ".join(f"{judged.geometric(gain)} times ({NAMES[kind]})" for kind, gain in gains.items()),
            verdict=judged.together(*(judged.above(gain, np.log(WIDER)) for gain in gains.values())),
            evidence=f"The same weights and images with and without norm; steps a factor of {number(found.factor)} "
            f"apart. {found.networks} networks of each kind, depth {found.depth}, {found.examples} images. The same "
            f"ratio of α‖∇L‖²/L, which does not feel the size of the gradient, is {promised}.",
        )
    }


def page(records: Records) -> Page:
    """Write the page."""
    found = Steps(records)
    plain, normed = (number(float(np.exp(found.log_mean(k, "limit").value)), digits=2) for k in ("none", "final"))
    return Page(
        title="How far along the gradient does the loss fall?",
        summary=f"At initialisation, one step lowers the loss without normalisation up to a step size of {plain}; "
        f"with batch norm, after the last block too, up to {normed}.",
        sections=(
            Section(title="Loss along the gradient", blocks=tuple(_blocks(found))),
            Section(title="Claims", blocks=(judged.RULE, *claims(records).values())),
        ),
        manifest=records.manifest(),
    )


def _blocks(found: Steps) -> Iterator[Block]:
    about = (
        f"{found.networks} networks of each kind, {found.depth} layers in Glorot's initialisation, the same weights in "
        f"all kinds; {found.examples} images."
    )
    yield (
        "One step of gradient descent, w − α ∇L(w), is tried for many α, and the loss after it is compared with the "
        "loss before, on the same images. Below 1 the step helped."
    )
    yield Figure(
        draw=partial(_draw, found),
        size=(10.0, 4.6),
        caption=f"Figure 3: loss after one step over the loss before. Left against the step size. Right against the "
        "decrease that a linear loss would have, over the loss: the same curves without the size of the gradient. "
        "Dashed, what a linear loss does. One line for each network; lines that leave the panel go on to losses that "
        f"are larger or not finite. {about}",
        alt="Two panels of relative loss against step size. On the left the curve without normalisation falls and "
        "shoots up at steps thousands of times smaller than those with batch normalisation. On the right the curves "
        "are close together.",
    )
    yield Table(
        caption=f"Geometric means over networks. The largest step that lowers the loss is read off between two steps "
        f"a factor of {number(found.factor)} apart; α‖∇L‖² is what a linear loss would fall by after it. {about}",
        columns=("network", *LABELS.values()),
        rows=tuple((NAMES[k], *(judged.geometric(found.log_mean(k, c)) for c in LABELS)) for k in found.kinds),
    )
    gradient, promise = (judged.geometric(found.log_gain("final", c)) for c in ("gradient_norm", "promise"))
    yield (
        f"With batch norm, after the last block too, the gradient is {gradient} times as long as without norm. "
        f"Measured by α‖∇L‖²/L, the largest step is {promise} times that without norm. That is what remains of the "
        "difference in step sizes once losses and gradients are on one scale."
    )


def _draw(found: Steps, canvas: Canvas) -> None:
    left, right = canvas.subplots(1, 2, sharey=True)
    for place, (kind, marker) in enumerate(zip(found.kinds, "osD^", strict=False)):
        style = {"color": f"C{place}", "marker": marker, "markersize": 4, "linewidth": 1}
        right.plot([], [], label=NAMES[kind], **style)
        for row in found.rows[found.rows.kind == kind].itertuples():
            curve = found.curve[(found.curve.kind == kind) & (found.curve.seed == row.seed)]
            y = np.log10(curve.relative_loss.clip(SHOWN[0], 10 * SHOWN[1]))
            left.plot(np.log10(curve.step), y, alpha=0.8, **style)
            right.plot(np.log10(curve.step * row.gradient_norm**2 / row.loss), y, alpha=0.8, **style)
    promise = np.linspace(-4, np.log10(1 - SHOWN[0]), 200)
    right.plot(promise, np.log10(1 - 10**promise), "--", color="C5", label="linear loss")
    left.set(xlabel="step α", ylabel="loss after the step / loss before", ylim=_limits(found))
    right.set(xlabel="α ‖∇L‖² / L")
    right.legend(loc="upper left")
    for ax in (left, right):
        ax.axhline(0.0, color="C5", lw=1)
        set_decades(ax.xaxis)
        set_decades(ax.yaxis)


def _limits(found: Steps) -> tuple[float, float]:
    lowest = max(float(found.curve.relative_loss.min()), SHOWN[0])
    return float(np.log10(lowest)) - 0.2, float(np.log10(SHOWN[1]))


def numbers(records: Records) -> dict[str, Any]:
    """Return the numbers of the table as logarithms with their errors, by kind."""
    found = Steps(records)
    means = {kind: {column: found.log_mean(kind, column) for column in LABELS} for kind in found.kinds}
    return {
        kind: {f"log_{c}": {"value": one.value, "se": one.se} for c, one in row.items()} for kind, row in means.items()
    }


ANALYSIS = PaperStudy(
    study=Study(name="step-size", version=1, compute=cell), cells=cells, claims=claims, page=page, numbers=numbers
)


@click.command(epilog=example("step-size --preset quick"))
@image_data
@partial(common, dtype="float32")
def command(*, options: Common, data: str) -> None:
    """Measure how far along the gradient the loss falls (fig. 3)."""
    ANALYSIS.execute(options, data=data)
