"""Lengths of blocks foretold from the growth of those before."""

import math

from rmtbn.linalg.stride import begun, longest, noted


def lengths(growth, *, limit: float, steps: int, rank: int = 64) -> tuple[list[int], int]:
    """Accepted lengths over a chain in which a block of k steps grows by `growth(start, k)`, and the blocks cut."""
    pace, stride, done, found, cut = begun(rank), 1, 0, [], 0
    while done < steps:
        length = min(stride, steps - done)
        value = growth(done, length)
        accepted = length == 1 or value <= limit
        if accepted:
            found, done = [*found, length], done + length
        pace, cut = noted(pace, length, value, limit=limit), cut + (not accepted)
        stride = longest(pace, limit=limit, at_most=2 * length if accepted else length - 1)
    return found, cut


def test_blocks_become_as_long_as_the_limit_allows():
    """2 nats a step and a limit of 11.4: blocks of 4 or 5 after a few, and few are cut."""
    found, cut = lengths(lambda _, k: 2.0 * k, limit=11.4, steps=100)
    assert cut <= 4
    assert set(found[3:-1]) <= {4, 5}


def test_blocks_double_at_most():
    """Without any growth 1, 2, 4, …: the first of a chain tell nothing of what comes."""
    found, cut = lengths(lambda *_: 0.0, limit=11.4, steps=127)
    assert found == [1, 2, 4, 8, 16, 32, 64]
    assert cut == 0


def test_a_faster_stretch_is_met_by_shorter_blocks_and_left_behind():
    """1 nat a step, 6 between steps 40 and 60: some blocks are cut, and afterwards they grow again."""
    rates = [6.0 if 40 <= i < 60 else 1.0 for i in range(120)]
    found, cut = lengths(lambda start, k: sum(rates[start : start + k]), limit=12.0, steps=120)
    assert cut <= 20
    assert max(found[:5]) >= 8
    assert set(found[7:17]) == {2}
    assert max(found[-4:-1]) >= 7


def test_singular_blocks_are_tried_less_and_less():
    """Where all blocks of two steps are singular, 100 steps cost 100 blocks and some log2(100) attempts."""
    found, cut = lengths(lambda _, k: 3.0 if k == 1 else math.inf, limit=11.4, steps=100)
    assert set(found) == {1}
    assert cut <= 7


def test_a_single_singular_block_is_soon_forgotten():
    """One dead unit at step 30: blocks are as long as before within six more."""

    def growth(start, k):
        return math.inf if start < 30 < start + k - 1 else 2.0 * k

    found, cut = lengths(growth, limit=11.4, steps=100)
    assert cut <= 6
    assert min(found[-6:-1]) >= 4


def test_a_limit_below_a_single_step_gives_single_steps():
    """A step of 9 nats, a limit of 8: never two."""
    assert lengths(lambda _, k: 9.0 * k, limit=8.0, steps=10) == ([1] * 10, 0)
