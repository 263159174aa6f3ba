"""Batch Jacobians: autograd as the oracle, exact arithmetic for small values, two kinds of zeros, blocks, probes."""

import copy
import math

import mpmath
import numpy as np
import pytest
import torch
from cases import inputs, network
from long_double_jacobian import EXTENDED, jacobian, singular_values
from torch import nn
from torch.func import jacrev, replace_all_batch_norm_modules_

from rmtbn._checks import InvalidArgumentError
from rmtbn.measure.batch_blocks import blocks
from rmtbn.measure.batch_jacobian import METHODS, SPACES, spectrum
from rmtbn.measure.batch_probes import block_share, largest, squared_norm
from rmtbn.nets.mlp import mlp
from rmtbn.nets.norms import UncentredBatchNorm
from rmtbn.theory.bn_mean_field import zero_share

BATCH = 5
GAUSSIAN = {"scheme": "gaussian", "sigma_w": 1.0, "sigma_b": 0.1}


def shifted(module):
    """The network with γ and β of its norms off 1 and 0."""
    for i, layer in enumerate(module.modules()):
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.weight.data = 1.0 + 0.3 * inputs(layer.num_features, seed=10 + i)
            layer.bias.data = 0.2 * inputs(layer.num_features, seed=20 + i)
    return module


NETWORKS = {
    "linear": network(activation="linear", norm="batch", width=6, **GAUSSIAN),
    "relu": network(activation="relu", norm="batch", width=6, **GAUSSIAN),
    "tanh": network(activation="tanh", norm="batch", width=6, **GAUSSIAN),
    "hard tanh": network(activation="hard_tanh", norm="batch", width=6, **GAUSSIAN),
    "scaled": shifted(network(activation="leaky_relu", norm="batch", width=6, **GAUSSIAN)),
    "after": network(activation="tanh", norm="batch", norm_placement="post", width=6, **GAUSSIAN),
    "shapes": network(activation="gelu", norm="batch", width=4, in_features=6, out_features=7, **GAUSSIAN),
    "wider": network(activation="tanh", norm="batch", width=9, in_features=3, **GAUSSIAN),
    "uncentred": network(activation="tanh", norm="uncentred", width=6, **GAUSSIAN),
    "layer": nn.Sequential(*network(activation="tanh", norm="batch", width=6, depth=1), nn.LayerNorm(6).double()),
    "norm first": nn.Sequential(nn.BatchNorm1d(6).double(), *network(activation="tanh", norm="batch", width=6)),
    "phi first": nn.Sequential(nn.Tanh(), *network(activation="relu", norm="batch", width=6, depth=2)),
    "no norm": network(activation="tanh", norm="none", width=6, **GAUSSIAN),
    "norm alone": nn.BatchNorm1d(6).double(),
}


def batch(module, *, size=BATCH):
    first = next((layer for layer in module.modules() if hasattr(layer, "in_features")), None)
    return inputs(size, 6 if first is None else first.in_features)


def oracle(module, x, *, space):
    """J, or G J G, by reverse mode on a copy: shape (examples, outputs, examples, inputs)."""
    twin = copy.deepcopy(module).train()
    jacobian = torch.autograd.functional.jacobian(twin, x)
    if space == "whole":
        return jacobian
    g = torch.eye(len(x), dtype=x.dtype) - 1 / len(x)
    return torch.einsum("ab,bfcg,cd->afdg", g, jacobian, g)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", NETWORKS)
def test_spectra_are_those_of_autograd(name, space, method):
    """Every σ of J, or of G J G on 1^⊥, above 1e-8 of the top to 1e-9, and none above it where autograd has none."""
    module = NETWORKS[name]
    x = batch(module)
    matrix = oracle(module, x, space=space)
    rows, columns = matrix.shape[0] * matrix.shape[1], matrix.shape[2] * matrix.shape[3]
    expected = torch.linalg.svdvals(matrix.reshape(rows, columns)).numpy()
    found = spectrum(module, x, space=space, method=method).spectrum
    assert found.dimension == matrix.shape[1] * (len(x) - (space == "centred"))
    sigmas = np.exp(found.by_network[0])[: expected.size]
    expected = expected[: sigmas.size]
    known = expected > 1e-8 * expected[0]
    np.testing.assert_allclose(sigmas[known], expected[known], rtol=1e-9, atol=1e-15 * expected[0])
    assert (sigmas[~known] < 1.1e-8 * expected[0]).all()
    assert (found.method, found.batch_stats) == (method, None if name == "no norm" else "batch")


