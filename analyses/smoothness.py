"""Does batch normalisation make the loss smoother along its gradient? `rmtbn smoothness`: Santurkar et al. 2018.

The measures of arXiv:1805.11604, figure 4, at steps from 1/2 to 4 times a rate, and the identity of its Theorem 4.1.
"""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import click
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator
from torch import nn

from rmtbn.data.labelled import Labelled
from rmtbn.measure.batch_norm_gradient import batch_norm_gradients
from rmtbn.measure.divergence import first_divergence
from rmtbn.measure.smoothness import smoothness
from rmtbn.plot.decades import set_decades
from rmtbn.plot.points import points
from rmtbn.report.number import number
from rmtbn.report.page import Block, Claim, Figure, Page, Section, Table
from rmtbn.result import Scalar
from rmtbn.sweep.grid import Cell, Study, Value
from rmtbn.sweep.run import Records

from . import _paper_claims as judged
from ._image_networks import NAMES, image_cells, image_data, images, mini_batches, network
from ._options import Common, common, example
from ._paper_study import PaperStudy

KINDS = ("none", "final")
SAME = 1e-4  # a rate at which both kinds train
OWN: Mapping[str, float] = MappingProxyType({"none": 1e-4, "final": 0.1})  # those of Bjorck et al., section 3.1
TIMES = (0.5, 1.0, 2.0, 4.0)  # of the rate, Santurkar et al., section 3.1
SIZES: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {"quick": {}, "default": {"examples": 32, "networks": 10}, "paper": {}}
)
UPDATES: Mapping[str, tuple[int, ...]] = MappingProxyType({"quick": (0, 4), "default": (0,), "paper": (0, 10, 100)})
MOST = 1e30  # of a measure, so that means over networks are finite
CLOSE = 1e-3  # largest deviation from the identity, as a share
LABELS: Mapping[str, str] = {
    "range": "range of the loss",
    "distance": "largest distance of gradients",
    "smoothness": "effective smoothness",
}
STATEMENTS: Mapping[str, str] = {
    "range": "Along the gradient, the loss varies less with batch normalisation.",
    "distance": "Along the gradient, the gradient changes less with batch normalisation.",
    "smoothness": "The effective smoothness (Lipschitz constant of the gradient) is smaller with batch normalisation.",
}


def cell(
    *, seed: int, kind: str, updates: int, depth: int, examples: int, data: str, device: str, dtype: str
) -> dict[str, pd.DataFrame]:
    """Measure one network after some updates of SGD at the rate `SAME`.

    Returns
    -------
    dict
        "line": for each rate ("same", "own") and step the loss, the distance of its gradient, and the loss and the norm
        of the gradient at the start. "identity": for each layer of batch normalisation by place the largest deviation
        of ‖∂L/∂h‖² from the identity with the layer's ε and from its limit ε → 0, as shares, and the ratio of ‖∂L/∂h‖²
        to that of a fixed scaling; empty without norm.
    """
    batch = images(data, seed=seed, examples=examples, device=device, dtype=dtype)
    net = _trained(network(seed=seed, kind=kind, depth=depth, like=batch), batch, data=data, seed=seed, updates=updates)
    rates = {"same": SAME, "own": OWN[kind]}
    steps = sorted({time * rate for rate in rates.values() for time in TIMES})
    found = smoothness(net, batch.inputs, batch.targets, steps=steps)
    at = {step: place for place, step in enumerate(steps)}
    line = [
        {
            "rate": name,
            "times": time,
            "step": time * rate,
            "loss": found.losses[at[time * rate]],
            "distance": found.gradient_distances[at[time * rate]],
            "start": found.loss,
            "gradient_norm": found.gradient_norm,
        }
        for name, rate in rates.items()
        for time in TIMES
    ]
    layers = batch_norm_gradients(net, batch.inputs, batch.targets) if kind == "final" else ()
    identity = [
        {
            "place": float(place),
            "exact": float(np.abs(one.measured / one.exact - 1).max()),
            "limit": float(np.abs(one.measured / one.limit - 1).max()),
            "share": float(one.measured.sum() / one.without_norm.sum()),
        }
        for place, one in enumerate(layers, 1)
    ]
    columns = ["place", "exact", "limit", "share"]
    return {"line": pd.DataFrame(line), "identity": pd.DataFrame(identity, columns=columns).astype(float)}


def _trained(net: nn.Sequential, like: Labelled, *, data: str, seed: int, updates: int) -> nn.Sequential:
    """Make some updates of SGD, each on images of its own."""
    if updates:
        drawn = mini_batches(data, seed=seed, examples=len(like.targets), number=updates, like=like)
        pairs = ((one.inputs, one.targets) for one in drawn)
        trained = first_divergence(net, pairs, learning_rate=SAME, threshold=1e300)
        net.load_state_dict(dict(trained.after), strict=False)
    return net


