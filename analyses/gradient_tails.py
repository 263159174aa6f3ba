"""Are gradients large and heavy-tailed without normalisation? `rmtbn gradient-tails`: figure 2 of Bjorck et al. 2018.

The entries of the gradient of one kernel (layer 55 of 110, and the middle of the three stages) as a sample: standard
deviation, kurtosis, largest entry, tail indices. The measurement is that of `rmtbn.measure.gradient_tails`.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import click
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from scipy import stats

from rmtbn.measure.gradient_tails import GradientTail, gradient_tails
from rmtbn.nets.numbering import paper_layers
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Claim, Figure, Page, Section, Table
from rmtbn.result import Scalar
from rmtbn.sweep.grid import Cell, Study
from rmtbn.sweep.run import Records

from . import _paper_claims as judged
from ._image_networks import KINDS, NAMES, image_cells, image_data, images, middle_layer, middle_layers, network
from ._options import Common, common, example
from ._paper_study import PaperStudy

PER_DECADE = 8  # bins of the histogram
SHOWN = 0.002  # share of entries per decade below which the histogram is cut off
BEYOND = np.linspace(0.0, 20.0, 41)  # standard deviations at which the tail is read off


def cell(
    *, seed: int, kind: str, depth: int, examples: int, data: str, device: str, dtype: str
) -> dict[str, pd.DataFrame]:
    """Measure one network.

    Returns
    -------
    dict
        "layers": for each measured layer ln std, kurtosis, largest entry over std, tail indices (NaN where the sample
        is too small). "histogram": of the middle layer, numbers of entries by size. "tail": of the middle layer, share
        of entries beyond some standard deviations.
    """
    batch = images(data, seed=seed, examples=examples, device=device, dtype=dtype)
    net = network(seed=seed, kind=kind, depth=depth, like=batch)
    shown = sorted({middle_layer(depth), *middle_layers(depth)})
    names = [f"{paper_layers(net)[layer]}.weight" for layer in shown]
    found = dict(zip(shown, gradient_tails(net, batch.inputs, batch.targets, parameters=names), strict=True))
    middle = found[middle_layer(depth)]
    counts = middle.histogram(per_decade=PER_DECADE)
    bins = np.rint(np.log10(counts.edges[:-1]) * PER_DECADE).astype(np.int64)
    beyond = np.abs(middle.values - middle.values.mean()) / middle.values.std()
    return {
        "layers": pd.DataFrame([{"layer": layer, **_row(tail)} for layer, tail in found.items()]),
        "histogram": pd.DataFrame({"bin": bins, "count": counts.positive + counts.negative}),
        "tail": pd.DataFrame({"beyond": BEYOND, "share": [float((beyond > t).mean()) for t in BEYOND]}),
    }


def _row(tail: GradientTail) -> dict[str, float]:
    return {
        "log_std": tail.log_std,
        "kurtosis": tail.kurtosis,
        "largest": tail.max_over_std,
        "hill": tail.hill.alpha if tail.hill else np.nan,
        "power_law": tail.power_law.alpha if tail.power_law else np.nan,
        "entries": float(tail.values.size),
    }


def cells(options: Common, *, data: str) -> tuple[Cell, ...]:
    """Return a cell for each network of each kind."""
    return image_cells(options, data=data, axes={"kind": tuple(KINDS)})


class Tails:
    """The records: statistics of the entries by kind and layer."""

    def __init__(self, records: Records) -> None:
        self.layers = records.table("layers")
        self.histogram, self.tail = records.table("histogram"), records.table("tail")
        self.depth, self.examples = int(self.layers.depth.iloc[0]), int(self.layers.examples.iloc[0])
        self.networks = self.layers.seed.nunique()
        self.kinds = tuple(dict.fromkeys(self.layers.kind))
        self.middle = middle_layer(self.depth)
        self.shown = tuple(sorted(set(self.layers.layer)))

    def mean(self, kind: str, layer: int, column: str) -> Scalar:
        """Average a column over the networks, those where it is not defined left out; `log_kurtosis` is its log."""
        rows = self._with_log()
        values = rows[column][(rows.kind == kind) & (rows.layer == layer)].dropna()
        return Scalar.over_networks(values.to_numpy(), symbol=column, label=column)

    def log_gain(self, column: str) -> Scalar:
        """Average by how much `log_std` or `log_kurtosis` at the middle layer is larger without norm than with."""
        rows = self._with_log()
        by_kind = rows[rows.layer == self.middle].pivot(index="seed", columns="kind", values=column)
        return Scalar.over_networks((by_kind["none"] - by_kind["final"]).to_numpy(), symbol=column, label=column)

    def _with_log(self) -> pd.DataFrame:
        return self.layers.assign(log_kurtosis=np.log(self.layers["kurtosis"]))


def claims(records: Records) -> Mapping[int, Claim]:
    """Judge claims 9 and 10."""
    found = Tails(records)
    size, tail = found.log_gain("log_std"), found.log_gain("log_kurtosis")
    evidence = (
        f"Layer {found.middle}, the same weights and images with batch norm (after the last block too) and without: "
        f"mean of the logarithm of the ratio. {found.networks} pairs of networks, depth {found.depth}, "
        f"{found.examples} images."
    )
    return {
        9: judged.claim(
            9,
            predicted="standard deviation without norm over that with: above 1 (the paper shows about 100)",
            measured=judged.geometric(size),
            verdict=judged.above(size, 0.0),
            evidence=evidence,
        ),
        10: judged.claim(
            10,
            predicted="kurtosis without norm over that with: above 1",
            measured=judged.geometric(tail),
            verdict=judged.above(tail, 0.0),
            evidence=evidence,
        ),
    }


def page(records: Records) -> Page:
    """Write the page."""
    found = Tails(records)
    size = judged.geometric(found.log_gain("log_std"))
    plain, normed = (float(np.exp(found.mean(k, found.middle, "log_kurtosis").value)) for k in ("none", "final"))
    return Page(
        title="Are gradients large and heavy-tailed without normalisation?",
        summary=f"In the kernel of layer {found.middle} the gradient without normalisation is {size} times the "
        f"size of that with batch norm. Its kurtosis is {number(plain)} without and {number(normed)} with; 3 would be "
        "Gaussian.",
        sections=(
            Section(title="The gradient of one kernel", blocks=tuple(_blocks(found))),
            Section(title="Claims", blocks=(judged.RULE, *claims(records).values())),
        ),
        manifest=records.manifest(),
    )


def _blocks(found: Tails) -> Iterator[Block]:
    about = (
        f"{found.networks} networks of each kind, {found.depth} layers in Glorot's initialisation, {found.examples} "
        "images."
    )
    yield (
        "The entries of the gradient of one kernel at initialisation, as a sample. How large they are sets the scale "
        "of the first step; how heavy their tail is says whether a few weights take most of it."
    )
    yield Figure(
        draw=partial(_draw, found),
        size=(10.0, 4.6),
        caption=f"Figure 2: entries of the kernel gradient of layer {found.middle}. Left by size, per decade, all "
        f"networks together (what is rarer than {SHOWN} per decade is left out). Right the share of entries farther "
        f"than t of their own standard deviations from their mean; the dashed line is a Gaussian. {about}",
        alt="Left, histograms of the size of gradient entries for four kinds of network, those without normalisation "
        "farthest to the right. Right, their tails against that of a Gaussian.",
    )
    columns = ("log_std", "log_kurtosis", "largest", "hill", "power_law")
    yield Table(
        caption="Size and tail of the gradient, means over networks (of the logarithm for the first two). A tail index "
        "α means P(|g| > t) ~ t^−α: Hill's estimate on the largest 1 % of the entries, and that of the best power law "
        f"(Clauset, Shalizi & Newman 2009, arXiv:0706.1062); of a Gaussian sample both are large. {about}",
        columns=("network", "layer", "standard deviation", "kurtosis", "largest / std", "α (Hill)", "α (power law)"),
        rows=tuple(
            (NAMES[kind], str(layer), *(_cell(found.mean(kind, layer, column), column) for column in columns))
            for kind in found.kinds
            for layer in found.shown
        ),
    )


def _cell(one: Scalar, column: str) -> str:
    if one.networks == 0:
        return "—"
    if column.startswith("log_"):
        return judged.geometric(one)
    return with_error(one.value, one.se) if one.networks > 1 else number(one.value)


def _draw(found: Tails, canvas: Canvas) -> None:
    left, right = canvas.subplots(1, 2)
    seen = found.histogram.groupby(["kind", "bin"])["count"].sum().groupby("kind").transform(lambda n: n / n.sum())
    shown = seen[seen > SHOWN / PER_DECADE].index.get_level_values("bin")
    for kind in found.kinds:
        rows = found.histogram[found.histogram.kind == kind].groupby("bin")["count"].sum()
        bins = np.arange(rows.index.min(), rows.index.max() + 2)
        share = rows.reindex(bins[:-1], fill_value=0) / rows.sum() * PER_DECADE
        left.stairs(share, 10.0 ** (bins / PER_DECADE), label=NAMES[kind], lw=1.5)
        tail = found.tail[found.tail.kind == kind].groupby("beyond").share.mean()
        right.plot(tail.index, tail.where(tail > 0), label=NAMES[kind])
    right.plot(BEYOND, 2 * stats.norm.sf(BEYOND), "--", color="C5", label="Gaussian")
    left.set(xscale="log", xlabel="size of the gradient entry |g|", ylabel="share of entries per decade")
    left.set_xlim(10.0 ** ((shown.min() - 2) / PER_DECADE), 10.0 ** ((shown.max() + 3) / PER_DECADE))
    smallest = found.tail.share[found.tail.share > 0].min()
    right.set(yscale="log", xlabel="t", ylabel="share beyond t standard deviations", ylim=(smallest / 2, 1.5))
    right.set_xlim(0.0, found.tail.beyond[found.tail.share > 0].max() + 1)
    left.legend()


def numbers(records: Records) -> dict[str, Any]:
    """Return the statistics by kind and layer, and the two logarithms of ratios."""
    found = Tails(records)
    columns = ("log_std", "log_kurtosis", "largest", "hill", "power_law")
    by_kind = {
        kind: {str(layer): {c: found.mean(kind, layer, c).value for c in columns} for layer in found.shown}
        for kind in found.kinds
    }
    gains = {column: found.log_gain(column) for column in ("log_std", "log_kurtosis")}
    ratios = {column: {"value": gain.value, "se": gain.se} for column, gain in gains.items()}
    return {**by_kind, "log_ratio, none to final": ratios}


ANALYSIS = PaperStudy(
    study=Study(name="gradient-tails", version=1, compute=cell), cells=cells, claims=claims, page=page, numbers=numbers
)


@click.command(epilog=example("gradient-tails --preset quick"))
@image_data
@partial(common, dtype="float32")
def command(*, options: Common, data: str) -> None:
    """Measure size and tails of gradients, with norm and without (fig. 2)."""
    ANALYSIS.execute(options, data=data)