def exactly(module, x):
    """Log σ of J with 120 digits: Jacobians of linear layers, of batch normalisation by its formula, of tanh."""
    mp, (size, width) = mpmath.mp, x.shape
    signal, jacobian = mp.matrix(x.tolist()), mp.eye(size * width)
    for layer in module:
        factor = mp.zeros(size * width)
        if isinstance(layer, nn.Linear):
            weight = mp.matrix(layer.weight.tolist())
            for i in range(size):
                factor[i * width : (i + 1) * width, i * width : (i + 1) * width] = weight
            signal = signal * weight.T
        elif isinstance(layer, nn.BatchNorm1d):
            for f in range(width):
                h = [signal[i, f] for i in range(size)]
                d = [value - sum(h) / size for value in h]
                total = sum(value**2 for value in d) / size + mp.mpf(layer.eps)
                for i in range(size):
                    signal[i, f] = d[i] / mp.sqrt(total)
                    for k in range(size):
                        entry = (i == k) - mp.mpf(1) / size - d[i] * d[k] / (size * total)
                        factor[i * width + f, k * width + f] = entry / mp.sqrt(total)
        else:
            tanh = isinstance(layer, nn.Tanh)
            for i in range(size):
                for f in range(width):
                    factor[i * width + f, i * width + f] = mp.sech(signal[i, f]) ** 2 if tanh else 1
                    signal[i, f] = mp.tanh(signal[i, f]) if tanh else signal[i, f]
        jacobian = factor * jacobian
    squares = mp.eigsy(jacobian.T * jacobian, eigvals_only=True)
    logs = [mp.log(abs(value)) / 2 if abs(value) > mp.mpf(10) ** -90 else -mp.inf for value in squares]
    return np.array(sorted((float(value) for value in logs), reverse=True))


@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_values_far_below_rounding_are_right(activation):
    """B = 4, N = 4, L = 3, ε = 1e-5: the N leaked values, e^-23 and less, to 1e-12; the others to 1e-13; N zeros."""
    module = network(activation=activation, norm="batch", width=4, scheme="gaussian", sigma_w=1.0, sigma_b=0.0)
    x = inputs(4, 4)
    with mpmath.workdps(120):
        expected = exactly(module, x)
    found = spectrum(module, x, space="whole")
    values = found.spectrum.by_network[0]
    assert (found.zeros, found.leaked) == (4, 4)
    np.testing.assert_allclose(values[:8], expected[:8], rtol=0, atol=1e-13)
    np.testing.assert_allclose(values[8:12], expected[8:12], rtol=0, atol=1e-12)
    assert (expected[8:12] < -20).all()
    assert np.isneginf(values[12:]).all()
    assert np.isneginf(expected[12:]).all()
    assert found.spectrum.relative_error > np.abs(values[:12] - expected[:12]).max()


