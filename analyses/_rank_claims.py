"""The claims of `rmtbn rank`, each by a rule on the numbers and their errors that can come out either way."""

import math
from collections.abc import Iterator

import numpy as np

from rmtbn.report.number import number, with_error
from rmtbn.report.page import Claim
from rmtbn.result import Scalar
from rmtbn.theory import rank

from ._rank_records import Kind, Measured, Ranked, isometry_decay, late_slope, predicted_gap, predicted_rank

ALLOWED = 4.0  # standard errors
CARRIED = 0.25  # share of the networks that must carry a ratio of means for its error to mean something
NEAR = 0.05  # relative, of a stationary rank: corrections to the floor are of relative order n/d
SLOPE = 0.1  # of ln rank in ln d
DECAY = 0.1  # relative, of the rate of the isometry gap, which is of first order in the gap
SMALL = 0.05  # isometry gaps below it count as small
DANESHMAND = "Daneshmand et al. 2020, arXiv:2003.01652"


def claims(ranked: Ranked) -> Iterator[Claim]:
    """Judge what can be judged from the kinds of network that were measured."""
    for kind in ranked.kinds("recursion"):
        yield _recursion_claim(kind, ranked.found[kind])
    for kind in ranked.kinds("depth", activation="relu", norm="none"):
        yield _collapse_claim(kind, ranked.found[kind])
    for kind in ranked.kinds("depth", activation="linear", norm="uncentred"):
        yield _gap_claim(kind, ranked.found[kind])
    for kind in ranked.kinds("depth", activation="linear", norm="batch"):
        yield _centred_claim(ranked, kind)
    batches = ranked.kinds("batches")
    few = [kind for kind in batches if kind.examples**2 <= 4 * kind.width]
    if few:
        yield _stationary_claim(ranked, few, bounded=True)
        if len(few) < len(batches):
            yield _stationary_claim(ranked, batches, bounded=False)
    if len(ranked.kinds("widths", activation="linear", norm="uncentred")) > 1:
        yield _root_claim(ranked)
    decaying = [kind for kind in ranked.kinds("isometry") if isometry_decay(kind) is not None]
    if decaying:
        yield _isometry_claim(ranked, decaying)


def _recursion_claim(kind: Kind, found: Measured) -> Claim:
    ratio, error, share = found.ratio_of_means()
    theory = predicted_rank(kind, found)
    assert theory is not None
    judged = (share >= CARRIED) & (found.blocks > 0)
    predicted = theory[found.blocks.astype(int)]
    scores = np.abs(ratio - predicted)[judged] / error[judged]
    fallen = (ratio[0] - ratio)[judged] / error[judged]
    last = int(np.flatnonzero(judged)[-1]) if judged.any() else 0
    return Claim(
        statement="Without normalisation the soft rank of a linear network falls to 1 as an exact recursion says, "
        "with eigenvalues 1 + 2/d and 1 − 1/d.",
        source="docs/derivations/batch_norm_rank.md",
        predicted=f"{number(predicted[last], digits=4)} after {found.blocks[last]:.0f} layers",
        measured=with_error(ratio[last], error[last]),
        verdict=_verdict(bool((scores <= ALLOWED).all()), told=bool(fallen.size and fallen.max() > ALLOWED)),
        evidence=f"E (tr K)²/E tr K² over {len(found.log_rank)} networks of width {kind.width}, n = {kind.examples}, "
        f"at the {int(judged.sum())} depths at which a quarter of the networks or more carries the ratio; largest "
        f"deviation {number(float(scores.max(initial=0.0)), digits=2)} standard errors. Supported if the start is "
        "refused.",
    )


def _collapse_claim(kind: Kind, found: Measured) -> Claim:
    theory = predicted_rank(kind, found)
    assert theory is not None
    profile = found.soft_rank()
    chosen = found.blocks > 0
    predicted, measured = theory[found.blocks.astype(int)][chosen], profile.value[chosen]
    margin = ALLOWED * profile.se[chosen] / (measured - 1) + 2 * found.blocks[chosen] / kind.width
    away = np.abs(np.log((measured - 1) / (predicted - 1)))
    last = Scalar(value=float(measured[-1]), se=float(profile.se[-1]), symbol="", label="")
    return Claim(
        statement="Without normalisation ReLU networks at He's scale collapse to rank 1, what exceeds 1 falling as "
        "1/l².",
        source=f"{DANESHMAND}, for the collapse; docs/derivations/batch_norm_rank.md",
        predicted=f"{number(float(predicted[-1]), digits=4)} after {kind.depth} layers",
        measured=with_error(last.value, last.se),
        verdict=_verdict(
            bool((away <= margin).all()), told=last.value + ALLOWED * last.se < float(profile.value[0]) / 2
        ),
        evidence=f"n = {kind.examples}, width {kind.width}, {len(found.log_rank)} networks; ln(rank − 1) at every "
        f"depth within {number(ALLOWED, digits=1)} standard errors and 2 l/N of that of infinite width. Supported if "
        "the rank has fallen below half of its start.",
    )


