"""The page of `rmtbn shattering`: gradients along a line, their autocorrelation, and correlations against depth."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from rmtbn.plot.points import points
from rmtbn.report.number import number
from rmtbn.report.page import Block, Figure, Page, Section, Table
from rmtbn.sweep.run import Records

from . import _paper_claims as judged
from . import _shattering_claims as rules
from ._shattering_records import KINDS, NAMES, Gradients

PANELS = {"no norm": ("plain", "residual", "looks_linear"), "batch norm": ("plain_batch", "residual_batch")}
SHOWN = ("brown", "white", *KINDS)
BLANK = "looks_linear"  # has a constant gradient, of which nothing is left without its mean


def page(records: Records) -> Page:
    """Write the page."""
    found = Gradients(records)
    last = found.depths[-1]
    kinds = ("plain", "plain_batch", "residual_batch")
    near = {kind: number(found.at_lag(kind, rules.LAG, depth=last).value, digits=2) for kind in kinds}
    return Page(
        title="Do the gradients of deep networks shatter?",
        summary=f"Between inputs {rules.LAG} points apart on a line of {found.points}, the autocorrelation of the "
        f"gradient at depth {last} is {near['plain_batch']} in plain networks with batch norm (white noise: 0). "
        f"Without norm it is {near['plain']}, in residual networks with batch norm {near['residual_batch']}, and "
        "looks-linear networks have one gradient everywhere.",
        sections=(
            Section(title="Along a line of inputs", blocks=tuple(_along(found))),
            Section(title="At pairs of inputs, against depth", blocks=tuple(_pairs(found))),
            Section(title="Claims", blocks=(judged.RULE, rules.RULE, *rules.claims(found))),
        ),
        manifest=records.manifest(),
    )


def _along(found: Gradients) -> Iterator[Block]:
    yield (
        "A gradient is of use as long as it says something about inputs nearby. Here inputs are u + t v, t in [−2, 2], "
        "u and v orthogonal and of one length. That is a network of one input unit t, with biases in its first layer "
        "as large as its weights. Plain networks are h ← W φ(h), residual ones x ← x + W φ(x), φ = ReLU, in "
        "He's initialisation and without other biases. Batch norm stands in front of φ, its statistics held at those "
        "of the whole line. Looks-linear networks have mirrored weights, (W, −W) on (φ(x), φ(−x)), and start linear."
    )
    yield Figure(
        draw=partial(_draw_curves, found),
        size=(10.0, 6.4),
        caption=f"∂f/∂t of the first network of each kind at depth {found.depths[-1]}, width {found.width}, at "
        f"{found.points} points, over its root mean square; and one draw of each noise.",
        alt="Seven curves: brown noise wanders, white noise jumps; plain networks with batch norm look like white "
        "noise, the other networks less so; the looks-linear network has a constant gradient.",
    )
    yield Figure(
        draw=partial(_draw_autocorrelations, found),
        size=(10.0, 4.6),
        caption=f"Autocorrelation of ∂f/∂t, less its mean over the line, mean over {found.networks} networks with one "
        "standard error as a band, at three depths, and the two noises. At depth 1 the networks with batch norm "
        "coincide. Looks-linear networks have a constant gradient and are left out.",
        alt="Autocorrelation against the distance in t. At small depth all networks are near brown noise; with depth "
        "plain networks with batch norm come down to white noise, the others stay above it.",
    )
    yield Table(
        caption=f"Autocorrelation of ∂f/∂t between points at lag {rules.LAG}, {number(found.spacing * rules.LAG)} "
        "apart in t. That of looks-linear networks is not centred: for a constant it is 1 − lag/points.",
        columns=("network", *(f"depth {depth}" for depth in found.depths)),
        rows=tuple(
            (NAMES[kind], *(rules.written(found.at_lag(kind, rules.LAG, depth=depth)) for depth in found.depths))
            for kind in KINDS
        ),
    )


def _pairs(found: Gradients) -> Iterator[Block]:
    yield (
        "R = E⟨g, g′⟩/E‖g‖² for the gradients g, g′ of one network at two orthogonal inputs, E the mean over pairs and "
        "networks. Balduzzi et al. take a unit to be active at both inputs with probability 1/4 at every layer. But "
        "without norm inputs come closer at every layer, so that R falls as L⁻³ only. Batch norm keeps them apart, and "
        "takes the mean out of the stream. The law counts both, for infinite width: at width N it is good for depths "
        "far below N."
    )
    yield Figure(
        draw=partial(_draw_pairs, found),
        size=(10.0, 4.6),
        caption=f"Correlation of the gradients at two inputs against depth, {found.networks} networks of width "
        f"{found.width}, {found.examples} inputs, one standard error. Lines: the law for wide networks. Dotted: the "
        "formulae of Balduzzi et al. Values below 10⁻⁴ are not shown.",
        alt="Two panels of points on lines that fall with depth. Without norm they fall far more slowly than the "
        "dotted lines; with batch norm the plain networks follow the dotted line, the residual ones are below it.",
    )
    yield Table(
        caption="Correlation of the gradients at two inputs: measured, the law for wide networks, and the formula of "
        "Balduzzi et al.",
        columns=("network", "depth", "measured", "law", "formula"),
        rows=tuple(
            (
                NAMES[kind],
                str(depth),
                rules.written(found.correlation(kind, depth)),
                number(found.law(kind, depth)),
                number(found.formula(kind, depth)),
            )
            for kind in KINDS
            for depth in found.depths
        ),
    )


def _draw_curves(found: Gradients, canvas: Canvas) -> None:
    axes = canvas.subplots(2, 4, sharex=True, sharey=True).ravel()
    t = np.linspace(found.curves.t.min(), found.curves.t.max(), found.points)
    for ax, kind in zip(axes, SHOWN, strict=False):
        ax.plot(t, found.curve(kind, found.depths[-1])[0], color="C0", linewidth=0.9)
        ax.set_title(NAMES[kind])
    for ax in axes[len(SHOWN) :]:
        ax.set_axis_off()
    for ax in axes[3:7]:
        ax.set_xlabel("t")
        ax.tick_params(labelbottom=True)
    for ax in axes[::4]:
        ax.set_ylabel("∂f/∂t")


def _draw_autocorrelations(found: Gradients, canvas: Canvas) -> None:
    depths = found.depths[0], found.depths[len(found.depths) // 2], found.depths[-1]
    for ax, depth in zip(canvas.subplots(1, 3, sharey=True), depths, strict=True):
        for kind in KINDS:
            if kind != BLANK:
                _draw_band(found, kind, depth, ax=ax)
        for noise, dashes in (("brown", "--"), ("white", ":")):
            one = found.along(noise)
            ax.plot(one.lags * found.spacing, one.value, dashes, color="C5", label=NAMES[noise])
        ax.set_title(f"depth {depth}")
        ax.set_xlabel("distance in t")
    canvas.axes[0].set_ylabel("autocorrelation of ∂f/∂t")
    canvas.axes[0].legend()


def _draw_band(found: Gradients, kind: str, depth: int, *, ax: Axes) -> None:
    one = found.along(kind, depth)
    (line,) = ax.plot(one.lags * found.spacing, one.value, label=NAMES[kind])
    if one.networks > 1:
        low, high = one.value - one.se, one.value + one.se
        ax.fill_between(one.lags * found.spacing, low, high, color=line.get_color(), alpha=0.25, linewidth=0)


def _draw_pairs(found: Gradients, canvas: Canvas) -> None:
    smooth = range(1, found.depths[-1] + 1)
    for ax, (title, kinds) in zip(canvas.subplots(1, 2, sharey=True), PANELS.items(), strict=True):
        for kind in kinds:
            value, se = np.array([(r.value, r.se) for r in (found.correlation(kind, at) for at in found.depths)]).T
            law = list(smooth), [found.law(kind, depth) for depth in smooth]
            points(list(found.depths), value, se=se, label=NAMES[kind], line=law, ax=ax)
            color = ax.containers[-1].lines[0].get_color()
            ax.plot(law[0], [found.formula(kind, depth) for depth in smooth], ":", color=color)
        ax.set(xscale="log", yscale="log", ylim=(1e-4, 2.0), xlabel="depth", title=title)
        ax.set_xticks(found.depths, labels=[str(depth) for depth in found.depths])
        ax.minorticks_off()
        ax.legend(loc="lower left")
    canvas.axes[0].set_ylabel("correlation R of gradients")


def numbers(records: Records) -> dict[str, Any]:
    """Return correlations at pairs of inputs and along the line, by kind and depth."""
    found = Gradients(records)
    return {kind: {str(depth): _numbers(found, kind, depth) for depth in found.depths} for kind in KINDS}


def _numbers(found: Gradients, kind: str, depth: int) -> dict[str, float]:
    pair, near = found.correlation(kind, depth), found.at_lag(kind, rules.LAG, depth=depth)
    return {
        "correlation": pair.value,
        "correlation_se": pair.se,
        "law": found.law(kind, depth),
        "formula": found.formula(kind, depth),
        f"autocorrelation_lag_{rules.LAG}": near.value,
        f"autocorrelation_lag_{rules.LAG}_se": near.se,
    }