@pytest.mark.skipif(not EXTENDED, reason="numpy's longdouble has no more digits than float64 on this machine")
@pytest.mark.parametrize("activation", ["linear", "tanh"])
@pytest.mark.parametrize(("size", "width"), [(6, 16), pytest.param(8, 64, marks=pytest.mark.slow)])
def test_values_at_1e_8_of_the_largest_are_right_where_autograd_is_not(activation, size, width):
    """L = 8, 64 bits of mantissa as the oracle: every σ > 1e-8 σ₁ to 1e-12 by products. A float64 matrix does not hold
    them so: the SVD of the exact J, once rounded, and that of autograd's are off by ten times as much and more, but by
    less than 20 eps σ₁."""
    module = network(activation=activation, norm="batch", width=width, depth=8, **{**GAUSSIAN, "sigma_b": 0.0})
    x = inputs(size, width)
    matrix = jacobian(module, x)
    oracle = singular_values(matrix)
    oracle = oracle[oracle > 1e-8 * oracle[0]]
    assert oracle[-1] < 1e-7 * oracle[0]

    def off(values):
        return np.abs(np.asarray(values[: oracle.size], dtype=np.longdouble) / oracle - 1)

    by_product = off(np.exp(spectrum(module, x, space="whole").spectrum.by_network[0]))
    replace_all_batch_norm_modules_(module.requires_grad_(False))
    autograd = jacrev(module)(x).reshape(matrix.shape)
    rounded, by_autograd = (off(np.linalg.svd(m.astype(float))[1]) for m in (matrix, autograd.numpy()))
    assert by_product.max() < 1e-12
    for one in (rounded, by_autograd):
        assert one.max() > 10 * by_product.max()
        assert (one * oracle < 20 * np.finfo(float).eps * oracle[0]).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
def test_two_kinds_of_zeros_are_told_apart(activation, method):
    """Exact: N for 1^⊥ and what dead units add. Leaked: N for φ′ ≠ 0; linear shares 1/B and 2/B are theory's."""
    width, size = 12, 6
    module, x = network(activation=activation, norm="batch", width=width, **GAUSSIAN), inputs(size, width)
    whole, centred = (spectrum(module, x, space=space, method=method) for space in ("whole", "centred"))
    assert whole.zeros - centred.zeros == width
    if activation == "relu":
        assert centred.zeros >= 4 * width * 0.4
        assert whole.leaked <= 2
    else:
        assert (centred.zeros, centred.leaked, whole.leaked) == (0, width, width)
        assert whole.spectrum.zero_fraction == pytest.approx(zero_share("linear", batch_size=size, eps=1e-5))
        share = whole.without_leak.zero_fraction
        assert share == pytest.approx(zero_share("linear", batch_size=size))
    assert whole.without_leak.zero_fraction * size * width == pytest.approx(whole.zeros + whole.leaked)


def test_leak_of_one_layer_is_its_formula():
    """γ ε/(v + ε)^{3/2} for each feature, and the rest γ/√(v + ε), n - 1 times."""
    size, width, eps = 7, 3, 1e-5
    layer, x = shifted(nn.Sequential(nn.BatchNorm1d(width, eps=eps).double()))[0], inputs(size, width)
    v, gamma = x.var(dim=0, unbiased=False).numpy(), layer.weight.detach().numpy()
    found = spectrum(layer, x)
    expected = np.concatenate([np.repeat(gamma / np.sqrt(v + eps), size - 2), gamma * eps / (v + eps) ** 1.5])
    np.testing.assert_allclose(np.exp(found.spectrum.by_network[0]), -np.sort(-expected), rtol=1e-10)
    assert (found.zeros, found.leaked) == (0, width)


@pytest.mark.parametrize("mode", [True, False])
def test_nothing_about_the_module_changes(mode):
    """Buffers, parameters, modes and generators are as before, bit for bit; no running statistic moves."""
    module = nn.Sequential(*network(norm="batch", width=6), UncentredBatchNorm(6).double()).train(mode)
    module[1].eval()
    before, modes = copy.deepcopy(module.state_dict()), [layer.training for layer in module.modules()]
    state, x = torch.get_rng_state(), inputs(BATCH, 6)
    for measure in (spectrum, blocks, squared_norm, block_share, largest):
        measure(module, x)
    for method in METHODS:
        spectrum(module, x, method=method)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [layer.training for layer in module.modules()] == modes
    assert all(layer.track_running_stats for layer in module.modules() if hasattr(layer, "track_running_stats"))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_are_those_of_autograd(name):
    """∂f_i/∂x_i for every i, their share of ‖J‖², and ‖J‖² itself."""
    module = NETWORKS[name]
    x = batch(module)
    matrix = oracle(module, x, space="whole")
    found = blocks(module, x)
    diagonal = torch.stack([matrix[i, :, i] for i in range(len(x))])
    values = torch.linalg.svdvals(diagonal).flatten().sort(descending=True).values.numpy()
    expected = np.zeros(found.spectrum.dimension)
    expected[: values.size] = values
    np.testing.assert_allclose(np.exp(found.spectrum.by_network[0]), expected, rtol=1e-9, atol=1e-12 * values[0])
    assert found.squared_norm == pytest.approx(float(matrix.square().sum()), rel=1e-12)
    assert found.share == pytest.approx(float(diagonal.square().sum() / matrix.square().sum()), rel=1e-12)


