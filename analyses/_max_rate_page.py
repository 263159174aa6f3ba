"""The page of `rmtbn max-rate`."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure as Canvas

from rmtbn.plot.decades import LN10, set_decades
from rmtbn.plot.points import points
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Figure, Page, Section, Table
from rmtbn.sweep.run import Records

from . import _paper_claims as judged
from ._image_networks import NAMES
from ._max_rate_claims import claims, factor
from ._max_rate_records import KINDS, MOMENTUM, Rates

RULES = {"rate": "trains", "stable": "does not diverge"}


def page(records: Records) -> Page:
    """Write the page."""
    found = Rates(records)
    deepest = found.depths[-1]
    plain, normed = (number(math.exp(found.log_mean(k, deepest, "rate").value), digits=2) for k in KINDS)
    return Page(
        title="What is the largest rate that trains?",
        summary=f"Residual networks of {deepest} layers train at rates up to {normed} with batch norm and up to "
        f"{plain} without: {judged.geometric(found.log_ratio(deepest))} times.",
        sections=(
            Section(title="The largest rate against depth", blocks=tuple(_blocks(found))),
            Section(title="Curvature at initialisation", blocks=tuple(_curvature(found))),
            Section(title="Every rate that was tried", blocks=tuple(_tried(found))),
            Section(title="Claims", blocks=(judged.RULE, factor(found), *claims(records).values())),
        ),
        manifest=records.manifest(),
    )


def _about(found: Rates) -> str:
    return (
        f"{found.networks} networks of each kind and depth in Glorot's initialisation, the same weights with and "
        "without norm."
    )


def _blocks(found: Rates) -> Iterator[Block]:
    updates = found.examples // found.batch * found.passes
    yield (
        f"Every network is trained from its initialisation on {found.examples} images of its own, {found.passes} "
        f"times over in mini-batches of {found.batch}: {updates} updates of SGD with momentum {MOMENTUM} and weight "
        "decay 1e-4, at a constant rate. It has trained if its loss did not pass 1e3 (or ten times the first loss, "
        "where that is more than 100), and if over the last quarter of the updates its mean, with two standard errors, "
        "is below the entropy of the classes of these images. No prediction that does not look at the image is below "
        "that. The rule is the same for both kinds: a network without norm, which begins at large losses, has not "
        "trained while it is on its way down from there, or when it has died and gives every image the same logits."
    )
    yield (
        "Rates are tried half a decade apart from 10 down to the first that trains, and then between that and the one "
        f"above it. The largest rate is the geometric mean of the last two, a factor of "
        f"{number(math.exp(found.width), digits=2)} apart; errors are those over networks and, added in squares, the "
        f"standard deviation of a place between the two, a factor of {number(math.exp(found.resolution), digits=3)}. "
        "This is a short training on few images: a rate that trains here may fail later, and one that is stopped here "
        "by a transient may do with a warm-up."
    )
    yield Figure(
        draw=partial(_draw, found),
        size=(10.0, 4.4),
        caption="Left the largest rate at which networks train, against depth, with batch norm (after the last block "
        "too) and without; hollow, what the curvature at initialisation allows, 2(1 + μ)/λ_max with μ = 0.9. Right "
        "each network by itself: the largest rate against 2(1 + μ)/λ_max, dashed where the two are equal. Means of "
        f"logarithms with one standard error. {_about(found)}",
        alt="Left, the largest rate falls with depth without normalisation and stays high with it. Right, largest "
        "rates against what the curvature allows, one point for each network.",
    )
    yield Table(
        caption="Largest rates: those that train and, a rule that lets networks pass that have died, those that do not "
        f"diverge. Geometric means over networks. {_about(found)}",
        columns=("layers", "rule", *(NAMES[k] for k in KINDS), "ratio"),
        rows=tuple(_row(found, depth, column) for column in RULES for depth in found.depths),
    )
    yield Markup(
        'The first step alone, on the images of its gradient, is measured by <a href="../max-step/index.html">'
        "max-step</a>."
    )


def _row(found: Rates, depth: int, column: str) -> tuple[str, ...]:
    cells = (judged.geometric(found.log_mean(kind, depth, column)) for kind in KINDS)
    return (str(depth), RULES[column], *cells, judged.geometric(found.log_ratio(depth, column=column)))


def _curvature(found: Rates) -> Iterator[Block]:
    yield (
        "Were the loss a quadratic with the Hessian that it has at initialisation, gradient descent with momentum μ "
        "would be stable up to a rate of 2(1 + μ)/λ_max. λ_max is that of the Hessian of the loss by all parameters, "
        "on up to 32 of the images, with the statistics of the batch."
    )
    yield Table(
        caption=f"Geometric means over networks; −λ_min/λ_max is a mean. {_about(found)}",
        columns=("network", "layers", "2/λ_max", "−λ_min/λ_max", "largest rate over 2(1 + μ)/λ_max"),
        rows=tuple(_curved(found, kind, depth) for kind in KINDS for depth in found.depths),
    )
    if len(found.depths) > 2:  # two points are on any line
        slope, r2 = found.slope("log_rate")
        yield (
            "Without norm, the slope of ln of the largest rate against ln λ_max over depths is "
            f"{with_error(slope.value, slope.se)} (R² {r2:.2f}); were λ_max all that bounds the rate it would be −1."
        )


def _curved(found: Rates, kind: str, depth: int) -> tuple[str, ...]:
    rows = found.rows[(found.rows.kind == kind) & (found.rows.depth == depth)]
    flatness = -rows.lowest_curvature / rows.curvature
    critical, excess = (judged.geometric(found.log_mean(kind, depth, column)) for column in ("critical", "excess"))
    return (NAMES[kind], str(depth), critical, number(float(flatness.mean()), digits=2), excess)


def _tried(found: Rates) -> Iterator[Block]:
    runs = found.runs.assign(rate=found.runs.rate.map(lambda rate: float(f"{rate:.3g}")))
    groups = runs.groupby(["kind", "depth", "rate"])
    yield Table(
        caption="Runs by rate: how many there were (not every network was tried at every rate), how many diverged and "
        "trained, the fewest updates before a divergence, and the lowest mean loss of a last quarter. "
        f"{_about(found)}",
        columns=("network", "layers", "rate", "runs", "diverged", "trained", "first divergence", "lowest loss"),
        rows=tuple(
            _run(groups.get_group((kind, depth, rate)), kind, depth, rate)
            for kind in KINDS
            for depth in found.depths
            for rate in sorted(set(runs.rate[(runs.kind == kind) & (runs.depth == depth)]))
        ),
    )


def _run(runs: Any, kind: str, depth: int, rate: float) -> tuple[str, ...]:
    diverged = runs[runs.diverged]
    first = str(int(diverged.steps.min()) - 1) if len(diverged) else "—"
    counts = (str(len(runs)), str(len(diverged)), str(int(runs.trains.sum())))
    lowest = float(runs.loss.min())
    return (NAMES[kind], str(depth), number(rate), *counts, first, number(lowest) if math.isfinite(lowest) else "—")


def _draw(found: Rates, canvas: Canvas) -> None:
    left, right = canvas.subplots(1, 2)
    momentum = math.log10(1 + MOMENTUM)
    for place, kind in enumerate(KINDS):
        style = {"color": f"C{place}", "marker": "os"[place], "mfc": "none", "linestyle": ":"}
        means = {column: [found.log_mean(kind, d, column) for d in found.depths] for column in ("rate", "critical")}
        value, se = np.array([(one.value, one.se) for one in means["rate"]]).T / LN10
        points(list(found.depths), value, se=se, label=NAMES[kind], ax=left)
        allowed = np.array([one.value for one in means["critical"]]) / LN10 + momentum
        left.plot(found.depths, allowed, label=f"2(1 + μ)/λ_max, {NAMES[kind]}", zorder=1, **style)
        rows = found.rows[found.rows.kind == kind]
        x, y = rows.log_critical / LN10 + momentum, rows.log_rate / LN10
        points(x, y, se=np.full(len(x), found.width / 2 / LN10), label=NAMES[kind], ax=right)
    _equality(found, right)
    left.set(xlabel="layers", ylabel="rate", xscale="log")
    left.set_xticks(found.depths, [str(depth) for depth in found.depths])
    left.minorticks_off()
    right.set(xlabel="2(1 + μ)/λ_max at initialisation", ylabel="largest rate that trains")
    set_decades(right.xaxis)
    for ax in (left, right):
        set_decades(ax.yaxis)
        ax.legend(fontsize="small")


def _equality(found: Rates, ax: Any) -> None:
    allowed = (found.rows.log_critical + math.log(1 + MOMENTUM)).to_numpy() / LN10
    finite = allowed[np.isfinite(allowed)]
    if finite.size:
        ends = [finite.min() - 0.2, finite.max() + 0.2]
        ax.plot(ends, ends, "--", color="C5", lw=1)
