"""Activation statistics per layer: what numpy says of the recorded outputs, and the network left as it was."""

import math

import numpy as np
import pytest
import torch
from cases import NORM_NAMES, SEEDS, Residual, conv_net, inputs, network
from torch import nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.inits import initialise
from rmtbn.measure.moments import activation_moments, pair_correlations
from rmtbn.measure.recording import weight_layers
from rmtbn.theory import bn_mean_field


def outputs_of(module, x):
    """Outputs of the linear layers of a sequential network, child by child, in numpy."""
    found = {}
    with torch.no_grad():
        for name, child in module.named_children():
            x = child(x)
            found[name] = x.numpy().copy()
    return {name: h for name, h in found.items() if name.startswith("linear")}


@pytest.mark.parametrize("norm", NORM_NAMES)
def test_moments_are_those_of_the_outputs_of_each_layer(norm):
    """Mean, log mean square, log variance: over all entries, per unit over examples, per example over units."""
    module, x = network(norm=norm, depth=4), inputs(7, 12)
    found = activation_moments(module, x)
    expected = outputs_of(network(norm=norm, depth=4), x)
    assert [one.layer for one in found] == list(expected)
    for one, h in zip(found, expected.values(), strict=True):
        assert one.mean == pytest.approx(h.mean(), rel=1e-10)
        assert one.log_second_moment == pytest.approx(np.log(np.mean(h**2)), abs=1e-12)
        assert one.log_variance == pytest.approx(np.log(h.var()), abs=1e-12)
        np.testing.assert_allclose(one.unit_mean, h.mean(axis=0), rtol=1e-9)
        np.testing.assert_allclose(one.unit_log_variance, np.log(h.var(axis=0)), atol=1e-12)
        np.testing.assert_allclose(one.example_mean, h.mean(axis=1), rtol=1e-9)
        np.testing.assert_allclose(one.example_log_second_moment, np.log(np.mean(h**2, axis=1)), atol=1e-12)


@pytest.mark.parametrize("log_scale", [-300, 300])
def test_moments_beyond_the_range_of_squares_are_finite(log_scale):
    """Outputs of 1e±300 have squares of 1e±600: held as logarithms."""
    module = nn.Sequential(nn.Linear(4, 4, bias=False, dtype=torch.float64))
    x = inputs(5, 4)
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(4, dtype=torch.float64) * 10.0**log_scale)
    (found,) = activation_moments(module, x)
    shift = 2 * log_scale * math.log(10)
    assert found.log_second_moment == pytest.approx(float(x.square().mean().log()) + shift, rel=1e-12)
    assert found.log_variance == pytest.approx(float(x.var(correction=0).log()) + shift, rel=1e-12)


def test_outputs_that_vanish_have_log_moments_of_minus_infinity():
    """Zeros are zeros, not NaN."""
    module = nn.Sequential(nn.Linear(3, 3, bias=False, dtype=torch.float64))
    nn.init.zeros_(module[0].weight)
    (found,) = activation_moments(module, inputs(4, 3))
    assert (found.mean, found.log_second_moment, found.log_variance) == (0.0, -math.inf, -math.inf)
    assert np.isneginf(found.unit_log_variance).all()


def test_single_precision_networks_are_measured_in_double():
    """A float32 network gives the statistics of its own outputs, rounded once."""
    double, single = (
        activation_moments(network(dtype=d), inputs(6, 12, dtype=d)) for d in (torch.float64, torch.float32)
    )
    for wide, narrow in zip(double, single, strict=True):
        assert narrow.log_second_moment == pytest.approx(wide.log_second_moment, abs=1e-5)


@pytest.mark.parametrize("inplace", [False, True])
def test_layers_that_work_in_place_do_not_change_what_is_recorded(inplace):
    """The outputs of a linear layer are recorded before an in-place ReLU cuts them; convolutions alike."""
    module = nn.Sequential(nn.Linear(6, 50, dtype=torch.float64), nn.ReLU(inplace=inplace), nn.Linear(50, 2).double())
    initialise(module, "he_normal", generator=rng.torch_generator(1))
    (first, _) = activation_moments(module, inputs(200, 6))
    assert abs(first.mean) < 4 * math.exp(first.log_second_moment / 2) / math.sqrt(50)
    assert first.log_second_moment == pytest.approx(math.log(2), abs=0.6)
    with torch.no_grad():
        expected = module[0](inputs(200, 6)).numpy()
    assert first.mean == pytest.approx(expected.mean(), rel=1e-9)


def test_layers_are_found_wherever_they_are_and_in_the_order_asked():
    """Names as in named_modules; without names those that hold a weight matrix, in order of registration."""
    assert weight_layers(Residual(3)) == ("second", "first")
    assert weight_layers(conv_net()) == ("0", "3", "6")
    module, x = Residual(3).double(), inputs(5, 3)
    found = activation_moments(module, x, layers=["phi", "first"])
    assert [one.layer for one in found] == ["phi", "first"]
    with torch.no_grad():
        expected = torch.tanh(module.first(x)).numpy()
    np.testing.assert_allclose(found[0].unit_mean, expected.mean(axis=0))


def test_convolutional_outputs_are_flattened_over_channels_and_places():
    """A unit is a channel at a place: 8 · 6 · 6 of them after the first convolution."""
    found = activation_moments(conv_net(), inputs(4, 3, 6, 6, dtype=torch.float32))
    assert [one.unit_mean.size for one in found] == [8 * 36, 8 * 4, 5]
    assert [one.example_mean.size for one in found] == [4, 4, 4]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("statistics", [None, "batch", "running"])
