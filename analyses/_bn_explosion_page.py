"""The page of `rmtbn bn-explosion`: rates over batches, their price, stability, and networks with skip connections."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from rmtbn.report.page import Block, Figure, Page, Section

from . import _bn_explosion_figures as figures
from ._bn_explosion_claims import claims, growth_over_depth
from ._bn_explosion_records import (
    FEWEST,
    FINITE_WIDTH,
    Explosions,
    Kind,
    crossing,
    depth_grown,
    first_unstable,
    is_stable,
    rate,
)
from ._bn_explosion_tables import cost_table, rates_table, skip_table, stability_table


def page(explosions: Explosions, *, manifest: Mapping[str, str]) -> Page:
    """Write the page."""
    judged = tuple(claims(explosions))
    verdicts = [claim.verdict for claim in judged]
    sections = (
        ("What is measured", _introduction),
        ("The rate against the batch", _rate_blocks),
        ("What it costs", _cost_blocks),
        ("Where the fixed point is not stable", _stability_blocks),
        ("With and without skip connections", _skip_blocks),
        ("Finite width", _width_blocks),
    )
    return Page(
        title="Explosion of gradients under batch normalisation",
        summary=f"{_headline(explosions)}{verdicts.count('supported')} of {len(judged)} claims supported.",
        sections=(
            *(Section(title=title, blocks=found) for title, write in sections if (found := tuple(write(explosions)))),
            Section(title="Claims", blocks=judged or ("There is no claim for this kind of network alone.",)),
            Section(title="Numbers", blocks=(rates_table(explosions),)),
        ),
        manifest=manifest,
    )


def numbers(explosions: Explosions) -> dict[str, Any]:
    """Return, per part and kind, the measured rates and what is predicted."""
    return {part: [_numbers(explosions, kind) for kind in kinds] for part, kinds in _parts(explosions).items()}


def _parts(explosions: Explosions) -> dict[str, list[Kind]]:
    return {part: explosions.kinds(part) for part in dict.fromkeys(kind.part for kind in explosions.found)}


def _numbers(explosions: Explosions, kind: Kind) -> dict[str, Any]:
    found = explosions.found[kind]
    gradient, jacobian, typical = found.gradient_rate(), found.jacobian_rate(), found.typical_gradient_rate()
    whole, predicted = growth_over_depth(explosions, kind)
    return {
        **kind.parameters(),
        "networks": gradient.networks,
        "predicted_rate": rate(kind) if kind.block == "plain" else None,
        "gradient_rate": gradient.value,
        "gradient_rate_se": gradient.se,
        "jacobian_rate": jacobian.value,
        "jacobian_rate_se": jacobian.se,
        "typical_gradient_rate": typical.value,
        "typical_gradient_rate_se": typical.se,
        "stable": is_stable(kind),
        "log_growth_over_depth": whole.value,
        "log_growth_over_depth_se": whole.se,
        "predicted_log_growth_over_depth": predicted,
    }


def _count(explosions: Explosions, kind: Kind) -> int:
    return len(explosions.found[kind].log_gradient)


def _headline(explosions: Explosions) -> str:
    """Say what batch normalisation does to gradients of the measured activations, at the largest batch."""
    said, without, batches = [], [], set()
    for activation in explosions.activations():
        normed = explosions.kinds("rates", norm="batch", activation=activation)
        bare = explosions.kinds("rates", norm="none", activation=activation)
        if normed and bare and activation != "leaky_relu":
            kind = max((k for k in normed if k.batch <= k.width), key=lambda k: k.batch, default=normed[-1])
            said.append(f"{explosions.found[kind].gradient_rate().value:.3f} ({kind.name})")
            without.append(explosions.found[bare[0]].gradient_rate().value)
            batches.add(str(kind.batch))
    if not said:
        return ""
    kept = " to ".join(dict.fromkeys((f"{min(without):.2f}", f"{max(without):.2f}")))
    return (
        f"With batch normalisation over B = {', '.join(sorted(batches))} examples the squared gradient norm is "
        f"multiplied per layer by {', '.join(said)}; without it by {kept}. "
    )


def _introduction(explosions: Explosions) -> Iterator[Block]:
    kinds = explosions.kinds("rates")
    yield (
        "Batch normalisation gives every unit of every layer the mean 0 and the variance 1 over the batch, so signals "
        "neither vanish nor blow up. Gradients do blow up: going back one layer multiplies their squared norm by λ_G > "
        "1, whatever the scale of the weights and whatever the activation. This page measures λ_G, says after how many "
        "layers it hurts, and shows why residual networks are helped by the same normalisation."
    )
    yield (
        f"Networks of width {kinds[0].width} and {kinds[0].depth} layers are drawn at their critical point, where they "
        "keep gradients without normalisation. The gradient is that of a random linear function of the output; the "
        "rate is the mean of ‖g at layer l − 1‖²/‖g at layer l‖² over the inner layers and over networks, with the "
        "standard error over networks. A fifth of the layers is left out at each end, where the batch and the gradient "
        "have not come to their stationary state. Nothing is fitted."
    )


def _rate_blocks(explosions: Explosions) -> Iterator[Block]:
    kinds = explosions.kinds("rates", norm="batch")
    if not kinds:
        return
    counts = sorted({explosions.found[kind].gradient_rate().networks for kind in kinds})
    networks = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    yield Figure(
        draw=partial(figures.draw_rates, explosions),
        size=(11.0, 4.6),
        caption=f"Left: growth per layer of the squared gradient norm, less 1, against the batch size; lines are the "
        f"mean field. Right: measured over predicted; the band is {FINITE_WIDTH:g}/N, what finite width may add. "
        f"Networks of width {kinds[0].width}, {kinds[0].depth} layers, {networks} of each kind, one standard error.",
        alt="Rates fall with the batch size towards a constant of each activation, linear ones towards 1; the points "
        "lie on their lines, and their deviations in the band except at the smallest batches.",
    )
    few = [kind for kind in kinds if kind.batch < FEWEST]
    yield (
        "Linear networks come closest to no explosion, (B − 2)/(B − 3): the price of dividing by a noisy variance. "
        "Every curve of an activation costs more, and keeps costing it for B → ∞: E φ′²/Var φ. "
        + (
            f"At B = {few[0].batch} the ratio of one layer has infinite variance, so that its error bars mean nothing "
            "and its mean converges slowly. "
            if few
            else ""
        )
        + "Beyond B = N, and for linear networks from B² ≈ 4N on, the mean field of wide networks is not claimed to "
        "hold: the growth of linear ones is then smaller than what finite width adds."
    )


def _cost_blocks(explosions: Explosions) -> Iterator[Block]:
    yield (
        "A gradient whose norm has grown 10³ from the last layer to the first (its square 10⁶) leaves no common "
        "learning rate for the two. The table says after how many layers that happens; deeper networks of the kind "
        "need skip connections, or a smaller learning rate in their first layers than in their last."
    )
    yield cost_table(explosions)
    deep = explosions.kinds("deep")
    if not deep:
        return
    passed = [(kind, crossing(explosions.found[kind].profile())) for kind in deep if kind.norm == "batch"]
    crossed = [f"{kind.name} {layers:.0f} ({depth_grown(rate(kind)):.0f})" for kind, layers in passed if layers]
    yield Figure(
        draw=partial(figures.draw_depth, explosions, deep),
        size=(8.4, 4.6),
        caption=f"The gradient norm, not squared, in networks of {deep[0].depth} layers with B = {deep[0].batch}, "
        f"width {deep[0].width}: mean of its logarithm over {_count(explosions, deep[0])} networks. "
        "Lines are λ_G; they bend at the first layer, which divides by the spread of the inputs and not by that of the "
        "fixed point. Dotted: 10³, passed after (predicted) "
        f"{', '.join(crossed) or 'more layers'} layers.",
        alt="Straight lines in a logarithmic scale that rise away from the output; without normalisation the line is "
        "flat.",
    )


def _stability_blocks(explosions: Explosions) -> Iterator[Block]:
    kinds = explosions.kinds("deep", norm="batch")
    if not kinds:
        return
    yield (
        "λ_G is the rate at the fixed point at which all examples of a batch are alike. A small deviation from it, "
        "some examples longer or closer than others, is multiplied per layer by the eigenvalues of the forward map. "
        f"GELU's largest passes 1 at B = {first_unstable('gelu')}, SiLU's at B = {first_unstable('silu')}: deep "
        "networks of these leave the fixed point, their batches become unequal, and their rate drifts away from λ_G. "
        "Linear, ReLU, tanh and erf stay; linear and ReLU come ever closer to 1 as B grows, so that they take some B "
        "layers to settle."
    )
    yield Figure(
        draw=partial(figures.draw_stability, explosions),
        size=(11.0, 4.6),
        caption="Left: largest eigenvalue of the forward map at the fixed point; above 1 it is unstable. Right: mean "
        f"ratio of squared gradients in groups of layers, {_count(explosions, kinds[0])} networks of width "
        f"{kinds[0].width} with B = {kinds[0].batch}, one standard error; lines are λ_G of the fixed "
        "point. In the last group the gradient has only just set out, and has not come to its own state.",
        alt="GELU and SiLU pass 1 at moderate batches; their rates leave their lines with depth, those of ReLU and "
        "tanh do not.",
    )
    yield stability_table()


def _skip_blocks(explosions: Explosions) -> Iterator[Block]:
    kinds = explosions.kinds("skips")
    if not kinds:
        return
    (normed,) = [kind for kind in kinds if (kind.block, kind.norm) == ("residual", "batch")]
    yield (
        "Yang et al. report that batch normalisation makes gradients explode, Bjorck et al. that it is what lets deep "
        "networks train. Both are right, of different networks. The first are fully connected without skip "
        "connections: without normalisation they keep gradients (He's initialisation), with it they multiply them by "
        "λ_G per layer. The second are residual, x + f(x): without normalisation every block doubles the signal and "
        "the squared gradient; with it the branch adds the same amount whatever x is, x grows like l, so that block l "
        "adds only its share 1/l, and the gradient grows like the power (L/l)^λ_G."
    )
    yield Figure(
        draw=partial(figures.draw_skips, explosions),
        size=(11.0, 4.6),
        caption=f"Squared gradient norm at every layer or block against that at the last: {normed.depth} layers or "
        f"blocks of ReLU, width {normed.width}, B = {normed.batch}, "
        f"{_count(explosions, normed)} networks of each kind. Lines: λ_G^(L−l), 1, 2^(L−l), and "
        "the product of the blocks' growth. Right: the two normalised networks on a logarithmic axis of depth, where "
        "a power is a straight line.",
        alt="Left: the residual network without norm rises steepest, the plain one with norm next, the residual one "
        "with norm hardly, the plain one without norm not at all. Right: the residual one is a straight line.",
    )
    yield skip_table(explosions)


def _width_blocks(explosions: Explosions) -> Iterator[Block]:
    kinds = explosions.kinds("widths")
    if not kinds:
        return
    yield (
        "The mean field is that of infinite width. At width N the measured rates are off by an amount of order 1/N, "
        f"for which there is no formula here. The claims allow {FINITE_WIDTH:g}/N of the rate, somewhat more than was "
        "seen in any network with a stable fixed point (docs/derivations/explosion_rates.md); the figure shows what it "
        "is."
    )
    counts = sorted({explosions.found[kind].gradient_rate().networks for kind in kinds})
    yield Figure(
        draw=partial(figures.draw_widths, explosions),
        size=(11.0, 4.2),
        caption=f"Deviation of the measured rates from λ_G against 1/N at B = {kinds[0].batch}, {kinds[0].depth} "
        f"layers, {counts[0]} networks of each kind, one standard error; the band is ±{FINITE_WIDTH:g}/N. Left: "
        "gradients; right: ‖J‖².",
        alt="Deviations of a few percent at the narrowest networks that shrink towards 0 as 1/N does.",
    )
