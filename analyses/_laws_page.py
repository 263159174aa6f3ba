"""The page of `rmtbn laws`: densities over networks, distances against width, wrong laws, zeros, claims."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from rmtbn.compare import FINITE_SIZE, GivenLaws, SpectrumComparison
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Figure, Page, Section, Table
from rmtbn.theory.given_layers import zero_share

from ._laws_claims import RULE, claims
from ._laws_figures import HIDDEN, NAMES, WEIGHTS_NAMES, draw_densities, draw_rates, name
from ._laws_networks import Kind
from ._laws_records import Laws, has_zeros, is_isometry
from ._laws_single import NONE, comparison_numbers


def numbers(laws: Laws) -> dict[str, Any]:
    """Return all comparisons as plain numbers."""
    return {
        name(kind): [
            {
                "depth": depth,
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
    width, text = laws.widths[-1], ""
    for zeros, said in ((False, "Where units never switch off"), (True, "Where they do")):
        kinds = [kind for kind in laws.kinds if has_zeros(kind) == zeros and not is_isometry(kind)]
        if kinds:
            largest = max(laws.comparison(kind, width, depth).ks for kind in kinds for depth in laws.depths)
            rate = np.mean(
                [laws.rate(kind, depth) for kind in kinds for depth in laws.depths if depth > 1 or not zeros]
            )
            text += f"{said}, networks of width {width} differ from their laws by a Kolmogorov–Smirnov distance of at "
            text += f"most {number(largest, digits=2)}"
            text += f", which falls as the power {_slope(float(rate))} of the width. " if np.isfinite(rate) else ". "
    return text.strip()


def _densities(laws: Laws) -> Iterator[Block]:
    yield (
        "The Jacobian J of a network says how its output moves when its input does. Its singular values σ say by how "
        "much, direction by direction: signals and gradients pass well where λ = σ² is near 1, and are lost where it "
        "is tiny. Theory gives the law of λ for networks of infinite width, without drawing one. Below, bars are drawn "
        "networks at initialisation, lines the law. Every network is at criticality: its "
        "weights are so large that the mean of λ is 1, and what differs from one kind to the next is how λ spreads."
    )
    width = laws.widths[-1]
    for weights in ("gaussian", "orthogonal"):
        kinds = [kind for kind in laws.kinds if kind.weights == weights and not is_isometry(kind)]
        if kinds:
            count = laws.comparison(kinds[0], width, laws.depths[0]).networks
            yield Figure(
                draw=partial(draw_densities, laws, kinds),
                size=(10.0, 2.6 * len(kinds)),
                caption=f"{WEIGHTS_NAMES[weights]} weights: density of λ per decade at depths L = "
                f"{', '.join(map(str, laws.depths))}; {count} networks of width {width} per panel. Dashed lines are "
                f"atoms; zeros, which have no place among decades, are written out; the smallest {HIDDEN:.0%} of the "
                f"rest is out of sight. {_GAUSSIAN if weights == 'gaussian' else _ORTHOGONAL}",
                alt=f"Histograms of λ over decades for {weights} weights, one row per activation and one column per "
                "depth, each with the density of its law, which follows the bars.",
            )


_GAUSSIAN = "Depth spreads λ over ever more decades: mind the scales."
_ORTHOGONAL = (
    "Linear networks are left out: all their λ are 1. The spread over decades grows far more slowly than with Gaussian "
    "weights."
)


def _rates(laws: Laws) -> Iterator[Block]:
    depth = _middle(laws)
    yield (
        "The Kolmogorov–Smirnov distance (KS) is the largest difference between two distribution functions: 0.01 means "
        "that for no λ the shares of values below it differ by more than 1 %. Singular values of one matrix repel one "
        "another, so the difference is far smaller than between independent draws. The number of networks "
        "grows with N, so that their noise falls as fast as the bias of the law: both as 1/N."
    )
    yield Figure(
        draw=partial(draw_rates, laws, depth),
        size=(10.0, 4.8),
        caption=f"KS distance to the law against the width N at depth {depth}, one standard error (jackknife over "
        "networks). Left: activations with φ′ ≠ 0. Right: activations that switch units off, filled against the free "
        "law, hollow against the law for the numbers of active units that the networks happen to have.",
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
                    f"{name(kind)}, L\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{depth}",
                    with_error(found.zeros.measured, found.zeros.se),
                    number(_zeros(kind, width, depth), digits=4),
                    number(found.zeros.predicted, digits=4),
                    _distance(found),
                    _distance(given),
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
        "that of one layer more, and that of the other weights (orthogonal ones where they are Gaussian or uniform). p "
        "is the probability of such a distance if the law were exact at this very width, with networks as the unit. "
        f"Limit laws are not exact at a width: the verdict forgives a distance of {FINITE_SIZE:g}/N. Where units "
        "switch off the free law itself is refused at depth, for the reason above; one layer more is judged given the "
        "ranks."
    )
    for weights, written in WEIGHTS_NAMES.items():
        kinds = [kind for kind in laws.kinds if kind.weights == weights]
        if kinds:
            yield Table(
                caption=f"{written} weights: KS distances of {first.networks} networks of width {first.dimension}.",
                columns=("network", "KS", "p", "verdict", "one layer more", "p", "other weights", "p"),
                rows=tuple(_row(laws, kind, depth) for kind in kinds for depth in laws.depths),
            )
    if len(laws.widths) > 1:
        yield Table(
            caption="Slope of ln KS against ln N: −1 is the rate 1/N, −1/2 the rate 1/√N. Distances that are 0 have no "
            "slope.",
            columns=("network", *(f"L = {depth}" for depth in laws.depths)),
            rows=tuple(_rate_rows(laws)),
        )


def _row(laws: Laws, kind: Kind, depth: int) -> tuple[str, ...]:
    right, wrong = laws.comparison(kind, laws.widths[-1], depth), laws.wrong(kind, depth)
    same = is_isometry(kind)  # λ = 1 at every depth
    return (
        f"{NAMES[kind.activation]}, L\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{depth}",
        _distance(right),
        _p(right.ks_pvalue),
        right.verdict,
        "the same" if same else _distance(wrong.deeper),
        NONE if same else _p(wrong.deeper.ks_pvalue),
        _distance(wrong.swapped),
        _p(wrong.swapped.ks_pvalue),
    )


def _rate_rows(laws: Laws) -> Iterator[tuple[str, ...]]:
    for kind in laws.kinds:
        if not is_isometry(kind):
            yield name(kind), *(_slope(laws.rate(kind, depth)) for depth in laws.depths)
        if has_zeros(kind):
            yield f"{name(kind)}, given ranks", *(_slope(laws.rate(kind, depth, given=True)) for depth in laws.depths)


def _slope(rate: float) -> str:
    return f"{rate:.2f}".replace("-", "−") if np.isfinite(rate) else NONE


def _distance(found: SpectrumComparison | GivenLaws) -> str:
    """Write a KS distance with its error; one that rounding alone makes differ from 0 is 0."""
    if found.ks < 1e-9:
        return "0"
    return f"{found.ks:.4f}" + (f" ± {found.ks_se:.4f}" if found.ks_se >= 5e-5 else "")


def _p(value: float | None) -> str:
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
