"""Residual networks for images: sizes in print, the numbers of layers, what they compute, and what is refused."""

import itertools

import pytest
import torch
from cases import inputs
from torch import nn
from torch.nn import functional

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.inits import initialise
from rmtbn.nets import resnet as module
from rmtbn.nets.norms import NORMS
from rmtbn.nets.resnet import paper_layer, paper_layers, resnet, resnet_cifar

SMALL = {"in_channels": 2, "widths": (4, 6, 8), "classes": 5}


def drawn(**options):
    net = resnet_cifar(**SMALL | {"depth": 14} | options).double()
    return initialise(net, "gaussian", generator=rng.torch_generator(1, "resnet"), sigma_w=1.2, sigma_b=0.2)


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7), (1202, 19.4)]
)
def test_networks_have_the_parameters_in_print(depth, millions):
    """He et al. 2015 (arXiv:1512.03385), table 6, to the digits given."""
    parameters = sum(parameter.numel() for parameter in resnet_cifar(depth=depth, norm="batch").parameters())
    digits = 2 if millions < 1 else 1
    assert round(parameters / 1e6, digits) == millions


def test_the_deepest_network_runs_forward_and_backward():
    """1,202 layers, in a loop and not by recursion."""
    net = resnet_cifar(depth=1202, norm="batch", widths=(2, 2, 2))
    net(inputs(2, 3, 4, 4, dtype=torch.float32)).sum().backward()
    assert paper_layer(net, 1).weight.grad is not None
    assert len(paper_layers(net)) == 1202


