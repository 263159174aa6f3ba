"""The claims of `rmtbn bn-explosion`, each by a rule on the numbers and their errors that can come out either way."""

import math
from collections.abc import Iterator

import numpy as np

from rmtbn.report.number import number, with_error
from rmtbn.report.page import Claim
from rmtbn.result import Scalar

from ._bn_explosion_records import (
    ALLOWED,
    FEWEST,
    FINITE_WIDTH,
    NAMES,
    Explosions,
    Kind,
    first_unstable,
    is_stable,
    log_gradients,
    point,
    power,
    rate,
    slack,
)

YANG = "Yang et al. 2019, arXiv:1902.08129"
BJORCK = "Bjorck et al. 2018, arXiv:1806.02375"
FEW = f"{number(ALLOWED, digits=1)} standard errors and {FINITE_WIDTH:g}/N"


def claims(explosions: Explosions) -> Iterator[Claim]:
    """Judge what can be judged from the kinds of network that were measured."""
    stable = judged_kinds(explosions)
    if stable:
        yield _rate_claim(explosions, stable)
        yield _jacobian_claim(explosions, stable)
        yield _unavoidable_claim(explosions, stable)
    if explosions.kinds("rates", norm="none"):
        yield _kept_claim(explosions)
    if _large_relu(explosions) is not None and explosions.kinds("rates", norm="none", activation="relu"):
        yield _yang_claim(explosions)
    if explosions.kinds("skips"):
        yield _power_claim(explosions)
        yield _skips_claim(explosions)
    if explosions.kinds("deep"):
        yield _stability_claim(explosions)


def judged_kinds(explosions: Explosions) -> list[Kind]:
    """Batch-normalised kinds with a stable fixed point, errors that mean something, and no more examples than units."""
    kinds = explosions.kinds("rates", norm="batch")
    return [kind for kind in kinds if is_stable(kind) and FEWEST <= kind.batch <= kind.width]


def _rate_claim(explosions: Explosions, kinds: list[Kind]) -> Claim:
    found = {kind: explosions.found[kind].gradient_rate() for kind in kinds}
    outside = [kind for kind, one in found.items() if abs(one.value - rate(kind)) > slack(one, kind)]
    growing = sum(one.value - slack(one, kind) > 1 for kind, one in found.items())
    return Claim(
        statement="With batch normalisation the squared gradient norm grows by λ_G per layer, for every batch and "
        "activation whose fixed point is stable.",
        source=f"{YANG}; docs/derivations/batch_norm_mean_field.md",
        predicted=f"all {len(kinds)} within {FEW}",
        measured=f"{len(kinds) - len(outside)} of {len(kinds)}",
        verdict=_verdict(not outside, told=growing > len(kinds) / 2),
        evidence=f"B from {min(k.batch for k in kinds)} to {max(k.batch for k in kinds)}, width {kinds[0].width}. "
        f"Outside: {_listed(outside)}. Supported if the same margin refuses no growth at all for more than half "
        f"of them (here {growing}); else inconclusive.",
    )


def _jacobian_claim(explosions: Explosions, kinds: list[Kind]) -> Claim:
    apart, growing = [], 0
    for kind in kinds:
        gradient, jacobian = explosions.found[kind].gradient_rate(), explosions.found[kind].jacobian_rate()
        joint = Scalar(value=0.0, se=math.hypot(gradient.se, jacobian.se), symbol="", label="")
        if abs(gradient.value - jacobian.value) > slack(joint, kind):
            apart.append(kind)
        growing += jacobian.value - slack(jacobian, kind) > 1
    return Claim(
        statement="‖J‖_F² of the batch Jacobian grows by the same factor.",
        source="docs/derivations/batch_norm_jacobian.md: m₁ = λ_G^L",
        predicted=f"all {len(kinds)} pairs within {FEW}",
        measured=f"{len(kinds) - len(apart)} of {len(kinds)}",
        verdict=_verdict(not apart, told=growing > len(kinds) / 2),
        evidence=f"Tangents pushed forward against cotangents pulled back in the same networks. Apart: "
        f"{_listed(apart)}. Supported if growth is told from none for more than half of them (here {growing}).",
    )


