"""The claims of `rmtbn bn-jacobian`: the law, its zeros and the per-sample blocks, each judged by its numbers."""

import math
from collections.abc import Iterator

from rmtbn.report.number import number, with_error
from rmtbn.report.page import Claim
from rmtbn.theory.bn_mean_field import block_share, zero_share

from ._bn_jacobian_figures import WEIGHTS_NAMES, name
from ._bn_jacobian_records import BatchSpectra, Kind
from ._schemes_claims import judge

LIMIT = {"gaussian": 0.03, "orthogonal": 0.02}  # of the KS distance, at B well below N
SIGMAS = 3.0
RULE = (
    "A law is supported if at every depth the KS distance to it is below 0.03 (orthogonal weights: 0.02) and smaller "
    "than the one to the law of one layer more by three standard errors of both; contradicted if at some depth the law "
    "of one layer more is nearer by as much, or the distance exceeds its limit by three standard errors; inconclusive "
    "otherwise. A share is "
    "supported if the prediction is within its 99 % confidence interval over networks and the alternative is not; "
    "contradicted if the prediction is not; inconclusive if both are."
)
SOURCE = "docs/derivations/batch_norm_jacobian.md"


def claims(found: BatchSpectra) -> tuple[Claim, ...]:
    """Judge every claim whose networks are there."""
    return tuple(_claims(found))


def _claims(found: BatchSpectra) -> Iterator[Claim]:
    nearest = [k for k in found.kinds if (k.batch, k.width) == (found.near, found.widest(found.near))]
    for kind in nearest:
        yield _law_claim(found, kind)
    for kind in nearest:
        if kind.weights == "gaussian":
            yield _block_claim(found, kind, found.depths[-1])
            yield _zero_claim(found, kind)


def _law_claim(found: BatchSpectra, kind: Kind) -> Claim:
    limit, pairs = LIMIT[kind.weights], [(found.comparison(kind, d), found.deeper(kind, d)) for d in found.depths]
    margins = [SIGMAS * math.hypot(right.ks_se, wrong.ks_se) for right, wrong in pairs]
    nearer = [wrong.ks - right.ks for right, wrong in pairs]
    told = all(gap > margin for gap, margin in zip(nearer, margins, strict=True))
    refused = any(-gap > margin for gap, margin in zip(nearer, margins, strict=True))
    if all(right.ks < limit for right, _ in pairs) and told:
        verdict = "supported"
    elif refused or any(right.ks - SIGMAS * right.ks_se > limit for right, _ in pairs):
        verdict = "contradicted"
    else:
        verdict = "inconclusive"
    last, more = pairs[-1]
    return Claim(
        statement=f"Squared singular values of {name(kind.activation)} networks with batch normalisation and "
        f"{WEIGHTS_NAMES[kind.weights]} weights follow the free product of the laws of their layers, on the contrasts "
        "between examples.",
        source=SOURCE,
        predicted=f"KS below {limit} at {', '.join(map(str, found.depths))} layers",
        measured=", ".join(f"{right.ks:.4f}" for right, _ in pairs),
        verdict=verdict,
        evidence=f"At {found.depths[-1]} layers {with_error(last.ks, last.ks_se)}, and to the law of one layer more "
        f"{with_error(more.ks, more.ks_se)}. {found.counts(kind)} networks, B = {kind.batch}, N = {kind.width}, "
        f"{last.dimension} values each.",
    )


def _block_claim(found: BatchSpectra, kind: Kind, depth: int) -> Claim:
    share = found.block_share(kind, depth)
    predicted = block_share(kind.activation, batch_size=kind.batch, depth=depth)
    return Claim(
        statement=f"Who looks at one example at a time misses most of the Jacobian of a deep {name(kind.activation)} "
        "network with batch normalisation.",
        source=SOURCE,
        predicted=f"share {number(predicted, digits=4)} of ‖J‖² in the per-sample blocks at depth {depth}",
        measured=with_error(share.value, share.se),
        verdict=judge(share, predicted=predicted, alternative=1.0, allowance=1 / kind.width),
        evidence=f"{share.networks} networks, B = {kind.batch}, N = {kind.width}; the alternative is 1, examples that "
        "do not couple; allowed for finite width: 1/N.",
    )


def _zero_claim(found: BatchSpectra, kind: Kind) -> Claim:
    depth = found.depths[0]
    predicted = zero_share(kind.activation, batch_size=kind.batch)
    exact, both = (found.zeros(kind, depth, leaked=leaked) for leaked in (False, True))
    return Claim(
        statement=f"Batch normalisation removes two directions of each feature, mean and scale, for ε → 0: zeros of "
        f"the whole matrix, {name(kind.activation)}.",
        source=SOURCE,
        predicted=f"{number(predicted, digits=4)} of all values",
        measured=f"{with_error(both.value, both.se)} ({number(exact.value, digits=4)} exactly, the rest by ε)",
        verdict=judge(both, predicted=predicted, alternative=1 / kind.batch, allowance=1e-12),
        evidence=f"{both.networks} networks, B = {kind.batch}, N = {kind.width}, depth {depth}; the alternative is "
        "1/B, the mean alone.",
    )
