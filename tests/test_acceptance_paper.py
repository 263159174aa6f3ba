"""The measures on the paper's own network: ResNet-110, Glorot, 128 CIFAR-10 images, at its start (issue 6 of the plan).

Quick form: ResNet-20 on noise, where the same signs show.
"""

import numpy as np
import pytest
import torch
from cases import inputs

from rmtbn import rng
from rmtbn.data.cifar import cifar10
from rmtbn.inits import initialise
from rmtbn.measure.channel_gradient import channel_gradients
from rmtbn.measure.class_bias import class_bias
from rmtbn.measure.conv_gradient import sum_ratios
from rmtbn.measure.step_size import largest_step
from rmtbn.nets.resnet import paper_layers, resnet_cifar

KINDS = {"none": {"norm": "none"}, "final": {"norm": "batch", "final_bn": True}}
# Table 1 as the notes have it, layers 18, 54 and 90, for the network that normalises at its end too.
RATIOS = {18: 213.0, 54: 107.0, 90: 40.0}


def drawn(kind, *, depth, seed):
    """A network at its start, in train mode, and its layers by number."""
    net = resnet_cifar(depth=depth, **KINDS[kind])
    initialise(net, "glorot_uniform", generator=rng.torch_generator(seed, "paper", kind, depth))
    return net, paper_layers(net)


def test_unnormalised_networks_differ_as_the_paper_says():
    """ResNet-20 on noise, two seeds: a/b and σ₁²/Σσ² without norm and with (the sizes do not differ yet)."""
    x, y = inputs(32, 3, 32, 32, dtype=torch.float32), torch.arange(32) % 10
    ratio, share = {}, {}
    for kind in KINDS:
        nets = [drawn(kind, depth=20, seed=seed) for seed in (1, 2)]
        ratio[kind] = [sum_ratios(net, x, y, layers=[layers[10]])[0].ratio for net, layers in nets]
        share[kind] = [channel_gradients(net, x, y, layers=[layers[10]])[0].signed_top_share for net, layers in nets]
    assert max(ratio["none"]) < 20 < min(ratio["final"])
    assert min(share["none"]) > max(share["final"])


def images(folder, seed):
    """128 real images and their classes."""
    found = cifar10(folder).take(128, generator=rng.torch_generator(seed, "images"))
    return found.inputs.float(), found.targets


def medians(kind, folder, seeds):
    """Medians over networks of a/b at layers 18, 54, 90, and of the share of images in one class."""
    rows, fractions = [], []
    for seed in seeds:
        net, layers = drawn(kind, depth=110, seed=seed)
        x, y = images(folder, seed)
        rows.append([found.ratio for found in sum_ratios(net, x, y, layers=[layers[number] for number in RATIOS])])
        fractions.append(class_bias(net, x, y).modal_fraction)
    return np.median(rows, axis=0), np.median(fractions)


@pytest.mark.slow
def test_kernel_gradients_of_unnormalised_networks_do_not_cancel(cifar_folder):
    """Median a/b in [1, 4], one class for all. Single networks reach 5.7 at layer 18: so the median of 8."""
    ratios, fraction = medians("none", cifar_folder, range(1, 9))
    assert ((ratios >= 1) & (ratios <= 4)).all()
    assert fraction >= 0.95


@pytest.mark.slow
def test_kernel_gradients_of_normalised_networks_cancel_as_in_table_1(cifar_folder):
    """Median a/b within 25 % of 213, 107 and 40 with a norm at the end too, less than 0.6 in one class; of 4."""
    ratios, fraction = medians("final", cifar_folder, range(1, 5))
    np.testing.assert_allclose(ratios, list(RATIOS.values()), rtol=0.25)
    assert fraction < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_first_steps_are_limited_as_in_figure_3(seed, cifar_folder):
    """The largest step that lowers the loss is in [3e-5, 1e-3] without norm, and 3e-3 or more with."""
    x, y = images(cifar_folder, seed)
    plain, final = (drawn(kind, depth=110, seed=seed)[0] for kind in KINDS)
    assert 3e-5 <= largest_step(plain, x, y, accuracy=0.5, lowest=1e-6, highest=1.0).step <= 1e-3
    assert largest_step(final, x, y, accuracy=1.0, lowest=3e-3, highest=1.0).step >= 3e-3