def _gap_claim(kind: Kind, found: Measured) -> Claim:
    theory = predicted_gap(kind, found)
    assert theory is not None
    profile, first = found.squared_gap(), 2 * kind.examples / kind.width
    predicted = theory[found.blocks.astype(int)] ** 2
    away = np.abs(profile.value - predicted)[1:] - ALLOWED * profile.se[1:]
    floor = found.late(np.exp(2 * found.log_gap))
    return Claim(
        statement="With uncentred batch normalisation and linear φ the orthogonality gap falls by n/(n + 2) per layer "
        "to a floor.",
        source="Daneshmand et al. 2021, arXiv:2106.03970, for the decay; docs/derivations/batch_norm_rank.md",
        predicted=f"from {number(profile.value[0])} to {number(predicted[-1])} (squared)",
        measured=with_error(floor.value, floor.se),
        verdict=_verdict(
            bool((away <= first * predicted[1:]).all()), told=floor.value + ALLOWED * floor.se < float(profile.value[0])
        ),
        evidence=f"n = {kind.examples}, width {kind.width}, {len(found.log_rank)} networks; the mean squared gap at "
        f"every depth within {number(ALLOWED, digits=1)} standard errors and 2 n/d = {number(first)} of it. Supported "
        "if the gap has fallen.",
    )


def _centred_claim(ranked: Ranked, kind: Kind) -> Claim:
    measured = ranked.soft_rank(kind)
    n, d = kind.examples, kind.width
    predicted = rank.stationary_soft_rank(examples=n - 1, width=d)
    other = rank.stationary_soft_rank(examples=n, width=d)
    margin = ALLOWED * measured.se + NEAR * predicted
    return Claim(
        statement="torch's batch normalisation, which subtracts the mean, loses one dimension: K is never orthogonal, "
        "and the gap is at least 1/√(n(n − 1)).",
        source="docs/derivations/batch_norm_rank.md",
        predicted=f"soft rank {number(predicted, digits=4)}, less than n − 1 = {n - 1}",
        measured=with_error(measured.value, measured.se),
        verdict=_verdict(
            abs(measured.value - predicted) <= margin and measured.value < n - 1, told=other - measured.value > margin
        ),
        evidence=f"n = {n}, width {d}, linear, {measured.networks} networks, second half of the depth; within "
        f"{number(ALLOWED, digits=1)} standard errors and {NEAR:.0%}. Supported if {number(other, digits=4)}, the rank "
        "without subtracting the mean, is refused.",
    )


def _stationary_claim(ranked: Ranked, kinds: list[Kind], *, bounded: bool) -> Claim:
    """Hold stationary ranks against n/(1 + n²/4d) and its refinement, up to 2√d examples or at any number."""
    rows = [(kind, ranked.soft_rank(kind), stationary(kind)) for kind in kinds]
    outside = [kind for kind, one, known in rows if abs(one.value - known) > ALLOWED * one.se + NEAR * known]
    told = sum(kind.examples - one.value > ALLOWED * one.se + NEAR * one.value for kind, one, _ in rows)
    worst, measured, predicted = max(rows, key=lambda row: abs(math.log(row[1].value / row[2])))
    return Claim(
        statement="With uncentred batch normalisation and linear φ the stationary soft rank is n/(1 + n²/4d)"
        + (" for up to 2√d examples." if bounded else " for any number of examples."),
        source="docs/derivations/batch_norm_rank.md, to first order in the gap",
        predicted=f"{number(predicted, digits=4)} at n = {worst.examples}",
        measured=with_error(measured.value, measured.se),
        verdict=_verdict(not outside, told=bool(told)),
        evidence=f"n from {kinds[0].examples} to {kinds[-1].examples}, width {worst.width} (2√d = "
        f"{number(2 * math.sqrt(worst.width))}), {measured.networks} networks, second half of the depth; shown is the "
        f"worst. Within {number(ALLOWED, digits=1)} standard errors and {NEAR:.0%}, with (n − 1)(n + 2)²/(4 n(n + 1) "
        f"d) for n/4d. Outside: n = {', '.join(str(kind.examples) for kind in outside) or 'none'}. Supported if full "
        "rank is refused somewhere.",
    )


