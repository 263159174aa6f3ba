"""The claims of `rmtbn max-rate`: 26 and 30 of the paper, and the factor between networks with norm and without."""

import math
from collections.abc import Mapping
from itertools import pairwise

from rmtbn.report.number import number, with_error
from rmtbn.report.page import Claim
from rmtbn.sweep.run import Records

from . import _paper_claims as judged
from ._max_rate_records import Rates

FACTOR = 30.0  # with norm over without; the paper's rates are 1000 apart, 0.1 and 1e-4


def claims(records: Records) -> Mapping[int, Claim]:
    """Judge claims 26 and 30."""
    found = Rates(records)
    return {26: _shallower(found), 30: _conditioning(found)}


def factor(found: Rates) -> Claim:
    """Judge that with batch normalisation far larger rates train, at the largest depth, network by network.

    NOTE: not by the interval of a mean over networks: their rates are steps of a grid, and differ by factors.
    """
    deepest = found.depths[-1]
    ratio, (low, high) = found.log_ratio(deepest), found.ends_of_ratio(deepest)
    verdict = "supported" if low > FACTOR else "contradicted" if high < FACTOR else "inconclusive"
    return Claim(
        statement=f"Batch normalisation permits at least {number(FACTOR, digits=2)} times the rate.",
        source="Bjorck et al. 2018, arXiv:1806.02375, section 3.1, has rates of 0.1 with it and 1e-4 without; the "
        "bound is ours",
        predicted="in every network the largest rate with batch norm is more than "
        f"{number(FACTOR, digits=2)} times that without",
        measured=f"{judged.geometric(ratio)} times ({deepest} layers); in single networks between "
        f"{number(low, digits=2)} and {number(high, digits=2)} times",
        verdict=verdict if found.networks > 1 else "inconclusive",
        evidence="The rule is its own: supported if it holds in every network, wherever in their intervals the two "
        "largest rates are; contradicted if it fails in every one, wherever they are. The interval of the mean, in "
        f"which networks that differ by factors weigh heavily, gives “{judged.above(ratio, math.log(FACTOR))}”. The "
        "same ratio of the largest rates that do not diverge, at which networks may have died, is "
        f"{judged.geometric(found.log_ratio(deepest, column='stable'))}. The same weights and images with and without "
        f"norm. {_counted(found)}",
    )


def _shallower(found: Rates) -> Claim:
    gains = {pair: found.log_gain(*pair) for pair in pairwise(found.depths)}
    return judged.claim(
        26,
        predicted="the largest rate that trains is larger at each depth than at the next",
        measured=", ".join(f"{judged.geometric(g)} times ({a} to {b} layers)" for (a, b), g in gains.items()),
        verdict=judged.together(*(judged.above(gain, 0.0) for gain in gains.values())),
        evidence=_counted(found),
    )


def _conditioning(found: Rates) -> Claim:
    (rate, r2), (loss, _) = found.slope("log_rate"), found.slope("best")
    return judged.claim(
        30,
        predicted="over depths without norm, the larger the curvature λ_max at initialisation, the smaller the largest "
        "rate and the higher the loss that is reached",
        measured=f"slope of ln rate against ln λ_max {with_error(rate.value, rate.se)} (R² {r2:.2f}), of the loss "
        f"{with_error(loss.value, loss.se)}",
        verdict=judged.together(judged.below(rate, 0.0), judged.above(loss, 0.0)),
        evidence="The Hessian at initialisation is indefinite and has no condition number; its largest eigenvalue, the "
        "numerator of one, stands for it. Were it all that bounds the rate, the first slope would be −1. The loss is "
        f"the lowest over the rates that were tried. {_counted(found)}",
    )


def _counted(found: Rates) -> str:
    return (
        f"{found.networks} networks of each kind and depth, {found.examples} images, {found.passes} passes. The error "
        "has the distance of neighbouring rates in it."
    )
