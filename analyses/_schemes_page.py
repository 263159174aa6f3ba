"""The page of `rmtbn schemes`: figures, tables and claims from its records."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from rmtbn import inits
from rmtbn.plot.decades import LN10
from rmtbn.plot.depth_profile import depth_profile
from rmtbn.plot.heat_map import heat_map
from rmtbn.plot.spectrum_density import spectrum_density
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Figure, Page, Section, Table
from rmtbn.result import DepthProfile

from . import _schemes_claims
from ._failure import CONDITION, CORRELATION, RANGE, Failure
from ._predictions import Network
from ._schemes_records import NAMES, PANELS, Schemes

# The uniform schemes have the variances of the normal ones and lie on them in every figure; the tables have all.
SHOWN = ("he_normal", "glorot_normal", "torch_default", "orthogonal", "critical", "gaussian")
DENSITIES = (("relu", "he_normal"), ("relu", "orthogonal"), ("tanh", "critical"), ("tanh", "orthogonal"))
# The law of a tanh network whose lengths still change has a factor per layer, so that its cost grows with the depth.
DENSITY_DEPTHS = {"relu": (1, 4, 16), "tanh": (1, 2, 4)}
NO_BREAK = "‑"  # a hyphen at which no line is broken
THRESHOLDS = {  # on the axes of the figures: log10 of the squared gradient norm and of κ
    "log_gradient": (-2 * RANGE / LN10, 2 * RANGE / LN10),
    "log_condition": (CONDITION / LN10,),
    "correlation": (CORRELATION,),
}
CRITERIA = ("gradient", "signal", "conditioning", "correlation")


def page(schemes: Schemes, *, data: str, manifest: dict[str, str]) -> Page:
    """Write the page."""
    claims = _schemes_claims.claims(schemes)
    counted = ", ".join(
        f"{sum(claim.verdict == verdict for claim in claims)} {verdict}"
        for verdict in ("supported", "contradicted", "inconclusive")
    )
    return Page(
        title="How initialisation schemes fail with depth",
        summary=_summary(schemes),
        sections=(
            Section(title="Depth of failure", blocks=tuple(_failure_blocks(schemes, data))),
            Section(title="Gradients, signals and correlations", blocks=tuple(_profile_blocks(schemes, data))),
            Section(title="Singular values of the Jacobian", blocks=tuple(_spectrum_blocks(schemes, data))),
            Section(title="Claims", blocks=(f"{counted}. {_schemes_claims.RULE}", *claims)),
            Section(title="Every criterion", blocks=tuple(_criteria_blocks(schemes))),
            Section(title="The schemes", blocks=tuple(_scheme_blocks(schemes))),
        ),
        manifest=manifest,
    )


def _panel(activation: str, norm: str) -> str:
    return f"{NAMES[activation]}, {NAMES[norm]}"


def _summary(schemes: Schemes) -> str:
    said = []
    for activation, norm in PANELS:
        first = {s: found[0].depth for s in inits.INITS if (found := schemes.failures((activation, norm, s)))}
        start = f", the first at depth {min(first.values())}" if first else ""
        said.append(f"{_panel(activation, norm)}: {len(first)} of {len(inits.INITS)} fail{start}")
    return f"Initialisation schemes on real images, up to depth {schemes.deepest}. {'; '.join(said)}."


def _failure_blocks(schemes: Schemes, data: str) -> Iterator[Block]:
    yield (
        "Four things can go wrong with depth: the loss gradient at the first layer, or the signal (the mean square of "
        "the pre-activations), leaves [10⁻³, 10³] of its value at depth 1; the condition number of the input-output "
        "Jacobian passes 10⁶; the correlation of two inputs passes 0.99, so that they become alike. The first to do so "
        "is the failure. Depths are powers of two; the last section but one lists every criterion."
    )
    yield Table(
        caption=f"First failure of each scheme with its depth, up to depth {schemes.deepest}; — if nothing fails. "
        f"{_sizes(schemes)} {data}.",
        columns=("scheme", *(_panel(*panel) for panel in PANELS)),
        rows=tuple((s, *(_first(schemes.failures((*panel, s))) for panel in PANELS)) for s in inits.INITS),
    )
    yield Figure(
        draw=partial(_heat_maps, schemes),
        size=(11.0, 8.4),
        caption="Gradient norm at layer 1 against its value at depth 1, as a power of ten: 0 is unchanged, −3 a "
        f"thousandth; beyond ±3 the gradient has failed. {_sizes(schemes)} {data}.",
        alt=f"Four heat maps of schemes against depth. At depth {schemes.deepest}: {_ranges(schemes)}.",
    )


def _sizes(schemes: Schemes) -> str:
    return f"Means over {schemes.networks} networks of width {schemes.width} and {schemes.examples} examples."


def _first(found: Sequence[Failure]) -> str:
    hows = [failure.how for failure in found if failure.depth == found[0].depth]
    return f"{found[0].depth}: {', '.join(hows)}".replace("-", NO_BREAK) if found else "—"


def _growth(schemes: Schemes, panel: tuple[str, str]) -> pd.DataFrame:
    """Gradient norm at layer 1 against its value at depth 1, log10: one row per scheme, one column per depth."""
    rows = {s: schemes.summary((*panel, s)).set_index("depth").log_gradient for s in inits.INITS}
    logs = pd.DataFrame(rows).T
    return logs.sub(logs[1], axis=0) / (2 * LN10)


def _ranges(schemes: Schemes) -> str:
    last = {panel: _growth(schemes, panel)[schemes.deepest] for panel in PANELS}
    return "; ".join(f"{_panel(*panel)}, {_whole(v.min())} to {_whole(v.max())}" for panel, v in last.items())


def _heat_maps(schemes: Schemes, canvas: Canvas) -> None:
    for panel, ax in zip(PANELS, canvas.subplots(2, 2).flat, strict=True):
        label = "log₁₀ of the gradient norm"
        heat_map(_growth(schemes, panel), label=label, limit=9.0, write=_whole, ax=ax)
        ax.set_title(_panel(*panel))


def _whole(value: float) -> str:
    return number(round(value), digits=1) if np.isfinite(value) else number(value)


def _profile_blocks(schemes: Schemes, data: str) -> Iterator[Block]:
    yield (
        "Points are measured. Lines are predicted for networks of infinite width, with nothing fitted: no line knows "
        "the points. Left without normalisation, right with batch normalisation of the pre-activations."
    )
    shown = (
        ("log_gradient", "‖g‖²", "squared gradient norm at layer 1", Network.gradient_growth),
        ("log_q", "q", "mean square of pre-activations", Network.lengths),
        ("correlation", "c", "correlation of two inputs", Network.correlations),
        ("log_condition", "κ", "condition number", None),
    )
    for column, symbol, label, theory in shown:
        yield Figure(
            draw=partial(_profiles, schemes, (column, symbol, label), theory),
            size=(10.0, 7.4),
            caption=f"{label[0].upper()}{label[1:]}, {symbol}, against depth. {_NOTES[column].format(schemes)} Means, "
            f"with standard errors, over {schemes.networks} networks{'; mean-field theory' if theory else ''}. {data}.",
            alt=f"Four panels, ReLU and tanh without and with batch normalisation: {label} against depth, six schemes.",
        )


_NOTES = {
    "log_gradient": "Gradient of the cross-entropy at the pre-activations of layer 1, in networks of growing depth, "
    "against its value at depth 1. Width {0.width}.",
    "log_q": "At every layer, over {0.examples} examples. Width {0.width}.",
    "correlation": "Mean over pairs of {0.examples} examples, at every layer. Width {0.width}.",
    "log_condition": "Largest singular value of the Jacobian over the smallest that is not zero, at one input, width "
    "{0.width}; with batch normalisation over a batch of {0.bn_batch}, width {0.bn_width}, without the directions that "
    "the normalisation removes. The smallest is a matter of finite width, which mean-field theory leaves out.",
}


def _profiles(
    schemes: Schemes,
    quantity: tuple[str, str, str],
    theory: Callable[[Network, int], DepthProfile] | None,
    canvas: Canvas,
) -> None:
    column, symbol, label = quantity
    panels = canvas.subplots(2, 2, sharex=True, sharey=column == "correlation")
    for panel, ax in zip(PANELS, panels.flat, strict=True):
        for scheme in SHOWN:
            key = (*panel, scheme)
            predicted = theory(schemes.network(key), schemes.deepest) if theory else None
            measured = schemes.profile(key, column, symbol=symbol, label=label)
            depth_profile(measured, theory=predicted, label=scheme, log_depth=True, ax=ax)
        ax.set_title(_panel(*panel))
        _thresholds(column, ax)
    _outer_labels(panels)
    _legend(canvas, panels.flat)


def _thresholds(column: str, ax: Axes) -> None:
    """Draw where a quantity fails, as far as it is in sight; the signal fails against its own value at depth 1."""
    ax.autoscale_view()
    low, high = ax.get_ylim()
    for level in THRESHOLDS.get(column, ()):
        if low < level < high:
            ax.axhline(level, ls=":", lw=1.2, color=rcParams["ytick.color"], zorder=1, label="fails")


def _outer_labels(panels: np.ndarray) -> None:
    """Name the axes at the left and at the bottom only; the numbers stay at each."""
    for ax in panels[:-1].flat:
        ax.set_xlabel("")
    for ax in panels[:, 1:].flat:
        ax.set_ylabel("")


def _legend(canvas: Canvas, panels: Iterable[Axes]) -> None:
    """Put one legend under all panels; theory is a line of no scheme's colour, and stands last."""
    handles: dict[str, Any] = {}
    for ax in panels:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    for name in ("theory", "fails"):
        if name in handles:
            handles[name] = handles.pop(name)
    if "theory" in handles and len(handles) > 2:
        handles["theory"] = Line2D([], [], color=rcParams["text.color"])
    canvas.legend(handles.values(), handles, loc="outside lower center", ncols=4)


