"""The page of `rmtbn learning-rates`."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FormatStrFormatter, LogLocator

from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Figure, Page, Section, Table
from rmtbn.result import Scalar
from rmtbn.sweep.run import Records

from . import _paper_claims as judged
from ._image_networks import NAMES
from ._learning_rates_claims import claims
from ._learning_rates_records import LABELS, NEAR, Trained

STYLES = {0.1: "-", 0.03: "-.", 0.003: "--", 1e-4: ":"}  # by rate; colours are kinds
FULL = (110, 45_000)  # layers and training images of the preset "paper"


def page(records: Records) -> Page:
    """Write the page."""
    found = Trained(records)
    best = {kind: float(found.best(kind).mean()) for kind in ("final", "none")}
    return Page(
        title="Is it the larger rate that helps?",
        summary=f"Residual networks of {found.depth} layers, trained at several rates, are right on at most "
        f"{_share(best['final'])} of the test images with batch norm and {_share(best['none'])} without.",
        sections=(
            Section(title="Accuracy along training", blocks=tuple(_blocks(found))),
            Section(title="Claims", blocks=(judged.RULE, *claims(records).values())),
        ),
        manifest=records.manifest(),
    )


def _blocks(found: Trained) -> Iterator[Block]:
    augmented = bool(found.rows.augment.iloc[0])
    yield (
        f"Networks of {found.depth} layers in Glorot's initialisation are trained by SGD with momentum 0.9 and weight "
        f"decay 1e-4 on {found.train} images in mini-batches of {found.batch}, {'with' if augmented else 'without'} "
        "shifts and flips; the rate is divided by ten after half and after three quarters of the epochs. "
        f"{found.test} other images of the same set are the test. {_size(found)}"
    )
    yield Figure(
        draw=partial(_draw, found),
        size=(11.0, 7.0),
        caption="As figure 1 of the paper: accuracy along training, over mini-batches (left) and on the test images "
        f"(right), the mean over {found.networks} networks with one standard error. Above, batch norm (after the last "
        "block too) and no norm at the paper's rates; below, other norms at large rates (instance norm not after the "
        "last block, where pooling would undo it). Accuracy after a divergence is not drawn.",
        alt="Four panels of accuracy against epochs. Above, batch normalisation and no normalisation at three rates; "
        "below, one final batch normalisation, layer, group and instance normalisation.",
    )
    yield Table(
        caption=f"Means over {found.networks} networks. Training and test are accuracies after training, in eval mode "
        f"with running statistics. The plateau is reached in the first epoch whose test accuracy is within {NEAR} "
        "of the highest of the run; a network that does not learn is on its own at once. "
        f"{_diverged(found)}",
        columns=("network", "rate", "epochs", *LABELS.values()),
        rows=tuple(_row(found, kind, rate) for kind in found.kinds for rate in found.rates(kind)),
    )


def _size(found: Trained) -> str:
    """Say what of the paper's schedule this is."""
    epochs = ", ".join(f"{found.epochs(rate)} at {number(rate, digits=1)}" for rate in found.rates("final"))
    if (found.depth, found.train) == FULL:
        return f"This is the paper's schedule, in epochs {epochs}."
    return (
        f"This is a short form of the paper's schedule, in epochs {epochs}; the paper has 165, 1320 and 2400 on "
        "50,000 images and 110 layers. Verdicts are about the networks, images and epochs of this page. At the "
        "smallest rate a short run ends long before the network has learnt what it can."
    )


def _row(found: Trained, kind: str, rate: float) -> tuple[str, ...]:
    means = (_written(found.mean(kind, rate, column)) for column in LABELS)
    return (NAMES[kind], number(rate, digits=1), str(found.epochs(rate)), *means)


def _diverged(found: Trained) -> str:
    """Name the runs that diverged; their accuracies are of what was left."""
    counts = found.rows[found.rows.diverged.astype(bool)].groupby(["kind", "rate"]).size()
    listed = ", ".join(
        f"{NAMES[kind]} at {number(rate, digits=1)} ({counts[kind, rate]} of {found.networks})"
        for kind in found.kinds
        for rate in found.rates(kind)
        if (kind, rate) in counts.index
    )
    return f"Diverged: {listed}." if listed else "No run diverged."


def _written(one: Scalar) -> str:
    return with_error(one.value, one.se) if one.networks > 1 and one.se > 0 else number(one.value)


def _share(accuracy: float) -> str:
    return f"{accuracy:.0%}"


def _draw(found: Trained, canvas: Canvas) -> None:
    panels = canvas.subplots(2, 2, sharey=True)
    shown = (("final", "none"), tuple(kind for kind in found.kinds if kind not in {"final", "none"}))
    for row, kinds in zip(panels, shown, strict=True):
        for place, kind in enumerate(kinds):
            for rate in found.rates(kind):
                for ax, column in zip(row, ("train_accuracy", "test_accuracy"), strict=True):
                    _curve(found, kind, rate, column=column, color=f"C{place}", ax=ax)
        for ax, title in zip(row, ("training mini-batches", "test images"), strict=True):
            ax.set(title=title, xlabel="epoch", xscale="log", ylim=(0, 1.02))
            ax.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter(FormatStrFormatter("%d"))
            ax.minorticks_off()
        row[0].set_ylabel("accuracy")
        row[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")


def _curve(found: Trained, kind: str, rate: float, *, column: str, color: str, ax: Any) -> None:
    curves = found.curves[(found.curves.kind == kind) & (found.curves.rate == rate)]
    by_epoch = curves.groupby("epoch")[column]
    full = by_epoch.count() == found.networks  # epochs that all networks reached
    mean, se = by_epoch.mean()[full], (by_epoch.std() / by_epoch.count() ** 0.5)[full].fillna(0.0)
    style = {"color": color, "linestyle": STYLES.get(rate, "-")}
    ax.plot(mean.index, mean, label=f"{NAMES[kind]}, {number(rate, digits=1)}", **style)
    ax.fill_between(mean.index, mean - se, mean + se, color=color, alpha=0.2, linewidth=0)


def numbers(records: Records) -> dict[str, Any]:
    """Return accuracies, gaps and epochs to the plateau with their errors, by kind and rate."""
    return Trained(records).numbers()
