"""The page of `rmtbn schemes`: figures, tables and claims from its records."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from scipy import stats

from rmtbn import inits
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Figure, Page, Section, Table

from . import _schemes_claims
from ._failure import Failure
from ._predictions import Network
from ._schemes_figures import DENSITIES, DENSITY_DEPTHS, densities, growth, heat_maps, panel_name, profiles, whole
from ._schemes_records import NAMES, PANELS, Schemes

NO_BREAK = "‑"  # a hyphen at which no line is broken
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


def _summary(schemes: Schemes) -> str:
    said = []
    for activation, norm in PANELS:
        first = {s: found[0].depth for s in inits.INITS if (found := schemes.failures((activation, norm, s)))}
        start = f", the first at depth {min(first.values())}" if first else ""
        said.append(f"{panel_name(activation, norm)}: {len(first)} of {len(inits.INITS)} fail{start}")
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
        columns=("scheme", *(panel_name(*panel) for panel in PANELS)),
        rows=tuple((s, *(_first(schemes.failures((*panel, s))) for panel in PANELS)) for s in inits.INITS),
    )
    yield Figure(
        draw=partial(heat_maps, schemes),
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


def _ranges(schemes: Schemes) -> str:
    last = {panel: growth(schemes, panel)[schemes.deepest] for panel in PANELS}
    return "; ".join(f"{panel_name(*panel)}, {whole(v.min())} to {whole(v.max())}" for panel, v in last.items())


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
            draw=partial(profiles, schemes, (column, symbol, label), theory),
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


def relu_zeros(width: int, *, depth: int) -> float:
    """Return the mean share of zeros of a ReLU network, 1 - E min_l k_l/N, k_l ~ Bin(N, 1/2) open units of layer l."""
    return 1 - float(np.sum(stats.binom.sf(np.arange(width), width, 0.5) ** depth)) / width


def _spectrum_blocks(schemes: Schemes, data: str) -> Iterator[Block]:
    deepest = DENSITY_DEPTHS[-1]
    zeros = f"{100 * relu_zeros(schemes.width, depth=deepest):.1f} %"
    yield (
        "λ is a squared singular value of the Jacobian J of the output with respect to the input, at one image and "
        "without normalisation. A spectrum over many decades means that some directions of the input are lost on the "
        "way. The law is exact for infinite width; at width N it is off by the order of L/N, most where λ is small. A "
        "ReLU network passes no more directions than its layer with the fewest open units, which by chance has fewer "
        f"than half: at depth {deepest} and width {schemes.width}, {zeros} of λ are expected to be zero, not 50 %. A "
        "verdict “rejected” on a ReLU network finds just that."
    )
    yield Figure(
        draw=partial(densities, schemes),
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
        rows=tuple(_distance_row(schemes, *key, depth) for key in DENSITIES for depth in DENSITY_DEPTHS),
    )


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
            caption=f"{panel_name(*panel)}.",
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
