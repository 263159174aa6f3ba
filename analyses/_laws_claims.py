"""The claims of `rmtbn laws`: what papers say of the laws, each judged by its numbers."""

import math
from collections.abc import Iterator

import numpy as np

from rmtbn.compare import FINITE_SIZE, SpectrumComparison
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Claim
from rmtbn.result import Scalar
from rmtbn.theory.given_layers import zero_share

from ._laws_networks import Kind
from ._laws_records import Laws, has_zeros, is_isometry
from ._schemes_claims import judge

LEVEL = 0.01
ALLOWED_RATE = 0.1  # of a slope, for what is of higher order in 1/N at the narrowest networks
AGREES = ("agrees", "agrees to order 1/N")
RULE = (
    "A law is supported if the distance of the widest networks to it is one that finite width explains (at most "
    f"{FINITE_SIZE:g}/N, or not significant over networks) and the alternative is rejected by the same comparison; "
    "contradicted if it is itself rejected; inconclusive otherwise. A number is supported if the prediction is within "
    "its 99 % confidence interval (Student's t) and the alternative is not; contradicted if the prediction is not; "
    "inconclusive if both."
)
PENNINGTON = "Pennington, Schoenholz & Ganguli"


def claims(laws: Laws) -> tuple[Claim, ...]:
    """Judge every claim whose networks are there."""
    return tuple(_claims(laws))


def _claims(laws: Laws) -> Iterator[Claim]:
    depth = laws.depths[min(1, len(laws.depths) - 1)]
    for kind in laws.kinds:
        if kind.weights == "gaussian" and kind.activation == "linear":
            yield _deeper_claim(laws, kind, depth, source="Penson & Życzkowski 2011, arXiv:1103.3453",
                                statement=f"Squared singular values of products of {depth} Gaussian matrices follow "
                                "Fuss–Catalan.")  # fmt: skip
        if kind.weights == "gaussian" and kind.activation == "tanh":
            yield _deeper_claim(laws, kind, depth, source=f"{PENNINGTON} 2018, arXiv:1802.09979",
                                statement="Jacobians of deep tanh networks on the critical line follow the free "
                                "product of their layers.")  # fmt: skip
        if kind.weights == "orthogonal" and kind.activation == "tanh":
            yield _swapped_claim(laws, kind, laws.depths[-1])
        if kind.weights == "uniform":
            yield _universality_claim(laws, kind, depth)
        if has_zeros(kind) and kind.weights == "gaussian" and kind.activation == "relu":
            yield _ranks_claim(laws, kind, depth)
            yield _zeros_claim(laws, kind, laws.depths[-1])
    yield _rate_claim(laws)


def verdict(right: SpectrumComparison, *, alternative_rejected: bool) -> str:
    """Apply `RULE` to a law and its alternative."""
    if right.verdict == "rejected":
        return "contradicted"
    return "supported" if right.verdict in AGREES and alternative_rejected else "inconclusive"


def _deeper_claim(laws: Laws, kind: Kind, depth: int, *, source: str, statement: str) -> Claim:
    right, wrong = laws.comparison(kind, laws.widths[-1], depth), laws.wrong(kind, depth).deeper
    return Claim(
        statement=statement,
        source=source,
        predicted=f"KS of the order of 1/N = {number(1 / right.dimension)} to the law of {depth} layers",
        measured=f"KS {with_error(right.ks, right.ks_se)}; {with_error(wrong.ks, wrong.ks_se)} to the law of "
        f"{depth + 1} layers",
        verdict=verdict(right, alternative_rejected=_is_rejected(wrong, right.dimension)),
        evidence=_networks(right) + f"p = {_p(right.ks_pvalue)} for {depth} layers, {_p(wrong.ks_pvalue)} for "
        f"{depth + 1}.",
    )


def _swapped_claim(laws: Laws, kind: Kind, depth: int) -> Claim:
    right, wrong = laws.comparison(kind, laws.widths[-1], depth), laws.wrong(kind, depth).swapped
    variance = [Kind(activation=kind.activation, sigma_b=kind.sigma_b, weights=w).law(depth).moment(2) - 1
                for w in ("orthogonal", "gaussian")]  # fmt: skip
    return Claim(
        statement="Deep tanh networks come near isometry with orthogonal weights, not with Gaussian ones: the spectrum "
        "is that of the narrower law.",
        source=f"{PENNINGTON} 2017, arXiv:1711.04735, abstract and section 2.5",
        predicted=f"KS of the order of 1/N to the orthogonal law, whose variance of λ is {number(variance[0])} at "
        f"depth {depth} where the Gaussian one is {number(variance[1])}",
        measured=f"KS {with_error(right.ks, right.ks_se)}; {with_error(wrong.ks, wrong.ks_se)} to the Gaussian law",
        verdict=verdict(right, alternative_rejected=wrong.verdict == "rejected"),
        evidence=_networks(right) + "Orthogonal weights; the alternative is the law of Gaussian ones.",
    )