def cells(options: Common, *, data: str) -> tuple[Cell, ...]:
    """Return a cell for each network of each kind, after each number of updates."""
    axes: dict[str, tuple[Value, ...]] = {"kind": KINDS, "updates": UPDATES[options.preset]}
    return image_cells(options, data=data, axes=axes, **SIZES[options.preset])


class Lines:
    """The records: the three measures by kind, rate and number of updates, and the identity."""

    def __init__(self, records: Records) -> None:
        self.line = records.table("line")
        self.identity = records.table("identity")
        self.depth, self.examples = int(self.line.depth.iloc[0]), int(self.line.examples.iloc[0])
        self.networks = self.line.seed.nunique()
        self.updates = tuple(int(u) for u in sorted(set(self.line.updates)))
        self.after = ", ".join(map(str, self.updates))
        rows = self.line.assign(smoothness=self.line.distance / (self.line.step * self.line.gradient_norm))
        grouped = rows.groupby(["kind", "rate", "updates", "seed"])
        ends = grouped[["loss", "distance", "smoothness"]].max().rename(columns={"loss": "range"})
        ends["range"] = (ends["range"] - grouped.loss.min()).where(np.isfinite(ends["range"]), np.inf)
        self.measures = ends.apply(np.log)

    def log_mean(self, kind: str, rate: str, updates: int, *, column: str) -> Scalar:
        """Average the logarithm of one of `LABELS`; infinite where the loss is not finite."""
        values = self.measures[column].loc[kind, rate, updates]
        return Scalar.over_networks(values.to_numpy(), symbol=column, label=LABELS[column])

    def log_gain(self, rate: str, updates: int, column: str) -> Scalar:
        """Average by how much a measure is larger without norm, on the same weights; `MOST` is the most that counts."""
        finite = self.measures[column].clip(upper=math.log(MOST))
        gain = finite.loc["none", rate, updates] - finite.loc["final", rate, updates]
        return Scalar.over_networks(gain.to_numpy(), symbol=column, label=LABELS[column])

    def deviation(self, column: str) -> Scalar:
        """Average ln of the largest deviation from the identity over all layers and updates of a network."""
        largest = self.identity.groupby("seed")[column].max().to_numpy()
        return Scalar.over_networks(np.log(largest), symbol=column, label="deviation")


def own_claims(records: Records) -> tuple[Claim, ...]:
    """Judge the claims of Santurkar et al."""
    found = Lines(records)
    counted = f"{found.networks} networks of each kind, depth {found.depth}, {found.examples} images."
    exact, limit = (found.deviation(column) for column in ("exact", "limit"))
    identity = Claim(
        statement="‖∂L/∂h‖² = (γ²/σ²)(‖g‖² − ⟨1, g⟩²/m − ⟨g, ĥ⟩²/m) in front of batch normalisation, up to ε.",
        source="Santurkar et al. 2018, arXiv:1805.11604, Theorem 4.1, which states ≤",
        predicted=f"the largest deviation over all channels is below {number(CLOSE)}, with the ε of the layers",
        measured=judged.geometric(exact),
        verdict=judged.below(exact, math.log(CLOSE)),
        evidence=f"Geometric mean over networks; from the limit ε → 0 it is {judged.geometric(limit)}. {counted}",
    )
    return (*(_smoother(found, column, counted) for column in LABELS), identity)


def _smoother(found: Lines, column: str, counted: str) -> Claim:
    same, own = ([found.log_gain(rate, u, column) for u in found.updates] for rate in ("same", "own"))
    return Claim(
        statement=STATEMENTS[column],
        source="Santurkar et al. 2018, arXiv:1805.11604, section 3.1 and figure 4",
        predicted="without norm over with: above 1 at the same steps",
        measured=", ".join(judged.geometric(one) for one in same),
        verdict=judged.together(*(judged.above(one, 0.0) for one in same)),
        evidence=f"Steps {TIMES[0]} to {TIMES[-1]} times the rate {SAME:g}, after {found.after} updates. At rates of "
        f"their own, {OWN['none']:g} and {OWN['final']:g}, the ratio is "
        f"{', '.join(judged.geometric(one) for one in own)}. Above {MOST:g} counts as that. {counted}",
    )


def claims(records: Records) -> Mapping[int, Claim]:  # noqa: ARG001 - the signature of a `PaperStudy`
    """Judge none of the paper's 31 claims; `own_claims` are those of Santurkar et al."""
    return {}


