"""Norms: what each divides by, over space too, running statistics, and weights held as length times direction."""

import copy

import numpy as np
import pytest
import torch
from cases import inputs, network
from torch import nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.inits import initialise
from rmtbn.nets.norms import NORMS, UncentredBatchNorm, norm_layer, normalised_weight, removes_mean

OVER_SPACE = tuple(name for name in NORMS if name not in {"none", "weight"})
# Axes of (groups, features in a group) of a (B, C, H, W) tensor over which each takes its statistics.
SETS = {"batch": (0, 3, 4), "uncentred": (0, 3, 4), "layer": (1, 2, 3, 4), "group": (2, 3, 4), "instance": (3, 4)}


@pytest.mark.parametrize("name", OVER_SPACE)
def test_norms_over_space_take_the_sets_of_their_papers(name):
    """(x - mean)/√(variance + ε) over the set, in numpy; 16 channels make 4 groups."""
    x = inputs(5, 16, 3, 4) + 2.0
    split = x.numpy().reshape(5, 4, 4, 3, 4)
    mean = 0.0 if name == "uncentred" else split.mean(axis=SETS[name], keepdims=True)
    expected = (split - mean) / np.sqrt(((split - mean) ** 2).mean(axis=SETS[name], keepdims=True) + 1e-5)
    layer = norm_layer(name, 16, spatial=2).double()
    np.testing.assert_allclose(layer(x).detach().numpy().reshape(split.shape), expected, rtol=1e-11, atol=1e-12)
    assert {parameter.numel() for parameter in layer.parameters()} == {16}  # γ and β per channel


@pytest.mark.parametrize(("features", "groups"), [(256, 32), (128, 32), (64, 16), (32, 8), (12, 3), (10, 2), (7, 1)])
def test_groups_divide_the_features(features, groups):
    """As many as divide them, up to 32, of four features or more; fewer than four are one group."""
    assert norm_layer("group", features).num_groups == groups
    assert norm_layer("group", 3, spatial=2).num_groups == 1


def test_names_without_a_layer_have_none():
    """ "none" and "weight" normalise no signal."""
    assert norm_layer("none", 4) is norm_layer("weight", 4) is None
    assert [name for name in NORMS if removes_mean(name)] == ["batch", "instance"]


def test_running_mean_square_follows_the_batches():
    """r ← 0.9 r + 0.1 mean x², from r = 1; in eval mode x/√(r + ε); without tracking, and at eval, nothing moves."""
    layer, x = UncentredBatchNorm(3).double(), inputs(6, 3) + 1.0
    layer(x)
    expected = 0.9 + 0.1 * x.square().mean(dim=0)
    torch.testing.assert_close(layer.running_var, expected, rtol=1e-14, atol=0)
    assert int(layer.num_batches_tracked) == 1
    assert not layer.running_mean.any()
    layer.eval()
    torch.testing.assert_close(layer(x), x / (expected + 1e-5).sqrt(), rtol=1e-12, atol=0)
    torch.testing.assert_close(layer.running_var, expected, rtol=0, atol=0)
    average = UncentredBatchNorm(3, momentum=None).double()
    for batch in (x, 2 * x):
        average(batch)
    torch.testing.assert_close(average.running_var, 2.5 * x.square().mean(dim=0), rtol=1e-14, atol=0)


def test_uncentred_norm_scales_and_shifts():
    """γ x/√(mean x² + ε) + β; without γ and β the mean square of each feature is 1 up to ε."""
    layer, x = UncentredBatchNorm(2, eps=0.0).double(), inputs(7, 2, 3)
    layer.weight.data, layer.bias.data = torch.tensor([2.0, -1.0]).double(), torch.tensor([0.5, 3.0]).double()
    plain = UncentredBatchNorm(2, eps=0.0, affine=False, track_running_stats=False).double()
    torch.testing.assert_close(plain(x).square().mean(dim=(0, 2)), torch.ones(2).double())
    expected = plain(x) * torch.tensor([2.0, -1.0])[:, None] + torch.tensor([0.5, 3.0])[:, None]
    torch.testing.assert_close(layer(x), expected)
    assert plain.eval()(x).equal(plain.train()(x))  # it has no running statistics


@pytest.mark.parametrize("layer", [nn.Linear(5, 3), nn.Conv2d(2, 3, 3)], ids=["linear", "convolution"])
def test_weights_are_length_times_direction(layer):
    """W = g v/‖v‖ with one g for each output: drawing sets both, and scaling v changes nothing."""
    plain = type(layer)(*([5, 3] if isinstance(layer, nn.Linear) else [2, 3, 3]))
    held = normalised_weight("weight", layer)
    for module in (plain, held):
        initialise(module, "he_normal", generator=rng.torch_generator(1, "weight norm"), activation="relu")
    torch.testing.assert_close(held.weight, plain.weight)
    length, direction = held.parametrizations.weight.original0, held.parametrizations.weight.original1
    torch.testing.assert_close(length.flatten(), plain.weight.flatten(1).norm(dim=1))
    with torch.no_grad():
        direction.mul_(3.0)
        torch.testing.assert_close(held.weight, plain.weight)
        length.mul_(2.0)
    torch.testing.assert_close(held.weight, 2 * plain.weight)
    assert normalised_weight("batch", plain) is plain
    assert not hasattr(plain, "parametrizations")


def test_weight_norm_leaves_the_drawn_network_as_it_is():
    """At initialisation g = ‖v‖: the same function as without."""
    x = inputs(4, 12)
    held, plain = network(norm="weight"), network(norm="none")
    for module in (held, plain):
        initialise(module, "he_normal", generator=rng.torch_generator(1, "same"))
    torch.testing.assert_close(held(x), plain(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("arguments", "options", "message"), [
    (("batchnorm", 4), {}, "`norm` must be one of 'none', .*; got 'batchnorm'"),
    (("batch", 0), {}, "`features` must be an integer >= 1; got 0"),
    (("batch", 4), {"spatial": 1}, "`spatial` must be 0 or 2; got 1"),
    (("instance", 4), {}, "`norm` must be one for inputs without space, .*; got 'instance'"),
    (("group", 1), {}, "`features` must be >= 2 for the norm 'group' .*; got 1"),
])  # fmt: skip
def test_impossible_norms_are_refused(arguments, options, message):
    """One line that names the argument, the rule and the value."""
    with pytest.raises(InvalidArgumentError, match=message):
        norm_layer(*arguments, **options)


@pytest.mark.parametrize(("name", "channels"), [("instance", 8), ("group", 1), ("layer", 1)])
@pytest.mark.parametrize("mode", [True, False])
def test_sets_of_one_number_are_refused(name, channels, mode):
    """One channel of one pixel has no variance: one line, in train and eval mode, also of a copy; two pixels have."""
    layer = copy.deepcopy(norm_layer(name, channels, spatial=2)).double().train(mode)
    message = rf"`x` must be of two or more numbers in each set of the norm '{name}', .* got \(5, {channels}, 1, 1\)"
    with pytest.raises(InvalidArgumentError, match=message):
        layer(inputs(5, channels, 1, 1))
    assert layer(inputs(5, channels, 1, 2)).shape == (5, channels, 1, 2)


def test_groups_of_several_channels_do_without_space():
    """8 channels make 2 groups of 4: images of one pixel are normalised over those."""
    normed = norm_layer("group", 8, spatial=2).double()(inputs(5, 8, 1, 1)).reshape(5, 2, 4)
    torch.testing.assert_close(normed.mean(dim=2), torch.zeros(5, 2, dtype=torch.float64), rtol=0, atol=1e-12)
