"""Generators named by labels: reproducible anywhere, independent of one another and of the order of draws."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError

LABEL = st.one_of(st.text(max_size=4), st.integers(-9, 9), st.floats(-2, 2))
NAMES = st.tuples(st.integers(0, 3), st.lists(LABEL, max_size=3).map(tuple))


@given(NAMES, NAMES)
def test_two_names_give_one_stream_only_if_they_are_equal(first, second):
    """generator(seed, *labels) is a function of its name; other names, other draws (1 and 1.0 are two labels)."""
    same = first == second and list(map(type, first[1])) == list(map(type, second[1]))
    a, b = (rng.generator(seed, *labels).integers(2**62) for seed, labels in (first, second))
    if repr(first) != repr(second) and same:  # 0.0 and -0.0
        return
    assert (a == b) == same


@pytest.mark.parametrize(
    ("first", "second"),
    [(("ab",), ("a", "b")), (("1",), (1,)), ((1,), (1.0,)), ((1,), (True,)), (("a", "b"), ("b", "a")), ((), ("",))],
)
def test_labels_do_not_run_into_each_other(first, second):
    """("ab") is not ("a", "b"), "1" is not 1, and order counts."""
    assert rng.generator(1, *first).random() != rng.generator(1, *second).random()
    assert rng.torch_generator(1, *first).initial_seed() != rng.torch_generator(1, *second).initial_seed()


def test_numpy_labels_name_the_same_stream_as_plain_ones():
    """A cell that reads its depth from a table of numpy integers draws what it drew from a list of ints."""
    plain = rng.generator(1, "layer", 3, 0.5).random()
    assert rng.generator(1, np.str_("layer"), np.int64(3), np.float64(0.5)).random() == plain


def test_streams_are_the_same_in_another_process_and_another_release():
    """Draws do not depend on the worker (no salted hash), and the numbers of published reports stay."""
    numpy_draw, torch_draw = 0.27916311298017993, 0.7154636304363452
    code = (
        "from rmtbn import rng; import torch\n"
        "print(repr(rng.generator(7, 'weights', 3).random()))\n"
        "print(repr(torch.rand(1, generator=rng.torch_generator(7, 'weights', 3), dtype=torch.float64).item()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    numpy_there, torch_there = map(float, done.stdout.split())
    assert numpy_there == rng.generator(7, "weights", 3).random() == numpy_draw
    here = torch.rand(1, generator=rng.torch_generator(7, "weights", 3), dtype=torch.float64).item()
    assert torch_there == here == torch_draw


def test_streams_of_neighbouring_names_are_independent():
    """Correlations between the streams of 40 layers are those of independent uniforms: variance 1/n."""
    draws = np.stack([rng.generator(1, "layer", layer).random(2000) for layer in range(40)])
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 1e-3
    correlation = np.corrcoef(draws)[np.triu_indices(40, k=1)] * np.sqrt(2000)
    assert np.abs(correlation).max() < 4.5
    assert np.mean(correlation**2) == pytest.approx(1.0, abs=4 * np.sqrt(2 / correlation.size))


def test_drawing_from_one_stream_moves_no_other():
    """Adding a cell never moves another cell's draws, nor the global generators."""
    before_torch, before_numpy = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    expected = rng.generator(1, "b").random(3)
    rng.generator(1, "a").random(1000)
    torch.rand(1000, generator=rng.torch_generator(1, "a"))
    np.testing.assert_array_equal(rng.generator(1, "b").random(3), expected)
    assert torch.equal(torch.random.get_rng_state(), before_torch)
    np.testing.assert_array_equal(np.random.get_state()[1], before_numpy)  # noqa: NPY002


def test_torch_generators_live_on_the_cpu():
    """What is drawn is copied to its device, so that no result depends on the device."""
    assert rng.torch_generator(1).device == torch.device("cpu")


@pytest.mark.parametrize("make", [rng.generator, rng.torch_generator])
def test_negative_seeds_are_refused(make):
    """A seed is an integer >= 0."""
    with pytest.raises(InvalidArgumentError, match="`seed` must be an integer >= 0; got -1"):
        make(-1, "weights")
