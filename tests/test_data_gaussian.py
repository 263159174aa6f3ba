"""Gaussian inputs: independent N(0, 1) entries, uniform classes."""

import math

import pytest
import torch
from scipy import stats

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.data.gaussian import gaussian


def test_entries_are_standard_normal_and_classes_uniform():
    """Kolmogorov–Smirnov against N(0, 1), χ² of the class counts, correlations between entries of 1/√n."""
    found = gaussian(examples=5000, features=8, generator=rng.torch_generator(1), classes=4)
    assert found.inputs.shape == (5000, 8)
    assert stats.kstest(found.inputs.flatten().numpy(), "norm").pvalue > 1e-3
    assert stats.chisquare(torch.bincount(found.targets).numpy()).pvalue > 1e-3
    off_diagonal = torch.corrcoef(found.inputs.T)[~torch.eye(8, dtype=torch.bool)]
    assert off_diagonal.abs().max() < 4.5 / math.sqrt(5000)
    assert (found.classes, found.targets.dtype) == (4, torch.int64)


def test_draws_are_a_function_of_the_generator():
    """The same name, the same inputs."""
    first, second = (gaussian(examples=3, features=2, generator=rng.torch_generator(5)) for _ in range(2))
    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.targets, second.targets)


@pytest.mark.parametrize("name", ["examples", "features", "classes"])
def test_sizes_below_one_are_refused(name):
    """By name, rule and value."""
    with pytest.raises(InvalidArgumentError, match=f"`{name}` must be an integer >= 1; got 0"):
        gaussian(**({"examples": 2, "features": 2, "generator": rng.torch_generator(1)} | {name: 0}))
