"""Jacobian spectra of convolutional and residual networks: every route against dense reverse-mode autograd."""

import copy
import math

import numpy as np
import pytest
import torch
from cases import inputs
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn.modules.batchnorm import _BatchNorm

from rmtbn import rng
from rmtbn.inits import initialise
from rmtbn.measure import jacobian
from rmtbn.measure.jacobian_operator import jacobian_operator
from rmtbn.nets.cnn import plain_cnn
from rmtbn.nets.fixup import fixup
from rmtbn.nets.resnet import resnet_cifar
from rmtbn.theory.convolution import frequency_blocks

CNN = {"depth": 3, "channels": 4, "in_channels": 2}
RESNET = {"depth": 8, "in_channels": 2, "widths": (3, 4, 5)}
NORMS = ("none", "batch")


def drawn(net):
    """In float64, at a scale that leaves no unit dead, with γ and β of norms drawn too."""
    net = initialise(net.double(), "gaussian", generator=rng.torch_generator(1, "conv"), sigma_w=1.3, sigma_b=0.3)
    for part in net.modules():
        if isinstance(part, _BatchNorm):
            part.weight.data = 1 + 0.2 * inputs(part.num_features, seed=2)
            part.bias.data = 0.2 * inputs(part.num_features, seed=3)
            part.running_mean.copy_(0.3 * inputs(part.num_features, seed=4))
            part.running_var.copy_(inputs(part.num_features, seed=5).square() + 0.5)
    return net


def features(net):
    """The network up to its pooling."""
    return net[: [name for name, _ in net.named_children()].index("pool")]


NETWORKS = {
    "plain": lambda norm: plain_cnn(**CNN, norm=norm),
    "plain, circular": lambda norm: plain_cnn(**CNN, norm=norm, padding="circular", activation="tanh"),
    "plain, crelu": lambda norm: plain_cnn(**CNN, norm=norm, activation="crelu"),
    "plain, classes": lambda norm: plain_cnn(**CNN, norm=norm, classes=6),
    "resnet, post": lambda norm: features(resnet_cifar(**RESNET, norm=norm, final_bn=True)),
    "resnet, pre": lambda norm: features(resnet_cifar(**RESNET, norm=norm, placement="pre")),
    "resnet, projections": lambda norm: features(resnet_cifar(**RESNET, norm=norm, shortcut="projection")),
    "resnet, classes": lambda norm: resnet_cifar(**RESNET, norm=norm, final_bn=True),
}


def oracle(net, x, *, batch_stats):
    """Singular values of the batch Jacobian by `torch.func.jacrev`, zeros of its shape appended, largest first."""
    twin = copy.deepcopy(net).train(batch_stats == "batch")
    for part in twin.modules():
        if isinstance(part, _BatchNorm) and batch_stats == "batch":
            part.track_running_stats = False  # batch statistics, nothing written
            part.running_mean = part.running_var = None
    outputs = twin(x).numel()
    matrix = jacrev(lambda point: functional_call(twin, dict(twin.named_parameters()), (point,)))(x)
    values = torch.linalg.svdvals(matrix.detach().reshape(outputs, x.numel())).numpy()
    return np.pad(values, (0, max(0, outputs - values.size)))


def agree(found, exact):
    """To what the dense decompositions resolve, which is of the order of n ε of the largest value."""
    values = np.sort(np.exp(found.log_singular_values))[::-1]
    assert values.shape == exact.shape
    np.testing.assert_allclose(values, exact, rtol=1e-9, atol=1e-14 * len(exact) * exact[0])


