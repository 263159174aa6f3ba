"""The Hessian's ends: the dense Hessian by automatic differentiation, and descent that does what they say."""

import math

import numpy as np
import pytest
import torch
from cases import conv_net, inputs, network
from torch import nn
from torch.func import functional_call

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.measure.hessian import Curvature, curvature

X, Y = inputs(6, 3, 6, 6), torch.arange(6) % 5
NETWORKS = {
    "batch norm": lambda: (conv_net().double().train(), X, Y),
    "none": lambda: (network(depth=3, width=8, in_features=5, out_features=4), inputs(7, 5), torch.arange(7) % 4),
}


def generator():
    return rng.torch_generator(1, "hessian")


def dense(net, x, y):
    """The Hessian by `torch.autograd.functional`, over all parameters in their order."""
    shapes = {name: p.shape for name, p in net.named_parameters()}
    flat = torch.cat([p.detach().flatten() for p in net.parameters()])

    def loss(vector):
        parts = vector.split([shape.numel() for shape in shapes.values()])
        own = {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return nn.functional.cross_entropy(functional_call(net, own, (x,)), y)

    return torch.autograd.functional.hessian(loss, flat)


@pytest.mark.parametrize("name", NETWORKS)
def test_ends_are_those_of_the_dense_hessian(name):
    """λ_min and λ_max of the matrix of second derivatives, batch statistics differentiated too."""
    net, x, y = NETWORKS[name]()
    values = torch.linalg.eigvalsh(dense(net, x, y))
    found = curvature(net, x, y, tolerance=1e-9, generator=generator())
    assert found.largest == pytest.approx(float(values[-1]), rel=1e-8)
    assert found.smallest == pytest.approx(float(values[0]), rel=1e-8)
    assert values[0] < 0 < values[-1]
    rough = curvature(net, x, y, generator=generator())
    assert rough.products < found.products
    assert abs(rough.largest - float(values[-1])) <= rough.largest_bound <= 0.01 * rough.largest


def test_running_statistics_have_another_hessian():
    """In eval mode the examples of a batch do not see one another."""
    net = conv_net().double()
    values = torch.linalg.eigvalsh(dense(net.eval(), X, Y))
    found = curvature(net.train(), X, Y, tolerance=1e-9, batch_stats="running", generator=generator())
    assert found.largest == pytest.approx(float(values[-1]), rel=1e-8)
    assert found.largest != pytest.approx(curvature(net, X, Y, tolerance=1e-9, generator=generator()).largest, rel=0.01)


def test_descent_diverges_above_the_critical_rate():
    """Near the minimum of a convex loss, w - α∇L leaves along the top eigenvector for α > 2/λ_max and not below it.

    With momentum μ the same at 2(1 + μ)/λ_max.
    """
    x, y = inputs(40, 3), torch.randint(3, (40,), generator=generator())
    net = nn.Linear(3, 3).double()
    start = torch.optim.LBFGS(net.parameters(), max_iter=500, tolerance_grad=1e-12, tolerance_change=0)

    def closure():
        start.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        return loss

    start.step(closure)
    vectors = torch.linalg.eigh(dense(net, x, y)).eigenvectors
    minimum = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
    found = curvature(net, x, y, tolerance=1e-9, generator=generator())
    assert found.smallest == pytest.approx(0, abs=1e-8)
    for momentum in (0.0, 0.9):
        for factor, grows in ((0.97, False), (1.03, True)):
            rate = factor * found.critical_rate(momentum=momentum)
            torch.nn.utils.vector_to_parameters(minimum + 1e-7 * vectors[:, -1], net.parameters())
            descent = torch.optim.SGD(net.parameters(), lr=rate, momentum=momentum)
            for _ in range(150):
                descent.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                descent.step()
            moved = torch.nn.utils.parameters_to_vector(net.parameters()).detach() - minimum
            assert (float((moved @ vectors[:, -1]).abs()) > 1e-7) == grows


def test_the_network_is_left_as_it_was():
    """Parameters, running statistics, gradients and the global generator, bit for bit."""
    net = conv_net().double().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    curvature(net, X, Y, generator=generator())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_no_positive_curvature_bounds_no_rate():
    """λ_max <= 0: every rate is stable, as far as the Hessian says."""
    flat = {"loss": 1.0, "smallest_bound": 0.0, "largest_bound": 0.0, "products": 1}
    assert Curvature(smallest=-1.0, largest=0.0, **flat).critical_rate() == math.inf
    assert Curvature(smallest=-1.0, largest=4.0, **flat).critical_rate(momentum=0.9) == pytest.approx(0.95)


def test_weights_that_the_loss_does_not_feel_have_no_curvature():
    """Zeros for a parameter outside the graph; the others' Hessian is as before."""
    net = nn.Linear(3, 4).double()
    expected = curvature(net, inputs(5, 3), Y[:5] % 4, tolerance=1e-9, generator=generator()).largest
    net.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    found = curvature(net, inputs(5, 3), Y[:5] % 4, tolerance=1e-9, generator=generator())
    assert found.largest == pytest.approx(expected, rel=1e-8)
    assert np.isfinite(found.smallest)


def test_losses_that_are_not_finite_are_refused():
    """No Hessian at infinity."""
    net = nn.Linear(3, 4).double()
    with torch.no_grad():
        net.weight.fill_(1e308)
    with pytest.raises(InvalidArgumentError, match="`module` must be of a finite loss at x; got "):
        curvature(net, 1e3 * inputs(5, 3), Y[:5] % 4, generator=generator())
    with pytest.raises(InvalidArgumentError, match=r"`momentum` must be a finite number >= 0\.0 and < 1\.0; got 1\.0"):
        curvature(nn.Linear(3, 4).double(), inputs(5, 3), Y[:5] % 4, generator=generator()).critical_rate(momentum=1.0)
