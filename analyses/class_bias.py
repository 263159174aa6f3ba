"""Does the network favour one class for every image? `rmtbn class-bias`: figure 6 of Bjorck et al. 2018.

The gradient of each image's loss at the logits, ∂L_b/∂O_{b,j} = softmax(O_b)_j - [j = y_b], and what it is made of: the
class that the image is put in. The measurement is that of `rmtbn.measure.class_bias`; the gradients of single images at
all parameters are those of `rmtbn.measure.example_gradients`.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import click
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from rmtbn.measure.class_bias import class_bias
from rmtbn.measure.example_gradients import example_gradients
from rmtbn.plot.plane import plane
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Claim, Figure, Page, Section, Table
from rmtbn.result import Scalar
from rmtbn.sweep.grid import Cell, Study
from rmtbn.sweep.run import Records

from . import _paper_claims as judged
from ._image_networks import KINDS, NAMES, image_cells, image_data, images, network
from ._options import Common, common, example
from ._paper_study import PaperStudy

ONE_CLASS, SPREAD = 0.95, 0.6  # claim 18: share of images in the most frequent class, without and with norm
ALIKE, UNLIKE = 0.25, 0.15  # claim 19: mean cosine of rows; e_m - e_y have 1/2 for different classes y
LARGE = 0.4  # claim 20: share of the largest of the sums of the classes, which is at most 1/2
# Networks without norm differ by factors, so that the four of other studies leave claims open.
NETWORKS: Mapping[str, Mapping[str, int]] = MappingProxyType({"quick": {}, "default": {"networks": 8}, "paper": {}})
SINGLE = 16  # images whose gradients at the parameters are compared
LABELS: Mapping[str, str] = {
    "modal": "share in the most frequent class",
    "cosine": "mean cosine of gradients at the logits",
    "share": "share of the largest class in the summed gradient",
    "parameters": "mean cosine of gradients at the parameters",
    "zeros": "images without a gradient",
    "largest": "largest |logit|",
}


def cell(
    *, seed: int, kind: str, depth: int, examples: int, data: str, device: str, dtype: str
) -> dict[str, pd.DataFrame]:
    """Measure one network.

    Returns
    -------
    dict
        "bias": the numbers of `LABELS`, one row. "gradients": for every image its class, and its gradient at the
        logits.
    """
    batch = images(data, seed=seed, examples=examples, device=device, dtype=dtype)
    net = network(seed=seed, kind=kind, depth=depth, like=batch)
    found = class_bias(net, batch.inputs, batch.targets)
    single = batch.first(min(SINGLE, examples))
    row = {
        "modal": found.modal_fraction,
        "cosine": found.row_cosine,
        "share": found.largest_class_share,
        "parameters": example_gradients(net, single.inputs, single.targets).mean_cosine,
        "zeros": float(found.zero_rows),
        "largest": float(np.abs(found.logits).max()),
    }
    gradients = {"target": batch.targets.tolist(), "gradient": found.gradient.tolist()}
    return {"bias": pd.DataFrame([row]), "gradients": pd.DataFrame(gradients)}


def cells(options: Common, *, data: str) -> tuple[Cell, ...]:
    """Return a cell for each network of each kind."""
    return image_cells(options, data=data, axes={"kind": tuple(KINDS)}, **NETWORKS[options.preset])


class Biases:
    """The records: numbers by kind, and gradients of the first network of each."""

    def __init__(self, records: Records) -> None:
        self.rows = records.table("bias")
        self.gradients = records.table("gradients")
        self.depth, self.examples = int(self.rows.depth.iloc[0]), int(self.rows.examples.iloc[0])
        self.networks = self.rows.seed.nunique()
        self.kinds = tuple(dict.fromkeys(self.rows.kind))

    def mean(self, kind: str, column: str) -> Scalar:
        """Average one of `LABELS` over the networks of a kind; those where it is not defined are left out."""
        values = self.rows[column][self.rows.kind == kind].dropna()
        return Scalar.over_networks(values.to_numpy(), symbol=column, label=LABELS[column])

    def excess(self, column: str) -> Scalar:
        """Average by how much a number is larger without norm than with ("final"), on the same weights and images."""
        by_kind = self.rows.pivot(index="seed", columns="kind", values=column)
        return Scalar.over_networks((by_kind["none"] - by_kind["final"]).dropna(), symbol=column, label=LABELS[column])

    def heat_map(self, kind: str) -> pd.DataFrame:
        """Return the gradients at the logits of the first network, images in the order of their classes."""
        rows = self.gradients[(self.gradients.kind == kind) & (self.gradients.seed == self.gradients.seed.min())]
        ordered = rows.sort_values("target", kind="stable")
        return pd.DataFrame(np.array(ordered.gradient.tolist()))


def claims(records: Records) -> Mapping[int, Claim]:
    """Judge claims 18, 19 and 20."""
    found = Biases(records)
    modal, cosine, share = ({k: found.mean(k, c) for k in ("none", "final")} for c in ("modal", "cosine", "share"))
    excess = found.excess("share")
    counted = f"{found.networks} networks of each kind, depth {found.depth}, {found.examples} images."
    return {
        18: judged.claim(
            18,
            predicted=f"more than {ONE_CLASS} of the images in one class without norm, less than {SPREAD} with",
            measured=_both(modal),
            verdict=judged.together(judged.above(modal["none"], ONE_CLASS), judged.below(modal["final"], SPREAD)),
            evidence=f"With norm: batch norm, after the last block too. {counted}",
        ),
        19: judged.claim(
            19,
            predicted=f"cosine above {ALIKE} without norm, within {UNLIKE} of 0 with",
            measured=_both(cosine),
            verdict=judged.together(
                judged.above(cosine["none"], ALIKE), judged.between(cosine["final"], -UNLIKE, UNLIKE)
            ),
            evidence="Mean cosine of two rows of the gradient at the logits, rows of exact zeros left out: 1/2 where "
            f"all images are in one class with certainty. {counted}",
        ),
        20: judged.claim(
            20,
            predicted=f"the largest class has more than {LARGE} of the total (at most 1/2), and more than with norm",
            measured=_both(share),
            verdict=judged.together(judged.above(share["none"], LARGE), judged.above(excess, 0.0)),
            evidence=f"Gradient at the logits summed over the images, its largest size over the sum of sizes; the "
            f"difference to batch norm on the same weights is {with_error(excess.value, excess.se)}. {counted}",
        ),
    }


def _both(found: Mapping[str, Scalar]) -> str:
    return ", ".join(f"{with_error(one.value, one.se)} ({NAMES[kind]})" for kind, one in found.items())


def page(records: Records) -> Page:
    """Write the page."""
    found = Biases(records)
    plain, normed = (found.mean(kind, "modal").value for kind in ("none", "final"))
    return Page(
        title="Does the network favour one class?",
        summary=f"At initialisation the network without normalisation puts {plain:.0%} of the images in one class, "
        f"the one with batch normalisation, after the last block too, {normed:.0%}.",
        sections=(
            Section(title="Gradients at the logits", blocks=tuple(_blocks(found))),
            Section(title="Claims", blocks=(judged.RULE, *claims(records).values())),
        ),
        manifest=records.manifest(),
    )


def _blocks(found: Biases) -> Iterator[Block]:
    yield (
        "The gradient of the loss of one image at its logits is softmax(O) minus 1 at its true class. A network that "
        "puts all images in one class has a stripe there: every image asks for less of that class, and kernels "
        "feel the sum of all these wishes."
    )
    yield Figure(
        draw=partial(_draw, found),
        size=(10.0, 5.2),
        caption=f"Gradient of each image's loss at the logits in the first network of each kind: {found.examples} "
        "images (rows, in the order of their true classes) and the classes (columns). Residual networks of "
        f"{found.depth} layers in Glorot's initialisation, with the same weights.",
        alt="Four maps of images against classes. Without normalisation one column is filled for all images; with "
        "batch normalisation after the last block the values are spread over the columns.",
    )
    yield Table(
        caption=f"Means over {found.networks} networks. The gradients at the parameters are those of {SINGLE} single "
        "images in their batch.",
        columns=("", *(NAMES[kind] for kind in found.kinds)),
        rows=tuple(
            (label, *(_cell(found.mean(kind, column)) for kind in found.kinds)) for column, label in LABELS.items()
        ),
    )


def _cell(one: Scalar) -> str:
    return with_error(one.value, one.se) if one.networks > 1 else number(one.value)


def _draw(found: Biases, canvas: Canvas) -> None:
    for ax, kind in zip(canvas.subplots(1, len(found.kinds), sharey=True), found.kinds, strict=True):
        last = kind == found.kinds[-1]
        plane(found.heat_map(kind), label="∂L/∂O", limits=(-1.0, 1.0), diverging=True, colorbar=last, ax=ax)
        ax.set_title(NAMES[kind])
        ax.set_xlabel("class")
    canvas.axes[0].set_ylabel("image")
    canvas.axes[0].invert_yaxis()  # which all share


def numbers(records: Records) -> dict[str, Any]:
    """Return the means over networks with their errors, by kind."""
    found = Biases(records)
    return {
        kind: {c: {"value": found.mean(kind, c).value, "se": found.mean(kind, c).se} for c in LABELS}
        for kind in found.kinds
    }


ANALYSIS = PaperStudy(
    study=Study(name="class-bias", version=1, compute=cell), cells=cells, claims=claims, page=page, numbers=numbers
)


@click.command(epilog=example("class-bias --preset quick"))
@image_data
@partial(common, dtype="float32")
def command(*, options: Common, data: str) -> None:
    """Measure whether a network favours one class for every image (fig. 6)."""
    ANALYSIS.execute(options, data=data)
