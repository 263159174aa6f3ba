"""Do the summands of a kernel's gradient cancel? `rmtbn conv-gradients`: Table 1 of Bjorck et al. 2018, appendix J.

The gradient of a kernel entry is a sum of as many terms as the batch has examples times places; a is the mean over the
entries of the sum of their sizes, b that of the size of their sum. a/b is 1 where all terms share their sign. The
measurement is that of `rmtbn.measure.conv_gradient`, in the middle of the three stages (layers 18, 54 and 90 of 110)
and along the whole network.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import click
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from rmtbn.measure.conv_gradient import sum_ratios
from rmtbn.nets.numbering import paper_layers
from rmtbn.plot.decades import set_decades
from rmtbn.plot.points import points
from rmtbn.report.number import number
from rmtbn.report.page import Block, Claim, Figure, Page, Section, Table
from rmtbn.result import Scalar
from rmtbn.sweep.grid import Cell, Study
from rmtbn.sweep.run import Records

from . import _paper_claims as judged
from ._image_networks import KINDS, NAMES, image_cells, image_data, images, middle_layers, network
from ._options import Common, common, example
from ._paper_study import PaperStudy

LN10 = np.log(10)
# Table 1 as remembered, not read: (a, b) is not known to the digit, so only a/b stands here, by kind and layer.
REMEMBERED: Mapping[str, tuple[str, str, str]] = {"none": ("1.7", "2.6", "2.1"), "final": ("251.8", "112.8", "40.7")}
ORDER = (10**1.5, 10**2.5)  # what is of the order of 100
FEW = 3.0  # claim 21
MORE = 3.0  # claim 23: by this factor at least
# Networks without norm differ by factors, so that the four of other studies leave claims open.
NETWORKS: Mapping[str, Mapping[str, int]] = MappingProxyType({"quick": {}, "default": {"networks": 8}, "paper": {}})
EVERY = 3  # layers, of which one is looked at
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def cell(
    *, seed: int, kind: str, depth: int, examples: int, data: str, device: str, dtype: str
) -> dict[str, pd.DataFrame]:
    """Measure one network.

    Returns
    -------
    dict
        "layers": for every third layer, the middle ones of the stages and the last its number, a, b and the number of
        summands. "entries": for the middle layers, quantiles of the ratio entry by entry and channel by channel.
    """
    batch = images(data, seed=seed, examples=examples, device=device, dtype=dtype)
    net = network(seed=seed, kind=kind, depth=depth, like=batch)
    numbered = paper_layers(net)
    looked_at = sorted({*range(1, depth + 1, EVERY), *middle_layers(depth), depth})
    ratios = sum_ratios(net, batch.inputs, batch.targets, layers=[numbered[layer] for layer in looked_at])
    found = dict(zip(looked_at, ratios, strict=True))
    layers = [{"layer": at, "a": s.a, "b": s.b, "summands": s.summands} for at, s in found.items()]
    entries = [
        {
            "layer": at,
            "quantile": q,
            "entry": float(np.nanquantile(found[at].entry_ratios, q)),
            "channel": float(np.nanquantile(found[at].channel_ratios, q)),
        }
        for at in middle_layers(depth)
        for q in QUANTILES
    ]
    return {"layers": pd.DataFrame(layers), "entries": pd.DataFrame(entries)}


def cells(options: Common, *, data: str) -> tuple[Cell, ...]:
    """Return a cell for each network of each kind."""
    return image_cells(options, data=data, axes={"kind": tuple(KINDS)}, **NETWORKS[options.preset])


class Ratios:
    """The records: a, b and ln a/b by kind and layer."""

    def __init__(self, records: Records) -> None:
        self.layers = records.table("layers")
        self.entries = records.table("entries")
        self.depth, self.examples = int(self.layers.depth.iloc[0]), int(self.layers.examples.iloc[0])
        self.networks = self.layers.seed.nunique()
        self.kinds = tuple(dict.fromkeys(self.layers.kind))
        self.middle = middle_layers(self.depth)

    def log_ratio(self, kind: str, layer: int) -> Scalar:
        """Average ln a/b over the networks."""
        rows = self.layers[(self.layers.kind == kind) & (self.layers.layer == layer)]
        with np.errstate(divide="ignore"):
            return _average(np.log(rows.a) - np.log(rows.b))

    def ends(self, kind: str, layer: int) -> tuple[float, float]:
        """Return the smallest and the largest a/b of a single network."""
        rows = self.layers[(self.layers.kind == kind) & (self.layers.layer == layer)]
        ratios = rows.a / rows.b
        return float(ratios.min()), float(ratios.max())

    def mean(self, kind: str, layer: int, column: str) -> float:
        """Average a or b over the networks, as logarithms."""
        rows = self.layers[(self.layers.kind == kind) & (self.layers.layer == layer)]
        return float(np.exp(np.log(rows[column]).mean()))

    def log_entry(self, kind: str, layer: int, quantile: float) -> Scalar:
        """Average the logarithm of a quantile over entries of Σ|d|/|Σd|."""
        rows = self.entries
        return _average(
            np.log(rows.entry[(rows.kind == kind) & (rows.layer == layer) & (rows["quantile"] == quantile)])
        )

    def log_gain(self, layer: int) -> Scalar:
        """Average by how much the median entry's ratio is larger with batch norm ("final") than without, as ln."""
        rows = self.entries[(self.entries.layer == layer) & (self.entries["quantile"] == 0.5)].set_index("seed")
        return _average(np.log(rows.entry[rows.kind == "final"]) - np.log(rows.entry[rows.kind == "none"]))


