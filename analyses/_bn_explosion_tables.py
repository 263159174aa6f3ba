"""The tables of `rmtbn bn-explosion`."""

import math

from rmtbn.report.number import number, with_error
from rmtbn.report.page import Table

from ._bn_explosion_claims import growth_over_depth
from ._bn_explosion_records import (
    FEWEST,
    NAMES,
    Explosions,
    Kind,
    depth_grown,
    first_unstable,
    is_stable,
    largest_eigenvalue,
    point,
    rate,
)

SHOWN = (8, 32, 128, 512)  # batches of the tables


def cost_table(explosions: Explosions) -> Table:
    """List after how many layers the gradient norm has grown 10³."""
    return Table(
        caption="Layers after which the gradient norm has grown 10³ by the mean field, 6 ln 10/ln λ_G, by batch size; "
        "measured from the rate, and predicted for it, at the largest batch that is no larger than the width.",
        columns=("activation", *(f"B = {b}" for b in SHOWN), "B → ∞", "measured", "predicted", "at B"),
        rows=tuple(_cost_row(explosions, activation) for activation in explosions.activations()),
    )


def _cost_row(explosions: Explosions, activation: str) -> tuple[str, ...]:
    kinds = [k for k in explosions.kinds("rates", norm="batch", activation=activation) if FEWEST <= k.batch <= k.width]
    measured = there = at = "—"
    if kinds:
        kind = max(kinds, key=lambda k: k.batch)
        found, there, at = explosions.found[kind].gradient_rate(), _layers(depth_grown(rate(kind))), str(kind.batch)
        low, high = depth_grown(found.value + found.se), depth_grown(found.value - found.se)
        measured = " to ".join(dict.fromkeys((_layers(low), _layers(high))))
    predicted = (depth_grown(point(activation, b).explosion_rate) for b in (*SHOWN, math.inf))
    return (NAMES.get(activation, activation), *(_layers(depth) for depth in predicted), measured, there, at)


def _layers(depth: float) -> str:
    return "never" if depth > 1e6 else f"{depth:.0f}" if depth >= 20 else f"{depth:.1f}"


def stability_table() -> Table:
    """List the largest eigenvalue of the forward map by activation and batch."""
    return Table(
        caption="The largest eigenvalue of the forward map; unstable ones are marked.",
        columns=("activation", *(f"B = {b}" for b in SHOWN), "unstable from"),
        rows=tuple(_stability_row(activation) for activation in ("linear", "relu", "tanh", "erf", "gelu", "silu")),
    )


def _stability_row(activation: str) -> tuple[str, ...]:
    values = [largest_eigenvalue(activation, b) for b in SHOWN]
    start = first_unstable(activation)
    shown = (number(value, digits=4) + (" *" if value > 1 else "") for value in values)
    return (NAMES.get(activation, activation), *shown, "—" if start is None else f"B = {start}")


def skip_table(explosions: Explosions) -> Table:
    """List the growth of gradients over all layers, with skip connections and norm and without."""
    kinds = explosions.kinds("skips")
    return Table(
        caption=f"Growth of the squared gradient norm over all {kinds[0].depth} layers or blocks: natural logarithm.",
        columns=("network", "measured", "predicted", "factor measured"),
        rows=tuple(_skip_row(explosions, kind) for kind in kinds),
    )


def _skip_row(explosions: Explosions, kind: Kind) -> tuple[str, ...]:
    measured, predicted = growth_over_depth(explosions, kind)
    norm = "batch norm" if kind.norm == "batch" else "no norm"
    factor = number(math.exp(measured.value), digits=2)
    return (f"{kind.block}, {norm}", with_error(measured.value, measured.se), number(predicted), factor)


def rates_table(explosions: Explosions) -> Table:
    """List the rates of all kinds of network."""
    return Table(
        caption="Growth per layer, measured and predicted: of the squared gradient norm, of ‖J‖², and of the squared "
        "gradient norm of a typical network (exp of the mean of the logarithm). ° the errors mean nothing (B ≤ 5); * "
        "the fixed point is unstable.",
        columns=("kind", "B", "predicted", "gradient", "‖J‖²", "typical gradient", "networks"),
        rows=tuple(_row(explosions, kind) for kind in explosions.kinds("rates")),
    )


def _row(explosions: Explosions, kind: Kind) -> tuple[str, ...]:
    found = explosions.found[kind]
    rates = (found.gradient_rate(), found.jacobian_rate(), found.typical_gradient_rate())
    normed = kind.norm == "batch"
    mark = ("" if is_stable(kind) else " *") + (" °" if normed and kind.batch < FEWEST else "")
    return (
        kind.name + ("" if normed else ", no norm") + mark,
        str(kind.batch),
        number(rate(kind), digits=5),
        *(with_error(one.value, one.se) for one in rates),
        str(rates[0].networks),
    )
