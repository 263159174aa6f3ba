"""Plain convolutional networks: layers in order, the recursion, and the singular values of a circular one."""

import numpy as np
import pytest
import torch
from cases import ACTIVATION_NAMES, inputs
from torch import nn
from torch.func import jacrev
from torch.nn import functional

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.inits import initialise
from rmtbn.nets.activations import CReLU
from rmtbn.nets.cnn import plain_cnn
from rmtbn.nets.norms import NORMS
from rmtbn.nets.numbering import paper_layer, paper_layers
from rmtbn.theory.convolution import frequency_blocks, singular_values


def dense_values(layer, *shape):
    """Singular values of the Jacobian at an input of that shape, from the dense matrix."""
    x = inputs(1, *shape)
    outputs = layer(x).numel()
    return torch.linalg.svdvals(jacrev(layer)(x).detach().reshape(outputs, x.numel())).numpy()


def drawn(**options):
    net = plain_cnn(**{"depth": 3, "channels": 8, "in_channels": 2} | options).double()
    return initialise(net, "he_normal", generator=rng.torch_generator(1, "cnn"))


@pytest.mark.parametrize("norm", NORMS)
def test_children_are_the_layers_in_order(norm):
    """conv_l, [norm_l,] phi_l, then pool, flatten and readout if there are classes."""
    block = ["conv", "phi"] if norm in {"none", "weight"} else ["conv", "norm", "phi"]
    names = [f"{kind}_{layer}" for layer in (1, 2) for kind in block]
    options = {"depth": 2, "channels": 8, "norm": norm}
    assert [name for name, _ in plain_cnn(**options).named_children()] == names
    assert [name for name, _ in plain_cnn(**options, classes=3).named_children()][-3:] == ["pool", "flatten", "readout"]


@pytest.mark.parametrize("norm", NORMS)
def test_biases_are_kept_unless_the_norm_removes_them(norm):
    """Without normalisation there is none anywhere, and every convolution has a bias."""
    net = plain_cnn(depth=2, channels=8, norm=norm)
    assert all((layer.bias is None) == (norm in {"batch", "instance"}) for layer in (net.conv_1, net.conv_2))
    if norm == "none":
        assert {type(layer) for layer in net} == {nn.Conv2d, nn.ReLU}


@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_forward_pass_is_the_recursion(norm, padding):
    """x^l = φ(norm(K^l * x^{l-1} + b^l)) by padding, unfolding and a matrix product."""
    net, x = drawn(norm=norm, padding=padding, classes=4, activation="tanh"), inputs(5, 2, 6, 4)
    signal = x
    for layer in (1, 2, 3):
        conv = net.get_submodule(f"conv_{layer}")
        framed = functional.pad(signal, (1, 1, 1, 1), mode={"zeros": "constant"}.get(padding, padding))
        h = (conv.weight.flatten(1) @ functional.unfold(framed, 3)).unflatten(2, (6, 4))
        h = h + (0.0 if conv.bias is None else conv.bias[:, None, None])
        if norm == "batch":
            mean, variance = h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), correction=0, keepdim=True)
            h = (h - mean) / (variance + 1e-5).sqrt()
        signal = torch.tanh(h)
    expected = signal.mean((2, 3)) @ net.readout.weight.T + net.readout.bias
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("activation", [*ACTIVATION_NAMES, "crelu"])
def test_every_activation_serves(activation):
    """CReLU doubles the channels that the next layer sees; others keep them."""
    net = drawn(activation=activation, classes=3)
    factor = 2 if activation == "crelu" else 1
    assert net.conv_2.in_channels == net.readout.in_features == 8 * factor
    assert net(inputs(2, 2, 5, 5)).shape == (2, 3)


def test_crelu_keeps_both_halves():
    """relu(x) - relu(-x) = x, and the length is kept."""
    x = inputs(2, 3, 4, 4)
    up, down = CReLU()(x).chunk(2, dim=1)
    assert torch.equal(up - down, x)
    torch.testing.assert_close(CReLU()(x).norm(), x.norm())


