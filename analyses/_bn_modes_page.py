"""The page of `rmtbn bn-modes`: the facts with their numbers, the gap in accuracy, and the errors layer by layer."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from rmtbn.plot.decades import LN10, set_decades
from rmtbn.plot.points import points
from rmtbn.report.number import number
from rmtbn.report.page import Block, Figure, Page, Section, Table
from rmtbn.result import Scalar
from rmtbn.sweep.run import Records

from . import _bn_modes_claims as rules
from . import _paper_claims as judged
from ._bn_modes_records import ERRORS, MOMENTA, SEGMENT_EPOCHS, SEGMENTS, Modes


def page(records: Records) -> Page:
    """Write the page."""
    found = Modes(records)
    claims = rules.claims(found)
    facts = [claim.verdict for claim in claims[: len(rules.FACTS)]]
    low, usual = (found.gap(found.batches[-1], momentum) for momentum in (MOMENTA[0], rules.USUAL))
    return Page(
        title="Do batch statistics survive a training loop?",
        summary=f"{facts.count('supported')} of {len(facts)} facts measured as stated. After "
        f"{found.steps(found.batches[-1])} steps at |B| = {found.batches[-1]}, running statistics cost "
        f"{rules.percent(low)} of accuracy at momentum {MOMENTA[0]} and {rules.percent(usual)} at {rules.USUAL}. A "
        f"small study: ResNet-{found.depth}, {found.train:,} images, {found.epochs} epochs.",
        sections=(
            Section(title="Eight facts, measured", blocks=tuple(_facts(found))),
            Section(title="Train mode against eval mode", blocks=tuple(_gaps(found))),
            Section(title="Layer by layer", blocks=tuple(_layers(found))),
            Section(title="Claims", blocks=(judged.RULE, rules.RULE, *claims)),
        ),
        manifest=records.manifest(),
    )


def _facts(found: Modes) -> Iterator[Block]:
    yield (
        "In train mode, batch normalisation uses the statistics of the batch and moves running averages of them; in "
        "eval mode it uses the averages. What a loop does around this decides whether they are right. Weights of new "
        "values are measured by doing the same to two copies of a network whose running means differ by 1: averages "
        "are linear in where they start, so that what is left of the difference is the share of the old statistics. "
        "How SyncBN merges the statistics of several processes is not measured here, since it needs several GPUs; "
        "merged micro-batches stand for it."
    )
    yield Table(
        caption=f"Means over {found.networks} networks, |B| = {found.facts_batch}, with one standard error where "
        "networks differ. —: only the sign is known, above 0. Accuracies are on the test images.",
        columns=("fact", "what", "should be", "measured"),
        rows=tuple(
            (str(fact), what, rules.exact(predicted), rules.written(measured))
            for fact in rules.FACTS
            for what, predicted, measured in found.fact_rows(fact)
        ),
    )


def _gaps(found: Modes) -> Iterator[Block]:
    steps = ", ".join(f"{found.steps(batch)} (|B| = {batch})" for batch in found.batches)
    yield (
        "Train mode never reads the running statistics. So weights do not depend on the momentum, and one run serves "
        "all momenta. The same test images are evaluated with running statistics and, in batches of the size that was "
        "trained on, with those of the batch. Where the difference is negative, averages serve better than the noisy "
        "statistics of a small batch."
    )
    yield Figure(
        draw=partial(_draw_gaps, found),
        size=(10.0, 4.2),
        caption="Left the accuracy with batch statistics minus that with running ones, right the accuracy with running "
        f"ones; dashed: with batch statistics. Steps: {steps}. ResNet-{found.depth} on {found.data}, {found.train:,} "
        f"images, {found.epochs} epochs at rate {found.rate:g}; {found.networks} networks, one standard error.",
        alt="Left, the gap in accuracy against the momentum for each batch size; it is large where momenta are small "
        "and steps few. Right, accuracies that reach the dashed lines as the momentum grows.",
    )
    yield Table(
        caption="Accuracy in per cent with batch statistics minus that with running ones, and in brackets the share of "
        "the first statistics that is left after training, (1 − m)^steps.",
        columns=("momentum", *(f"|B| = {batch}" for batch in found.batches)),
        rows=tuple(
            (
                str(momentum),
                *(
                    f"{rules.percent(found.gap(b, momentum))} [{number(found.first_share(b, momentum), digits=2)}]"
                    for b in found.batches
                ),
            )
            for momentum in MOMENTA
        ),
    )


def _layers(found: Modes) -> Iterator[Block]:
    yield (
        "Three things separate a running mean from the true one: what is left of its first value, the noise of the "
        "batches it has seen, and its lag behind weights that move. At weights that are held only noise is left. Small "
        "momenta average it out, and lag more. An epoch deals every image once, so that in the first layer its batch "
        "means add up to a constant and small momenta err even less than with batches drawn anew. In later layers "
        "they do not quite add up, since what enters them was normalised by batch."
    )
    yield Figure(
        draw=partial(_draw_errors, found),
        size=(10.0, 4.0),
        caption="Root mean square error of the running means, in standard deviations of the channel, over all channels "
        f"and {found.layer_count} layers: after training, and at weights that are held, where averages start from the "
        f"truth and run for {SEGMENT_EPOCHS} epochs, {SEGMENTS} times. Line: the measured spread of the batch means "
        "times the law of the average over shuffled epochs; dotted: for batches drawn anew. Nothing is fitted. "
        f"{found.networks} networks, one standard error.",
        alt="Three panels, one per batch size. Held weights lie on a line that rises with the momentum. After "
        "training, errors are larger, most so at the smallest momentum.",
    )
    batch = found.facts_batch if found.facts_batch in found.batches else found.batches[0]
    yield Figure(
        draw=partial(_draw_layers, found, batch),
        size=(10.0, 4.2),
        caption=f"Errors of running means (left) and of running variances (right, root mean square of ln of the ratio) "
        f"by layer after training at |B| = {batch}, {found.networks} networks, one standard error.",
        alt="Errors against the layer for each momentum; curves of small momenta are highest.",
    )
    yield Table(
        caption="Errors after training, root mean square over all layers: running mean in standard deviations, ln of "
        "the running variance.",
        columns=("|B|", "momentum", *ERRORS.values(), "held weights, mean", "law"),
        rows=tuple(
            (
                str(batch),
                str(momentum),
                *(rules.written(found.error(batch, momentum, column)) for column in ERRORS),
                rules.written(found.held(batch, momentum)),
                number(found.law(batch, momentum)),
            )
            for batch in found.batches
            for momentum in MOMENTA
        ),
    )


def _draw_gaps(found: Modes, canvas: Canvas) -> None:
    left, right = canvas.subplots(1, 2)
    for batch in found.batches:
        gap, gap_se = _arrays([found.gap(batch, momentum) for momentum in MOMENTA])
        _curve(gap, gap_se, label=f"|B| = {batch}", ax=left)
        accuracy, se = _arrays([found.accuracy(batch, momentum, "running") for momentum in MOMENTA])
        color = _curve(accuracy, se, label=f"|B| = {batch}", ax=right)
        right.axhline(found.accuracy(batch, MOMENTA[0], "batch").value, color=color, linestyle="--", linewidth=1)
    left.set_ylabel("accuracy, batch − running statistics")
    right.set_ylabel("test accuracy")
    left.legend()


def _draw_errors(found: Modes, canvas: Canvas) -> None:
    axes = np.atleast_1d(canvas.subplots(1, len(found.batches), sharey=True))
    for ax, batch in zip(axes, found.batches, strict=True):
        measured = {
            "after training": [found.error(batch, momentum, "shift") for momentum in MOMENTA],
            "held weights": [found.held(batch, momentum) for momentum in MOMENTA],
        }
        laws = [[found.law(batch, momentum, dealt=dealt) for momentum in MOMENTA] for dealt in (True, False)]
        law, anew = np.log10(laws)
        for name, scalars in measured.items():
            value, se = _decades(scalars)
            line = (np.log10(MOMENTA), law) if name == "held weights" else None
            points(np.log10(MOMENTA), value, se=se, label=name, line=line, ax=ax)
        ax.plot(np.log10(MOMENTA), anew, ":", color=_last_color(ax), label="batches drawn anew")
        ax.set_title(f"|B| = {batch}")
        _momenta(ax)
        set_decades(ax.yaxis)
    axes[0].set_ylabel("error of running means (σ)")
    axes[0].legend()


def _draw_layers(found: Modes, batch: int, canvas: Canvas) -> None:
    x = np.arange(1, found.layer_count + 1)
    for ax, (column, name) in zip(canvas.subplots(1, 2), ERRORS.items(), strict=True):
        for momentum in MOMENTA:
            value, se = _decades([found.error(batch, momentum, column, layer=layer) for layer in range(len(x))])
            points(x, value, se=se, label=f"momentum {momentum}", ax=ax)
            ax.plot(x, value, color=_last_color(ax), linewidth=1)
        ax.set(xlabel="layer of batch norm", ylabel=f"error of the {name}")
        set_decades(ax.yaxis)
    left = canvas.axes[0]
    left.set_ylim(bottom=left.get_ylim()[0] - 1.0)  # decades, for the legend
    left.legend(loc="lower center", ncols=2)


def _curve(value: Any, se: Any, *, label: str, ax: Axes) -> Any:
    """Draw points over the momenta and join them; return their colour."""
    points(np.log10(MOMENTA), value, se=se, label=label, ax=ax)
    color = _last_color(ax)
    ax.plot(np.log10(MOMENTA), value, color=color, linewidth=1)
    _momenta(ax)
    return color


def _momenta(ax: Axes) -> None:
    ax.set_xlabel("momentum of batch norm")
    ax.set_xticks(np.log10(MOMENTA), [str(momentum) for momentum in MOMENTA])
    ax.minorticks_off()


def _last_color(ax: Axes) -> Any:
    return ax.containers[-1].lines[0].get_color()  # type: ignore[attr-defined]


def _decades(scalars: list[Scalar]) -> tuple[Any, Any]:
    """Return log10 of some means, with their errors to first order."""
    value, se = _arrays(scalars)
    return np.log10(value), se / value / LN10


def _arrays(scalars: list[Scalar]) -> Any:
    return np.array([(one.value, one.se) for one in scalars]).T


def numbers(records: Records) -> dict[str, Any]:
    """Return the facts, and gaps and errors by batch size and momentum."""
    found = Modes(records)
    return {
        "facts": {
            str(fact): {what: {"predicted": p, **_number(m)} for what, p, m in found.fact_rows(fact)}
            for fact in rules.FACTS
        },
        "gaps": {
            str(batch): {str(momentum): _numbers(found, batch, momentum) for momentum in MOMENTA}
            for batch in found.batches
        },
    }


def _numbers(found: Modes, batch: int, momentum: float) -> dict[str, Any]:
    return {
        "gap_in_accuracy": _number(found.gap(batch, momentum)),
        "running_mean": _number(found.error(batch, momentum, "shift")),
        "running_variance": _number(found.error(batch, momentum, "log_variance")),
        "held": _number(found.held(batch, momentum)),
        "law": found.law(batch, momentum),
    }


def _number(one: Scalar) -> dict[str, float]:
    return {"value": one.value, "se": one.se}
