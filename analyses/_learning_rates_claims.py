"""The claims of `rmtbn learning-rates`: 1 to 6 and 17 of the paper."""

import math
from collections.abc import Mapping

from rmtbn.report.number import number, with_error
from rmtbn.report.page import Claim
from rmtbn.result import Scalar
from rmtbn.sweep.run import Records

from . import _paper_claims as judged
from ._image_networks import NAMES, OTHER_NORMS
from ._learning_rates_records import LARGE, MIDDLE, SMALL, Trained

TRAINS = 0.2  # training accuracy above which a network has trained: twice that of guessing among ten classes
ALIKE = 0.05  # claim 2: accuracies that differ by less
SLOWER = 3.0  # claim 5: times as many epochs
SINGLE = 0.03  # claim 17: the largest rate of the paper with one norm


def claims(records: Records) -> Mapping[int, Claim]:
    """Judge claims 1 to 6 and 17."""
    found = Trained(records)
    return {
        1: _rates(found),
        2: _alike(found),
        3: _rising(found),
        4: _gap(found),
        5: _epochs(found),
        6: _norms(found),
        17: _single(found),
    }


def _rates(found: Trained) -> Claim:
    plain = {rate: found.mean("none", rate, "train_accuracy") for rate in found.rates("none")}
    normed = found.mean("final", LARGE, "train_accuracy")
    verdicts = [
        judged.above(one, TRAINS) if rate == SMALL else judged.below(one, TRAINS) for rate, one in plain.items()
    ]
    return judged.claim(
        1,
        predicted=f"training accuracy above {TRAINS} without norm at {number(SMALL, digits=1)} alone; with norm, at "
        f"{number(LARGE, digits=1)}",
        measured=_listed({**{f"no norm, {number(r, digits=1)}": one for r, one in plain.items()}, f"{NAMES['final']}, "
                          f"{number(LARGE, digits=1)}": normed}),
        verdict=judged.together(*verdicts, judged.above(normed, TRAINS)),
        evidence=f"Guessing among ten classes is right for a tenth. {_counted(found)}",
    )  # fmt: skip


def _alike(found: Trained) -> Claim:
    apart = found.difference(("final", SMALL), ("none", SMALL), "test_accuracy")
    return judged.claim(
        2,
        predicted=f"at {number(SMALL, digits=1)}, test accuracies with norm and without are less than {ALIKE} apart",
        measured=f"with norm less without {_written(apart)}",
        verdict=judged.between(apart, -ALIKE, ALIKE),
        evidence=_counted(found),
    )


def _rising(found: Trained) -> Claim:
    steps = {
        f"{number(low, digits=1)} to {number(high, digits=1)}": found.difference(
            ("final", high), ("final", low), "test_accuracy"
        )
        for low, high in ((SMALL, MIDDLE), (MIDDLE, LARGE))
    }
    return judged.claim(
        3,
        predicted="test accuracy is higher at each rate than at the next smaller one",
        measured=_listed(steps),
        verdict=judged.together(*(judged.above(one, 0.0) for one in steps.values())),
        evidence=f"{NAMES['final'].capitalize()}. {_lengths(found)} {_counted(found)}",
    )


def _gap(found: Trained) -> Claim:
    steps = {
        f"{number(low, digits=1)} to {number(high, digits=1)}": found.difference(("final", high), ("final", low), "gap")
        for low, high in ((SMALL, MIDDLE), (MIDDLE, LARGE))
    }
    return judged.claim(
        4,
        predicted="training less test accuracy is smaller at each rate than at the next smaller one",
        measured=_listed(steps),
        verdict=judged.together(*(judged.below(one, 0.0) for one in steps.values())),
        evidence=f"{NAMES['final'].capitalize()}, both in eval mode after training. {_lengths(found)} A network that "
        f"has not yet fitted its images has no gap, which is no merit of the rate. {_counted(found)}",
    )


def _epochs(found: Trained) -> Claim:
    slower = found.log_plateaus("final", SMALL, LARGE)
    return judged.claim(
        5,
        predicted=f"more than {number(SLOWER, digits=1)} times as many epochs to the plateau at "
        f"{number(SMALL, digits=1)} as at {number(LARGE, digits=1)}",
        measured=f"{judged.geometric(slower)} times",
        verdict=judged.above(slower, math.log(SLOWER)),
        evidence=f"{NAMES['final'].capitalize()}. A plateau comes no later than the end of a run: one too short hides "
        f"how slow it is. {_lengths(found)} {_counted(found)}",
    )


def _norms(found: Trained) -> Claim:
    accuracies = {kind: found.mean(kind, LARGE, "train_accuracy") for kind in OTHER_NORMS}
    return judged.claim(
        6,
        predicted=f"training accuracy above {TRAINS} at {number(LARGE, digits=1)} with each norm",
        measured=_listed({NAMES[kind]: one for kind, one in accuracies.items()}),
        verdict=judged.together(*(judged.above(one, TRAINS) for one in accuracies.values())),
        evidence=f"Without norm at the same rate {_written(found.mean('none', LARGE, 'train_accuracy'))}. "
        f"{_counted(found)}",
    )


def _single(found: Trained) -> Claim:
    gain, more = found.gain("only_final")
    accuracies = {
        f"{NAMES[kind]}, {number(rate, digits=1)}": found.mean(kind, rate, "train_accuracy")
        for kind, rate in (("only_final", SINGLE), ("none", MIDDLE))
    }
    one, plain = accuracies.values()
    full = found.best("final").mean() - found.best("none").mean()
    return judged.claim(
        17,
        predicted=f"training accuracy above {TRAINS} at {number(SINGLE, digits=1)}, and below it without norm at "
        f"{number(MIDDLE, digits=1)} already; more than half of the gain in test accuracy at the best rate",
        measured=f"{_listed(accuracies)}; gain {_written(gain)} of {number(full, digits=2)}",
        verdict=judged.together(judged.above(one, TRAINS), judged.below(plain, TRAINS), judged.above(more, 0.0)),
        evidence="The gain is the best test accuracy over rates less that without norm, beside that of batch norm "
        f"everywhere. {_counted(found)}",
    )


def _listed(numbers: Mapping[str, Scalar]) -> str:
    return ", ".join(f"{_written(one)} ({name})" for name, one in numbers.items())


def _written(one: Scalar) -> str:
    return with_error(one.value, one.se) if one.networks > 1 and one.se > 0 else number(one.value)


def _lengths(found: Trained) -> str:
    epochs = ", ".join(f"{found.epochs(rate)} at {number(rate, digits=1)}" for rate in found.rates("final"))
    return f"Epochs: {epochs}."


def _counted(found: Trained) -> str:
    return (
        f"{found.networks} networks at each rate, depth {found.depth}, {found.train} training images, {found.test} "
        "test images."
    )