def _unavoidable_claim(explosions: Explosions, kinds: list[Kind]) -> Claim:
    """No measured rate may be below the least possible, and nonlinear ones must be told from 1."""
    below, told, curved = [], [], [kind for kind in kinds if kind.activation != "linear"]
    for kind in kinds:
        one = explosions.found[kind].gradient_rate()
        if one.value + slack(one, kind) < (kind.batch - 2) / (kind.batch - 3):
            below.append(kind)
        if kind in curved and one.value - slack(one, kind) > 1:
            told.append(kind)
    kept = [kind for kind in curved if kind not in told]
    decided = not kept and bool(curved)
    return Claim(
        statement="No activation avoids the explosion: the rate is at least (B − 2)/(B − 3), that of linear networks.",
        source=f"{YANG}; docs/derivations/batch_norm_mean_field.md",
        predicted=f"none of {len(kinds)} below; all {len(curved)} nonlinear ones above 1",
        measured=f"{len(below)} below, {len(told)} above 1",
        verdict=_verdict(not below, told=decided),
        evidence=f"By more than {FEW}. Below: {_listed(below)}. Not told from 1: {_listed(kept)}.",
    )


def _kept_claim(explosions: Explosions) -> Claim:
    """Without normalisation the same networks must keep gradients, and the rates with it must be refused."""
    kinds = explosions.kinds("rates", norm="none")
    found = {kind: explosions.found[kind].gradient_rate() for kind in kinds}
    outside = [kind for kind, one in found.items() if abs(one.value - 1) > slack(one, kind)]
    limits = {kind: point(kind.activation, math.inf).explosion_rate for kind in kinds}
    told = sum(limits[kind] - one.value > slack(one, kind) for kind, one in found.items())
    return Claim(
        statement="Without batch normalisation the same critical networks keep the squared gradient norm.",
        source="Schoenholz et al. 2017, arXiv:1611.01232: χ₁ = 1",
        predicted=f"all {len(kinds)} at 1 within {FEW}",
        measured=", ".join(f"{kind.name} {with_error(one.value, one.se)}" for kind, one in found.items()),
        verdict=_verdict(not outside, told=bool(told)),
        evidence=f"Width {kinds[0].width}. Outside: {_listed(outside)}. The rate with batch normalisation of large "
        f"batches is refused for {told} of {len(kinds)}; supported if for any.",
    )


def _large_relu(explosions: Explosions) -> Kind | None:
    kinds = [kind for kind in judged_kinds(explosions) if kind.activation == "relu"]
    return max(kinds, key=lambda kind: kind.batch, default=None)


def _yang_claim(explosions: Explosions) -> Claim:
    kind = _large_relu(explosions)
    assert kind is not None
    (plain,) = explosions.kinds("rates", norm="none", activation="relu")
    normed, bare = explosions.found[kind].gradient_rate(), explosions.found[plain].gradient_rate()
    near = abs(normed.value - rate(kind)) <= slack(normed, kind) and abs(bare.value - 1) <= slack(bare, plain)
    apart = normed.value - slack(normed, kind) > bare.value + slack(bare, plain)
    at_limit = abs(normed.value - math.pi / (math.pi - 1)) <= slack(normed, kind)
    return Claim(
        statement="ReLU with batch normalisation of large batches multiplies the squared gradient norm by "
        "π/(π − 1) ≈ 1.467 per layer, where He's initialisation without it keeps the norm.",
        source=YANG,
        predicted=f"1.467 as B → ∞ ({number(rate(kind), digits=4)} at B = {kind.batch}); 1 without",
        measured=f"{with_error(normed.value, normed.se)}; {with_error(bare.value, bare.se)} without",
        verdict=_verdict(near, told=apart and at_limit),
        evidence=f"B = {kind.batch}, width {kind.width}, {normed.networks} and {bare.networks} networks. Contradicted "
        f"if either is farther than {FEW} from its value; supported if the two are farther apart than that and the "
        "first is as near to 1.467.",
    )


def _power_claim(explosions: Explosions) -> Claim:
    (kind,) = [k for k in explosions.kinds("skips", norm="batch") if k.block == "residual"]
    found = explosions.found[kind]
    measured, predicted = found.gradient_power(), power(kind, found)
    layers = kind.depth - 2 * found.edge - 1
    alternative = layers * math.log(rate(kind)) / math.log((kind.depth - found.edge) / (found.edge + 1))
    margin = ALLOWED * measured.se + FINITE_WIDTH / kind.width * predicted
    return Claim(
        statement="In residual networks with batch normalisation gradients grow as a power of depth, (L/l)^λ_G, not "
        "exponentially.",
        source="De & Smith 2020, arXiv:2002.10444, for the lengths; docs/derivations/residual_moments.md",
        predicted=f"exponent {number(predicted)} (→ λ_G = {number(rate(kind), digits=4)} as L → ∞)",
        measured=with_error(measured.value, measured.se),
        verdict=_verdict(abs(measured.value - predicted) <= margin, told=alternative - measured.value > margin),
        evidence=f"Slope of ln ‖g‖² in ln l through blocks {found.edge + 1} and {kind.depth - found.edge} of "
        f"{kind.depth}, width {kind.width}, {measured.networks} networks; margin {number(margin, digits=2)} "
        f"({number(ALLOWED, digits=1)} standard errors, and {FINITE_WIDTH:g}/N of it). Growth by λ_G per block "
        f"would be {number(alternative)}.",
    )


