"""Do channel moments grow with depth at initialisation? `rmtbn channel-moments`: figure 5 of Bjorck et al. 2018.

Mean and variance of every channel at the output of every layer that is shown, on real images, on Gaussian noise of the
same size, and the size of the logits. The measurement is that of `rmtbn.measure.channel_moments`.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure as Canvas

from rmtbn import rng
from rmtbn.measure.channel_moments import channel_moments
from rmtbn.nets.numbering import paper_layers
from rmtbn.plot.decades import set_decades
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

LN10 = np.log(10)
NORMS = ("none", "final")  # a norm after the last block changes nothing before it, so that these two stand for all four
INPUTS: Mapping[str, str] = {"images": "real images", "noise": "Gaussian noise"}
ALIKE = (0.8, 1.25)  # claim 15: growth on noise over growth on images
LARGE = 100.0  # claim 16
COLUMNS: Mapping[str, str] = {"log_variance": "variance", "log_square": "squared mean"}


def cell(
    *, seed: int, kind: str, inputs: str, depth: int, examples: int, data: str, device: str, dtype: str
) -> dict[str, pd.DataFrame]:
    """Measure one network on images, or on Gaussian noise of mean square 1 in their place.

    Returns
    -------
    dict
        "blocks": at the output of every block, logarithms of the mean over channels of their variance and of their
        squared mean. "logits": logarithm of the largest root mean square of a class, one row.
    """
    batch = images(data, seed=seed, examples=examples, device=device, dtype=dtype)
    net = network(seed=seed, kind=kind, depth=depth, like=batch)
    x = batch.inputs
    if inputs == "noise":
        x = torch.randn(x.shape, generator=rng.torch_generator(seed, "noise"), dtype=torch.float64).to(x)
    blocks = range(1, (depth - 2) // 2 + 1)
    *found, logits = channel_moments(net, x, layers=[*(f"block_{k}" for k in blocks), paper_layers(net)[depth]])
    rows = [
        {"block": k, "log_variance": m.log_mean_variance, "log_square": float(np.log(m.mean_square_mean))}
        for k, m in zip(blocks, found, strict=True)
    ]
    squares = logits.mean**2 + np.exp(logits.log_variance)
    return {"blocks": pd.DataFrame(rows), "logits": pd.DataFrame([{"log_size": float(np.log(squares.max()) / 2)}])}


def cells(options: Common, *, data: str) -> tuple[Cell, ...]:
    """Return a cell for each network without norm and with, and each kind of inputs."""
    return image_cells(options, data=data, axes={"kind": NORMS, "inputs": tuple(INPUTS)})


class Moments:
    """The records: profiles by kind and inputs, how they grow, and the logits."""

    def __init__(self, records: Records) -> None:
        self.blocks, self.logits = records.table("blocks"), records.table("logits")
        self.depth, self.examples = int(self.blocks.depth.iloc[0]), int(self.blocks.examples.iloc[0])
        self.networks = self.blocks.seed.nunique()
        self.kinds = tuple(dict.fromkeys(self.blocks.kind))

    def profiles(self, kind: str, inputs: str, column: str = "log_variance") -> pd.DataFrame:
        """Return a logarithm at every block (columns) of every network (rows)."""
        rows = self.blocks[(self.blocks.kind == kind) & (self.blocks.inputs == inputs)]
        return rows.pivot(index="seed", columns="block", values=column)

    def growth(self, kind: str, inputs: str) -> "pd.Series[float]":
        """Growth of ln variance per block from the first block to the last, by network."""
        values = self.profiles(kind, inputs)
        return (values.iloc[:, -1] - values.iloc[:, 0]) / (values.shape[1] - 1)

    def log_misfit(self, kind: str) -> Scalar:
        """Average by how much worse a straight line fits the variance than an exponential, stage by stage, as ln."""
        values = self.profiles(kind, "images").to_numpy()
        stages = values.reshape(len(values), 3, -1)
        ratios = [np.log(sum(map(_linear, one)) / sum(map(_exponential, one))) for one in stages]
        return Scalar.over_networks(ratios, symbol="ln misfit", label="misfit of a line over that of an exponential")

    def log_size(self, kind: str, inputs: str = "images") -> Scalar:
        """Average the logarithm of the size of the logits."""
        rows = self.logits[(self.logits.kind == kind) & (self.logits.inputs == inputs)]
        return Scalar.over_networks(rows.log_size.to_numpy(), symbol="ln |O|", label="size of the logits")


def _linear(logs: np.ndarray) -> float:
    """Least sum of squared relative errors of a straight line through the variances."""
    variance = np.exp(logs - logs.max())
    design = np.stack([np.ones(logs.size), np.arange(logs.size)], axis=1) / variance[:, None]
    return _residual(design, np.ones(logs.size))


def _exponential(logs: np.ndarray) -> float:
    """Least sum of squared errors of a straight line through the logarithms."""
    return _residual(np.stack([np.ones(logs.size), np.arange(logs.size)], axis=1), logs)


def _residual(design: np.ndarray, target: np.ndarray) -> float:
    best = np.linalg.lstsq(design, target, rcond=None)[0]
    return float(np.sum((design @ best - target) ** 2))


def _scalar(values: "pd.Series[float]") -> Scalar:
    return Scalar.over_networks(values.to_numpy(), symbol="g", label="growth of ln variance per block")


def claims(records: Records) -> Mapping[int, Claim]:
    """Judge claims 14, 15 and 16."""
    found = Moments(records)
    plain, normed = found.log_misfit("none"), found.log_misfit("final")
    more = _scalar(found.growth("none", "images") - found.growth("final", "images"))
    share = _scalar(found.growth("none", "noise") / found.growth("none", "images"))
    size = found.log_size("none")
    counted = f"{found.networks} networks of each kind, depth {found.depth}, {found.examples} images."
    return {
        14: judged.claim(
            14,
            predicted="without norm an exponential fits the variance better than a line, with norm a line; and the "
            "variance grows more without",
            measured=f"misfit of the line over that of the exponential: {judged.geometric(plain)} without norm, "
            f"{judged.geometric(normed)} with; difference of the growth of ln variance per block: "
            f"{with_error(more.value, more.se)}",
            verdict=judged.together(judged.above(plain, 0.0), judged.below(normed, 0.0), judged.above(more, 0.0)),
            evidence=f"Mean variance of the channels at the blocks' outputs, fitted stage by stage. {counted}",
        ),
        15: judged.claim(
            15,
            predicted=f"growth per block on Gaussian noise over that on images: between {ALIKE[0]} and {ALIKE[1]}",
            measured=with_error(share.value, share.se),
            verdict=judged.between(share, *ALIKE),
            evidence=f"Growth of ln variance from the first block to the last, without norm, same weights. {counted}",
        ),
        16: judged.claim(
            16,
            predicted=f"above {LARGE:g}",
            measured=judged.geometric(size),
            verdict=judged.above(size, np.log(LARGE)),
            evidence=f"Root mean square over the images of the logit of the class where it is largest. {counted}",
        ),
    }


def page(records: Records) -> Page:
    """Write the page."""
    found = Moments(records)
    grown = {kind: float(np.exp(found.profiles(kind, "images").iloc[:, -1].mean())) for kind in ("none", "final")}
    return Page(
        title="Do channel moments grow with depth?",
        summary=f"After the last block the channels of the network without normalisation have the variance "
        f"{grown['none']:.2g}; with batch norm it is {grown['final']:.2g}.",
        sections=(
            Section(title="Moments along depth", blocks=tuple(_blocks(found))),
            Section(title="Claims", blocks=(judged.RULE, *claims(records).values())),
        ),
        manifest=records.manifest(),
    )


def _blocks(found: Moments) -> Iterator[Block]:
    yield (
        "A block adds its branch to what it was given. Without normalisation the branch is as large as its input, up "
        "to a factor, so that the variance is multiplied at each block. A normalised branch adds about the same "
        "amount at each block; where a stage ends, pooling and new channels begin a new line."
    )
    yield Figure(
        draw=partial(_draw, found),
        size=(10.0, 4.8),
        caption="Figure 5: mean over the channels of their variance (left) and of their squared mean (right) at the "
        f"output of every block, mean of the logarithm over {found.networks} networks with one standard error. Full "
        f"marks: {found.examples} images. Thin lines: Gaussian noise of the same mean square in their place. Depth "
        f"{found.depth}, Glorot's initialisation.",
        alt="Variance and squared mean of channels against depth for two kinds of network: straight upwards on a "
        "logarithmic axis without normalisation, a saw-tooth of slow growth with batch normalisation.",
    )
    yield Table(
        caption=f"Growth of ln variance per block from the first block to the last, and size of the logits (largest "
        f"root mean square of a class), over {found.networks} networks.",
        columns=("network", *(f"growth, {name}" for name in INPUTS.values()), "logits, real images"),
        rows=tuple(
            (
                NAMES[kind],
                *(_cell(_scalar(found.growth(kind, inputs))) for inputs in INPUTS),
                judged.geometric(found.log_size(kind)),
            )
            for kind in found.kinds
        ),
    )


def _cell(one: Scalar) -> str:
    return with_error(one.value, one.se) if one.networks > 1 else number(one.value)


def _draw(found: Moments, canvas: Canvas) -> None:
    for ax, (column, label) in zip(canvas.subplots(1, 2), COLUMNS.items(), strict=True):
        for kind in found.kinds:
            values = found.profiles(kind, "images", column) / LN10
            points(values.columns, values.mean(), se=values.sem(), label=NAMES[kind], ax=ax)
            noise = found.profiles(kind, "noise", column).mean() / LN10
            ax.plot(noise.index, noise, "-", lw=1, color=ax.containers[-1].lines[0].get_color())
        ax.set(xlabel="block", ylabel=f"mean {label} of channels")
        set_decades(ax.yaxis)
    canvas.axes[0].legend()


def numbers(records: Records) -> dict[str, Any]:
    """Return growth, misfits and sizes of logits by kind."""
    found = Moments(records)
    return {
        kind: {
            **{f"growth, {inputs}": _pair(_scalar(found.growth(kind, inputs))) for inputs in INPUTS},
            "log_misfit": _pair(found.log_misfit(kind)),
            "log_logits": _pair(found.log_size(kind)),
        }
        for kind in found.kinds
    }


def _pair(one: Scalar) -> dict[str, float]:
    return {"value": one.value, "se": one.se}


ANALYSIS = PaperStudy(
    study=Study(name="channel-moments", version=1, compute=cell), cells=cells, claims=claims, page=page, numbers=numbers
)


@click.command(epilog=example("channel-moments --preset quick"))
@image_data
@partial(common, dtype="float32")
def command(*, options: Common, data: str) -> None:
    """Measure channel means and variances along depth (fig. 5)."""
    ANALYSIS.execute(options, data=data)