def stationary(kind: Kind) -> float:
    """Return the stationary soft rank to first order in the gap."""
    return rank.stationary_soft_rank(examples=kind.examples, width=kind.width)


def root_slope(ranked: Ranked, *, norm: str) -> Scalar:
    """Fit the slope of ln(soft rank) against ln d at n = d, linear φ; its error is what those of the ranks make it."""
    kinds = sorted(ranked.kinds("widths", activation="linear", norm=norm), key=lambda kind: kind.width)
    found = [ranked.soft_rank(kind) for kind in kinds]
    x = np.log([kind.width for kind in kinds])
    weights = (x - x.mean()) / np.sum((x - x.mean()) ** 2)
    slope = float(weights @ np.log([one.value for one in found]))
    error = float(np.sqrt(np.sum((weights * [one.se / one.value for one in found]) ** 2)))
    return Scalar(value=slope, se=error, symbol="", label="slope", networks=found[0].networks)


def _root_claim(ranked: Ranked) -> Claim:
    slope, bare = root_slope(ranked, norm="uncentred"), root_slope(ranked, norm="none")
    kinds = ranked.kinds("widths", activation="linear", norm="uncentred")
    ratios = [ranked.soft_rank(kind).value / math.sqrt(kind.width) for kind in kinds]
    near = abs(slope.value - 0.5) <= ALLOWED * slope.se + SLOPE
    return Claim(
        statement="With batch normalisation the soft rank of as many examples as units is of order √d at any depth.",
        source=f"{DANESHMAND}: at least of that order",
        predicted="slope 0.5 of ln rank in ln d",
        measured=f"{with_error(slope.value, slope.se)}; without normalisation {with_error(bare.value, bare.se)}",
        verdict=_verdict(near, told=slope.value - bare.value > ALLOWED * math.hypot(slope.se, bare.se)),
        evidence=f"n = d = {', '.join(str(kind.width) for kind in kinds)}, linear, uncentred, depth 2d; rank over √d: "
        f"{', '.join(number(ratio) for ratio in ratios)}. Within {number(ALLOWED, digits=1)} standard errors and "
        f"{SLOPE}; supported if the slope without normalisation is smaller.",
    )


def _isometry_claim(ranked: Ranked, kinds: list[Kind]) -> Claim:
    rows, said = [], []
    for kind in kinds:
        found = ranked.found[kind]
        with np.errstate(divide="ignore", invalid="ignore"):
            measured = late_slope(found, np.log(found.isometry))
        predicted = isometry_decay(kind)
        assert predicted is not None
        small = float(found.isometry[:, found.blocks > kind.depth / 2].max()) < SMALL
        rows.append((abs(measured.value - predicted) <= ALLOWED * measured.se + DECAY * abs(predicted), small))
        said.append(f"d = {kind.width}: {with_error(measured.value, measured.se)} ({number(predicted)})")
    decided = [near for near, small in rows if small]
    return Claim(
        statement="With uncentred batch normalisation and orthogonal weights the isometry gap of as many examples as "
        "units shrinks by d/(d + 2) per layer.",
        source="Meterez et al. 2023, arXiv:2310.02012, for the decay; docs/derivations/batch_norm_rank.md",
        predicted="slope ln(d/(d + 2)) of the logarithm of the gap",
        measured="; ".join(said),
        verdict=_verdict(all(decided), told=bool(decided)),
        evidence=f"{len(ranked.found[kinds[0]].log_rank)} networks of each width, second half of 8 d layers, where "
        f"the gap is to be below {SMALL}, for the rate is of first order in it; within {number(ALLOWED, digits=1)} "
        f"standard errors and {DECAY:.0%}. Inconclusive if no gap is so small.",
    )


def _verdict(holds: bool, *, told: bool) -> str:
    return "contradicted" if not holds else ("supported" if told else "inconclusive")
