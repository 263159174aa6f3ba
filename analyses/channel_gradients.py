"""Is the gradient of a kernel nearly of rank one? `rmtbn channel-gradients`: figure 7 and appendix G of Bjorck et al.

The mean size of the kernel gradient for each pair of an input and an output channel is a matrix. The share of its
largest squared singular value says how near it is to rank one, and the rank correlation of the mean of an input channel
with the size of what goes out of it says whose gradients are large. Sizes are positive, so that their matrix has a
share of nearly 1 for independent entries too; the signed gradient has not, and stands beside it. The measurement is
that of `rmtbn.measure.channel_gradient`.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import click
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from rmtbn.measure.channel_gradient import ChannelGradient, channel_gradients
from rmtbn.nets.numbering import paper_layers
from rmtbn.plot.plane import plane
from rmtbn.plot.points import points
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Claim, Figure, Page, Section, Table
from rmtbn.result import Scalar
from rmtbn.sweep.grid import Cell, Study
from rmtbn.sweep.run import Records

from . import _paper_claims as judged
from ._image_networks import KINDS, NAMES, image_cells, image_data, images, network
from ._options import Common, common, example
from ._paper_study import PaperStudy

COLUMNS: Mapping[str, str] = {
    "share": "share",
    "rank": "rank",
    "signed_share": "signed share",
    "signed_rank": "signed rank",
    "correlation": "correlation",
}
NEARLY_ONE = 0.8  # claim 24: share of a matrix that is nearly of rank one


def shown_layers(depth: int) -> tuple[int, ...]:
    """Return the number of the layer of figure 7 (45 of 110), and of the same place in the other stages."""
    n = (depth - 2) // 6
    first = 2 + min(7, 2 * n - 1)
    return first, first + 2 * n, first + 4 * n


def cell(
    *, seed: int, kind: str, depth: int, examples: int, data: str, device: str, dtype: str
) -> dict[str, pd.DataFrame]:
    """Measure one network.

    Returns
    -------
    dict
        "layers": the numbers of `COLUMNS` for each layer of `shown_layers`. "map": of the one in the middle stage, the
        mean size of the gradient for each output channel (rows) and input channel. "channels": of the same layer, mean
        of each input channel and mean size of the gradient that goes out of it.
    """
    batch = images(data, seed=seed, examples=examples, device=device, dtype=dtype)
    net = network(seed=seed, kind=kind, depth=depth, like=batch)
    shown = shown_layers(depth)
    names = [paper_layers(net)[layer] for layer in shown]
    found = channel_gradients(net, batch.inputs, batch.targets, layers=names)
    middle = found[1]
    return {
        "layers": pd.DataFrame([{"layer": at, **_row(one)} for at, one in zip(shown, found, strict=True)]),
        "map": pd.DataFrame({"sizes": middle.magnitude.tolist()}),
        "channels": pd.DataFrame({"mean": middle.input_mean, "outgoing": middle.outgoing}),
    }


def _row(found: ChannelGradient) -> dict[str, float]:
    return {
        "share": found.top_share,
        "rank": found.effective_rank,
        "signed_share": found.signed_top_share,
        "signed_rank": found.signed_effective_rank,
        "correlation": found.mean_rank_correlation,
    }


def cells(options: Common, *, data: str) -> tuple[Cell, ...]:
    """Return a cell for each network of each kind."""
    return image_cells(options, data=data, axes={"kind": tuple(KINDS)})


class Maps:
    """The records: numbers by kind and layer, and the map of the first network of each kind."""

    def __init__(self, records: Records) -> None:
        self.layers, self.maps, self.channels = (records.table(name) for name in ("layers", "map", "channels"))
        self.depth, self.examples = int(self.layers.depth.iloc[0]), int(self.layers.examples.iloc[0])
        self.networks = self.layers.seed.nunique()
        self.kinds = tuple(dict.fromkeys(self.layers.kind))
        self.shown = shown_layers(self.depth)

    def mean(self, kind: str, layer: int, column: str) -> Scalar:
        """Average a number over the networks, those where it is not defined left out."""
        rows = self.layers[(self.layers.kind == kind) & (self.layers.layer == layer)]
        return Scalar.over_networks(rows[column].dropna().to_numpy(), symbol=column, label=COLUMNS[column])

    def excess(self, column: str) -> Scalar:
        """Average by how much a number is larger without norm than with, at the layer of figure 7."""
        rows = self.layers[self.layers.layer == self.shown[1]]
        by_kind = rows.pivot(index="seed", columns="kind", values=column)
        values = (by_kind["none"] - by_kind["final"]).dropna().to_numpy()
        return Scalar.over_networks(values, symbol=column, label=COLUMNS[column])

    def first(self, table: pd.DataFrame, kind: str) -> pd.DataFrame:
        """Return the rows of the first network of a kind."""
        return table[(table.kind == kind) & (table.seed == table.seed.min())]


def claims(records: Records) -> Mapping[int, Claim]:
    """Judge claims 24 and 25."""
    found = Maps(records)
    layer = found.shown[1]
    share, excess = found.mean("none", layer, "signed_share"), found.excess("signed_share")
    correlation, normed = (found.mean(kind, layer, "correlation") for kind in ("none", "final"))
    counted = f"Layer {layer}, {found.networks} networks of each kind, depth {found.depth}, {found.examples} images."
    return {
        24: judged.claim(
            24,
            predicted=f"σ₁² share of the signed gradient above {NEARLY_ONE} without norm, and more than with",
            measured=f"{with_error(share.value, share.se)} without norm; difference to batch norm "
            f"{with_error(excess.value, excess.se)}",
            verdict=judged.together(judged.above(share, NEARLY_ONE), judged.above(excess, 0.0)),
            evidence="Largest squared singular value of the kernel gradient, unfolded to output channels by all the "
            f"rest, over the sum of all. The sizes that figure 7 shows tell less, as they are positive. {counted}",
        ),
        25: judged.claim(
            25,
            predicted="rank correlation of the size of a channel's mean and of the gradient that goes out of it, "
            "without norm: above 0",
            measured=with_error(correlation.value, correlation.se),
            verdict=judged.above(correlation, 0.0),
            evidence=f"Spearman's correlation over the input channels. With batch norm, where the means hardly differ, "
            f"it is {with_error(normed.value, normed.se)}. {counted}",
        ),
    }


def page(records: Records) -> Page:
    """Write the page."""
    found = Maps(records)
    plain, normed = (found.mean(kind, found.shown[1], "signed_share").value for kind in ("none", "final"))
    return Page(
        title="Is the gradient of a kernel nearly of rank one?",
        summary=f"At layer {found.shown[1]} the largest singular value holds {plain:.1%} of the squared gradient "
        f"without normalisation, and {normed:.1%} with batch norm.",
        sections=(
            Section(title="The gradient by pairs of channels", blocks=tuple(_blocks(found))),
            Section(title="Claims", blocks=(judged.RULE, *claims(records).values())),
        ),
        manifest=records.manifest(),
    )


def _blocks(found: Maps) -> Iterator[Block]:
    about = f"Depth {found.depth}, Glorot's initialisation, {found.examples} images."
    yield (
        "A kernel has a gradient for every pair of an input and an output channel. If one vector over the inputs and "
        "one over the outputs make nearly all of it, the map shows stripes: a step moves all weights together along "
        "one direction."
    )
    yield Figure(
        draw=partial(_draw_maps, found),
        size=(10.0, 3.4),
        caption=f"Figure 7: mean size of the gradient over the places of the kernel of layer {found.shown[1]}, for "
        "each pair of channels, over its largest entry, in the first network of each kind, with the same weights. "
        f"{about}",
        alt="Four maps of output against input channels. Without normalisation bright stripes in rows and columns; "
        "with batch normalisation they are fainter.",
    )
    yield Figure(
        draw=partial(_draw_channels, found),
        caption="Appendix G: size of the mean of every input channel against the mean size of the gradient that goes "
        f"out of it, both over their largest, layer {found.shown[1]}, first network of each kind. {about}",
        alt="Points for input channels: those with a large mean have a large outgoing gradient.",
    )
    yield Table(
        caption=f"Means over {found.networks} networks. Share of σ₁² in the sum of squares, and effective rank "
        "(Σσ²)²/Σσ⁴, of the matrix of sizes (figure 7) and of the signed gradient, unfolded to output channels by all "
        "the rest; Spearman's correlation of the size of a channel's mean and the gradient that goes out of it "
        f"(appendix G). {about}",
        columns=("network", "layer", *COLUMNS.values()),
        rows=tuple(
            (NAMES[kind], str(layer), *(_cell(found.mean(kind, layer, column)) for column in COLUMNS))
            for kind in found.kinds
            for layer in found.shown
        ),
    )


def _cell(one: Scalar) -> str:
    return with_error(one.value, one.se) if one.networks > 1 else number(one.value)


def _draw_maps(found: Maps, canvas: Canvas) -> None:
    for ax, kind in zip(canvas.subplots(1, len(found.kinds), sharey=True), found.kinds, strict=True):
        sizes = np.array(found.first(found.maps, kind).sizes.tolist())
        last = kind == found.kinds[-1]
        plane(pd.DataFrame(sizes / sizes.max()), label="size over the largest", limits=(0.0, 1.0), colorbar=last, ax=ax)
        ax.set_title(NAMES[kind])
        ax.set_xlabel("input channel")
    canvas.axes[0].set_ylabel("output channel")


def _draw_channels(found: Maps, canvas: Canvas) -> None:
    ax = canvas.subplots()
    for kind in found.kinds:
        rows = found.first(found.channels, kind)
        mean, outgoing = rows["mean"].abs().to_numpy(), rows.outgoing.to_numpy()
        points(mean / mean.max(), outgoing / outgoing.max(), se=np.full(mean.size, np.inf), label=NAMES[kind], ax=ax)
    ax.set(xlabel="size of the mean of the channel, over the largest", ylabel="outgoing gradient, over the largest")
    ax.legend()


def numbers(records: Records) -> dict[str, Any]:
    """Return the means over networks by kind and layer."""
    found = Maps(records)
    return {
        kind: {str(at): {c: found.mean(kind, at, c).value for c in COLUMNS} for at in found.shown}
        for kind in found.kinds
    }


ANALYSIS = PaperStudy(
    study=Study(name="channel-gradients", version=1, compute=cell), cells=cells, claims=claims, page=page,
    numbers=numbers,
)  # fmt: skip


@click.command(epilog=example("channel-gradients --preset quick"))
@image_data
@partial(common, dtype="float32")
def command(*, options: Common, data: str) -> None:
    """Measure the gradient of kernels by pairs of channels (fig. 7)."""
    ANALYSIS.execute(options, data=data)
