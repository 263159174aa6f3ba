"""How many factors to multiply before re-factorising, foretold from the growth of the blocks before."""

import math
from dataclasses import dataclass, replace

# Log amplification of a block is taken to be half that of an orthogonal factor plus a rate for each step. The rate
# follows the last blocks, and a block counts as so much over the limit at most. Of weights 0.2, 0.3, margins 0 … 1.5,
# starts of 0, half and all of that, and of means for each length and running straight lines, none did better by more
# than a tenth anywhere (recorded growth of 12 networks of 50 or 100 layers, tanh and ReLU, N = 64 … 512, at the limits
# of both dtypes and at that of float32 chains in float64).
_WEIGHT, _MARGIN, _OVER = 0.2, 0.5, 1.0
_LEAST_RATE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What was learnt from the blocks so far.

    Parameters
    ----------
    start
        Log amplification of a block that does not grow.
    rate
        Log amplification above that per step of late; 0 before the first block.
    barred
        Length from which on blocks were singular, though their steps alone are not.
    rest
        Blocks until such a length is tried again.
    patience
        How many it will be next time: batch normalisation makes all of them singular, a dead unit one.
    """

    start: float
    rate: float = 0.0
    barred: int = 2
    rest: int = 0
    patience: int = 2


def noted(pace: Pace, length: int, growth: float, *, limit: float) -> Pace:
    """Take note of the log amplification of a block.

    Parameters
    ----------
    pace
        What was learnt so far.
    length
        Number of steps in the block, >= 1.
    growth
        Its log amplification; infinite if it was singular.
    limit
        Above which blocks are taken back.

    Returns
    -------
    Pace
        What is known now.
    """
    pace = replace(pace, rest=max(0, pace.rest - 1))
    if math.isinf(growth):
        return replace(pace, barred=length, rest=pace.patience, patience=2 * pace.patience) if length > 1 else pace
    rate = max(_LEAST_RATE, min(growth, limit + _OVER) - pace.start) / length
    return replace(pace, rate=pace.rate + _WEIGHT * (rate - pace.rate) if pace.rate else rate)


def longest(pace: Pace, *, limit: float, at_most: int) -> int:
    """Choose the longest block that is foretold to stay below a limit.

    Parameters
    ----------
    pace
        As `noted` returns it.
    limit
        Of the log amplification.
    at_most
        The longest to be considered, >= 1.

    Returns
    -------
    int
        Number of steps, from 1 to `at_most`.
    """
    most = min(at_most, pace.barred - 1) if pace.rest else at_most
    foretold = int((limit - _MARGIN - pace.start) / pace.rate) if pace.rate else at_most
    return max(1, min(most, foretold))


def begun(rank: int) -> Pace:
    """Return the pace before the first block: a matrix with so many columns, if orthogonal, has ½ ln(rank/2)."""
    return Pace(start=0.25 * math.log(max(rank / 2, 1.0)))
