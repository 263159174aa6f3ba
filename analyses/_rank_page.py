"""The page of `rmtbn rank`: ranks and gaps against depth, against the number of examples and against width."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Figure, Page, Section, Table

from . import _rank_figures as figures
from ._rank_claims import claims, stationary
from ._rank_records import START, Kind, Ranked, predicted_rank

ROUNDING = 1e-9  # relative; networks that differ by less are the same


def page(ranked: Ranked, *, manifest: Mapping[str, str]) -> Page:
    """Write the page."""
    judged = tuple(claims(ranked))
    verdicts = [claim.verdict for claim in judged]
    sections = (
        ("What is measured", _introduction),
        ("Soft rank against depth", _depth_blocks),
        ("Two means of one rank", _recursion_blocks),
        ("Orthogonality and isometry", _gap_blocks),
        ("How many examples fit", _batch_blocks),
    )
    return Page(
        title="Rank: does batch normalisation keep examples apart?",
        summary=f"{_headline(ranked)}{verdicts.count('supported')} of {len(judged)} claims supported.",
        sections=(
            *(Section(title=title, blocks=found) for title, write in sections if (found := tuple(write(ranked)))),
            Section(title="Claims", blocks=judged or ("There is no claim for this kind of network alone.",)),
            Section(title="Numbers", blocks=tuple(_tables(ranked))),
        ),
        manifest=manifest,
    )


def numbers(ranked: Ranked) -> dict[str, Any]:
    """Return, per part and kind, measured profiles and the predicted rank."""
    parts = dict.fromkeys(kind.part for kind in ranked.found)
    return {part: [_numbers(ranked, kind) for kind in ranked.kinds(part)] for part in parts}


def _numbers(ranked: Ranked, kind: Kind) -> dict[str, Any]:
    found, late = ranked.found[kind], ranked.soft_rank(kind)
    ranks, gaps, predicted = found.soft_rank(), found.squared_gap(), predicted_rank(kind, found)
    return {
        **kind.parameters(),
        "networks": ranks.networks,
        "blocks": found.blocks.tolist(),
        "soft_rank": ranks.value.tolist(),
        "soft_rank_se": ranks.se.tolist(),
        "predicted_soft_rank": None if predicted is None else predicted[found.blocks.astype(int)].tolist(),
        "squared_orthogonality_gap": gaps.value.tolist(),
        "squared_orthogonality_gap_se": gaps.se.tolist(),
        "log_isometry_gap": found.log_isometry().value.tolist(),
        "late_soft_rank": late.value,
        "late_soft_rank_se": late.se,
    }


def _headline(ranked: Ranked) -> str:
    said = []
    for kind in ranked.kinds("depth"):
        found = ranked.found[kind].soft_rank()
        said.append(f"{kind.name} {number(found.value[-1])}")
    if not said:
        return ""
    kind = ranked.kinds("depth")[0]
    return f"Soft rank of {kind.examples} examples after {kind.depth} layers of width {kind.width}: {'; '.join(said)}. "


def _introduction(ranked: Ranked) -> Iterator[Block]:  # noqa: ARG001
    yield (
        "n examples go through a network; H holds their n outputs at a layer of d units, K = H Hᵀ their inner "
        "products. If all examples point the same way K has rank 1, and what told them apart is lost. The soft rank "
        "(tr K)²/tr K² is n for orthogonal examples of equal length and 1 for equal ones. The orthogonality gap "
        "‖K/tr K − I/n‖ is another form of it, g² = 1/rank − 1/n; the isometry gap "
        "ln[(tr K/n)/(det K)^(1/n)] sees the smallest eigenvalue too."
    )
    yield (
        "Three norms are compared: none; torch's batch normalisation; and the uncentred one of the papers on rank, "
        "which divides each unit by its root mean square over the batch and subtracts no mean. K is taken after φ. "
        "Points are means over networks with one standard error; lines are theory, with nothing fitted. Weights are "
        "Gaussian, at He's scale for ReLU, unless orthogonal (Haar) is said."
    )


def _depth_blocks(ranked: Ranked) -> Iterator[Block]:
    kinds = ranked.kinds("depth")
    if len(kinds) < 2:
        return
    (kind, *_) = kinds
    yield Figure(
        draw=partial(figures.draw_depth, ranked),
        size=(11.0, 4.4),
        caption=f"Soft rank against depth (logarithmic from 1 on, the input at 0): n = {kind.examples}, width "
        f"{kind.width}, {len(ranked.found[kind].log_rank)} networks, inputs of correlation {number(START, digits=1)}. "
        "Lines, linear: where batch normalisation ends; the decay of the gap with the uncentred norm; without norm "
        "the exact ratio of means, which is another mean than that of the points and lies below it (next section). "
        "ReLU: infinite width. There is no theory here for ReLU with the uncentred norm.",
        alt="Without normalisation the rank falls to 1, for ReLU within tens of layers; with either norm it stays.",
    )
    yield (
        "ReLU's rank is lower than that of linear networks with the same norm, for φ gives all examples a common part: "
        "torch's batch normalisation leaves them the correlation c*, near 1/π. At this width the measured rank is "
        "below that line by the order of n/d. The uncentred norm does not remove the common part before it is "
        "added again, and keeps less."
    )


def _recursion_blocks(ranked: Ranked) -> Iterator[Block]:
    kinds = ranked.kinds("recursion")
    if not kinds:
        return
    (kind,) = kinds
    found = ranked.found[kind]
    yield (
        "The exact recursion for linear networks is one of E tr K² and E (tr K)². Their ratio is not the mean of the "
        "soft rank: rare networks of large norm, which have lost most of their rank, carry it. What exceeds "
        "1 falls as exp(−3l/d) in the ratio of means, and as exp(−l/d) in a typical network, by the difference of its "
        "two largest Lyapunov exponents; the mean of the soft rank over networks is near the latter."
    )
    _, _, share = found.ratio_of_means()
    last = int(found.blocks[np.flatnonzero(share >= 0.25)[-1]])
    yield Figure(
        draw=partial(figures.draw_recursion, ranked),
        size=(8.0, 4.4),
        caption=f"Both means of the soft rank, {len(found.log_rank)} linear networks of width {kind.width} without "
        f"normalisation, n = {kind.examples}; the line is the exact recursion of the first. Beyond {last} layers fewer "
        "than a quarter of the networks carry the ratio, and its error bars are too small.",
        alt="The ratio of means lies on the line of the recursion; the mean of the ratio is above it.",
    )


def _gap_blocks(ranked: Ranked) -> Iterator[Block]:
    if not ranked.kinds("isometry") or len(ranked.kinds("depth")) < 2:
        return
    kind = ranked.kinds("depth")[0]
    yield Figure(
        draw=partial(figures.draw_gap, ranked),
        size=(11.0, 4.4),
        caption=f"Left: orthogonality gap of the linear networks of the first figure (n = {kind.examples}, width "
        f"{kind.width}); dashed: the least for examples whose mean is 0. Right: isometry gap against depth; the line "
        "falls by d/(d + 2) per layer from the middle of the depth. Gaps above "
        f"{number(figures.TOLD, digits=2)} are not shown: their smallest singular values are rounding.",
        alt="Left: gaps with a norm are flat after a few layers, that without grows. Right: with the uncentred norm "
        "and orthogonal weights the gap falls exponentially; with Gaussian weights it grows at once.",
    )
    yield (
        "Orthogonal weights alone keep K as it is; only with the uncentred norm does the gap close. The rate d/(d + 2) "
        "is that of small gaps: from random inputs the first layers are slower. With Gaussian weights the examples "
        "lose directions however they are normalised, when there are as many of them as units."
    )


def _batch_blocks(ranked: Ranked) -> Iterator[Block]:
    kinds = ranked.kinds("batches")
    if not kinds or not ranked.kinds("widths"):
        return
    width = kinds[0].width
    networks = ranked.soft_rank(kinds[0]).networks
    yield Figure(
        draw=partial(figures.draw_batches, ranked),
        size=(11.0, 4.4),
        caption=f"Soft rank in the second half of the depth, {networks} networks. Left: against the number of examples "
        f"at d = {width}; the line is n/(1 + n²/4d) with its terms of order 1/n. Right: as many examples as units, "
        "depth 2d.",
        alt="Left: the points rise with n along the line to about the root of d, then stay level while the line "
        "falls. Right: with a norm linear networks lie along the root of d; without, they lie near 1.",
    )
    yield (
        "Up to about 2√d examples the formula holds; beyond, its assumption of a small gap fails. It would have the "
        "rank fall again, and the networks do not: the rank stays near √d whatever n. n/(1 + n²/4d) must not be used "
        "there. ReLU with batch normalisation is bounded for another reason, n/(1 + (n − 1)c*²) < 1/c*² ≈ π²."
    )
    yield Table(
        caption=f"Stationary soft rank with the uncentred norm and linear φ, d = {width}.",
        columns=("n", "n/(1 + n²/4d)", "with terms of order 1/n", "measured"),
        rows=tuple(_batch_row(ranked, kind) for kind in kinds),
    )


def _batch_row(ranked: Ranked, kind: Kind) -> tuple[str, ...]:
    n, measured = kind.examples, ranked.soft_rank(kind)
    large = n / (1 + n * n / (4 * kind.width))
    return (
        str(n),
        number(large, digits=4),
        number(stationary(kind), digits=4),
        with_error(measured.value, measured.se),
    )


def _tables(ranked: Ranked) -> Iterator[Block]:
    yield Table(
        caption="Soft rank over the second half of the depth, and after the last layer what theory says; in "
        "parentheses where it is for few examples, n up to 2√d, and there are more.",
        columns=("part", "kind", "weights", "n", "d", "layers", "measured", "theory"),
        rows=tuple(_row(ranked, kind) for kind in ranked.found),
    )


def _row(ranked: Ranked, kind: Kind) -> tuple[str, ...]:
    found, measured = ranked.found[kind], ranked.soft_rank(kind)
    theory = predicted_rank(kind, found)
    return (
        kind.part,
        kind.name,
        kind.weights,
        str(kind.examples),
        str(kind.width),
        str(kind.depth),
        with_error(measured.value, measured.se if measured.se > ROUNDING * measured.value else 0.0),
        "—" if theory is None else _theory(kind, float(theory[-1])),
    )


def _theory(kind: Kind, predicted: float) -> str:
    beyond = kind.norm != "none" and kind.examples**2 > 4 * kind.width
    return f"({number(predicted, digits=4)})" if beyond else number(predicted, digits=4)