@pytest.mark.parametrize("activation", ["relu", "crelu"])
def test_hes_scheme_keeps_the_mean_square_of_rectified_networks(activation):
    """20 layers with circular padding: E x² of pre-activations stays within a factor 2, for half the gain 2^-20."""
    net = drawn(depth=20, channels=64, activation=activation, padding="circular")
    h = {name: None for name, _ in net.named_children() if name.startswith("conv")}
    signal = inputs(4, 2, 6, 6)
    for name, layer in net.named_children():
        signal = layer(signal).detach()
        if name in h:
            h[name] = float(signal.square().mean())
    assert 0.5 < h["conv_20"] / h["conv_1"] < 2


@pytest.mark.parametrize(("depth", "kernel_size"), [(1, 3), (1, 5), (3, 3)])
def test_circular_linear_networks_have_the_singular_values_of_their_frequencies(depth, kernel_size):
    """Dense Jacobian of the torch network against products of K̂(ω) = Σ_τ K(τ) e^{-iωτ}, to 1e-10."""
    options = {"activation": "linear", "padding": "circular", "channels": 3, "kernel_size": kernel_size}
    net, image = drawn(depth=depth, **options), (4, 6)
    dense = dense_values(net, 2, *image)
    blocks = np.eye(2)
    for layer in range(1, depth + 1):
        kernel = net.get_submodule(f"conv_{layer}").weight.detach().numpy()
        blocks = frequency_blocks(kernel, image=image) @ blocks
    found = np.sort(np.linalg.svd(blocks, compute_uv=False), axis=None)[::-1]
    np.testing.assert_allclose(found, dense, rtol=0, atol=1e-10)
    if depth == 1:
        np.testing.assert_allclose(np.sort(singular_values(kernel, image=image), axis=None)[::-1], found, atol=1e-12)


def test_zero_padding_has_other_singular_values():
    """The largest are below the circular ones, which the border no longer feeds."""
    net = drawn(depth=1, activation="linear", padding="zeros", channels=3)
    dense = dense_values(net, 2, 5, 5)
    found = np.sort(singular_values(net.conv_1.weight.detach().numpy(), image=(5, 5)), axis=None)[::-1]
    assert np.abs(found - dense).max() > 0.05


def test_strided_convolutions_have_the_singular_values_of_folded_frequencies():
    """A torch convolution of stride 2 on a circular image, to 1e-10."""
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1, padding_mode="circular", bias=False, dtype=torch.float64)
    initialise(conv, "he_normal", generator=rng.torch_generator(1), activation="linear")
    dense = dense_values(conv, 2, 4, 6)
    found = singular_values(conv.weight.detach().numpy(), image=(4, 6), strides=(2, 2))
    np.testing.assert_allclose(np.sort(found, axis=None)[::-1], dense, rtol=0, atol=1e-10)


def test_layers_are_numbered_from_one():
    """L convolutions and the readout."""
    net = plain_cnn(depth=7, channels=4, norm="batch", classes=5)
    assert list(paper_layers(net)) == list(range(1, 9))
    assert paper_layer(net, 3) is net.conv_3
    assert paper_layer(net, 8) is net.readout
    with pytest.raises(InvalidArgumentError, match=r"`number` must be an integer >= 1 and <= 8; got 9"):
        paper_layer(net, 9)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"depth": 0}, r"`depth`.*0"), ({"channels": 0}, r"`channels`.*0"), ({"norm": "bn"}, r"`norm`.*'bn'"),
     ({"activation": "swish"}, r"`activation`.*'swish'"), ({"padding": "reflect"}, r"`padding`.*'reflect'"),
     ({"kernel_size": 2}, r"`kernel_size` must be odd; got 2"), ({"in_channels": 0}, r"`in_channels`.*0"),
     ({"classes": 0}, r"`classes`.*0")],
)  # fmt: skip
def test_impossible_networks_are_refused(change, named):
    """Each message names the argument and the value."""
    with pytest.raises(InvalidArgumentError, match=named):
        plain_cnn(**{"depth": 1, "channels": 2} | change)
