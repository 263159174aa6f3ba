"""How large is the noise of a step of SGD? `rmtbn sgd-noise`: section 3.1 of Bjorck et al. 2018.

With C the spread of the gradients of single examples, a step at rate α on a batch of b examples differs from the step
on all of them by E‖α∇ℓ - α∇_B ℓ‖² = α² C/b, batches drawn with replacement, and by (N - b)/(N - 1) of that without. So
twice the rate on four times the batch makes the same noise. The measurement is that of `rmtbn.measure.sgd_noise`: real
gradients of mini-batches, with the mean of their examples' gradients as control variate. With batch norm the gradient
of a batch is no mean of gradients of its examples, and the law has no reason to hold.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from types import MappingProxyType
from typing import Any

import click
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from rmtbn import rng
from rmtbn.measure.example_gradients import example_gradients
from rmtbn.measure.sgd_noise import SgdNoise, sgd_noise
from rmtbn.plot.decades import set_decades
from rmtbn.plot.points import points
from rmtbn.report.number import number
from rmtbn.report.page import Block, Claim, Figure, Page, Section, Table
from rmtbn.result import Scalar
from rmtbn.sweep.grid import Cell, Study
from rmtbn.sweep.run import Records

from . import _paper_claims as judged
from ._image_networks import NAMES, image_cells, image_data, images, network
from ._options import Common, common, example
from ._paper_study import PaperStudy

LN10 = np.log(10)
KINDS = ("none", "final")
DRAWING: Mapping[bool, str] = {True: "with replacement", False: "without replacement"}
MARGIN = 1.15  # a ratio of noises within this factor of 1 is 1

# The law is one of any network: depth and images are chosen so that thousands of gradients are affordable.
SIZES: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "quick": MappingProxyType({"depth": 8, "examples": 20, "networks": 3, "draws": 20}),
        "default": MappingProxyType({"depth": 20, "examples": 64, "networks": 4, "draws": 20}),
        "paper": MappingProxyType({"depth": 20, "examples": 512, "networks": 10, "draws": 200}),
    }
)
BATCHES = (4, 16)  # the rate is 1 and 2: the two make the same noise
APART = 0.03  # of series in the figure
ROUNDING = 1e-4  # errors of ratios below this are those of rounding
RATES: Mapping[int, float] = MappingProxyType({4: 1.0, 16: 2.0})


def cell(
    *, seed: int, kind: str, draws: int, depth: int, examples: int, data: str, device: str, dtype: str
) -> dict[str, pd.DataFrame]:
    """Measure one network with batches of both sizes, each at its rate, drawn in both ways.

    Returns
    -------
    dict
        "noise": for each size and way α, the mean square of the noise (without norm with its control variate), its
        standard error over batches, α² C/b and the law (which is smaller without replacement), and the largest relative
        difference of a batch's noise from that of the mean of its examples' gradients.
    """
    source = images(data, seed=seed, examples=examples, device=device, dtype=dtype)
    net = network(seed=seed, kind=kind, depth=depth, like=source)
    single = example_gradients(net, source.inputs, source.targets)
    rows = []
    for batch, replacement in product(BATCHES, DRAWING):
        found = sgd_noise(
            net,
            source.inputs,
            source.targets,
            batch_size=batch,
            draws=draws,
            generator=rng.torch_generator(seed, "batches", batch, str(replacement)),
            learning_rate=RATES[batch],
            replacement=replacement,
            examples=single,
        )
        rows.append({"batch": batch, "replacement": replacement, **_row(found)})
    return {"noise": pd.DataFrame(rows)}


def _row(found: SgdNoise) -> dict[str, float]:
    noise = found.measured if found.coupled else found.controlled
    return {
        "rate": found.learning_rate,
        "noise": noise.value,
        "noise_se": noise.se,
        "bound": found.learning_rate**2 * found.spread / found.batch_size,
        "law": found.predicted,
        "apart": float(np.abs(found.squares / found.of_examples - 1).max()),
    }


def cells(options: Common, *, data: str) -> tuple[Cell, ...]:
    """Return a cell for each network of each kind."""
    return image_cells(options, data=data, axes={"kind": KINDS}, **SIZES[options.preset])


class Noise:
    """The records: noise by kind, way of drawing and batch, over the bound and over the law."""

    def __init__(self, records: Records) -> None:
        self.rows = records.table("noise")
        first = self.rows.iloc[0]
        self.depth, self.examples, self.draws = int(first.depth), int(first.examples), int(first.draws)
        self.networks = self.rows.seed.nunique()
        self.kinds = tuple(dict.fromkeys(self.rows.kind))
        self.apart = float(self.rows.apart[self.rows.kind == "none"].max())

    def ratio(self, kind: str, batch: int, *, replacement: bool, over: str) -> Scalar:
        """Average ln(noise/bound) or ln(noise/law) over the networks."""
        rows = self._rows(kind, replacement=replacement)
        rows = rows[rows.batch == batch]
        return Scalar.over_networks(np.log(rows.noise / rows[over]), symbol="ln", label=f"noise over {over}")

    def overall(self, kind: str, *, replacement: bool) -> Scalar:
        """Average ln(noise/bound) over the batches, then over the networks."""
        rows = self._rows(kind, replacement=replacement)
        values = rows.assign(log=np.log(rows.noise / rows.bound)).groupby("seed").log.mean()
        return Scalar.over_networks(values.to_numpy(), symbol="ln", label="noise over bound")

    def equality(self, kind: str) -> Scalar:
        """Average ln of the noise at (2α, 4b) over that at (α, b), drawn with replacement."""
        rows = self._rows(kind, replacement=True).pivot(index="seed", columns="batch", values="noise")
        small, large = BATCHES
        return Scalar.over_networks(np.log(rows[large] / rows[small]), symbol="ln", label="noise ratio")

    def _rows(self, kind: str, *, replacement: bool) -> pd.DataFrame:
        return self.rows[(self.rows.kind == kind) & (self.rows.replacement == replacement)]


def claims(records: Records) -> Mapping[int, Claim]:
    """Judge claims 7 and 8."""
    found = Noise(records)
    drawn = {replacement: found.overall("none", replacement=replacement) for replacement in DRAWING}
    same = found.equality("none")
    counted = (
        f"{found.networks} networks without norm, depth {found.depth}, {found.draws} batches of each size out of "
        f"{found.examples} images. The mean of the gradients of a batch's single images is the control variate; the "
        f"noise of no batch differs from that of this mean by more than {number(found.apart, digits=2)} of it."
    )
    return {
        7: judged.claim(
            7,
            predicted=f"noise over α² C/|B|: below 1 without replacement, below {MARGIN} (equality is 1) with",
            measured=", ".join(f"{_written(one)} ({DRAWING[drawing]})" for drawing, one in drawn.items()),
            verdict=judged.together(judged.below(drawn[False], 0.0), judged.below(drawn[True], np.log(MARGIN))),
            evidence=f"C is the spread of the gradients of all single images. {counted}",
        ),
        8: judged.claim(
            8,
            predicted=f"noise at (2α, 4|B|) over that at (α, |B|): within a factor {MARGIN} of 1",
            measured=_written(same),
            verdict=judged.between(same, -np.log(MARGIN), np.log(MARGIN)),
            evidence=f"|B| = {BATCHES[0]} and {BATCHES[1]}, with replacement. {counted}",
        ),
    }


def page(records: Records) -> Page:
    """Write the page."""
    found = Noise(records)
    same, normed = found.equality("none"), found.overall("final", replacement=True)
    return Page(
        title="How large is the noise of SGD?",
        summary=f"Without normalisation, twice the rate on four times the batch makes {_written(same)} times "
        f"the noise, as the law α²C/|B| says. With batch norm that law is off by {_written(normed)} times.",
        sections=(
            Section(title="Noise against its law", blocks=tuple(_blocks(found))),
            Section(title="Claims", blocks=(judged.RULE, *claims(records).values())),
        ),
        manifest=records.manifest(),
    )


def _written(logarithm: Scalar) -> str:
    """Write a ratio with its error, or with five digits where the error is one of rounding."""
    exact = logarithm.networks > 1 and logarithm.se < ROUNDING
    return number(float(np.exp(logarithm.value)), digits=5) if exact else judged.geometric(logarithm)


def _blocks(found: Noise) -> Iterator[Block]:
    yield (
        "The step of SGD on a batch is the step on all images plus noise. Without normalisation the gradient of a "
        "batch is the mean of the gradients of its images, and the mean square of the noise follows from their spread "
        "C alone. With batch norm the images of a batch share its statistics; C is then measured in the batch of all "
        "images."
    )
    yield Figure(
        draw=partial(_draw, found),
        caption=f"Mean square of the noise over the law, α² C/|B| with replacement and (N − |B|)/(N − 1) of that "
        f"without, N = {found.examples}. Geometric means over {found.networks} networks, with one standard error; "
        f"{found.draws} batches each, without norm with the mean of their images' gradients as control variate. "
        f"Residual networks of {found.depth} layers in Glorot's initialisation.",
        alt="The ratio of noise to law, at 1 for all batches without normalisation.",
    )
    yield Table(
        caption="Noise over α² C/|B| and over the law. Without an error: exact up to rounding in every batch.",
        columns=("network", "drawn", "|B|", "α", "over α² C/|B|", "over the law"),
        rows=tuple(
            (
                NAMES[kind],
                DRAWING[replacement],
                str(batch),
                number(RATES[batch]),
                *(_written(found.ratio(kind, batch, replacement=replacement, over=o)) for o in ("bound", "law")),
            )
            for kind in found.kinds
            for replacement in DRAWING
            for batch in BATCHES
        ),
    )


def _draw(found: Noise, canvas: Canvas) -> None:
    ax = canvas.subplots()
    for kind in found.kinds:
        for replacement, drawn in DRAWING.items():
            ratios = [found.ratio(kind, b, replacement=replacement, over="law") for b in BATCHES]
            value, se = np.array([(r.value, r.se) for r in ratios]).T / LN10
            aside = np.log2(BATCHES) + APART * len(ax.containers)
            points(aside, value, se=se, label=f"{NAMES[kind]}, {drawn}", ax=ax)
    ax.axhline(0.0, color="C5", ls="--")
    ax.set(xlabel="size of the batch", ylabel="noise over its law")
    ax.set_xticks(np.log2(BATCHES), [f"{b} (α = {RATES[b]:g})" for b in BATCHES])
    set_decades(ax.yaxis)
    ax.legend()


def numbers(records: Records) -> dict[str, Any]:
    """Return the logarithms of noise over bound and law."""
    found = Noise(records)
    return {
        f"{kind}, {DRAWING[replacement]}, {batch}": {
            f"log_over_{over}": {"value": one.value, "se": one.se}
            for over in ("bound", "law")
            for one in (found.ratio(kind, batch, replacement=replacement, over=over),)
        }
        for kind in found.kinds
        for replacement in DRAWING
        for batch in BATCHES
    }


ANALYSIS = PaperStudy(
    study=Study(name="sgd-noise", version=2, compute=cell), cells=cells, claims=claims, page=page, numbers=numbers
)


@click.command(epilog=example("sgd-noise --preset quick"))
@image_data
@partial(common, dtype="float32")
def command(*, options: Common, data: str) -> None:
    """Measure the noise of a step of SGD against its law (section 3.1)."""
    ANALYSIS.execute(options, data=data)
