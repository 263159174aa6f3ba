"""Ensembles: the same numbers as network by network, at any depth, and the networks left as they were."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.data.pairs import correlated_pairs
from rmtbn.inits import initialise
from rmtbn.measure import batch_statistics
from rmtbn.measure.ensemble import pushed
from rmtbn.measure.ensemble_gradients import ensemble_log_gradients
from rmtbn.measure.ensemble_moments import ensemble_moments
from rmtbn.measure.ensemble_tangents import ensemble_log_growth
from rmtbn.measure.gradients import log_gradient_norms
from rmtbn.measure.moments import activation_moments, pair_correlations
from rmtbn.measure.rank import ensemble_ranks
from rmtbn.nets.mlp import mlp
from rmtbn.nets.resnet import residual_mlp
from rmtbn.theory.finite_width import log_norm_law
from rmtbn.theory.propagation import propagation


def drawn(make, count, *, sigma_w=2**0.5, sigma_b=0.0, activation="relu", **options):
    """Networks of one architecture with Gaussian weights."""
    modules = []
    for seed in range(count):
        module = make(activation=activation, **options).double()
        generator = rng.torch_generator(seed, "net")
        initialise(module, "gaussian", generator=generator, activation=activation, sigma_w=sigma_w, sigma_b=sigma_b)
        modules.append(module)
    return modules


def pairs(features, count=3, c=0.4):
    return correlated_pairs(pairs=count, features=features, correlation=c, generator=rng.torch_generator(9, "pairs"))


ARCHITECTURES = {
    "mlp": (mlp, {"depth": 4, "width": 10}),
    "bn": (mlp, {"depth": 4, "width": 10, "norm": "batch"}),
    "residual": (residual_mlp, {"depth": 3, "width": 10, "in_features": 10, "out_features": 2}),
    "bn residual": (residual_mlp, {"depth": 3, "width": 10, "norm": "batch", "branch_layers": 2}),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_moments_are_those_of_each_network_alone(name):
    """log q, four moments and 1 - c per network and layer, against numpy on what a forward hook sees."""
    make, options = ARCHITECTURES[name]
    modules, x = drawn(make, 3, **options), pairs(10)
    found = ensemble_moments(modules, x)
    for i, module in enumerate(modules):
        alone = activation_moments(module, x, layers=found.layers)
        correlations = pair_correlations(module, x, layers=found.layers)
        second, variance = ([getattr(one, field) for one in alone] for field in ("log_second_moment", "log_variance"))
        np.testing.assert_allclose(found.log_second_moment[i], second, atol=1e-12)
        np.testing.assert_allclose(found.overall.log_variance[i], variance, atol=1e-12)
        by_example = [one.example_log_second_moment for one in alone]
        np.testing.assert_allclose(found.example_log_second_moment[i], by_example, atol=1e-12)
        np.testing.assert_allclose(1 - found.decorrelation[i], correlations, atol=1e-12)


def test_third_and_fourth_moments_along_both_axes():
    """Standardised moments by scipy: over all entries, over units of an example, over examples of a unit."""
    modules, x = drawn(mlp, 2, activation="tanh", depth=2, width=40), pairs(40, count=5)
    found = ensemble_moments(modules, x, layers=["linear_2"])
    for i, module in enumerate(modules):
        h = module[:3](x).detach().numpy()
        for moments, axis in ((found.overall, None), (found.over_units, 1), (found.over_examples, 0)):
            assert moments.skewness[i, 0] == pytest.approx(np.mean(stats.skew(h, axis=axis)), rel=1e-10)
            fourth = np.mean(stats.kurtosis(h, axis=axis, fisher=False))
            assert moments.kurtosis[i, 0] == pytest.approx(fourth, rel=1e-10)
            assert moments.log_variance[i, 0] == pytest.approx(math.log(np.mean(h.var(axis=axis))), rel=1e-10)
        assert found.overall.mean[i, 0] == pytest.approx(h.mean() / np.sqrt(np.mean(h**2)), rel=1e-10)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_are_those_of_each_network_alone(name):
    """log ‖∂ℓ/∂h‖² per layer against autograd on one network at a time, with a loss that is not linear."""
    make, options = ARCHITECTURES[name]
    modules, x = drawn(make, 3, **options), pairs(10)
    found = ensemble_log_gradients(modules, x, lambda y: y.square().sum() + y.sum())
    for i, module in enumerate(modules):
        alone = log_gradient_norms(module, x, lambda y: y.square().sum() + y.sum(), layers=list(found))
        np.testing.assert_allclose([norms[i] for norms in found.values()], alone, atol=1e-9)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tangents_are_those_of_each_network_alone(name):
    """log ‖J v‖² after the last layer against a forward-mode derivative of one network at a time."""
    make, options = ARCHITECTURES[name]
    modules, x = drawn(make, 3, **options), pairs(10)
    v = torch.randn(x.shape, dtype=torch.float64, generator=rng.torch_generator(4, "v"))
    found = ensemble_log_growth(modules, x, v)
    for i, module in enumerate(modules):
        with batch_statistics.fixed(module, batch_statistics.resolve(module, None)):
            pushed_tangent = torch.func.jvp(module, (x,), (v,))[1]
        expected = float((pushed_tangent.square().sum() / v.square().sum()).log())
        assert list(found.values())[-1][i] == pytest.approx(expected, abs=1e-10)


def test_tangents_that_are_not_tangents_are_refused():
    """Another shape, zero, or not finite."""
    modules, x = drawn(mlp, 1, depth=1, width=4), pairs(4)
    for v in (x[:1], torch.zeros_like(x), torch.full_like(x, math.nan)):
        with pytest.raises(InvalidArgumentError, match="`v` must be a finite tangent"):
            ensemble_log_growth(modules, x, v)


def test_networks_are_left_as_they_were():
    """Parameters, running statistics, modes and gradients, after statistics with and without batch statistics."""
    modules, x = drawn(mlp, 2, depth=3, width=6, norm="batch"), pairs(6)
    before = copy.deepcopy([module.state_dict() for module in modules])
    ensemble_moments(modules, x, batch_stats="batch")
    ensemble_moments(modules, x, batch_stats="running")
    ensemble_log_gradients(modules, x, lambda y: y.sum(), batch_stats="batch")
    for module, state in zip(modules, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
        assert all(parameter.grad is None for parameter in module.parameters())
    assert all(module.training for module in modules)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("weight", [2**-13, 2**15])
def test_homogeneous_networks_are_followed_beyond_the_floating_range(weight):
    """At σ_w² = w a ReLU network is multiplied by w/2 per layer against He's: log q shifts by l ln(w/2), to e^±1456."""
    depth, width = 150, 32
    x = pairs(width, count=1)
    plain, scaled = (drawn(mlp, 2, sigma_w=v**0.5, depth=depth, width=width) for v in (2.0, weight))
    first, second = (ensemble_moments(modules, x) for modules in (plain, scaled))
    shift = np.broadcast_to(np.arange(1, depth + 1) * math.log(weight / 2), (2, depth))
    np.testing.assert_allclose(second.log_second_moment - first.log_second_moment, shift, atol=1e-7)
    np.testing.assert_allclose(second.decorrelation, first.decorrelation, rtol=1e-6, atol=1e-12)


