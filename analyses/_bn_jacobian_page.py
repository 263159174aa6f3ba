"""The page of `rmtbn bn-jacobian`: densities over networks, distances against B/N, zeros, blocks, claims."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from rmtbn.compare import SpectrumComparison
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Figure, Page, Section, Table
from rmtbn.theory.bn_mean_field import block_share, zero_share

from ._bn_jacobian_claims import RULE, claims
from ._bn_jacobian_figures import (
    HIDDEN,
    WEIGHTS_NAMES,
    draw_blocks,
    draw_densities,
    draw_distances,
    draw_laws,
    name,
)
from ._bn_jacobian_records import BatchSpectra, Kind

TITLE = "What does a batch-normalised network do to its inputs, direction by direction?"


def numbers(found: BatchSpectra) -> dict[str, Any]:
    """Return all comparisons as plain numbers, one entry per kind of network and depth, and the verdicts."""
    return {
        "networks": [_entry(found, kind, depth) for kind in found.kinds for depth in found.depths_of(kind)],
        "claims": [{"statement": claim.statement, "verdict": claim.verdict} for claim in claims(found)],
    }


def _entry(found: BatchSpectra, kind: Kind, depth: int) -> dict[str, Any]:
    right, wrong, share = found.comparison(kind, depth), found.deeper(kind, depth), found.block_share(kind, depth)
    return {
        "activation": kind.activation,
        "weights": kind.weights,
        "batch": kind.batch,
        "width": kind.width,
        "depth": depth,
        "networks": right.networks,
        "ks": right.ks,
        "ks_se": right.ks_se,
        "ks_pvalue": right.ks_pvalue,
        "ks_one_layer_more": wrong.ks,
        "exact_zeros": found.zeros(kind, depth, leaked=False).value,
        "zeros_without_eps": found.zeros(kind, depth, leaked=True).value,
        "zeros_in_theory": zero_share(kind.activation, batch_size=kind.batch),
        "block_share": share.value,
        "block_share_se": share.se,
        "block_share_in_theory": block_share(kind.activation, batch_size=kind.batch, depth=depth),
        "mean_square_in_theory": found.law(kind, depth).moment(1),
    }


def page(found: BatchSpectra, *, manifest: Mapping[str, str]) -> Page:
    """Write the page."""
    return Page(
        title=TITLE,
        summary=_summary(found),
        sections=(
            Section(title="Networks over their laws", blocks=tuple(_densities(found))),
            Section(title="How small must the batch be", blocks=tuple(_distances(found))),
            Section(title="Two kinds of zeros", blocks=tuple(_zeros(found))),
            Section(title="What one example sees", blocks=tuple(_blocks(found))),
            Section(title="Claims", blocks=(RULE, *claims(found))),
        ),
        manifest=manifest,
    )


def _nearest(found: BatchSpectra, weights: str) -> list[Kind]:
    """Return the kinds of the widest networks at the second smallest batch."""
    return [k for k in found.kinds if (k.weights, k.batch, k.width) == (weights, found.near, found.widest(found.near))]


def _extremes(found: BatchSpectra) -> tuple[float, float, float, float]:
    """Return the smallest B/N with the largest KS distance there, and the same for the largest B/N."""
    ratios = sorted({kind.ratio for kind in found.kinds})
    worst = [
        max(
            found.comparison(kind, depth).ks
            for kind in found.kinds
            if kind.ratio == ratio
            for depth in found.depths_of(kind)
        )
        for ratio in (ratios[0], ratios[-1])
    ]
    return ratios[0], worst[0], ratios[-1], worst[1]


def _summary(found: BatchSpectra) -> str:
    few, near, many, far = _extremes(found)
    kind, depth = _nearest(found, "gaussian")[0], found.depths[-1]
    share = found.block_share(kind, depth)
    return (
        f"The singular values of a whole batch follow their law to a KS distance of at most {number(near, digits=2)} "
        f"at B/N = {number(few, digits=2)}, and {number(far, digits=2)} at B/N = {number(many, digits=2)}: the law is "
        f"one of few examples in wide networks. The Jacobians of single examples hold {number(share.value, digits=2)} "
        f"of the whole at depth {depth} and B = {kind.batch}."
    )


def _densities(found: BatchSpectra) -> Iterator[Block]:
    yield (
        "Batch normalisation makes the output of each example depend on all the others. So the Jacobian J that says "
        "how outputs move with inputs is one matrix for the whole batch of B examples. Moving all inputs by the same "
        "amount changes nothing; what is left are B − 1 contrasts between examples for each of N features, and on "
        "these J is measured. λ is a squared singular value: the factor by which a small step in one direction grows, "
        "squared. Bars are drawn networks at initialisation, lines the law for infinitely wide ones. Its mean is the "
        "growth of gradients per layer, to the power L; its upper tail is a power law, since a feature may happen to "
        "vary little over the batch and is then magnified."
    )
    for weights in ("gaussian", "orthogonal"):
        kinds = _nearest(found, weights)
        yield Figure(
            draw=partial(draw_densities, found, kinds),
            size=(10.0, 2.6 * len(kinds) + 0.4),
            caption=f"{weights.capitalize()} weights, B = {kinds[0].batch}, N = {kinds[0].width}: density of λ per "
            f"decade on the contrasts, {found.counts(kinds[0])} networks per panel. Values that have no place among "
            "decades are written out, those that are exactly zero apart from those that would be but for ε, which the "
            f"law counts as zeros; the smallest {HIDDEN:.0%} of the rest is out of sight.",
            alt=f"Histograms of λ over decades for {weights} weights, one row per activation and one column per depth, "
            "each with the density of its law, which follows the bars.",
        )
    activation = found.kinds[0].activation
    yield Figure(
        draw=partial(draw_laws, found, activation),
        size=(10.0, 4.2),
        caption=f"The law itself, {name(activation)}, Gaussian weights: over batches (left), and over depth (right). "
        "0.5 % of the mass is out of sight below, 0.01 % above.",
        alt="Densities of λ per decade. Small batches have longer upper tails; depth spreads λ over more decades.",
    )


def _distances(found: BatchSpectra) -> Iterator[Block]:
    yield (
        "The Kolmogorov–Smirnov distance (KS) is the largest difference between two distribution functions. The law is "
        "the limit of wide networks at a fixed batch. It treats the mixing by the weights and the normalisation of the "
        "features as if neither knew of the other, and that fails as the batch fills the width: B examples then leave "
        "no room for the weights to mix them as if at random. The extreme is B = N with orthogonal weights and no φ: "
        "from orthogonal inputs every feature then has nearly the same length, and the law's spread is not there. "
        "Tested at B = N = 32 and four layers: KS .36 from orthogonal inputs, .03 from independent Gaussian ones. "
        "Distances scatter too: one linear layer with orthogonal weights has N different values, each B − 2 times; "
        "a thousand draws of a law are at KS .03 from it."
    )
    yield Figure(
        draw=partial(draw_distances, found),
        size=(10.0, 4.4),
        caption=f"KS distance to the law against B/N at depth {found.depths[-1]}, one standard error (jackknife over "
        f"networks, and rough where these are few); widths {', '.join(map(str, found.widths))}. Points of one colour "
        "at the same B/N are of different widths.",
        alt="Distances grow with B over N, for all activations and both laws of the weights.",
    )
    yield Table(
        caption="KS distances at every depth, widest networks, and at the greatest depth the distance to the law of "
        "one layer more. It is larger where depths can be told apart; in ReLU networks of these widths hardly, "
        "for these have more zeros than either law.",
        columns=("network", "B", "N", *(f"L = {depth}" for depth in found.depths), "one layer more"),
        rows=tuple(_distance_row(found, kind) for kind in found.kinds if kind.width == found.widest(kind.batch)),
    )


def _distance_row(found: BatchSpectra, kind: Kind) -> tuple[str, ...]:
    distances = (found.comparison(kind, depth) for depth in found.depths)
    wrong = found.deeper(kind, found.depths[-1])
    return (
        f"{name(kind.activation)}, {WEIGHTS_NAMES[kind.weights]}",
        str(kind.batch),
        str(kind.width),
        *(_distance(one) for one in distances),
        _distance(wrong),
    )


def _distance(found: SpectrumComparison) -> str:
    return f"{found.ks:.4f} ± {found.ks_se:.4f}"


def _zeros(found: BatchSpectra) -> Iterator[Block]:
    yield (
        "Normalisation removes two directions of each feature: its mean over the batch, exactly, and its scale, but "
        "for ε. Scaling a feature of variance v by a small amount changes the output by the factor ε/√(v + ε)³, "
        "which is 1e-5 for torch's ε: not zero, and measured as what it is, however deep the network. Activations that "
        "switch off remove more. Shares are of all B·N values of the whole matrix. Deep networks of finite width have "
        "somewhat more zeros than theory where units switch off: the layer of lowest rank counts."
    )
    rows = []
    for kind in found.kinds:
        if kind.width == found.widest(kind.batch) and kind.weights == "gaussian":
            for depth in dict.fromkeys((found.depths[0], found.depths[-1])):
                exact, both = (found.zeros(kind, depth, leaked=leaked) for leaked in (False, True))
                theory = zero_share(kind.activation, batch_size=kind.batch)
                rows.append(
                    (
                        f"{name(kind.activation)}, L = {depth}",
                        str(kind.batch),
                        str(kind.width),
                        number(exact.value, digits=4),
                        number(both.value - exact.value, digits=4) if both.value > exact.value else "0",
                        with_error(both.value, both.se),
                        number(theory, digits=4),
                    )
                )
    yield Table(
        caption="Gaussian weights, widest networks of each batch.",
        columns=("network", "B", "N", "exactly zero", "zero but for ε", "both", "theory, ε → 0"),
        rows=tuple(rows),
    )


def _blocks(found: BatchSpectra) -> Iterator[Block]:
    yield (
        "The usual Jacobian, of one example's output by its own input, is a diagonal block of J. After one layer the "
        "blocks hold most of ‖J‖², the more the larger the batch. In every further layer what an example sends to the "
        "others grows, until the blocks hold no more than their part of the matrix, 1/B."
    )
    yield Figure(
        draw=partial(draw_blocks, found),
        size=(10.0, 3.6),
        caption="Share of ‖J‖² in the per-sample blocks against depth, Gaussian weights, widest networks: "
        "points with one standard error over networks, lines the theory for wide networks, dotted 1/B. Deep points "
        "leave the lines where B is not small against N.",
        alt="Shares fall from near 1 at depth 1 towards 1/B, faster for small batches; points lie on the lines.",
    )