def test_networks_are_left_bit_for_bit(training, statistics):
    """Parameters, gradients, running statistics, counters, modes and the global generator: nothing moves."""
    module, x = network(norm="batch").train(training), inputs(6, 12)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    generator = torch.random.get_rng_state()
    activation_moments(module, x, batch_stats=statistics)
    pair_correlations(module, x, batch_stats=statistics)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(child.training == training for child in module.modules())
    assert not any(child._forward_hooks for child in module.modules())
    assert torch.equal(torch.random.get_rng_state(), generator)


def test_statistics_are_those_asked_for():
    """ "batch" normalises by the batch whatever the mode, "running" by the stored averages; None follows the mode."""
    module, x = network(norm="batch"), inputs(6, 12) + 3
    batch, running = (
        [one.log_second_moment for one in activation_moments(module, x, batch_stats=kind)]
        for kind in ("batch", "running")
    )
    assert batch[1:] != running[1:]
    for training, expected in ((True, batch), (False, running)):
        module.train(training)
        assert [one.log_second_moment for one in activation_moments(module, x)] == expected


def test_correlations_are_cosines_of_the_pairs():
    """c = ⟨h_a, h_b⟩/(‖h_a‖‖h_b‖) of the pairs (0, 1), (2, 3), …; an example without partner is left out."""
    module, x = network(depth=3), inputs(7, 12)
    found = pair_correlations(module, x)
    assert found.shape == (3, 3)
    for row, h in zip(found, outputs_of(module, x).values(), strict=True):
        cosines = [h[a] @ h[a + 1] / np.linalg.norm(h[a]) / np.linalg.norm(h[a + 1]) for a in (0, 2, 4)]
        np.testing.assert_allclose(row, cosines, rtol=1e-10)


def test_correlations_of_vanishing_outputs_are_undefined():
    """A dead example has no direction: NaN, as documented, for its pair only; 1e-200 is not dead."""
    module = nn.Sequential(nn.Identity())
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1e-200, 1e-200], [1.0, 0.0]], dtype=torch.float64)
    found = pair_correlations(module, x, layers=["0"])
    assert math.isnan(found[0, 0])
    assert found[0, 1] == pytest.approx(1 / math.sqrt(2))


@pytest.mark.parametrize("seed", SEEDS)
def test_correlations_of_wide_relu_networks_follow_the_arc_cosine_map(seed):
    """c' = [√(1-c²) + (π - arccos c) c]/π per layer (He ReLU), N = 256, 40 networks, within 4 standard errors."""
    x = inputs(2, 256, seed=seed)
    c = float(torch.nn.functional.cosine_similarity(x[:1], x[1:]))
    expected = [c]
    for _ in range(5):
        c = (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c) / math.pi
        expected.append(c)
    networks = range(1000 * seed, 1000 * seed + 40)
    found = np.array(
        [pair_correlations(network(scheme="he_normal", depth=6, width=256, seed=k), x)[:, 0] for k in networks]
    )
    error = found.std(axis=0, ddof=1) / math.sqrt(40)
    assert (np.abs(found.mean(axis=0) - expected) < 4 * error).all()
    assert error.max() < 0.02


def test_examples_of_a_normalised_batch_are_correlated_as_the_fixed_point_says():
    """c between pre-activations of ReLU + BN is c* = J₁(-1/(B-1)) from the second layer on: B = 16, 4 s.e."""
    expected = bn_mean_field.fixed_point("relu", batch_size=16).c
    found = np.array(
        [
            pair_correlations(
                network(norm="batch", scheme="he_normal", depth=4, width=256, seed=k), inputs(16, 256, seed=k)
            ).mean(axis=1)[1:]
            for k in range(40)
        ]
    )
    error = found.std(axis=0, ddof=1) / math.sqrt(40)
    assert (np.abs(found.mean(axis=0) - expected) < 4 * error).all()
    assert error.max() < 0.01


class Twice(nn.Module):
    """A module that runs one layer two times."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3, dtype=torch.float64)

    def forward(self, x):
        return self.layer(self.layer(x))


@pytest.mark.parametrize(
    ("module", "x", "options", "message"),
    [
        (network(), inputs(3, 12), {"layers": ["linear_9"]}, r"`layers` must be one of .*; got 'linear_9'"),
        (network(), inputs(3, 12) / 0, {}, "`x` must be finite; got 'a tensor with NaN or infinity'"),
        (Twice(), inputs(3, 3), {}, "`layers` must be layers that run exactly once; got .*'layer', which ran 2 times"),
        (
            network(),
            inputs(3, 12),
            {"batch_stats": "none"},
            "`batch_stats` must be one of 'batch', 'running'; got 'none'",
        ),
        (
            nn.Sequential(nn.LSTM(3, 3).double()),
            inputs(3, 3),
            {"layers": ["0"]},
            "`layers` must be layers that return one tensor; got .*'0': tuple",
        ),
        (
            network(dtype=torch.float32, sigma_w=1e30),
            inputs(3, 12, dtype=torch.float32),
            {},
            "`layers` must be layers whose output is finite at x; got .*'linear_2', with NaN or infinity",
        ),
    ],
    ids=["unknown layer", "inputs not finite", "runs twice", "unknown statistics", "returns a tuple", "overflows"],
)
def test_what_cannot_be_measured_is_refused(module, x, options, message):
    """One line that names argument, rule and value, and no hook left behind."""
    with pytest.raises(InvalidArgumentError, match=message):
        activation_moments(module, x, **options)
    assert not any(child._forward_hooks for child in module.modules())


def test_one_example_has_no_pair():
    """Correlations need two examples."""
    with pytest.raises(InvalidArgumentError, match="`number of examples in x` must be an integer >= 2; got 1"):
        pair_correlations(network(), inputs(1, 12))
