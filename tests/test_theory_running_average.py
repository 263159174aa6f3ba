"""The running average of batch means: its law against enumeration and against draws."""

from itertools import permutations, product

import numpy as np
import pytest

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.theory.running_average import initial_share, relative_noise


def average(batches, momentum, *, start=0.0):
    """r ← (1 - m) r + m b, step by step."""
    for b in batches:
        start = (1 - momentum) * start + momentum * b
    return start


@pytest.mark.parametrize("momentum", [0.1, 0.5, 1.0])
def test_the_initial_value_has_the_share_that_the_recursion_leaves(momentum):
    """(1 - m)^k: the average of zeros from 1."""
    for steps in range(4):
        assert initial_share(momentum, steps=steps) == pytest.approx(average([0.0] * steps, momentum, start=1.0))


@pytest.mark.parametrize("momentum", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_noise_in_epochs_is_that_over_all_orders(momentum, steps):
    """All 6 × 6 orders of three batches in two epochs, the last unfinished: the variance of r over that of b."""
    values = np.array([-1.0, 0.2, 2.5])
    found = [average([*one, *two][:steps], momentum) for one, two in product(permutations(values), repeat=2)]
    expected = np.var(found) / np.var(values)
    assert relative_noise(momentum, steps=steps, batches_per_epoch=3) == pytest.approx(expected, rel=1e-12)


def test_noise_of_batches_drawn_anew_is_that_of_draws():
    """Σ w_j², within 4 standard errors of 20,000 draws; m/(2 - m) in the end."""
    draws = rng.generator(1, "batch means").standard_normal((6, 20_000))
    expected = relative_noise(0.3, steps=6)
    assert np.var(average(draws, 0.3)) == pytest.approx(expected, abs=4 * expected * (2 / 20_000) ** 0.5)
    assert relative_noise(0.3, steps=200) == pytest.approx(0.3 / 1.7, rel=1e-12)


def test_epochs_have_less_noise_and_none_for_small_momenta():
    """Whole epochs average to a constant: the noise is n(n + 1) m³/24 instead of m/2."""
    anew, epochs = ([relative_noise(m, steps=40_000, batches_per_epoch=n) for m in (1e-2, 1e-3)] for n in (None, 4))
    assert anew[1] / anew[0] == pytest.approx(0.1, rel=0.02)
    assert epochs[1] == pytest.approx(4 * 5 * 1e-9 / 24, rel=0.02)


def test_wrong_arguments_are_named():
    """m in (0, 1], k >= 1, n >= 2."""
    with pytest.raises(InvalidArgumentError, match="`momentum` must be"):
        relative_noise(0.0, steps=1)
    with pytest.raises(InvalidArgumentError, match="`steps` must be"):
        initial_share(0.5, steps=-1)
    with pytest.raises(InvalidArgumentError, match="`batches_per_epoch` must be"):
        relative_noise(0.5, steps=1, batches_per_epoch=1)
