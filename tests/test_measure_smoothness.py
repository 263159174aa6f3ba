"""Santurkar's three measures: a quadratic-like problem whose curvature is known, and plain autograd."""

import math

import numpy as np
import pytest
import torch
from cases import conv_net, inputs
from torch import nn

from rmtbn._checks import InvalidArgumentError
from rmtbn.measure.smoothness import smoothness

X, Y = inputs(6, 3, 6, 6), torch.arange(6) % 5


def test_measures_are_those_of_plain_autograd():
    """Losses, ‖∇L(w - αg) - g‖ and its ratio to α‖g‖, by moving a copy's weights and backward()."""
    net = conv_net().double()
    found = smoothness(net, X, Y, steps=[0.01, 0.5])

    def loss_and_gradient(shift):
        student = conv_net().double()
        student.load_state_dict(net.state_dict())
        with torch.no_grad():
            for p, s in zip(student.parameters(), shift, strict=True):
                p.add_(s)
        loss = nn.functional.cross_entropy(student(X), Y)
        loss.backward()
        return loss.item(), torch.cat([p.grad.flatten() for p in student.parameters()])

    start, g = loss_and_gradient([torch.zeros_like(p) for p in net.parameters()])
    sizes = [p.shape for p in net.parameters()]
    parts = [part.reshape(shape) for part, shape in zip(g.split([s.numel() for s in sizes]), sizes, strict=True)]
    assert found.loss == pytest.approx(start, rel=1e-13)
    assert found.gradient_norm == pytest.approx(float(g.norm()), rel=1e-12)
    for place, step in enumerate((0.01, 0.5)):
        loss, other = loss_and_gradient([-step * part for part in parts])
        distance = float((other - g).norm())
        assert found.losses[place] == pytest.approx(loss, rel=1e-11)
        assert found.gradient_distances[place] == pytest.approx(distance, rel=1e-9)
        assert found.smoothness[place] == pytest.approx(distance / (step * float(g.norm())), rel=1e-9)
    assert found.effective_smoothness == found.smoothness.max()
    assert found.loss_range == (found.losses.min(), found.losses.max())


def test_each_point_takes_one_forward_pass():
    """One at the start and one per step, where the loss is not finite too."""
    net, seen = conv_net().double(), []
    net.register_forward_hook(lambda *_: seen.append(1))
    smoothness(net, X, Y, steps=[0.1, 0.2, 1e300])
    assert len(seen) == 4


def test_small_steps_show_the_curvature_along_the_gradient():
    """‖∇L(w - αg) - g‖/(α‖g‖) → ‖Hg‖/‖g‖ for α → 0, H the dense Hessian of a softmax regression."""
    net, x, y = nn.Linear(4, 3, bias=False).double(), inputs(7, 4), torch.tensor([0, 1, 2, 2, 1, 0, 0])

    def loss(weight):
        return nn.functional.cross_entropy(x @ weight.reshape(3, 4).T, y)

    w = net.weight.detach().flatten()
    g = torch.autograd.functional.jacobian(loss, w)
    hessian = torch.autograd.functional.hessian(loss, w)
    found = smoothness(net, x, y, steps=[1e-6])
    assert found.effective_smoothness == pytest.approx(float((hessian @ g).norm() / g.norm()), rel=1e-5)


def test_losses_that_leave_the_range_are_infinitely_rough():
    """A step of 1e300 overflows: inf loss, inf distance, inf smoothness, and no NaN."""
    found = smoothness(conv_net().double(), X, Y, steps=[0.1, 1e300])
    assert found.losses[1] == found.gradient_distances[1] == found.effective_smoothness == math.inf
    assert np.isfinite(found.smoothness[0])


@pytest.mark.parametrize("steps", [[], [0.0], [-1.0, 1.0]])
def test_steps_that_do_not_move_are_refused(steps):
    """The distance is divided by the step."""
    with pytest.raises(InvalidArgumentError, match="`steps` must be one or more numbers > 0; got "):
        smoothness(conv_net().double(), X, Y, steps=steps)
