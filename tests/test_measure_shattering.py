"""Gradients along a grid and at pairs of inputs: finite differences, noises, and the law of wide networks."""

import math

import numpy as np
import pytest
import torch
from cases import SEEDS, conv_net, inputs, network
from torch import nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.measure.shattering import autocorrelation, brown_noise, input_gradients, pair_correlation, white_noise
from rmtbn.theory.shattering import balduzzi_correlation, batch_gradient_correlation, gradient_correlation

WIDTH = 128


class Block(nn.Module):
    """x + W φ([norm] x)."""

    def __init__(self, width, normalised):
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=1e-12, momentum=1.0) if normalised else nn.Identity()
        self.linear = nn.Linear(width, width, bias=False)

    def forward(self, x):
        return x + self.linear(torch.relu(self.norm(x)))


class Doubled(nn.Module):
    """CReLU: φ(x) and φ(-x) side by side."""

    def forward(self, x):
        return torch.cat([torch.relu(x), torch.relu(-x)], dim=1)


def drawn(block, depth, seed):
    """A network of the family `block`, weights N(0, 2/WIDTH), one output."""
    normalised = block.endswith("batch")
    if block.startswith("residual"):
        layers = [Block(WIDTH, normalised) for _ in range(depth)]
    else:
        layers = []
        for _ in range(depth):
            norm = [nn.BatchNorm1d(WIDTH, eps=1e-12, momentum=1.0)] if normalised else []
            layers += [nn.Linear(WIDTH, WIDTH, bias=False), *norm, nn.ReLU()]
        layers = [
            type(one)(WIDTH, eps=1e-12, momentum=1.0) if isinstance(one, nn.BatchNorm1d) else one for one in layers
        ]
    net = nn.Sequential(*layers, nn.Linear(WIDTH, 1, bias=False)).double()
    generator = rng.torch_generator(seed, "shattering", block, depth)
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim > 1:
                p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) * math.sqrt(2 / WIDTH))
    return net


def orthogonal_pair(seed):
    """Two orthogonal inputs of one length."""
    q, _ = torch.linalg.qr(inputs(WIDTH, 2, seed=seed))
    return q.T * math.sqrt(WIDTH)


def test_gradients_along_a_grid_are_finite_differences():
    """(f(x + h) - f(x - h))/2h at every point of a grid, for a smooth network."""
    net = network(activation="tanh", in_features=1, out_features=1, sigma_b=0.5)
    x = torch.linspace(-2, 2, 33, dtype=torch.float64)[:, None]
    with torch.no_grad():
        expected = (net(x + 1e-5) - net(x - 1e-5)) / 2e-5
    np.testing.assert_allclose(input_gradients(net, x), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("batch_stats", ["batch", "running"])
def test_gradients_are_those_of_the_sum_of_outputs(batch_stats):
    """∂(Σ f)/∂x by the dense Jacobian, through the batch statistics or past them."""
    net, x = conv_net().double(), inputs(4, 3, 6, 6)
    net.train(batch_stats == "batch")
    dense = torch.autograd.functional.jacobian(net, x).sum((0, 1))
    np.testing.assert_allclose(input_gradients(net, x, batch_stats=batch_stats), dense.flatten(1), atol=1e-12)


@pytest.mark.parametrize("centred", [True, False])
def test_autocorrelations_are_sums_over_pairs(centred):
    """r_k = Σ a_t a_{t+k}/Σ a_t², term by term, averaged over curves with the error of the mean."""
    curves = rng.generator(1, "curves").standard_normal((5, 20)) * 1e200 + 3e199
    found = autocorrelation(curves, most=6, centred=centred)
    expected = []
    for curve in curves:
        a = (curve - curve.mean() if centred else curve) / 1e200
        expected.append([sum(a[t] * a[t + k] for t in range(20 - k)) / sum(a * a) for k in range(7)])
    np.testing.assert_allclose(found.value, np.mean(expected, axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.se, np.std(expected, axis=0, ddof=1) / math.sqrt(5), rtol=1e-6, atol=1e-15)
    np.testing.assert_array_equal(found.lags, np.arange(7))
    assert (found.networks, found.constant) == (5, 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_noises_are_white_and_brown(seed):
    """White: E r_k = -(n-k)/(n(n-1)) within 4 s.e. for k > 0; brown: steps that are white, and r_1 above 0.95."""
    white = white_noise(200, 256, generator=rng.generator(seed, "white"))
    found = autocorrelation(white, most=10)
    expected = -(256 - found.lags[1:]) / (256 * 255)
    assert (np.abs(found.value[1:] - expected) < 4 * found.se[1:]).all()
    brown = brown_noise(200, 256, generator=rng.generator(seed, "white"))
    np.testing.assert_allclose(np.diff(brown, axis=1, prepend=0.0), white, atol=1e-12)
    assert autocorrelation(brown, most=1).value[1] > 0.95


def test_gradients_shatter_with_depth_from_brown_to_white():
    """Figure 1: on 256 points in [-2, 2], ReLU + BN, lag 2: above 0.7 at L = 2, that of white noise at L = 12."""
    x = torch.linspace(-2, 2, 256, dtype=torch.float64)[:, None]
    near = []
    for depth in (2, 12):
        options = {"depth": depth, "width": 64, "in_features": 1, "out_features": 1, "norm": "batch"}
        nets = [network(scheme="gaussian", sigma_w=math.sqrt(2), sigma_b=0.0, seed=k, **options) for k in range(20)]
        curves = np.stack([input_gradients(net, x)[:, 0] for net in nets])
        near.append(autocorrelation(curves, most=2).value[2])
    assert near[0] > 0.7
    assert abs(near[1]) < 0.15


def test_looks_linear_networks_have_constant_gradients():
    """Weights (W, -W) on (φ(x), φ(-x)) make Wx: the gradient is constant, whatever the depth."""
    layers, generator = [nn.Linear(1, 8, bias=False)], rng.torch_generator(1, "looks linear")
    for _ in range(20):
        layers += [Doubled(), nn.Linear(16, 8, bias=False)]
    net = nn.Sequential(*layers, nn.Linear(8, 1, bias=False)).double()
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.Linear) and layer.in_features != 16:
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64))
            elif isinstance(layer, nn.Linear):
                weight, _ = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))
                layer.weight.copy_(torch.cat([weight, -weight], dim=1))
    x = torch.linspace(-2, 2, 256, dtype=torch.float64)[:, None]
    gradient = input_gradients(net, x).T
    np.testing.assert_allclose(gradient, gradient[0, 0], rtol=1e-10)
    found = autocorrelation(gradient, most=64, centred=False)
    np.testing.assert_allclose(found.value, 1 - found.lags / 256, rtol=1e-9)
    with pytest.raises(InvalidArgumentError, match="`curves` must be curves of which one or more vary"):
        autocorrelation(np.full((1, 256), 0.3))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("block", ["plain", "residual"])