def _average(values: "pd.Series[float]") -> Scalar:
    return Scalar.over_networks(values.to_numpy(), symbol="ln a/b", label="logarithm of the ratio of sums")


def claims(records: Records) -> Mapping[int, Claim]:
    """Judge claims 21, 22 and 23."""
    found = Ratios(records)
    plain = {layer: found.log_ratio("none", layer) for layer in found.middle}
    normed = {layer: found.log_ratio("final", layer) for layer in found.middle}
    gains = {layer: found.log_gain(layer) for layer in found.middle}
    first, *_, last = found.middle
    falls = Scalar.over_networks(_fall(found, first, last), symbol="ln a/b", label="fall with depth")
    counted = f"{found.networks} networks of each kind, depth {found.depth}, batch {found.examples}."
    return {
        21: judged.claim(
            21,
            predicted="a/b ≤ 3 at each layer",
            measured=_listed(plain),
            verdict=judged.together(*(judged.below(ratio, np.log(FEW)) for ratio in plain.values())),
            evidence=f"Table 1. Single networks have {_spread(found)}. {counted}",
        ),
        22: judged.claim(
            22,
            predicted=f"between {number(ORDER[0], digits=2)} and {number(ORDER[1], digits=2)} at layer {first}, and "
            f"falling to layer {last}",
            measured=_listed(normed),
            verdict=judged.together(judged.between(normed[first], *np.log(ORDER)), judged.above(falls, 0.0)),
            evidence=f"Batch norm, after the last block too, as in the paper's network. Table 1. {counted} Terms of "
            "random signs have a/b of the order of the root of their number, which the batch and the images bound.",
        ),
        23: judged.claim(
            23,
            predicted=f"the median over entries is more than {number(MORE)} times that without norm, at each layer",
            measured=_listed(gains),
            verdict=judged.together(*(judged.above(gain, np.log(MORE)) for gain in gains.values())),
            evidence=f"Median over the entries of a kernel of Σ|d|/|Σd|, the same weights and images with and without "
            f"batch norm. {counted}",
        ),
    }


def _spread(found: Ratios) -> str:
    """Say how far single networks without norm are apart, which the mean hides."""
    ends = {layer: found.ends("none", layer) for layer in found.middle}
    return ", ".join(f"{_range(*pair)} (layer {layer})" for layer, pair in ends.items())


def _range(low: float, high: float) -> str:
    return f"{number(low, digits=2)}–{number(high, digits=2)}"


def _fall(found: Ratios, first: int, last: int) -> list[float]:
    rows = found.layers[found.layers.kind == "final"]
    logs = rows.assign(log_ratio=np.log(rows.a) - np.log(rows.b)).pivot(
        index="seed", columns="layer", values="log_ratio"
    )
    return list(logs[first] - logs[last])


def _listed(ratios: Mapping[int, Scalar]) -> str:
    return ", ".join(f"{judged.geometric(ratio)} (layer {layer})" for layer, ratio in ratios.items())


def page(records: Records) -> Page:
    """Write the page."""
    found = Ratios(records)
    low, high = (np.exp([found.log_ratio(k, at).value for at in found.middle]) for k in ("none", "final"))
    return Page(
        title="Do the terms of a kernel's gradient cancel?",
        summary=f"Without normalisation, the sizes of the terms add up to {number(low.min(), digits=2)} to "
        f"{number(low.max(), digits=2)} times the size of their sum: they nearly share their sign. With batch norm it "
        f"is {number(high.min(), digits=2)} to {number(high.max(), digits=2)}.",
        sections=(
            Section(title="Table 1", blocks=tuple(_first(found))),
            Section(title="Entry by entry", blocks=tuple(_second(found))),
            Section(title="Claims", blocks=(judged.RULE, *claims(records).values())),
        ),
        manifest=records.manifest(),
    )


