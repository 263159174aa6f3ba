"""Surviving directions: against a dense SVD, as images, with batch statistics, and at depth."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.inits import initialise
from rmtbn.measure.singular_vectors import Directions, surviving_directions
from rmtbn.nets.mlp import mlp


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=rng.torch_generator(1, "directions", *shape), dtype=torch.float64)


def check(found: Directions, jacobian: Tensor, group: int) -> None:
    """Both vectors of a group are those of the SVD of its Jacobian, up to a common sign."""
    left, values, right = torch.linalg.svd(jacobian, full_matrices=False)
    count = found.error.shape[1]
    np.testing.assert_allclose(found.log_singular_values[group].exp(), values[:count], rtol=1e-10)
    ours = [part[group].reshape(count, -1) for part in (found.outputs, found.inputs)]
    signs = torch.sign((ours[1] * right[:count]).sum(dim=1, keepdim=True))
    torch.testing.assert_close(ours[1], signs * right[:count], rtol=0, atol=1e-9)
    torch.testing.assert_close(ours[0], signs * left.mT[:count], rtol=0, atol=1e-9)


def test_directions_of_images_are_images():
    """Convolution, ReLU, pooling and a readout: one set of 2-channel images for each example."""
    module = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 6)
    ).double()
    x = draw(3, 2, 4, 4)
    found = surviving_directions(module, x, count=4)
    assert found.inputs.shape == (3, 4, 1, 2, 4, 4)
    assert found.outputs.shape == (3, 4, 1, 6)
    for i in range(3):
        matrix = torch.autograd.functional.jacobian(lambda one: module(one[None])[0], x[i])
        check(found, matrix.reshape(6, -1), i)
    assert found.batch_stats is None


def test_batch_statistics_give_directions_of_the_whole_batch():
    """With stock BatchNorm in train mode the batch is one group, and no running statistic moves."""
    module, x = mlp(depth=2, width=5, activation="tanh", norm="batch").double(), draw(4, 5)
    before = copy.deepcopy(module.state_dict())
    found = surviving_directions(module, x, count=3)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert found.inputs.shape == (1, 3, 4, 5)
    assert found.batch_stats == "batch"
    matrix = torch.autograd.functional.jacobian(copy.deepcopy(module), x)
    check(found, matrix.reshape(20, 20), 0)


def test_the_surviving_direction_grows_by_its_singular_value():
    """‖J v₁‖ = σ₁ at depth 100, by a forward derivative of the network; v_N is not what a dense SVD would say."""
    module = initialise(
        mlp(depth=100, width=16, activation="tanh").double(), "he_normal", generator=rng.torch_generator(1, "deep")
    )
    x = draw(1, 16)
    found = surviving_directions(module, x, count=16)
    with torch.no_grad():
        pushed = torch.func.jvp(module, (x,), (found.inputs[0, 0],))[1]
    assert float(pushed.norm().log()) == pytest.approx(float(found.log_singular_values[0, 0]), abs=1e-9)
    torch.testing.assert_close(pushed / pushed.norm(), found.outputs[0, 0], rtol=0, atol=1e-9)
    assert float(found.error.max()) < 1e-6
    assert float(found.log_singular_values[0, 0] - found.log_singular_values[0, -1]) > 40


def test_more_directions_than_the_rank_are_refused():
    """A bottleneck of 2 leaves 2 directions."""
    module = nn.Sequential(nn.Linear(5, 2), nn.Linear(2, 5)).double()
    with pytest.raises(InvalidArgumentError, match="`count` must be an integer >= 1 and <= 2; got 3"):
        surviving_directions(module, draw(1, 5), count=3)
