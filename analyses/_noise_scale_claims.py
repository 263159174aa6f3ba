"""What Smith & Le 2018 and De & Smith 2020 say of rates and batch sizes, judged on the records of `noise-scale`."""

import math
from collections.abc import Iterator

from rmtbn.report.number import number, with_error
from rmtbn.report.page import Claim
from rmtbn.result import Scalar

from . import _paper_claims as judged
from ._image_networks import NAMES
from ._noise_scale_records import KINDS, Runs

SMITH_LE = "Smith & Le 2018, arXiv:1710.06451"
DE_SMITH = "De & Smith 2020, arXiv:2002.10444"
MARGIN = 0.05  # accuracies within five points of each other are one curve
SLOPE = 0.5  # halfway between a best rate that does not depend on the batch and one in proportion to it
RULE = (
    f"Curves collapse if, at equal α/|B|, accuracies at different batch sizes differ by less than {MARGIN:.0%} (root "
    "mean square over pairs of runs neither of which diverged) and by less than at equal α. The best rate of a network "
    "is that of its highest test accuracy on the grid, the geometric mean of several that tie; the choice by test "
    "accuracy favours all kinds alike. Networks of one seed have the same images and first weights, so differences are "
    "taken seed by seed."
)


def claims(found: Runs) -> tuple[Claim, ...]:
    """Judge all of them."""
    collapses = (_collapse(found, kind, rising=rising) for rising in (False, True) for kind in KINDS)
    return (*collapses, *_counterpoint(found), _proportional(found))


def _collapse(found: Runs, kind: str, *, rising: bool) -> Claim:
    spread, ratio = found.spread(kind, "scale", rising=rising), found.log_collapse(kind, rising=rising)
    limit = ", up to the rate that is best for each batch size" if rising else ""
    ends = f"{number(found.rates[0])} to {number(found.rates[-1])}"
    reach = f"from {number(found.rates[0])} up" if rising else f"{ends}; the farther beyond what trains, the less alike"
    return Claim(
        statement=f"Test accuracy depends on rate and batch size through α/|B| alone{limit} ({NAMES[kind]}).",
        source=SMITH_LE,
        predicted=f"differences at equal α/|B| below {MARGIN:.0%}, and below those at equal α",
        measured=f"{points(spread)}; {judged.geometric(ratio)} times those at equal α",
        verdict=judged.together(judged.below(spread, MARGIN), judged.below(ratio, 0.0)),
        evidence=f"Rates {reach}. {counted(found)}",
    )


def _counterpoint(found: Runs) -> Iterator[Claim]:
    small, large = found.batches[0], found.batches[-1]
    growth, ratio = found.gap_growth(), found.log_ratio_growth()
    yield Claim(
        statement="What batch norm adds to the best accuracy is less at small batch than at large.",
        source=DE_SMITH,
        predicted="growth of the difference from the smallest batch to the largest above 0",
        measured=f"{points(growth)}: from {points(found.gap(small))} at |B| = {small} to "
        f"{points(found.gap(large))} at {large}",
        verdict=judged.above(growth, 0.0),
        evidence=f"Best accuracy with batch norm minus best without. {counted(found)}",
    )
    yield Claim(
        statement="The best rates with batch norm and without are closer at small batch than at large.",
        source=DE_SMITH,
        predicted="ratio of best rates, at the largest batch over that at the smallest: above 1",
        measured=f"{judged.geometric(ratio)}: from {judged.geometric(found.log_rate_ratio(small))} at |B| = {small} to "
        f"{judged.geometric(found.log_rate_ratio(large))} at {large}",
        verdict=judged.above(ratio, 0.0),
        evidence=f"Best rate with batch norm over best rate without. {counted(found)}",
    )


def _proportional(found: Runs) -> Claim:
    slopes = {kind: found.rate_slope(kind) for kind in KINDS}
    return Claim(
        statement="With batch norm the best rate grows in proportion to the batch size; without, it soon stops.",
        source=DE_SMITH,
        predicted=f"slope of ln best rate in ln |B| above {SLOPE} with batch norm, below without",
        measured=", ".join(f"{with_error(one.value, one.se)} ({NAMES[kind]})" for kind, one in slopes.items()),
        verdict=judged.together(judged.above(slopes["batch"], SLOPE), judged.below(slopes["none"], SLOPE)),
        evidence=f"|B| = {', '.join(map(str, found.batches))}, least squares. {counted(found)}",
    )


def counted(found: Runs) -> str:
    """Say what the numbers are from."""
    return (
        f"{found.networks} networks for every kind, batch and rate, ResNet-{found.depth}, {found.train:,} images, "
        f"{found.epochs} epochs, tested on {found.test:,} others."
    )


def points(one: Scalar) -> str:
    """Write a difference of accuracies in per cent with its error."""
    if one.networks < 2 or not math.isfinite(one.value):
        return f"{number(100 * one.value, digits=2)} %"
    return f"({with_error(100 * one.value, 100 * one.se)}) %" if one.se else f"{number(100 * one.value, digits=2)} %"