def _first(found: Ratios) -> Iterator[Block]:
    yield (
        "The gradient of one entry of a kernel is a sum over all images of the batch and all places. a is the mean "
        "over the entries of the sum of the sizes of these terms, b the mean size of their sum. Terms of random signs "
        "have a/b of the order of the root of their number."
    )
    yield Figure(
        draw=partial(_draw, found),
        caption="a/b at every third layer and those of the table, as the mean logarithm over "
        f"{found.networks} networks with one standard error. Residual networks of {found.depth} layers in Glorot's "
        f"initialisation, {found.examples} images. The "
        "dashed line is the root of the number of terms.",
        alt="The ratio a/b against the layer, for four kinds of network: near 2 without normalisation, far higher with "
        "batch normalisation, where it falls with depth.",
    )
    yield Table(
        caption=f"a, b and a/b at the middle of the three stages: geometric means over {found.networks} networks, and "
        "the smallest and largest a/b of a single one. √terms "
        "is the root of the number of terms. The last column is a/b as remembered from the paper, not checked against "
        "it (CIFAR-10, ResNet-110, batch 128).",
        columns=("network", "layer", "a", "b", "a/b", "single networks", "√terms", "paper"),
        rows=tuple(_row(found, kind, place) for kind in found.kinds for place in range(len(found.middle))),
    )


def _row(found: Ratios, kind: str, place: int) -> tuple[str, ...]:
    layer = found.middle[place]
    remembered = REMEMBERED[kind][place] if kind in REMEMBERED and found.depth == 110 else "—"
    sizes = [number(found.mean(kind, layer, column)) for column in ("a", "b")]
    terms = number(_root(found, layer), digits=3)
    ratio, spread = judged.geometric(found.log_ratio(kind, layer)), _range(*found.ends(kind, layer))
    return (NAMES[kind], str(layer), *sizes, ratio, spread, terms, remembered)


def _root(found: Ratios, layer: int) -> float:
    return float(found.layers.summands[found.layers.layer == layer].iloc[0]) ** 0.5


def _second(found: Ratios) -> Iterator[Block]:
    yield (
        "The ratio of the two means could hide entries that differ. Here Σ|d|/|Σd| is taken entry by entry, and its "
        "quantiles over the entries of one kernel are averaged over networks."
    )
    yield Table(
        caption="Quantiles over the entries of Σ|d|/|Σd| (appendix J).",
        columns=("network", "layer", *(f"{q:.0%}" for q in QUANTILES)),
        rows=tuple(
            (NAMES[kind], str(at), *(number(float(np.exp(found.log_entry(kind, at, q).value))) for q in QUANTILES))
            for kind in found.kinds
            for at in found.middle
        ),
    )


def _draw(found: Ratios, canvas: Canvas) -> None:
    ax = canvas.subplots()
    layers = sorted(set(found.layers.layer))
    for kind in found.kinds:
        ratios = [found.log_ratio(kind, layer) for layer in layers]
        value, se = np.array([(r.value, r.se) for r in ratios]).T / LN10
        points(layers, value, se=se, label=NAMES[kind], ax=ax)
    ax.plot(layers, np.log10([_root(found, layer) for layer in layers]), "--", color="C5", label="root of terms")
    ax.set(xlabel="layer", ylabel="a/b")
    set_decades(ax.yaxis)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def numbers(records: Records) -> dict[str, Any]:
    """Return a/b with its error, as logarithms, by kind and layer."""
    found = Ratios(records)
    return {
        kind: {
            str(layer): {
                "a": found.mean(kind, layer, "a"),
                "b": found.mean(kind, layer, "b"),
                "log_ratio": found.log_ratio(kind, layer).value,
                "log_ratio_se": found.log_ratio(kind, layer).se,
            }
            for layer in sorted(set(found.layers.layer))
        }
        for kind in found.kinds
    }


ANALYSIS = PaperStudy(
    study=Study(name="conv-gradients", version=2, compute=cell), cells=cells, claims=claims, page=page, numbers=numbers
)


@click.command(epilog=example("conv-gradients --preset quick"))
@image_data
@partial(common, dtype="float32")
def command(*, options: Common, data: str) -> None:
    """Measure whether the terms of kernel gradients cancel (Table 1)."""
    ANALYSIS.execute(options, data=data)