@pytest.mark.parametrize("method", ["product", "dense"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_values_of_a_batch_are_those_of_dense_autograd(name, norm, method):
    """Three images: a matrix each without norm, one that couples them with batch statistics."""
    net, x = drawn(NETWORKS[name](norm)), inputs(3, 2, 6, 6)
    found = jacobian.spectrum(net, x, method=method)
    assert found.batch_stats == ("batch" if norm == "batch" else None)
    agree(found, oracle(net, x, batch_stats="batch"))


@pytest.mark.parametrize("method", ["product", "dense"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["plain", "resnet, post", "resnet, pre"])
def test_values_of_one_image_are_those_of_dense_autograd(name, norm, method):
    """Under running statistics images do not couple; under batch statistics one image is its own batch."""
    net, x = drawn(NETWORKS[name](norm)), inputs(1, 2, 6, 6)
    for batch_stats in ("running", "batch") if norm == "batch" else (None,):
        found = jacobian.spectrum(net, x, method=method, batch_stats=batch_stats)
        agree(found, oracle(net, x, batch_stats=batch_stats or "running"))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["plain", "resnet, post"])
def test_running_statistics_do_not_couple_images(name, norm):
    """The values of a batch are those of its images together."""
    net, x = drawn(NETWORKS[name](norm)).eval(), inputs(3, 2, 6, 6)
    together = jacobian.spectrum(net, x).log_singular_values
    alone = np.concatenate([jacobian.spectrum(net, image[None]).log_singular_values for image in x])
    np.testing.assert_allclose(np.sort(np.exp(together)), np.sort(np.exp(alone)), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["plain", "resnet, post", "resnet, classes"])
def test_values_that_are_never_assembled_are_those_of_dense_autograd(name, norm):
    """Block Lanczos above λ = 1e-3 of the largest, value by value."""
    net, x = drawn(NETWORKS[name](norm)), inputs(2, 2, 6, 6)
    found = jacobian.spectrum(net, x, method="lanczos", floor=1e-3)
    exact = oracle(net, x, batch_stats="batch")
    logs = np.sort(found.log_singular_values)[::-1]
    above = exact > 1.01 * math.exp(found.log_floor[0])
    assert above.sum() >= min(5, np.count_nonzero(exact))
    np.testing.assert_allclose(np.exp(logs[above]), exact[above], rtol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["plain", "resnet, post"])
def test_densities_that_are_never_assembled_are_those_of_dense_autograd(name, norm):
    """Share of values above a point by block quadrature, within four of its stated errors; twice the values are not."""
    net, x = drawn(NETWORKS[name](norm)), inputs(2, 2, 6, 6)
    found = jacobian.spectrum(net, x, method="slq", floor=1e-3)
    exact = oracle(net, x, batch_stats="batch")
    points = np.exp(found.log_floor[0]) * np.array([1.1, 2.0, 4.0, 8.0])
    values = np.exp(found.log_singular_values)
    share = np.array([[np.mean(some > point) for point in points] for some in (values, exact)])
    assert np.abs(share[0] - share[1]).max() <= 4 * found.cdf_error + 1 / len(exact)
    assert np.abs(share[0] - [np.mean(2 * exact > point) for point in points]).max() > 4 * found.cdf_error


@pytest.mark.parametrize("name", ["plain", "resnet, post"])
def test_moments_of_operators_are_those_of_the_matrix(name):
    """⟨J v, w⟩ = ⟨v, Jᵀ w⟩ and ‖J e‖² summed over a basis is Σ σ²."""
    net, x = drawn(NETWORKS[name]("batch")), inputs(2, 2, 4, 4)
    with jacobian_operator(net, x) as operator:
        rows = operator.apply(torch.eye(operator.inputs, dtype=x.dtype))
        v, w = inputs(1, operator.inputs, seed=7), inputs(1, operator.outputs, seed=8)
        left, right = (operator.apply(v) * w).sum(), (v * operator.apply_transpose(w)).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-11)
    exact = oracle(net, x, batch_stats="batch")
    assert float(rows.square().sum()) == pytest.approx(float(np.sum(exact**2)), rel=1e-10)


def test_circular_networks_have_the_values_of_their_frequencies_at_depth():
    """60 linear layers: log singular values from products of K̂(ω), far below what a dense SVD resolves."""
    net = plain_cnn(depth=60, channels=3, in_channels=3, activation="linear", padding="circular").double()
    initialise(net, "lecun_normal", generator=rng.torch_generator(1, "deep"))
    found = np.sort(jacobian.spectrum(net, inputs(1, 3, 3, 4), method="product").log_singular_values)[::-1]
    kernels = [layer.weight.detach().numpy() for layer in net if isinstance(layer, nn.Conv2d)]
    stacks = [[frequency_blocks(kernel, image=(3, 4))[place] for kernel in kernels] for place in np.ndindex(3, 4)]
    logs = [_log_values(blocks) for blocks in stacks]
    np.testing.assert_allclose(found, np.sort(np.concatenate(logs))[::-1], rtol=0, atol=1e-7)
    assert found[-1] - found[0] < math.log(1e-17)


def _log_values(blocks):
    """Log singular values of a product of small complex matrices, in 60 digits."""
    from mpmath import matrix, mp, svd_c

    with mp.workdps(60):
        product = mp.eye(len(blocks[0]))
        for block in blocks:
            product = matrix(block.tolist()) * product
        return [float(mp.log(value)) for value in svd_c(product, compute_uv=False)]


def test_delta_orthogonal_networks_are_isometries_to_any_depth():
    """All λ = 1 after 100 linear convolutions with zero padding; orthonormal kernels alone spread over decades."""
    x = inputs(1, 4, 4, 4)
    net = plain_cnn(depth=100, channels=4, in_channels=4, activation="linear").double()
    initialise(net, "delta_orthogonal", generator=rng.torch_generator(1))
    assert np.abs(jacobian.spectrum(net, x).log_singular_values).max() < 1e-12
    initialise(net, "orthogonal", generator=rng.torch_generator(1))
    assert np.ptp(jacobian.spectrum(net, x).log_singular_values) > 10


def test_networks_whose_branches_start_at_zero_pass_their_stem_on():
    """SkipInit and Fixup at any depth: the Jacobian of the blocks is the identity, but where sizes change."""
    x = inputs(1, 4, 4, 4)
    for residual, prepare in (("skipinit", lambda net: net), ("fixup", fixup)):
        net = resnet_cifar(depth=44, residual=residual, placement="pre", in_channels=4, widths=(4, 4, 4)).double()
        net = prepare(initialise(net, "he_normal", generator=rng.torch_generator(1)))
        names = [name for name, _ in net.named_children()]
        first = net[names.index("block_1") : names.index("block_8")]
        assert np.abs(jacobian.spectrum(first, x).log_singular_values).max() < 1e-12
        whole = np.exp(jacobian.spectrum(net[names.index("block_1") : names.index("pool")], x).log_singular_values)
        assert set(whole.round(9)) <= {0.0, 1.0}