def _spectrum_blocks(schemes: Schemes, data: str) -> Iterator[Block]:
    yield (
        "λ is a squared singular value of the Jacobian J of the output with respect to the input, at one image and "
        "without normalisation. A spectrum over many decades means that some directions of the input are lost on the "
        "way. The law is exact for infinite width; at width N it is off by the order of L/N, most where λ is small."
    )
    yield Figure(
        draw=partial(_densities, schemes),
        size=(11.0, 11.0),
        caption=f"Density of λ, per decade: bars are measured, {schemes.networks} networks of width {schemes.width}; "
        f"lines are the law for infinite width (dashed: all λ at one value). Zeros are counted, not drawn. {data}.",
        alt="Histograms of λ over decades with the density of the law over each, a row for each kind of network and a "
        "column for each depth.",
    )
    yield Table(
        caption="Distance between the measured spectrum and its law: Kolmogorov–Smirnov with its standard error over "
        "networks and p-value, and Wasserstein-1 in ln λ. A verdict “agrees to order 1/N” is a difference that finite "
        "width explains.",
        columns=("activation", "scheme", "depth", "KS distance", "p-value", "W₁ in ln λ", "verdict"),
        rows=tuple(_distance_row(schemes, *key, depth) for key in DENSITIES for depth in DENSITY_DEPTHS[key[0]]),
    )


