"""How many factors to multiply before re-factorising, foretold from the growth of the blocks before."""

import math

# Growth of blocks of one length scatters with an exponential tail of about one nat above its mean (Gaussian, tanh and
# batch-normalised layers, N = 12 … 512). A block that is cut costs a QR without its Q, a block too short a whole push:
# of margins 0 … 1.5 and caps on what a block counts for of 0.5 … 2, these were the fastest, with one block in five cut
# (recorded growth of nine chains of 50 or 100 layers, N = 32 … 256, at the limits of both dtypes).
_MARGIN = 0.5
# The mean follows the last few blocks of a length, and is forgotten after so many blocks of other lengths: then that
# length is tried again.
_WEIGHT, _FORGET = 0.3, 8
# A block counts as so much over the limit at most: batch normalisation makes all of them singular, a dead unit one.
_OVER = 1.0

# Length of a block → mean log amplification of late, and the number of blocks since.
Seen = dict[int, tuple[float, int]]


def noted(seen: Seen, length: int, growth: float, *, limit: float) -> Seen:
    """Take note of the log amplification of a block.

    Parameters
    ----------
    seen
        What was noted so far.
    length
        Number of steps in the block, >= 1.
    growth
        Its log amplification; infinite if it was singular.
    limit
        Above which blocks are taken back.

    Returns
    -------
    dict
        What is noted now.
    """
    growth = min(growth, limit + _OVER)
    mean = seen[length][0] if length in seen else growth
    others = {known: (value, age + 1) for known, (value, age) in seen.items() if age < _FORGET and known != length}
    return others | {length: (mean + _WEIGHT * (growth - mean), 0)}


def longest(seen: Seen, *, limit: float, at_most: int) -> int:
    """Choose the longest block that is foretold to stay below a limit.

    Parameters
    ----------
    seen
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
    return next((k for k in range(at_most, 1, -1) if _foretold(seen, k) + _MARGIN <= limit), 1)


def _foretold(seen: Seen, length: int) -> float:
    """Mean of late, or on the line through the two longest of the shorter blocks (or through zero)."""
    known = sorted(k for k in seen if k <= length)
    if not known:
        return math.inf
    last = known[-1]
    before = known[-2] if len(known) > 1 else 0
    value, base = seen[last][0], seen[before][0] if before else 0.0
    return value + (length - last) * max(0.0, value - base) / (last - before)