def test_gradients_beyond_the_floating_range():
    """A linear network with σ_w = e^-2 against the same with σ_w = 1: -4 per layer in ln ‖g‖², down to e^-596."""
    x, norms = pairs(16, count=1), []
    for sigma_w in (1.0, math.e**-2):
        modules = drawn(mlp, 2, activation="linear", sigma_w=sigma_w, depth=150, width=16)
        norms.append(ensemble_log_gradients(modules, x, lambda y: y.sum())["linear_1"])
    np.testing.assert_allclose(norms[1] - norms[0], -4 * 149, rtol=1e-10)


def test_layers_that_are_not_homogeneous_are_not_rescaled():
    """A unit that answers 1 above 1e120 and 0 below would change its answer: it does not."""

    class Step(nn.Module):
        def forward(self, x):
            return (x > 1e120).to(x.dtype)

    grow = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        grow.weight.copy_(torch.eye(2, dtype=torch.float64) * 1e130)
    module, x = nn.Sequential(grow, Step()), torch.ones(1, 2, dtype=torch.float64)
    with pushed([module], x) as states:
        assert [state.outputs.max().item() for state in states][-1] == 1.0


def test_wide_ensembles_follow_the_mean_field():
    """log q, c and χ₁ of 40 tanh networks of width 256 within 4 standard errors and 8/width at 12 layers."""
    sigmas, depth, width = {"sigma_w": 1.5, "sigma_b": 0.3}, 12, 256
    modules = drawn(mlp, 40, activation="tanh", depth=depth, width=width, **sigmas)
    x = pairs(width, count=2, c=0.4)
    found, theory = ensemble_moments(modules, x), propagation(0.4, "tanh", q0=1.0, depth=depth, **sigmas)
    q, c = found.log_q(), found.correlation()
    assert (np.abs(q.value - theory.log_q) < 4 * q.se + 8 / width).all()
    assert (np.abs(c.value - (1 - theory.decorrelation)) < 4 * c.se + 8 / width).all()
    generator = rng.torch_generator(3, "cotangent")
    v = torch.randn(4, width, dtype=torch.float64, generator=generator)
    gradients = np.array(list(ensemble_log_gradients(modules, x, lambda y: (y * v).sum()).values()))
    steps = (gradients[:-1] - gradients[1:]).mean(axis=1)
    error = (gradients[:-1] - gradients[1:]).std(axis=1) / 40**0.5
    assert (np.abs(steps - np.log(theory.chi1[:-1])) < 4 * error + 8 / width).all()
    spread = found.log_q_spread()
    assert spread.value.shape == (depth,)
    assert (spread.se > 0).all()
    expected = np.var(found.overall.log_variance, axis=0, ddof=1)
    np.testing.assert_allclose(found.log_variance_spread().value, expected, rtol=1e-12)


