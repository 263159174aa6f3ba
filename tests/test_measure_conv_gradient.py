"""Sums of kernel gradients: every summand by unfolding, the gradient by autograd, and signs that are known."""

import numpy as np
import pytest
import torch
from cases import conv_net, inputs
from torch import nn
from torch.nn.functional import cross_entropy, pad

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.inits import initialise
from rmtbn.measure.channel_gradient import channel_gradients
from rmtbn.measure.conv_gradient import sum_ratios

CONVOLUTIONS = {
    "plain": {"kernel_size": 3, "padding": 1},
    "circular": {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    "strided": {"kernel_size": 3, "stride": 2, "padding": (2, 1)},
    "dilated": {"kernel_size": (3, 2), "dilation": 2, "padding": "same"},
    "grouped": {"kernel_size": 3, "groups": 2},
}
LABELS = torch.tensor([0, 2, 1, 1, 0])


def small(**options):
    """Convolution, ReLU, pooled to three logits, in float64."""
    net = nn.Sequential(
        nn.Conv2d(4, 6, bias=False, **options), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    ).double()
    return initialise(net, "he_normal", generator=rng.torch_generator(1))


def summands(conv, x, gradient):
    """Every d = G·I, shape (examples, out, in/groups, height·width, places), by unfolding the input."""
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    padded = pad(x, conv._reversed_padding_repeated_twice, mode=mode)
    patches = nn.functional.unfold(padded, conv.kernel_size, dilation=conv.dilation, stride=conv.stride)
    patches = patches.reshape(len(x), conv.groups, conv.in_channels // conv.groups, -1, patches.shape[-1])
    by_output = patches.repeat_interleave(conv.out_channels // conv.groups, dim=1)
    return gradient.flatten(2)[:, :, None, None] * by_output


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_sums_are_those_of_the_single_summands(options):
    """Σ|d| and Σd over (b, x, y) of every d = ∂L/∂O_{b,o,x,y} I_{b,i,x+u,y+v}, all of them written down."""
    net, x = small(**options), inputs(5, 4, 7, 6)
    outputs = net[0](x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(net[1:](outputs), LABELS), outputs)
    d = summands(net[0], x, gradient)
    (found,) = sum_ratios(net, x, LABELS, layers=["0"])
    shape = net[0].weight.shape
    np.testing.assert_allclose(found.absolute, d.abs().sum((0, 4)).reshape(shape), rtol=1e-12)
    np.testing.assert_allclose(found.signed, d.sum((0, 4)).reshape(shape), rtol=1e-9, atol=1e-15)
    assert found.summands == d.shape[0] * d.shape[4]
    assert found.a == pytest.approx(float(d.abs().sum((0, 4)).mean()), rel=1e-12)
    assert found.b == pytest.approx(float(d.sum((0, 4)).abs().mean()), rel=1e-9)


@pytest.mark.parametrize("batch_stats", ["batch", "running"])
def test_signed_sums_are_the_gradients_of_autograd(batch_stats):
    """Σd = ∂L/∂K of every layer, batch normalisation and the linear layer included."""
    net, x, y = conv_net().double(), inputs(6, 3, 6, 6), torch.arange(6) % 5
    net.train(batch_stats == "batch")
    found = sum_ratios(net, x, y, batch_stats=batch_stats)
    cross_entropy(net(x), y).backward()
    assert [one.layer for one in found] == ["0", "3", "6"]
    for one in found:
        gradient = net.get_submodule(one.layer).weight.grad
        np.testing.assert_allclose(one.signed, gradient, atol=1e-14)
        assert (one.absolute >= np.abs(one.signed) - 1e-14).all()


def test_ratios_of_summands_of_one_sign_are_1():
    """a = b where inputs and gradients have one sign each: positive inputs, logits of one unit, one class."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        net[2].weight.copy_(torch.tensor([[1.0] * 4, [-1.0] * 4]))
    (found,) = sum_ratios(net, inputs(8, 1, 2, 2).abs(), torch.zeros(8, dtype=torch.long), layers=["0"])
    assert found.ratio == pytest.approx(1.0, rel=1e-12)
    np.testing.assert_allclose(found.entry_ratios, 1.0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ratios_of_random_signs_grow_as_the_root_of_their_number(seed):
    """M independent summands of mean 0: E|Σd| = √(2M/π) σ, so a/b = E|d| √(πM/2)/σ = √M for Gaussian d."""
    generator = rng.torch_generator(seed, "signs")
    count = 4096
    net = nn.Sequential(nn.Linear(64, 2, bias=False)).double()
    nn.init.zeros_(net[0].weight)  # gradient ±1/2 by the class alone
    x = torch.randn(count, 64, generator=generator, dtype=torch.float64)
    y = torch.randint(2, (count,), generator=generator)
    (found,) = sum_ratios(net, x, y)
    assert found.summands == count
    assert found.ratio == pytest.approx(np.sqrt(count), rel=0.3)  # 64 Gaussian sums: s.e. of the mean |.| is 9 %


def test_ratios_are_given_by_entry_and_by_channel():
    """Σ|d|/|Σd| per entry; mean over mean per output channel and for the layer, not the mean of ratios."""
    (found,) = sum_ratios(small(kernel_size=3), inputs(5, 4, 7, 6), LABELS, layers=["0"])
    np.testing.assert_allclose(found.entry_ratios, found.absolute / np.abs(found.signed))
    channel = found.absolute[2].mean() / np.abs(found.signed[2]).mean()
    assert found.channel_ratios.shape == (6,)
    assert found.channel_ratios[2] == pytest.approx(channel)
    assert found.ratio == pytest.approx(found.a / found.b)


def test_gradients_that_vanish_have_no_ratio():
    """0/0 is NaN, and no warning: a dead ReLU behind the convolution."""
    net = small(kernel_size=3)
    with torch.no_grad():
        net[0].weight.fill_(-1.0)
    (found,) = sum_ratios(net, inputs(5, 4, 7, 6).abs(), LABELS, layers=["0"])
    assert found.a == found.b == 0
    assert np.isnan(found.ratio)


def test_channel_maps_are_means_over_the_kernel():
    """|∂L/∂K| averaged over (u, v) for every (out, in), and the channel means of the input, against autograd."""
    net, x = small(kernel_size=3), inputs(5, 4, 7, 6)
    (found,) = channel_gradients(net, x, LABELS, layers=["0"])
    cross_entropy(net(x), LABELS).backward()
    gradient = net[0].weight.grad.numpy()
    np.testing.assert_allclose(found.magnitude, np.abs(gradient).mean(axis=(2, 3)), rtol=1e-9)
    np.testing.assert_allclose(found.signed, gradient.reshape(6, 36), rtol=1e-8)
    np.testing.assert_allclose(found.input_mean, x.numpy().mean(axis=(0, 2, 3)), rtol=1e-10)
    np.testing.assert_allclose(found.outgoing, np.abs(gradient).mean(axis=(0, 2, 3)), rtol=1e-9)
    squares = np.linalg.eigvalsh(found.magnitude @ found.magnitude.T)
    assert found.top_share == pytest.approx(squares[-1] / squares.sum(), rel=1e-9)
    assert found.effective_rank == pytest.approx(squares.sum() ** 2 / (squares**2).sum(), rel=1e-9)
    gram = gradient.reshape(6, 36) @ gradient.reshape(6, 36).T
    assert found.signed_effective_rank == pytest.approx(np.trace(gram) ** 2 / np.trace(gram @ gram), rel=1e-7)
    assert found.signed_top_share == pytest.approx(np.linalg.eigvalsh(gram)[-1] / np.trace(gram), rel=1e-7)


def test_one_class_gives_a_gradient_of_rank_one():
    """∂L/∂W = Σ_b g_b x_bᵀ: the same output gradient for all examples is a rank of 1; channel means rank gradients."""
    net = nn.Sequential(nn.Linear(7, 3)).double()
    nn.init.zeros_(net[0].weight)
    nn.init.zeros_(net[0].bias)
    x = inputs(9, 7).abs() * torch.arange(1, 8)
    (found,) = channel_gradients(net, x, torch.zeros(9, dtype=torch.long), layers=["0"])
    assert found.top_share == pytest.approx(1.0)
    assert found.effective_rank == pytest.approx(1.0)
    assert found.signed_top_share == pytest.approx(1.0)
    assert found.mean_rank_correlation == pytest.approx(1.0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_magnitudes_without_structure_have_the_share_2_over_pi(seed):
    """(E|g|)²/E g² = 2/π for Gaussian g: what the docstring gives as the floor of σ₁²/Σσ² (one place, 200 × 200)."""
    from rmtbn.measure.channel_gradient import ChannelGradient

    noise = rng.generator(seed, "map").standard_normal((200, 200))
    found = ChannelGradient(layer="", magnitude=np.abs(noise), signed=noise, input_mean=np.zeros(200))
    assert found.top_share == pytest.approx(2 / np.pi, abs=0.02)
    assert found.signed_top_share < 0.03
    assert found.signed_effective_rank == pytest.approx(100, rel=0.05)  # Marchenko-Pastur: m₂/m₁² = 2
    assert np.isnan(found.mean_rank_correlation)


@pytest.mark.parametrize(
    ("layers", "y", "message"),
    [
        (["1"], LABELS, "`layers` must be names of two-dimensional convolutions or linear layers; got ReLU"),
        (["9"], LABELS, "`layers` must be one of .*; got '9'"),
        (["0"], LABELS + 1, r"`y` must be classes 0 to 2; got \(1, 3\)"),
    ],
)
def test_what_has_no_kernel_gradient_is_refused(layers, y, message):
    """One line that names argument, rule and value; no hook stays."""
    net = small(kernel_size=3)
    with pytest.raises(InvalidArgumentError, match=message):
        sum_ratios(net, inputs(5, 4, 7, 6), y, layers=layers)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_maps_of_grouped_convolutions_are_refused():
    """Channels of other groups have no weight between them."""
    with pytest.raises(InvalidArgumentError, match=r"`layers` must be layers in one group; got .*'0' in 2 groups"):
        channel_gradients(small(kernel_size=3, groups=2), inputs(5, 4, 7, 6), LABELS, layers=["0"])