@pytest.mark.parametrize("shortcut", ["pad", "projection"])
@pytest.mark.parametrize("placement", ["post", "pre"])
@pytest.mark.parametrize("depth", [8, 20, 110])
def test_layers_have_the_numbers_of_the_paper(depth, placement, shortcut):
    """1 the stem, then 6n in three stages, then the classifier; shortcuts are not counted."""
    net = resnet_cifar(depth=depth, norm="batch", placement=placement, shortcut=shortcut, final_bn=True)
    assert list(paper_layers(net)) == list(range(1, depth + 1))
    assert paper_layer(net, 1) is net.stem_conv
    assert paper_layer(net, depth) is net.readout
    third = (depth - 2) // 3
    for number in range(2, depth):
        stage, place = divmod(number - 2, third)
        layer = paper_layer(net, number)
        width = (16, 32, 64)[stage]
        assert layer.out_channels == width
        assert layer.in_channels == (width // 2 if stage and not place else width)
        assert layer.stride == ((2, 2) if stage and not place else (1, 1))
        assert layer.kernel_size == (3, 3)


def test_stages_of_resnet_110():
    """Layers 2–37, 38–73, 74–109 see 32, 16 and 8 pixels; 18, 54 and 90 are in their middle."""
    net, seen = resnet_cifar(depth=110, widths=(1, 2, 3)), {}
    for number in paper_layers(net):
        paper_layer(net, number).register_forward_hook(lambda _m, _i, out, k=number: seen.update({k: out.shape[-1]}))
    net(torch.zeros(1, 3, 32, 32))
    assert {seen[number] for number in range(1, 38)} == {32}
    assert {seen[number] for number in range(38, 74)} == {16}
    assert {seen[number] for number in range(74, 110)} == {8}
    assert seen[110] == 10


def test_layers_run_in_the_order_of_their_numbers():
    """So that a number is a depth."""
    net, order = drawn(placement="pre", shortcut="projection"), []
    for number in paper_layers(net):
        paper_layer(net, number).register_forward_hook(lambda _m, _i, _o, k=number: order.append(k))
    net(inputs(2, 2, 8, 8))
    assert order == list(range(1, 15))


def norm_by_hand(norm, h):
    if norm in {"none", "weight"}:
        return h
    dims = {"batch": (0, 2, 3), "layer": (1, 2, 3), "group": (1, 2, 3), "instance": (2, 3)}[norm]
    return (h - h.mean(dims, keepdim=True)) / (h.var(dims, correction=0, keepdim=True) + 1e-5).sqrt()


def conv_by_hand(layer, x):
    """Pad, unfold, multiply."""
    side, stride = layer.weight.shape[-1], layer.stride[0]
    patches = functional.unfold(x, side, padding=side // 2, stride=stride)
    h = layer.weight.flatten(1) @ patches
    h = h.unflatten(2, (-(-x.shape[2] // stride), -(-x.shape[3] // stride)))
    return h if layer.bias is None else h + layer.bias[:, None, None]


def network_by_hand(net, x, *, norm, placement, shortcut, last, alpha=1.0, blocks=6):
    """He et al. 2015, figure 2, or He et al. 2016, figure 1 (b); at 4 … 7 channels a group is the whole."""

    def conv(number, signal):
        return conv_by_hand(paper_layer(net, number), signal)

    post = placement == "post"
    h = conv(1, x)
    h = torch.relu(norm_by_hand(norm, h)) if post else h
    for block in range(blocks):
        first, second = 2 * block + 2, 2 * block + 3
        layer = paper_layer(net, first)
        skip = h
        if layer.stride == (2, 2) and shortcut == "pad":
            channels = layer.out_channels - h.shape[1]
            zeros = torch.zeros(len(h), channels, *h[0, 0, ::2, ::2].shape, dtype=h.dtype)
            skip = torch.cat([h[:, :, ::2, ::2], zeros], dim=1)
        elif layer.stride == (2, 2):
            name = f"block_{block + 1}" + (".residual" if post else "")
            skip = norm_by_hand(norm, conv_by_hand(net.get_submodule(f"{name}.shortcut.conv"), h))
        if post:
            inner = conv(second, torch.relu(norm_by_hand(norm, conv(first, h))))
            h = torch.relu(skip + alpha * norm_by_hand(norm, inner))
        else:
            inner = conv(first, torch.relu(norm_by_hand(norm, h)))
            h = skip + alpha * conv(second, torch.relu(norm_by_hand(norm, inner)))
    h = norm_by_hand(last, h)
    h = h if post else torch.relu(h)
    return h.mean((2, 3)) @ net.readout.weight.T + net.readout.bias


FORMS = list(itertools.product(["post", "pre"], ["pad", "projection"]))
BY_HAND = ("batch", "layer", "group", "instance")
# norm of the network, norm after the last block, arguments that ask for it
ENDS = [
    *((norm, last, {"final_bn": last != "none"}) for norm in BY_HAND for last in (norm, "none")),
    ("none", "none", {"final_bn": True}),
    ("none", "batch", {"only_final_bn": True}),
]


@pytest.mark.parametrize(("norm", "last", "asked"), ENDS)
@pytest.mark.parametrize(("placement", "shortcut"), FORMS)
def test_networks_compute_what_is_in_print(norm, last, asked, placement, shortcut):
    """Every norm, placement and shortcut, with a norm after the last block, without, or with that alone."""
    net = drawn(norm=norm, placement=placement, shortcut=shortcut, widths=(4, 6, 7), **asked)
    x = inputs(5, 2, 12, 12)
    expected = network_by_hand(net, x, norm=norm, placement=placement, shortcut=shortcut, last=last)
    torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_without_batch_normalisation_there_is_none_anywhere(norm):
    """And convolutions have biases unless the norm removes them."""
    net = resnet_cifar(depth=8, norm=norm, final_bn=True)
    kinds = {type(part) for part in net.modules()}
    assert (nn.BatchNorm2d in kinds) == (norm == "batch")
    convs = [part for part in net.modules() if isinstance(part, nn.Conv2d)]
    assert all((conv.bias is None) == (norm in {"batch", "instance"}) for conv in convs)


@pytest.mark.parametrize("placement", ["post", "pre"])
def test_a_single_norm_is_single(placement):
    """One BatchNorm2d, after the last block; biases are kept."""
    net = resnet_cifar(depth=20, only_final_bn=True, placement=placement)
    assert [name for name, part in net.named_modules() if isinstance(part, nn.BatchNorm2d)] == ["last_norm"]
    assert all(part.bias is not None for part in net.modules() if isinstance(part, nn.Conv2d))


@pytest.mark.parametrize("placement", ["post", "pre"])
@pytest.mark.parametrize("residual", ["skipinit", "rezero"])
def test_branches_with_a_learnable_factor_start_at_zero(residual, placement):
    """s(x) + α f(x), α = 0 and a parameter with a gradient; at another α it is that factor."""
    net = drawn(residual=residual, placement=placement)
    options = {"norm": "none", "placement": placement, "shortcut": "pad", "last": "none"}
    x = inputs(5, 2, 8, 8)
    torch.testing.assert_close(net(x), network_by_hand(net, x, alpha=0.0, **options))
    net(x).square().sum().backward()
    alphas = [parameter for name, parameter in net.named_parameters() if name.endswith("alpha")]
    assert len(alphas) == 6
    assert all(alpha == 0 and alpha.grad != 0 for alpha in alphas)
    with torch.no_grad():
        for alpha in alphas:
            alpha.fill_(0.3)
    torch.testing.assert_close(net(x), network_by_hand(net, x, alpha=0.3, **options))


def test_batch_normalised_networks_can_be_rescaled_too():
    """ReZero beside a norm: x + 0·f(norm(x))."""
    net = drawn(residual="rezero", norm="batch", placement="pre")
    x = inputs(5, 2, 8, 8)
    expected = network_by_hand(net, x, norm="batch", placement="pre", shortcut="pad", last="none", alpha=0.0)
    torch.testing.assert_close(net(x), expected)


def test_the_papers_network_normalises_at_its_end():
    """`resnet()` is ResNet-110 with batch normalisation everywhere and after the last block."""
    net = resnet(num_classes=7)
    assert len(paper_layers(net)) == 110
    assert isinstance(net.last_norm, nn.BatchNorm2d)
    assert net.readout.out_features == 7
    assert "last_norm" not in dict(resnet(depth=8, final_bn=False).named_children())
    assert not any(isinstance(part, nn.BatchNorm2d) for part in resnet(depth=8, norm="none").modules())
    assert {"residual_mlp", "Residual", "fixup"} <= set(module.__all__)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"depth": 9}, r"`depth` must be 6 n \+ 2 for 3 stages, n >= 1; got 9"), ({"depth": 2}, r"`depth`.*2"),
     ({"depth": 8, "widths": (4, 4)}, r"`depth` must be 4 n \+ 2 for 2 stages, n >= 1; got 8"),
     ({"norm": "bn"}, r"`norm`.*'bn'"), ({"placement": "mid"}, r"`placement`.*'mid'"),
     ({"residual": "highway"}, r"`residual`.*'highway'"), ({"shortcut": "A"}, r"`shortcut`.*'A'"),
     ({"activation": "swish"}, r"`activation`.*'swish'"), ({"classes": 0}, r"`classes`.*0"),
     ({"in_channels": 0}, r"`in_channels`.*0"), ({"widths": ()}, r"`widths`.*\[\]"),
     ({"widths": (4, 0, 4)}, r"`widths`.*0"), ({"widths": (4, 2, 4)}, r"`widths`.*\[4, 2, 4\]"),
     ({"norm": "layer", "only_final_bn": True}, r"`norm` must be 'none' where `only_final_bn`.*'layer'"),
     ({"norm": "batch", "residual": "fixup"}, r"`norm` must be 'none' where `residual`.*'batch'")],
)  # fmt: skip
def test_impossible_networks_are_refused(change, named):
    """Each message names the argument and the value."""
    with pytest.raises(InvalidArgumentError, match=named):
        resnet_cifar(**{"depth": 8} | change)


def test_projections_may_narrow():
    """Only the shortcut without weights needs channels that do not fall."""
    net = resnet_cifar(depth=8, widths=(8, 6, 4), shortcut="projection")
    assert net(torch.zeros(1, 3, 8, 8)).shape == (1, 10)