def page(records: Records) -> Page:
    """Write the page."""
    found = Lines(records)
    gain = judged.geometric(found.log_gain("same", 0, "smoothness"))
    return Page(
        title="Does batch normalisation make the loss smoother?",
        summary=f"At initialisation, along the gradient, the Lipschitz constant of the gradient without normalisation "
        f"is {gain} times that with batch norm, after the last block too.",
        sections=(
            Section(title="Along the gradient", blocks=tuple(_first(found))),
            Section(title="In front of batch normalisation", blocks=tuple(_second(found))),
            Section(title="Claims", blocks=(judged.RULE, *own_claims(records))),
        ),
        manifest=records.manifest(),
    )


def _first(found: Lines) -> Iterator[Block]:
    yield (
        "From the weights w, steps along the gradient g are tried, from 1/2 to 4 times a rate: how far apart the "
        "losses are, how far the gradient there is from g, and the largest ratio of that distance to the step."
    )
    yield Figure(
        draw=partial(_draw, found),
        size=(10.0, 4.2),
        caption="Loss at those steps over that at the start (left), distance of the gradient over ‖g‖ (right), at "
        f"initialisation, each network a line; what leaves the panel is larger or not finite. {found.networks} "
        f"networks of each kind, {found.depth} layers in Glorot's initialisation, {found.examples} images.",
        alt="Loss and gradient against the step, without normalisation and with batch normalisation.",
    )
    rates = (("none", "same"), ("final", "same"), ("final", "own"))  # without norm the two are one
    yield Table(
        caption="Geometric means over networks. ∞: the loss was not finite at one of the steps.",
        columns=("network", "rate", "updates", *LABELS.values()),
        rows=tuple(
            (
                NAMES[kind],
                f"{SAME if rate == 'same' else OWN[kind]:g}",
                str(updates),
                *(judged.geometric(found.log_mean(kind, rate, updates, column=column)) for column in LABELS),
            )
            for updates in found.updates
            for kind, rate in rates
        ),
    )


def _second(found: Lines) -> Iterator[Block]:
    yield (
        "In front of a layer of batch normalisation the gradient of each channel is that of a fixed scaling by γ/σ, "
        "less its mean and less its part along the normalised values. What is left of its square is the share below."
    )
    yield Figure(
        draw=partial(_draw_shares, found),
        caption="Share of ‖∂L/∂h‖² in what a fixed scaling by γ/σ would give, all channels of a layer together, at "
        f"initialisation: mean over {found.networks} networks with one standard error.",
        alt="Share against the layer of batch normalisation, between 0 and 1.",
    )


def _draw(found: Lines, canvas: Canvas) -> None:
    left, right = canvas.subplots(1, 2)
    rows = found.line[found.line.updates == 0]
    for place, kind in enumerate(KINDS):
        style = {"color": f"C{place}", "marker": "os"[place], "linewidth": 1}
        left.plot([], [], label=NAMES[kind], **style)
        for _, own in rows[rows.kind == kind].groupby(["seed", "rate"]):
            left.plot(np.log10(own.step), np.log10((own.loss / own.start).clip(upper=1e4)), **style)
            right.plot(np.log10(own.step), np.log10((own.distance / own.gradient_norm).clip(upper=1e7)), **style)
    left.set(ylabel="loss / loss at the start", ylim=(None, 3))
    right.set(ylabel="‖∇L(w − αg) − g‖ / ‖g‖", ylim=(None, 6))
    for ax in (left, right):
        ax.set_xlabel("step α")
        set_decades(ax.xaxis)
        set_decades(ax.yaxis)
    left.legend()


def _draw_shares(found: Lines, canvas: Canvas) -> None:
    ax = canvas.subplots()
    shares = found.identity[found.identity.updates == 0].groupby("place").share
    points(shares.mean().index.to_numpy(), shares.mean().to_numpy(), se=shares.sem().to_numpy(), label="share", ax=ax)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="layer of batch normalisation", ylabel="share of the fixed scaling", ylim=(0, None))


def numbers(records: Records) -> dict[str, Any]:
    """Return the logarithms of the measures by kind, rate and updates, and of the deviations."""
    found = Lines(records)
    means = {
        kind: {
            rate: {
                str(u): {f"log_{c}": found.log_mean(kind, rate, u, column=c).value for c in LABELS}
                for u in found.updates
            }
            for rate in ("same", "own")
        }
        for kind in KINDS
    }
    return {**means, "log_deviation": {column: found.deviation(column).value for column in ("exact", "limit")}}


ANALYSIS = PaperStudy(
    study=Study(name="smoothness", version=1, compute=cell), cells=cells, claims=claims, page=page, numbers=numbers
)


@click.command(epilog=example("smoothness --preset quick"))
@image_data
@partial(common, dtype="float32")
def command(*, options: Common, data: str) -> None:
    """Measure how smooth the loss is along its gradient, and the BN gradient identity."""
    ANALYSIS.execute(options, data=data)
