"""The page of `rmtbn laws`: densities over networks, distances against width, wrong laws, zeros, claims."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from rmtbn.plot.points import points
from rmtbn.plot.spectrum_density import spectrum_density
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Figure, Page, Section, Table

from ._laws_claims import RULE, claims
from ._laws_networks import Kind
from ._laws_ranks import zero_share
from ._laws_records import Laws, has_zeros, is_isometry
from ._laws_single import NONE, comparison_numbers, law_numbers

NAMES = {"linear": "linear", "relu": "ReLU", "hard_tanh": "hard tanh", "tanh": "tanh", "gelu": "GELU"}


def name(kind: Kind) -> str:
    """Name a kind of networks in a sentence."""
    return f"{NAMES.get(kind.activation, kind.activation)}, {kind.weights}"


def numbers(laws: Laws) -> dict[str, Any]:
    """Return all comparisons as plain numbers."""
    return {
        name(kind): [
            {
                "depth": depth,
                "law": law_numbers(kind.law(depth)),
                "by_width": {n: comparison_numbers(laws.comparison(kind, n, depth)) for n in laws.widths},
                "rate": laws.rate(kind, depth),
                **_wrong_numbers(laws, kind, depth),
                **(_rank_numbers(laws, kind, depth) if has_zeros(kind) else {}),
            }
            for depth in laws.depths
        ]
        for kind in laws.kinds
    }


def _wrong_numbers(laws: Laws, kind: Kind, depth: int) -> dict[str, Any]:
    wrong = laws.wrong(kind, depth)
    return {
        "one_layer_more": {"ks": wrong.deeper.ks, "ks_pvalue": wrong.deeper.ks_pvalue},
        "other_weights": {"ks": wrong.swapped.ks, "ks_pvalue": wrong.swapped.ks_pvalue},
    }


def _rank_numbers(laws: Laws, kind: Kind, depth: int) -> dict[str, Any]:
    found = {n: laws.given_ranks(kind, n, depth) for n in laws.widths}
    return {
        "given_ranks": {n: {"ks": f.ks, "ks_se": f.ks_se, "ks_pvalue": f.ks_pvalue} for n, f in found.items()},
        "rate_given_ranks": laws.rate(kind, depth, given=True),
        "zeros_at_this_width": {n: _zeros(kind, n, depth) for n in laws.widths},
    }


def page(laws: Laws, *, manifest: Mapping[str, str]) -> Page:
    """Write the page."""
    judged = claims(laws)
    return Page(
        title="Which law do the singular values of a deep network follow?",
        summary=_summary(laws),
        sections=(
            Section(title="Networks over their laws", blocks=tuple(_densities(laws))),
            Section(title="How wide is wide enough", blocks=tuple(_rates(laws))),
            Section(title="Right laws and wrong ones", blocks=tuple(_comparisons(laws))),
            Section(title="Claims", blocks=(RULE, *judged)),
        ),
        manifest=manifest,
    )


def _summary(laws: Laws) -> str:
    kinds = [kind for kind in laws.kinds if not is_isometry(kind)]
    found = [(laws.comparison(kind, laws.widths[-1], depth).ks, kind) for kind in kinds for depth in laws.depths]
    clean = [ks for ks, kind in found if not has_zeros(kind)]
    text = f"At width {laws.widths[-1]} the distribution functions of networks and laws differ by at most "
    text += f"{number(max(clean), digits=2)} where no direction is lost, and the difference falls as 1/N. "
    lost = [ks for ks, kind in found if has_zeros(kind)]
    if lost:
        text += f"ReLU-like layers pass a random number of directions: there it is up to {number(max(lost), digits=2)} "
        text += "and falls as 1/√N only, unless the law is told how many."
    return text


def _densities(laws: Laws) -> Iterator[Block]:
    yield (
        "The Jacobian J of a network says how its output moves when its input does. Its singular values σ say by how "
        "much, direction by direction: signals and gradients pass well where λ = σ² is near 1, and are lost where it "
        "is tiny. Theory gives the law of λ for networks of infinite width, without drawing one. Below, bars are real "
        "networks at initialisation, lines the law. All networks have their critical σ_w, so that the mean of λ is 1."
    )
    width = laws.widths[-1]
    for weights in ("gaussian", "orthogonal"):
        kinds = [kind for kind in laws.kinds if kind.weights == weights and not is_isometry(kind)]
        if kinds:
            count = laws.comparison(kinds[0], width, laws.depths[0]).networks
            yield Figure(
                draw=partial(_draw_densities, laws, kinds),
                size=(10.0, 2.6 * len(kinds)),
                caption=f"{weights.capitalize()} weights: density of λ per decade at depths L = "
                f"{', '.join(map(str, laws.depths))}; {count} networks of width {width} per panel. Dashed lines are "
                f"atoms; zeros, which have no place among decades, are written out. "
                f"{'Depth spreads λ over ever more decades.' if weights == 'gaussian' else _ORTHOGONAL}",
                alt=f"Histograms of λ over decades for {weights} weights, one row per activation and one column per "
                "depth, each with the density of its law, which follows the bars.",
            )


_ORTHOGONAL = (
    "Linear networks are left out: all their λ are 1. With orthogonal weights smooth activations keep λ near 1 for "
    "many layers."
)


def _draw_densities(laws: Laws, kinds: Sequence[Kind], canvas: Canvas) -> None:
    panels = canvas.subplots(len(kinds), len(laws.depths), squeeze=False)
    for row, kind in zip(panels, kinds, strict=True):
        for ax, depth in zip(row, laws.depths, strict=True):
            spectrum_density(laws.spectrum(kind, laws.widths[-1], depth), law=kind.law(depth), ax=ax)
            ax.set_title(f"{NAMES.get(kind.activation, kind.activation)}, L = {depth}")
            if ax is not row[0]:
                ax.set_ylabel("")
            if row is not panels[-1]:
                ax.set_xlabel("")
    panels[0][0].legend(loc="best")


def _rates(laws: Laws) -> Iterator[Block]:
    depth = _middle(laws)
    yield (
        "The Kolmogorov–Smirnov distance (KS) is the largest difference between two distribution functions: 0.01 means "
        "that for no λ the shares of values below it differ by more than 1 %. Singular values of one matrix repel one "
        "another, so the difference is far smaller than between independent draws. As many networks were drawn as "
        "each has units, so that noise falls as fast as the bias of the law: both as 1/N."
    )
    yield Figure(
        draw=partial(_draw_rates, laws, depth),
        size=(10.0, 4.8),
        caption=f"KS distance to the law against the width N at depth {depth}, one standard error (jackknife over "
        "networks). Left: activations with φ′ ≠ 0, and the grey line 1/N. Right: activations that switch units off. "
        "Filled: against the free law, which the grey dashed line 1/√N follows; hollow: against the law for the "
        "numbers of active units that the networks happen to have, which is 1/N away.",
        alt="Distances fall along a line of slope −1 on the left; on the right along −1/2 for the free law, and along "
        "−1 for the law given the ranks.",
    )
    if any(has_zeros(kind) for kind in laws.kinds):
        yield (
            "Why the right-hand panel differs: a ReLU layer of N units has about N/2 ± √N/2 active ones, and J has the "
            "rank of its narrowest layer. The free law has half of the values at 0 at every depth; networks have more, "
            "by a share of the order of 1/√N. The table gives the share that is exact for independent layers."
        )
        yield _zero_table(laws)


def _middle(laws: Laws) -> int:
    return laws.depths[min(1, len(laws.depths) - 1)]


def _draw_rates(laws: Laws, depth: int, canvas: Canvas) -> None:
    left, right = canvas.subplots(1, 2, sharey=True)
    for kind in laws.kinds:
        if not is_isometry(kind):
            ax = right if has_zeros(kind) else left
            found = [laws.comparison(kind, width, depth) for width in laws.widths]
            _series(ax, laws.widths, [f.ks for f in found], [f.ks_se for f in found], label=name(kind))
            if has_zeros(kind):
                given = [laws.given_ranks(kind, width, depth) for width in laws.widths]
                color = ax.containers[-1].lines[0].get_color()
                ax.plot(laws.widths, [g.ks for g in given], "o", mfc="none", color=color)
    widths = np.array(laws.widths, dtype=np.float64)
    for ax, title in ((left, "no direction is lost"), (right, "units switch off")):
        ax.plot(widths, 1 / widths, color="C5", lw=1, label="1/N")
        if ax is right:
            ax.plot(widths, 0.5 / np.sqrt(widths), color="C5", lw=1, ls="--", label="1/(2√N)")
        ax.set(xscale="log", yscale="log", xlabel="width N", title=title)
        ax.set_xticks(laws.widths, [str(n) for n in laws.widths], minor=False)
        ax.minorticks_off()
        ax.legend(loc="lower left", fontsize=8)
    left.set_ylabel("KS distance to the law")


def _series(ax: Axes, widths: Sequence[int], ks: Sequence[float], se: Sequence[float], *, label: str) -> None:
    points(widths, ks, se=se, label=label, ax=ax)


def _zeros(kind: Kind, width: int, depth: int) -> float:
    """Share of zeros at a width, from the share of inactive units of the free law at depth 1."""
    p = 1 - sum(mass for lam, mass in kind.law(1).atoms if lam == 0)
    return zero_share(p, width=width, depth=depth)


def _zero_table(laws: Laws) -> Table:
    width, rows = laws.widths[-1], []
    for kind in laws.kinds:
        for depth in laws.depths if has_zeros(kind) else ():
            found, given = laws.comparison(kind, width, depth), laws.given_ranks(kind, width, depth)
            rows.append(
                (
                    f"{name(kind)}, L = {depth}",
                    with_error(found.zeros.measured, found.zeros.se),
                    number(_zeros(kind, width, depth), digits=4),
                    number(found.zeros.predicted, digits=4),
                    with_error(found.ks, found.ks_se),
                    with_error(given.ks, given.ks_se),
                )
            )
    return Table(
        caption=f"Share of exact zeros at width {width}, and distances to the free law and to the law given the ranks.",
        columns=("network", "zeros", "at this width", "free law", "KS, free law", "KS, given ranks"),
        rows=tuple(rows),
    )


def _comparisons(laws: Laws) -> Iterator[Block]:
    first = laws.comparison(laws.kinds[0], laws.widths[-1], laws.depths[0])
    yield (
        "A comparison is worth what it can refuse. Each row holds the distance to the right law and to two wrong ones: "
        "that of one layer more, and that of the other weights (orthogonal for Gaussian and uniform ones). p is the "
        "probability of such a distance if the law were right at this very width, with networks as the unit; it does "
        "not forgive the 1/N by which a limit law is off, which the verdict does."
    )
    yield Table(
        caption=f"KS distances of {first.networks} networks of width {first.dimension}. Where units switch off, the "
        "layer more is added to the law given the ranks.",
        columns=("network", "KS", "p", "verdict", "one layer more", "p", "other weights", "p", "slope in N"),
        rows=tuple(_row(laws, kind, depth) for kind in laws.kinds for depth in laws.depths),
    )


def _row(laws: Laws, kind: Kind, depth: int) -> tuple[str, ...]:
    right, wrong = laws.comparison(kind, laws.widths[-1], depth), laws.wrong(kind, depth)
    same = is_isometry(kind)  # λ = 1 at every depth
    return (
        f"{name(kind)}, L = {depth}",
        with_error(right.ks, right.ks_se),
        _p(right.ks_pvalue),
        right.verdict,
        "same law" if same else with_error(wrong.deeper.ks, wrong.deeper.ks_se),
        NONE if same else _p(wrong.deeper.ks_pvalue),
        with_error(wrong.swapped.ks, wrong.swapped.ks_se),
        _p(wrong.swapped.ks_pvalue),
        number(laws.rate(kind, depth), digits=2),
    )


def _p(value: float | None) -> str:
    return NONE if value is None else number(value, digits=2)
