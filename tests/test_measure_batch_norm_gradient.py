"""Gradients in front of batch normalisation: the identity and scale invariance, to the last digits."""

import numpy as np
import pytest
import torch
from cases import SEEDS, inputs, network
from torch import nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.measure.batch_norm_gradient import batch_norm_gradients, radial_gradients

Y = torch.arange(8) % 5


def normalised(eps, *, seed=1, affine=True):
    """Two convolutions, each with batch normalisation behind it, with random γ and β, in float64."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4, eps=eps, affine=affine),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3),
        nn.BatchNorm2d(6, eps=eps, affine=affine),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 5),
    ).double()
    generator = rng.torch_generator(seed, "normalised")
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return net


def images(seed=1):
    return inputs(8, 3, 6, 6, seed=seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("affine", [True, False])
def test_identity_holds_as_eps_vanishes(seed, affine):
    """‖∂L/∂h‖² = (γ²/σ²)(‖g‖² - ⟨1, g⟩²/m - ⟨g, ĥ⟩²/m) to 1e-10 at ε = 1e-30, channel by channel."""
    found = batch_norm_gradients(normalised(1e-30, seed=seed, affine=affine), images(seed), Y)
    assert [one.layer for one in found] == ["1", "4"]
    for one in found:
        np.testing.assert_allclose(one.measured, one.limit, rtol=1e-10)
        np.testing.assert_allclose(one.exact, one.limit, rtol=1e-12)
        assert (one.measured < one.without_norm).all()


@pytest.mark.parametrize("eps", [1e-5, 0.1, 10.0])
def test_identity_with_eps_is_exact(eps):
    """(γ²/s²)(‖g‖² - mḡ² - (1 + ε/s²)mc²) for any ε; the limit is off by the order of ε/σ²."""
    for one in batch_norm_gradients(normalised(eps), images(), Y):
        np.testing.assert_allclose(one.measured, one.exact, rtol=1e-10)
        assert np.abs(one.measured / one.limit - 1).max() > eps / 1000


def test_norms_are_those_of_autograd():
    """‖∂L/∂h‖² with h a leaf, fed into the layers from the second normalisation on."""
    net, x = normalised(1e-5), images()
    h = net[:4](x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(net[4:](h), Y), h)
    (found,) = batch_norm_gradients(net, x, Y, layers=["4"])
    np.testing.assert_allclose(found.measured, gradient.square().sum((0, 2, 3)), rtol=1e-10)


def test_batch_statistics_are_meant_in_either_mode():
    """The identity is about batch statistics: eval mode gives the same numbers."""
    first, second = (batch_norm_gradients(normalised(1e-5).train(mode), images(), Y) for mode in (True, False))
    np.testing.assert_array_equal(first[0].measured, second[0].measured)


@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_in_front_of_normalisation_are_tangent(seed):
    """⟨∂L/∂w, w⟩ = 0 per filter in front of batch normalisation, and not at the classifier."""
    *tangent, free = radial_gradients(normalised(1e-30, seed=seed), images(seed), Y, layers=["0", "3", "7"])
    for one in tangent:
        assert np.abs(one.cosine).max() < 1e-12
    assert np.abs(free.cosine).max() > 1e-3


@pytest.mark.parametrize("eps", [1e-5, 0.1, 10.0])
def test_radial_gradients_are_proportional_to_eps(eps):
    """⟨∂L/∂w, w⟩ = γ m c ε/s² = γ (ε/s³) ⟨g, h - μ⟩ exactly."""
    net, x = normalised(eps), images()
    (found,) = radial_gradients(net, x, Y, layers=["3"])
    h = net[:4](x).detach()
    z = net[4](h).detach().requires_grad_()
    (g,) = torch.autograd.grad(nn.functional.cross_entropy(net[5:](z), Y), z)
    s2 = h.var((0, 2, 3), correction=0) + eps
    centred = h - h.mean((0, 2, 3), keepdim=True)
    expected = net[4].weight * eps / s2**1.5 * (g * centred).sum((0, 2, 3))
    np.testing.assert_allclose(
        found.inner, expected.detach(), rtol=1e-8, atol=1e-13
    )  # a sum of terms near 1 that cancel


def test_gradients_scale_inversely_with_the_filter():
    """∇L(cw) = ∇L(w)/c and L(cw) = L(w): a bias in front has gradient 0."""
    net, x, scale = normalised(1e-30), images(), 7.0
    loss = nn.functional.cross_entropy(net(x), Y)
    loss.backward()
    before, bias = net[3].weight.grad.clone(), net[3].bias.grad.clone()
    net.zero_grad()
    with torch.no_grad():
        net[3].weight.mul_(scale)
    again = nn.functional.cross_entropy(net(x), Y)
    again.backward()
    assert again.item() == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(net[3].weight.grad, before / scale, rtol=1e-9, atol=1e-14)
    assert bias.abs().max() < 1e-13 * before.abs().max() * 1e2


def test_what_is_no_normalisation_is_refused():
    """By name: layers that do not normalise, and layers without a weight."""
    net, x = normalised(1e-5), images()
    with pytest.raises(InvalidArgumentError, match="`layers` must be one of '1', '4'; got '0'"):
        batch_norm_gradients(net, x, Y, layers=["0"])
    with pytest.raises(InvalidArgumentError, match=r"`parameters` must be one of .*; got '2.weight'"):
        radial_gradients(net, x, Y, layers=["2"])
    assert batch_norm_gradients(network(out_features=3), inputs(8, 12), Y % 3) == ()