def _universality_claim(laws: Laws, kind: Kind, depth: int) -> Claim:
    wrong = laws.wrong(kind, depth).swapped
    if has_zeros(kind):
        given = laws.given_ranks(kind, laws.widths[-1], depth)
        distance, error, near = given.ks, given.ks_se, given.ks - 3 * given.ks_se <= 4 / laws.widths[-1]
    else:
        right = laws.comparison(kind, laws.widths[-1], depth)
        distance, error, near = right.ks, right.ks_se, right.verdict in AGREES
    decided = "supported" if wrong.verdict == "rejected" else "inconclusive"
    return Claim(
        statement=f"Independent weights of any distribution have the law of Gaussian ones: uniform weights, "
        f"{kind.activation}.",
        source="Pastur & Slavin 2020, arXiv:2011.11439",
        predicted="KS of the order of 1/N to the law of Gaussian weights",
        measured=f"KS {with_error(distance, error)}; {with_error(wrong.ks, wrong.ks_se)} to that of orthogonal weights",
        verdict=decided if near else "contradicted",
        evidence=_networks(wrong)
        + f"Depth {depth}{', given the ranks of the layers' if has_zeros(kind) else ''}; the alternative is the law of "
        "orthogonal weights.",
    )


def _ranks_claim(laws: Laws, kind: Kind, depth: int) -> Claim:
    width = laws.widths[-1]
    given, wrong = laws.given_ranks(kind, width, depth), laws.wrong(kind, depth).deeper
    near = given.ks - 3 * given.ks_se <= 4 / width
    decided = "supported" if _is_rejected(wrong, width) else "inconclusive"
    return Claim(
        statement="Jacobians of deep ReLU networks follow the free product of their layers, once the number of active "
        "units of each layer is taken as it is.",
        source=f"{PENNINGTON} 2018, arXiv:1802.09979; docs/derivations/layer_ranks.md",
        predicted=f"KS of the order of 1/N = {number(1 / width)} to the law for these ranks",
        measured=f"KS {with_error(given.ks, given.ks_se)}; {with_error(wrong.ks, wrong.ks_se)} with a layer more",
        verdict=decided if near else "contradicted",
        evidence=f"Width {width}, depth {depth}, p = {_p(given.ks_pvalue)}; {_p(wrong.ks_pvalue)} with a layer more.",
    )


def _zeros_claim(laws: Laws, kind: Kind, depth: int) -> Claim:
    width = laws.widths[-1]
    shares = np.isneginf(laws.spectrum(kind, width, depth).by_network).mean(axis=1)
    measured = Scalar.over_networks(shares, symbol="", label="share of zeros")
    predicted = zero_share(0.5, width=width, depth=depth)
    return Claim(
        statement="A ReLU network has as many zero singular values as its narrowest layer has inactive units: more "
        "than half at finite width, 1/2 in the limit only.",
        source=f"docs/derivations/layer_ranks.md; the limit 1/2 at every depth: {PENNINGTON} 2018, arXiv:1802.09979",
        predicted=f"{number(predicted, digits=4)} at this width",
        measured=with_error(measured.value, measured.se),
        verdict=judge(measured, predicted=predicted, alternative=0.5, allowance=0.0),
        evidence=f"Width {width}, depth {depth}, {measured.networks} networks; the alternative is 1/2.",
    )


def _rate_claim(laws: Laws) -> Claim:
    rates = [
        [laws.rate(kind, depth) for depth in laws.depths]
        for kind in laws.kinds
        if not has_zeros(kind) and not is_isometry(kind)
    ]
    slope = Scalar.over_networks(np.mean(rates, axis=1), symbol="", label="slope")
    known = math.isfinite(slope.value)
    return Claim(
        statement="Where no direction is lost (φ′ ≠ 0) networks come to their law as 1/N.",
        source="The 1/N expansion of random matrices; docs/derivations/layer_ranks.md",
        predicted="slope −1 of ln KS against ln N, over as many networks as N",
        measured=with_error(slope.value, slope.se) if known else "one width only",
        verdict=judge(slope, predicted=-1.0, alternative=-0.5, allowance=ALLOWED_RATE) if known else "inconclusive",
        evidence=f"Mean over {len(rates)} kinds of networks and depths {', '.join(map(str, laws.depths))}, widths "
        f"{', '.join(map(str, laws.widths))}; the alternative is −1/2, the rate of independent values and of networks "
        "that lose directions.",
    )


def _is_rejected(found: object, width: int) -> bool:
    """Whether a law is rejected, by the rule of `rmtbn.compare`."""
    ks, se, p = (getattr(found, name) for name in ("ks", "ks_se", "ks_pvalue"))
    return p is not None and p < LEVEL and ks - 3 * se > 4 / width


def _networks(found: SpectrumComparison) -> str:
    return f"{found.networks} networks of width {found.dimension}. "


def _p(value: float | None) -> str:
    return "unknown" if value is None else number(value, digits=2)