def test_correlations_of_wide_networks_are_those_of_the_law(block, seed):
    """∏ J₀(c_l), ∏ (1 + J₀(c_l))/2 from orthogonal inputs, L = 3, 120 networks, 4 s.e.; 2^-L is not."""
    gradients = np.stack(
        [input_gradients(drawn(block, 3, 1000 * seed + k), orthogonal_pair(1000 * seed + k)) for k in range(120)]
    )
    found = pair_correlation(gradients[:, 0], gradients[:, 1])
    assert abs(found.value - gradient_correlation(block, depth=3)) < 4 * found.se
    assert found.se < 0.03
    if block == "plain":
        assert abs(found.value - balduzzi_correlation(block, depth=3)) > 3 * found.se


@pytest.mark.parametrize("block", ["plain_batch", "residual_batch"])
def test_correlations_of_normalised_networks_are_those_of_the_law(block):
    """J₀(c₀)^L and ∏ (s_l + κJ₀)/(s_l + κ), batch of 32, all pairs, L = 3, 80 networks, within 4 standard errors."""
    cross, own = [], []
    for k in range(80):
        net, x = drawn(block, 3, k), inputs(32, WIDTH, seed=k)
        with torch.no_grad():
            net(x)  # momentum 1: the running statistics are those of this batch
        gram = input_gradients(net, x, batch_stats="running")
        gram = gram @ gram.T
        own.append(np.trace(gram) / 32)
        cross.append((gram.sum() - np.trace(gram)) / (32 * 31))
    cross, own = np.array(cross), np.array(own)
    value = cross.sum() / own.sum()
    left_out = (cross.sum() - cross) / (own.sum() - own)
    error = math.sqrt(79 * left_out.var())
    assert abs(value - batch_gradient_correlation(block, depth=3, batch_size=32)) < 4 * error
    assert error < 0.006
    if block == "residual_batch":
        assert abs(value - balduzzi_correlation(block, depth=3)) > 10 * error


def test_errors_of_pair_correlations_are_those_of_repeated_draws():
    """Jackknife s.e. of a correlation ρ of Gaussian pairs: (1 - ρ²)/√n, ρ = 0.6, n = 2000."""
    noise = rng.generator(1, "pairs").standard_normal((2, 2000, 1))
    found = pair_correlation(noise[0], 0.6 * noise[0] + 0.8 * noise[1])
    assert abs(found.value - 0.6) < 4 * found.se
    assert found.se == pytest.approx(0.64 / math.sqrt(2000), rel=0.1)
    assert pair_correlation(noise[0, :1], noise[1, :1]).se == math.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: autocorrelation(np.zeros((2, 9)) + np.arange(9), most=9), "`most` must be an integer >= 1 and <= 8"),
        (lambda: input_gradients(network(), inputs(2, 12) / 0), "`x` must be finite; got "),
        (lambda: white_noise(1, 1, generator=rng.generator(1)), "`points` must be an integer >= 2; got 1"),
        (
            lambda: input_gradients(network(sigma_w=1e300), inputs(2, 12)),
            "`module` must be finite at x; got 'inf or NaN in its output'",
        ),
    ],
)
def test_what_has_no_autocorrelation_is_refused(call, message):
    """One line that names argument, rule and value."""
    with pytest.raises(InvalidArgumentError, match=message):
        call()