@pytest.mark.parametrize("name", ["relu", "after", "shapes", "uncentred"])
def test_probes_agree_with_the_whole_matrix(name):
    """‖J‖² and the share of the blocks within 4 standard errors, which fall as 1/√probes; σ_1, σ_2 within bounds."""
    module = NETWORKS[name]
    x = batch(module)
    exact, values = blocks(module, x), spectrum(module, x, space="whole").spectrum.by_network[0]
    norms, shares = (
        [f(module, x, probes=probes, seed=1) for probes in (40, 4000)] for f in (squared_norm, block_share)
    )
    for few, many, expected in ((*norms, exact.squared_norm), (*shares, exact.share)):
        assert abs(many.value - expected) < 4 * many.se < 0.2 * expected
        assert 4 < few.se / many.se < 25
    top = largest(module, x, count=2, tolerance=1e-9)
    assert (np.abs(top.values.numpy() - np.exp(values[:2])) <= top.bounds.numpy() + 1e-14).all()
    assert (top.bounds < 1e-8 * top.values[0]).all()


def test_networks_without_coupling_have_a_block_diagonal():
    """Layer normalisation acts on one example: all of ‖J‖² is in the blocks."""
    module = mlp(depth=2, width=6, norm="layer").double()
    assert blocks(module, inputs(4, 6)).share == pytest.approx(1.0, abs=1e-15)
    assert block_share(module, inputs(4, 6)).value == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"space": "half"}, "`space` must be one of 'centred', 'whole'; got 'half'"),
    ({"method": "slq"}, "`method` must be one of 'product', 'dense'; got 'slq'"),
    ({"x": inputs(1, 6)}, r"`x` must be of shape \(B, features\), B >= 2; got \(1, 6\)"),
    ({"x": inputs(4, 6, 2)}, r"`x` must be of shape \(B, features\), .* got \(4, 6, 2\)"),
    ({"x": inputs(4, 6).float()}, "`x` must be of the module's dtype and device"),
])  # fmt: skip
def test_bad_arguments_are_refused(arguments, message):
    """One line that names the argument, the rule and the value."""
    x = arguments.pop("x", inputs(4, 6))
    with pytest.raises(InvalidArgumentError, match=message):
        spectrum(NETWORKS["norm alone"], x, **arguments)


def test_fewer_than_two_probes_are_refused():
    """A standard error needs two."""
    for measure in (squared_norm, block_share):
        with pytest.raises(InvalidArgumentError, match="`probes` must be an integer >= 2; got 1"):
            measure(NETWORKS["relu"], inputs(4, 6), probes=1)


def test_single_precision_stays_single():
    """float32 inputs are measured in float32, to within the stated error."""
    module, x = network(activation="relu", norm="batch", width=8, depth=2), inputs(10, 8, seed=2)
    exact = spectrum(module, x).spectrum
    found = spectrum(copy.deepcopy(module).float(), x.float()).spectrum
    assert found.zero_fraction == exact.zero_fraction
    finite = np.isfinite(exact.by_network)
    difference = np.abs(found.by_network[finite] - exact.by_network[finite]).max()
    assert 1e-8 < difference <= found.relative_error
    assert math.isfinite(found.relative_error)