def _densities(schemes: Schemes, canvas: Canvas) -> None:
    panels = canvas.subplots(len(DENSITIES), 3, squeeze=False)
    for (activation, scheme), row in zip(DENSITIES, panels, strict=True):
        for depth, ax in zip(DENSITY_DEPTHS[activation], row, strict=True):
            law = schemes.law(activation, scheme, depth)
            spectrum_density(schemes.spectrum(activation, scheme, depth), law=law, ax=ax)
            ax.set_title(f"{NAMES[activation]}, {scheme}, depth {depth}")
    _outer_labels(panels)
    _legend(canvas, panels.flat[:1])


def _distance_row(schemes: Schemes, activation: str, scheme: str, depth: int) -> tuple[str, ...]:
    found = schemes.comparison(activation, scheme, depth)
    pvalue = "—" if found.ks_pvalue is None else number(found.ks_pvalue, digits=2)
    ks = with_error(found.ks, found.ks_se)
    return NAMES[activation], scheme, str(depth), ks, pvalue, number(found.wasserstein_log), found.verdict


def _criteria_blocks(schemes: Schemes) -> Iterator[Block]:
    yield (
        "The depth at which the gradient norm at layer 1, the signal, the condition number of the Jacobian and the "
        f"correlation of two inputs fail first; — where they do not, up to depth {schemes.deepest}."
    )
    for panel in PANELS:
        yield Table(
            caption=f"{_panel(*panel)}.",
            columns=("scheme", *CRITERIA),
            rows=tuple((s, *_by_criterion(schemes.failures((*panel, s)))) for s in inits.INITS),
        )


def _by_criterion(found: Sequence[Failure]) -> Iterator[str]:
    first: dict[str, str] = {}
    for failure in found:
        word = failure.how.removeprefix(f"{failure.criterion} ")
        first.setdefault(failure.criterion, f"{'fails' if word == failure.how else word} at {failure.depth}")
    return (first.get(criterion, "—") for criterion in CRITERIA)


def _scheme_blocks(schemes: Schemes) -> Iterator[Block]:
    yield (
        "Var W = σ_w²/fan-in, Var b = σ_b². The scheme “gaussian” is any choice of the two; here it is one in the "
        "chaotic phase of tanh, twice the critical variance of ReLU."
    )
    yield Table(
        caption=f"The schemes, at width {schemes.width}.",
        columns=("scheme", "weights", "σ_w², ReLU", "σ_w², tanh", "σ_b², ReLU", "σ_b², tanh", "source"),
        rows=tuple(_scheme_row(schemes, scheme) for scheme in inits.INITS),
    )


def _scheme_row(schemes: Schemes, scheme: str) -> tuple[str, ...]:
    laws = [schemes.weights(activation, scheme) for activation in ("relu", "tanh")]
    weights = [number(law.sigma_w**2, digits=4) for law in laws]
    biases = [number(law.sigma_b**2) if law.sigma_b else "0" for law in laws]
    entry = inits.INITS[scheme]
    return scheme, entry.distribution, *weights, *biases, entry.source
