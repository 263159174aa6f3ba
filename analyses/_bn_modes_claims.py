"""The eight facts and what follows from them, judged on the records of `rmtbn bn-modes`."""

import math
from collections.abc import Mapping
from types import MappingProxyType

from rmtbn.report.number import number, with_error
from rmtbn.report.page import Claim
from rmtbn.result import Scalar

from . import _paper_claims as judged
from ._bn_modes_records import MOMENTA, Modes

EXACT = 1e-4  # float32 leaves less than this of a number that is exact
MARGIN = 1.25  # a mean square within this factor of its law follows it
GAP = 0.02  # accuracies within two points are no gap
USUAL = 0.1  # torch's default momentum
IOFFE = "Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 2"
TORCH = "torch.nn.BatchNorm2d, documentation"
RULE = (
    f"A number that is exact must be met to {EXACT:g} by every network, counts of entries and refusals included; one "
    "of which only the sign is known (—) must be above 0 by the rule above. A fact is supported if all its numbers "
    "are, and contradicted if one is."
)
# Number -> what is said, and where.
FACTS: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        1: (("Train mode normalises by the biased variance and stores the unbiased one; the momentum is the weight of "
             "the new value, None averages all, and ε = 0 is refused."), f"{IOFFE}; {TORCH}"),
        2: ("Passes in train mode update the statistics without gradients too; passes in eval mode do not.", TORCH),
        3: ("A checkpoint of parameters alone loses the statistics; a whole one goes on bit for bit.",
            "rmtbn.train.checkpoint"),
        4: ("Activation checkpointing updates twice, so that the momentum m acts as 1 − (1 − m)².",
            "torch.utils.checkpoint; rmtbn.train.batchnorm.checkpointed"),
        5: ("Probes in train mode move the statistics unless these are put back.",
            "rmtbn.train.batchnorm.statistics_kept"),
        6: ("Averaged weights need statistics of their own.",
            "Izmailov et al. 2018, arXiv:1803.05407, section 3.2; rmtbn.train.batchnorm.recalibrate"),
        7: (("Accumulated micro-batches each have their own statistics and each update them; a single value per "
             "channel is refused, and batches of single classes distort."), "rmtbn.train.batchnorm.one_update"),
        8: ("After k steps the share (1 − m)^k of the first statistics is left.", "rmtbn.theory.running_average"),
    }
)  # fmt: skip


def claims(found: Modes) -> tuple[Claim, ...]:
    """Judge the facts, then what running statistics are good for."""
    return (*(_fact(found, fact) for fact in FACTS), _law(found), _lag(found), _gap(found))


def holds(predicted: float, measured: Scalar, values_differ: float) -> str:
    """Judge one number of a fact; `values_differ` is the most that a network is away from `predicted`."""
    if math.isnan(predicted):
        return judged.above(measured, 0.0)
    return "supported" if values_differ <= EXACT else "contradicted"


def _fact(found: Modes, fact: int) -> Claim:
    statement, source = FACTS[fact]
    rows = found.fact_rows(fact)
    return Claim(
        statement=statement,
        source=f"{source} (fact {fact} of {len(FACTS)})",
        predicted=", ".join(exact(predicted) for _, predicted, _ in rows),
        measured=", ".join(written(one) for _, _, one in rows),
        verdict=judged.together(*(holds(p, one, found.furthest(fact, what)) for what, p, one in rows)),
        evidence=f"{'; '.join(what for what, _, _ in rows)}. {counted(found)}",
    )


def _law(found: Modes) -> Claim:
    usual, small = (tuple(m for m in MOMENTA if (m >= USUAL) == large) for large in (True, False))
    layers = range(found.layer_count)
    ratio = found.held_over_law(layers, momenta=usual)
    first, others = (found.held_over_law(some, momenta=small) for some in (layers[:1], layers[1:]))
    return Claim(
        statement="At weights that are held, running means of the usual momentum and larger ones err by the noise of "
        "the batches alone: the spread of their means times the law of an average over shuffled epochs.",
        source="docs/derivations/running_average.md",
        predicted=f"mean square over its law between {number(1 / MARGIN)} and {MARGIN}",
        measured=written(ratio),
        verdict=judged.between(ratio, 1 / MARGIN, MARGIN),
        evidence=f"All {found.layer_count} layers, momenta {', '.join(map(str, usual))}, |B| = "
        f"{', '.join(map(str, found.batches))}. At momenta {', '.join(map(str, small))}: {written(first)} in the first "
        f"layer, {written(others)} in the others, whose batch means do not add up to a constant over an epoch. "
        f"{counted(found)}",
    )


def _lag(found: Modes) -> Claim:
    smallest = MOMENTA[0]
    held, moving = (found.log_ratio(column, smallest, USUAL) for column in ("held_square", "trained_square"))
    return Claim(
        statement=f"A momentum of {smallest} averages noise better than {USUAL}, and yet after training its running "
        "means are further off: they lag.",
        source="facts 1 and 8",
        predicted="ratio of errors below 1 at held weights, above 1 after training",
        measured=f"{judged.geometric(held)} at held weights, {judged.geometric(moving)} after training",
        verdict=judged.together(judged.below(held, 0.0), judged.above(moving, 0.0)),
        evidence=f"Root mean square error of running means at momentum {smallest} over that at {USUAL}. "
        f"{counted(found)}",
    )


def _gap(found: Modes) -> Claim:
    gaps = {batch: found.gap(batch, USUAL) for batch in found.batches}
    return Claim(
        statement=f"With the usual momentum {USUAL}, train and eval mode are equally accurate at the end of training.",
        source=f"{IOFFE}, for running averages in place of population statistics",
        predicted=f"difference within {GAP:.0%} at every batch size",
        measured=", ".join(f"{percent(gap)} (|B| = {batch})" for batch, gap in gaps.items()),
        verdict=judged.together(*(judged.between(gap, -GAP, GAP) for gap in gaps.values())),
        evidence=f"Accuracy with batch statistics minus that with running ones. {counted(found)}",
    )


def counted(found: Modes) -> str:
    """Say what the numbers are from."""
    return (
        f"{found.networks} networks, ResNet-{found.depth} with batch norm, {found.train:,} images, {found.epochs} "
        f"epochs, tested on {found.test:,} others."
    )


def written(one: Scalar) -> str:
    """Write a mean with its error, or without where networks do not differ."""
    known = one.networks > 1 and one.se > EXACT * abs(one.value)
    return with_error(one.value, one.se) if known else exact(one.value)


def exact(value: float) -> str:
    """Write a number without error: counts as such."""
    return str(int(value)) if value in {0.0, 1.0} else number(value, digits=4)


def percent(one: Scalar) -> str:
    """Write a difference of accuracies in per cent."""
    known = one.networks > 1 and one.se > 0
    return f"({with_error(100 * one.value, 100 * one.se)}) %" if known else f"{number(100 * one.value, digits=2)} %"