def test_impossible_ensembles_are_refused():
    """No network, two architectures or modes, an unknown layer, a loss that is not finite, one network's spread."""
    x = pairs(4)
    one = drawn(mlp, 1, depth=2, width=4)
    with pytest.raises(InvalidArgumentError, match="`modules`"):
        ensemble_moments([], x)
    with pytest.raises(InvalidArgumentError, match="`modules` must be networks of one architecture"):
        ensemble_moments([*one, *drawn(mlp, 1, depth=3, width=4)], x)
    with pytest.raises(InvalidArgumentError, match="`modules` must be networks in the same mode"):
        ensemble_moments([*one, *(module.eval() for module in drawn(mlp, 1, depth=2, width=4))], x)
    with pytest.raises(InvalidArgumentError, match=r"`layers`.*'linear_9'"):
        ensemble_moments(one, x, layers=["linear_1", "linear_9"])
    for layers, module in (([], one[0]), (None, nn.Sequential(nn.LayerNorm(x.shape[1]), nn.Tanh()).to(x.dtype))):
        with pytest.raises(InvalidArgumentError, match="`layers` must be one or more names"):
            ensemble_moments([module], x, layers=layers)
    with pytest.raises(InvalidArgumentError, match="`loss`"):
        ensemble_log_gradients(one, x, lambda y: y.sum() * math.inf)
    with pytest.raises(InvalidArgumentError, match="`modules` must be two or more networks"):
        ensemble_moments(one, x).log_q_spread()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "depth"), [(50, 25), (100, 50), (200, 100)])