def growth_over_depth(explosions: Explosions, kind: Kind) -> tuple[Scalar, float]:
    """Return ln of the growth of the squared gradient norm over all layers, measured and predicted."""
    found = explosions.found[kind]
    values = found.log_gradient[:, 0] - found.log_gradient[:, -1]
    measured = Scalar.over_networks(values, symbol="ln ‖g₁‖²/‖g_L‖²", label="growth over all layers")
    return measured, float(log_gradients(kind)[0])


def _skips_claim(explosions: Explosions) -> Claim:
    """Normalisation must make growth worse in plain networks and better in residual ones."""
    grown = {(k.block, k.norm): growth_over_depth(explosions, k)[0] for k in explosions.kinds("skips")}
    added = {}
    for block in ("plain", "residual"):
        with_norm, without = grown[block, "batch"], grown[block, "none"]
        added[block] = (with_norm.value - without.value, ALLOWED * math.hypot(with_norm.se, without.se))
    right = {block: sign * added[block][0] > added[block][1] for block, sign in (("plain", 1), ("residual", -1))}
    wrong = {block: sign * added[block][0] < -added[block][1] for block, sign in (("plain", 1), ("residual", -1))}
    (kind, *_) = explosions.kinds("skips")
    return Claim(
        statement="Batch normalisation makes gradients explode where there are no skip connections, and keeps them "
        "from exploding where there are: both observations are right.",
        source=f"{YANG}, fully connected without skips; {BJORCK}, residual networks",
        predicted="plain: more growth with it; residual: less",
        measured="; ".join(
            f"{block}: × {_power_of_ten(grown[block, 'none'].value)} without, × "
            f"{_power_of_ten(grown[block, 'batch'].value)} with"
            for block in ("plain", "residual")
        ),
        verdict="contradicted" if any(wrong.values()) else ("supported" if all(right.values()) else "inconclusive"),
        evidence=f"Growth of the squared gradient norm over {kind.depth} layers or blocks of width {kind.width} with "
        f"B = {kind.batch}, by more than {number(ALLOWED, digits=1)} standard errors of its logarithm.",
    )


def _power_of_ten(log: float) -> str:
    return number(math.exp(log), digits=2)


def late_rate(explosions: Explosions, kind: Kind) -> Scalar:
    """Return the rate in the second half of the layers, counted from the input, both ends of it left out."""
    found = explosions.found[kind]
    steps = found.gradient_steps
    late = np.exp(steps[:, steps.shape[1] // 2 :]).mean(axis=1)
    return Scalar.over_networks(late, symbol="λ", label="rate in late layers")


def _stability_claim(explosions: Explosions) -> Claim:
    """Deep networks leave the rate of an unstable fixed point, and keep that of a stable one."""
    kinds = explosions.kinds("deep", norm="batch")
    late = {kind: late_rate(explosions, kind) for kind in kinds}
    left = [kind for kind, one in late.items() if abs(one.value - rate(kind)) > slack(one, kind)]
    unstable = [kind for kind in kinds if not is_stable(kind)]
    wrong = [kind for kind in left if kind not in unstable]
    stayed = [kind for kind in unstable if kind not in left]
    said = "; ".join(
        f"{kind.name} {with_error(one.value, one.se)} (λ_G = {number(rate(kind), digits=4)}"
        f"{', unstable' if kind in unstable else ''})"
        for kind, one in late.items()
    )
    return Claim(
        statement="Deep networks keep the rate λ_G where the fixed point is stable and leave it where it is not.",
        source="docs/derivations/batch_norm_mean_field.md, forward eigenvalues",
        predicted="; ".join(f"{NAMES[a]} unstable from B = {first_unstable(a)}" for a in ("gelu", "silu")),
        measured=said,
        verdict="contradicted" if wrong else ("supported" if unstable and not stayed else "inconclusive"),
        evidence=f"Mean rate over the second half of the inner layers of {kinds[0].depth}, B = {kinds[0].batch}, width "
        f"{kinds[0].width}, against {FEW}. A stable one that left contradicts; an unstable one that has not left yet "
        f"({_listed(stayed)}) leaves it open.",
    )


def _verdict(holds: bool, *, told: bool) -> str:
    return "contradicted" if not holds else ("supported" if told else "inconclusive")


def _listed(kinds: list[Kind]) -> str:
    return (
        "; ".join(f"{kind.name}, B = {kind.batch}" if kind.norm == "batch" else kind.name for kind in kinds) or "none"
    )
