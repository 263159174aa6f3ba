"""The page of `rmtbn noise-scale`: accuracy against α/|B|, and what is best at each batch size."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from rmtbn.plot.decades import LN10, set_decades
from rmtbn.plot.points import points
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Figure, Page, Section, Table
from rmtbn.result import Scalar
from rmtbn.sweep.run import Records

from . import _noise_scale_claims as rules
from . import _paper_claims as judged
from ._image_networks import NAMES
from ._noise_scale_records import KINDS, Runs


def page(records: Records) -> Page:
    """Write the page."""
    found = Runs(records)
    small, large = found.batches[0], found.batches[-1]
    spreads = [rules.points(found.spread(kind, "scale", rising=True)) for kind in KINDS]
    gaps = [rules.points(found.gap(batch)) for batch in (small, large)]
    return Page(
        title="Does accuracy depend on rate and batch through α/|B|?",
        summary=f"At equal α/|B|, up to the best rates, accuracies at different batch sizes differ by {spreads[1]} "
        f"with batch norm and by {spreads[0]} without. What batch norm adds to the best accuracy is {gaps[0]} at "
        f"|B| = {small} and {gaps[1]} at {large}. A small study: ResNet-{found.depth}, {found.train:,} images, "
        f"{found.epochs} epochs.",
        sections=(
            Section(title="Accuracy against α/|B|", blocks=tuple(_curves(found, _data(records)))),
            Section(title="What is best at each batch size", blocks=tuple(_bests(found))),
            Section(title="Claims", blocks=(judged.RULE, rules.RULE, *rules.claims(found))),
            Section(title="All runs", blocks=tuple(_tables(found))),
        ),
        manifest=records.manifest(),
    )


def _data(records: Records) -> str:
    return str(records.table("runs")["data"].iloc[0])


def _curves(found: Runs, data: str) -> Iterator[Block]:
    yield (
        "A step of SGD on a batch is the step on all images plus noise, whose variance over a given length of path is "
        "in proportion to α/|B|: that is its scale. If noise decides the accuracy, curves of all batch sizes are one "
        "when drawn against α/|B|. Where the rate is too large for the curvature of the loss, the batch does not "
        "matter, and curves break off at one α instead. At a fixed number of epochs α/|B| is also the length of "
        "training, so that curves of runs too short to fit the images fall together for that reason as well."
    )
    yield Figure(
        draw=partial(_draw_curves, found),
        size=(10.0, 7.2),
        caption=f"Test accuracy against α/|B| (above) and against α (below), mean over {found.networks} networks with "
        f"one standard error. ResNet-{found.depth} in Glorot's initialisation on {data}, {found.train:,} images, "
        f"{found.epochs} epochs at constant rate, momentum 0.9; running statistics averaged anew before the test. "
        "Runs that diverged count with the accuracy they ended with.",
        alt="Four panels of curves, one per batch size, that rise and fall; above, without norm and with batch norm "
        "against α/|B|; below, the same against α, further apart.",
    )


def _bests(found: Runs) -> Iterator[Block]:
    yield Figure(
        draw=partial(_draw_bests, found),
        size=(10.0, 4.2),
        caption=f"Left the best rate, right the best accuracy, against the batch size: {found.networks} networks, each "
        "at the rate that is best for it; one standard error. Dashed: in proportion to the batch size.",
        alt="Left, best rates with batch norm and without against batch size on logarithmic axes. Right, best "
        "accuracies, which differ more at larger batches or do not, as the claims below say.",
    )
    yield Table(
        caption="Each network at its best rate, accuracies in per cent. “As stored”: with running "
        "statistics as training left them.",
        columns=("|B|", *(f"{what}, {NAMES[k]}" for what in ("best rate", "accuracy") for k in KINDS),
                 "difference", "as stored, batch norm"),
        rows=tuple(
            (
                str(batch),
                *(judged.geometric(found.log_best_rate(kind, batch)) for kind in KINDS),
                *(_percents(found.best(kind, batch)) for kind in KINDS),
                _percents(found.gap(batch)),
                _percents(found.best("batch", batch, "stored")),
            )
            for batch in found.batches
        ),
    )  # fmt: skip


def _tables(found: Runs) -> Iterator[Block]:
    for kind in KINDS:
        yield Table(
            caption=f"Test accuracy in per cent, {NAMES[kind]}. In brackets: how many of {found.networks} diverged.",
            columns=("α", *(f"|B| = {batch}" for batch in found.batches)),
            rows=tuple(
                (number(rate), *(_entry(found, kind, batch, rate) for batch in found.batches)) for rate in found.rates
            ),
        )


def _entry(found: Runs, kind: str, batch: int, rate: float) -> str:
    diverged = found.diverged(kind, batch, rate)
    return _percents(found.accuracy(kind, batch, rate)) + (f" [{diverged}]" if diverged else "")


def _percents(one: Scalar) -> str:
    known = one.networks > 1 and one.se > 0
    return with_error(100 * one.value, 100 * one.se) if known else number(100 * one.value)


def _draw_curves(found: Runs, canvas: Canvas) -> None:
    axes = canvas.subplots(2, len(KINDS), sharey=True)
    for column, kind in enumerate(KINDS):
        for ax, per_batch in zip(axes[:, column], (True, False), strict=True):
            for batch in found.batches:
                _draw_curve(found, kind, batch, per_batch=per_batch, ax=ax)
            ax.set_title(NAMES[kind])
            ax.set_xlabel("α/|B|" if per_batch else "α")
            set_decades(ax.xaxis)
    for ax in axes[:, 0]:
        ax.set_ylabel("test accuracy")
    axes[0, 0].legend()


def _draw_curve(found: Runs, kind: str, batch: int, *, per_batch: bool, ax: Axes) -> None:
    value, se = _arrays([found.accuracy(kind, batch, rate) for rate in found.rates])
    x = np.log10(np.array(found.rates) / (batch if per_batch else 1))
    points(x, value, se=se, label=f"|B| = {batch}", ax=ax)
    ax.plot(x, value, color=_last_color(ax), linewidth=1)


def _draw_bests(found: Runs, canvas: Canvas) -> None:
    left, right = canvas.subplots(1, 2)
    x = np.log10(found.batches)
    for kind in KINDS:
        rate, se = _arrays([found.log_best_rate(kind, batch) for batch in found.batches])
        points(x, rate / LN10, se=se / LN10, label=NAMES[kind], ax=left)
        color = _last_color(left)
        left.plot(x, rate[0] / LN10 + x - x[0], "--", color=color, linewidth=1)
        accuracy, se = _arrays([found.best(kind, batch) for batch in found.batches])
        points(x, accuracy, se=se, label=NAMES[kind], ax=right)
    for ax in (left, right):
        ax.set_xlabel("batch size |B|")
        ax.set_xticks(x, [str(batch) for batch in found.batches])
        ax.minorticks_off()
    left.set_ylabel("best rate α")
    set_decades(left.yaxis)
    right.set_ylabel("best test accuracy")
    left.legend()


def _last_color(ax: Axes) -> Any:
    return ax.containers[-1].lines[0].get_color()  # type: ignore[attr-defined]


def _arrays(scalars: list[Scalar]) -> Any:
    return np.array([(one.value, one.se) for one in scalars]).T


def numbers(records: Records) -> dict[str, Any]:
    """Return accuracies by kind, batch and rate, and what is best at each batch."""
    found = Runs(records)
    return {
        kind: {
            "spread_at_equal_scale": _number(found.spread(kind, "scale")),
            "spread_at_equal_rate": _number(found.spread(kind, "rate")),
            "spread_up_to_best_rate": _number(found.spread(kind, "scale", rising=True)),
            "batches": {str(batch): _numbers(found, kind, batch) for batch in found.batches},
        }
        for kind in KINDS
    }


def _numbers(found: Runs, kind: str, batch: int) -> dict[str, Any]:
    return {
        "log_best_rate": _number(found.log_best_rate(kind, batch)),
        "best_accuracy": _number(found.best(kind, batch)),
        "accuracy": {f"{rate:g}": _number(found.accuracy(kind, batch, rate)) for rate in found.rates},
        "diverged": {f"{rate:g}": found.diverged(kind, batch, rate) for rate in found.rates},
    }


def _number(one: Scalar) -> dict[str, float]:
    return {"value": one.value, "se": one.se}
