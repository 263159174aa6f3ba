"""Loss along the gradient: a convex problem whose line is known, batch normalisation by hand, and rounding."""

import math

import numpy as np
import pytest
import torch
from cases import conv_net, inputs, network
from scipy.optimize import brentq
from scipy.special import logsumexp
from torch import nn

from rmtbn._checks import InvalidArgumentError
from rmtbn.measure.step_size import largest_step, relative_losses

Y = torch.tensor([0, 1, 2, 2, 1, 0, 0])


def linear_problem():
    """A softmax regression and its loss along the gradient, in numpy."""
    net, x = nn.Linear(4, 3, bias=False).double(), inputs(7, 4)
    with torch.no_grad():
        net.weight.copy_(inputs(3, 4, seed=2))
    weight, data, one_hot = net.weight.detach().numpy(), x.numpy(), np.eye(3)[Y]

    def loss(step):
        moved = weight - step * gradient
        logits = data @ moved.T
        return float(np.mean(logsumexp(logits, axis=1) - (logits * one_hot).sum(1)))

    logits = data @ weight.T
    gradient = (np.exp(logits - logsumexp(logits, axis=1, keepdims=True)) - one_hot).T @ data / 7
    return net, x, loss, gradient


def test_losses_along_the_gradient_are_those_of_numpy():
    """L(w - α∇L)/L(w) of a softmax regression, its gradient written out."""
    net, x, loss, gradient = linear_problem()
    steps = np.geomspace(1e-3, 1e3, 13)
    found = relative_losses(net, x, Y, steps=steps)
    assert found.loss == pytest.approx(loss(0.0), rel=1e-13)
    assert found.gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-12)
    np.testing.assert_allclose(found.relative_loss, [loss(a) / loss(0.0) for a in steps], rtol=1e-11)


@pytest.mark.parametrize("accuracy", [0.5, 0.01, 1e-6])
def test_largest_step_brackets_the_root(accuracy):
    """L(w - α∇L) = L(w) has one root α > 0 on a convex line; it is between `step` and `above`, as close as asked."""
    net, x, loss, _ = linear_problem()
    root = brentq(lambda a: loss(a) - loss(0.0), 1.0, 1e4, xtol=1e-10)
    found = largest_step(net, x, Y, accuracy=accuracy)
    assert found.step <= root <= found.above
    assert found.above <= (1 + accuracy) * found.step
    assert found.smallest == pytest.approx(1e-8)


def test_largest_step_of_a_quadratic_is_twice_the_inverse_curvature():
    """Two classes at w = 0: L = ln 2 - αg² + α²g²h/2 + …, whose root tends to 2/h, h = ‖x‖²/4·2, as g → 0."""
    x = torch.tensor([[2.0], [2.0]], dtype=torch.float64).repeat(501, 1)
    y = torch.tensor([0, 1] * 500 + [0, 0])  # nearly balanced: the gradient is small, the loss nearly quadratic
    net = nn.Linear(1, 2, bias=False).double()
    nn.init.zeros_(net.weight)
    found = largest_step(net, x, y, accuracy=1e-4)
    assert found.step == pytest.approx(2 / (2 * 4 / 4), rel=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_steps_are_taken_with_all_parameters_and_batch_statistics(training):
    """The same by torch.optim.SGD on a copy: convolutions and batch normalisation, in both modes."""
    x, y = inputs(6, 3, 6, 6), torch.arange(6) % 5
    net = conv_net().double().train(training)
    found = relative_losses(net, x, y, steps=[0.05, 2.0])
    for step, relative in zip(found.steps, found.relative_loss, strict=True):
        student = conv_net().double().train(training)
        student.load_state_dict(net.state_dict())
        losses = []
        for _ in range(2):
            student.load_state_dict({k: v for k, v in net.state_dict().items() if "running" in k}, strict=False)
            loss = nn.functional.cross_entropy(student(x), y)
            losses.append(loss.item())
            student.zero_grad()
            loss.backward()
            torch.optim.SGD(student.parameters(), lr=step).step()
        assert relative == pytest.approx(losses[1] / losses[0], rel=1e-12)


def test_dropout_draws_one_mask_for_all_steps():
    """At α = 0 the relative loss is exactly 1, whatever the mask, and the caller's generator stays where it was."""
    net = nn.Sequential(nn.Linear(12, 40), nn.Dropout(0.5), nn.Linear(40, 3)).double()
    before = torch.get_rng_state()
    found = relative_losses(net, inputs(7, 12), Y, steps=[0.0, 0.0, 1e-3])
    assert (found.relative_loss[:2] == 1).all()
    assert found.relative_loss[2] < 1
    assert torch.equal(torch.get_rng_state(), before)


def test_losses_that_leave_the_range_are_infinite():
    """An update of 1e200 overflows: inf, not NaN, and the largest step is found below it."""
    net, x = network(out_features=3, depth=4), inputs(7, 12)
    assert relative_losses(net, x, Y, steps=[1e200]).relative_loss[0] == math.inf
    found = largest_step(net, x, Y, highest=1e200)
    assert 0 < found.step < found.above < 1e6


def test_searches_that_find_no_end_say_so():
    """All classes the same: every step lowers the loss, up to the end of the search; `above` is then infinite."""
    net, x = nn.Linear(3, 2).double(), inputs(4, 3)
    found = largest_step(net, x, torch.zeros(4, dtype=torch.long), highest=10.0)
    assert (found.step, found.above) == (pytest.approx(10.0), math.inf)


def test_searches_that_begin_too_far_find_no_step():
    """Beyond the root nothing lowers the loss: step 0, and the first step tried above it."""
    net, x, *_ = linear_problem()
    found = largest_step(net, x, Y, lowest=1e5, highest=1e6)
    assert (found.step, found.above, found.smallest) == (0.0, 1e5, math.inf)


def test_steps_lost_in_rounding_are_passed_over():
    """In float32 a step of 1e-20 changes nothing: the search goes on to those that do."""
    net, x, loss, _ = linear_problem()
    root = brentq(lambda a: loss(a) - loss(0.0), 1.0, 1e4)
    found = largest_step(net.float(), x.float(), Y, lowest=1e-20)
    assert 1e-12 < found.smallest < 1e-4
    assert found.step == pytest.approx(root, rel=0.011)


@pytest.mark.parametrize(
    ("measure", "options", "message"),
    [
        (relative_losses, {"steps": [-1.0]}, "`steps` must be numbers without NaN >= 0.0; got -1.0"),
        (largest_step, {"accuracy": 0.0}, "`accuracy` must be a finite number > 0.0 and <= 1.0; got 0.0"),
        (largest_step, {"lowest": 0.0}, "`lowest` must be a finite number > 0.0; got 0.0"),
        (largest_step, {"lowest": 1.0, "highest": 0.5}, "`highest` must be a finite number > 1.0; got 0.5"),
    ],
)
def test_numbers_out_of_range_are_refused(measure, options, message):
    """One line that names argument, rule and value."""
    with pytest.raises(InvalidArgumentError, match=message):
        measure(nn.Linear(4, 3).double(), inputs(7, 4), Y, **options)


def test_losses_of_zero_have_no_relative_loss():
    """L(w) = 0: nothing to divide by."""
    net = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1e4], [-1e4]]))
    with pytest.raises(InvalidArgumentError, match=r"`module` must be of a loss above 0 at x; got 0.0"):
        relative_losses(net, torch.ones(2, 1, dtype=torch.float64), torch.tensor([0, 0]), steps=[1.0])