def test_log_norms_of_he_relu_networks_follow_hanin_and_nica(width, depth):
    """Mean and variance of ln ‖Jv‖² over 160 networks within 4 standard errors of the exact law."""
    values = []
    generator = rng.torch_generator(5, "x", width)
    x, v = torch.randn(2, 1, width, dtype=torch.float64, generator=generator)
    for chunk in range(16):
        modules = []
        for i in range(10):
            module = mlp(depth=depth, width=width).double()
            initialise(module, "he_normal", generator=rng.torch_generator(i, "he", width, chunk))
            modules.append(module)
        values.append(ensemble_log_growth(modules, x, v)[f"phi_{depth}"])
    norms, law = np.concatenate(values), log_norm_law("relu", widths=(width,) * (depth + 1))
    assert abs(norms.mean() - law.mean) < 4 * (law.variance / norms.size) ** 0.5
    assert abs(norms.var(ddof=1) - law.variance) < 4 * law.variance * (2 / (norms.size - 1)) ** 0.5
    assert abs(norms.mean() - -2.5 * depth / width) < 4 * (law.variance / norms.size) ** 0.5 + 0.05


DEEP = 10_000


@pytest.mark.slow
def test_ten_thousand_layers():
    """At 10,000 layers all is finite: He's ReLU near -5L/(2N) (Hanin & Nica 2019), linear with σ_w = 2 near L ln 4."""
    depth, width = DEEP, 64
    modules, x = drawn(mlp, 2, depth=depth, width=width), pairs(width, count=1)
    found = ensemble_moments(modules, x)
    assert np.abs(found.log_second_moment[:, -1] + 2.5 * depth / width).max() < 4 * (5 * depth / width) ** 0.5
    nets = drawn(mlp, 2, activation="linear", sigma_w=2.0, depth=depth, width=width)
    modules = [nn.Sequential(*(layer for layer in net if isinstance(layer, nn.Linear))) for net in nets]
    v = torch.randn(2, width, dtype=torch.float64, generator=rng.torch_generator(3, "v"))
    moments, ranks = ensemble_moments(modules, x), ensemble_ranks(modules, x)
    law = log_norm_law("linear", widths=(width,) * (depth + 1))  # of products of Gaussian matrices, σ_w = 1
    growths = (
        moments.log_second_moment[:, -1],
        list(ensemble_log_growth(modules, x, v).values())[-1],
        next(iter(ensemble_log_gradients(modules, x, v).values())) - math.log(2 * width),
    )
    for growth in growths:
        assert np.abs(growth - law.mean - depth * math.log(4)).max() < 4 * law.variance**0.5 + 10
    for kept in (moments.overall, moments.over_units, moments.over_examples):
        assert all(np.isfinite(getattr(kept, name)).all() for name in ("mean", "log_variance", "skewness", "kurtosis"))
    assert (ranks.log_participation >= -1e-12).all()
    assert (ranks.log_entropy >= -1e-12).all()
    assert np.isfinite(ranks.log_orthogonality_gap).all()
    assert not np.isnan(ranks.isometry_gap).any()


def test_a_fixed_cotangent_is_a_linear_loss():
    """ℓ = ⟨y, v⟩ as a tensor and as a function, to rounding; where y is beyond the floating range the tensor serves."""
    modules, x = drawn(mlp, 2, depth=3, width=6, activation="tanh"), pairs(6)
    v = torch.randn(x.shape, dtype=torch.float64, generator=rng.torch_generator(3, "v"))
    tensor, function = (ensemble_log_gradients(modules, x, loss) for loss in (v, lambda y: (y * v).sum()))
    np.testing.assert_allclose(list(tensor.values()), list(function.values()), rtol=1e-12)
    huge = drawn(mlp, 2, activation="linear", sigma_w=1e60, depth=6, width=6)
    with pytest.raises(InvalidArgumentError, match="`modules` must be networks with finite outputs"):
        ensemble_log_gradients(huge, x, lambda y: y.sum())
    growth = -np.diff(list(ensemble_log_gradients(huge, x, v).values()), axis=0)
    np.testing.assert_allclose(growth, 120 * math.log(10), atol=4.0)
    for wrong in (v[:1], v * math.nan):
        with pytest.raises(InvalidArgumentError, match="`loss` must be a function, or a finite tensor"):
            ensemble_log_gradients(modules, x, wrong)
