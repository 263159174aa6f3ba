"""Sizes and tails of gradients: scipy, the jackknife, and samples whose moments are known."""

import math

import numpy as np
import pytest
import torch
from cases import SEEDS, conv_net, inputs
from scipy import stats
from torch import nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.measure.gradient_tails import gradient_tails, kurtosis, log_size_ratio, signed_histogram

X, Y = inputs(6, 3, 6, 6), torch.arange(6) % 5


def test_statistics_are_those_of_the_gradient():
    """Std, kurtosis (scipy), max/std of ∂L/∂w by backward(), for every matrix and kernel."""
    net = conv_net().double()
    found = gradient_tails(net, X, Y)
    nn.functional.cross_entropy(net(X), Y).backward()
    assert [one.parameter for one in found] == ["0.weight", "3.weight", "6.weight"]
    for one in found:
        g = net.get_parameter(one.parameter).grad.numpy().ravel()
        np.testing.assert_allclose(one.values, g, atol=1e-15)
        assert one.log_std == pytest.approx(math.log(g.std()), abs=1e-9)
        assert one.kurtosis == pytest.approx(stats.kurtosis(g, fisher=False), rel=1e-9)
        assert one.max_over_std == pytest.approx(np.abs(g - g.mean()).max() / g.std(), rel=1e-9)
        assert one.histogram().positive.sum() + one.histogram().negative.sum() == (g != 0).sum()


@pytest.mark.parametrize("seed", SEEDS)
def test_standard_errors_of_kurtosis_are_those_of_the_jackknife(seed):
    """se² = (n-1)/n Σ(κ_{-i} - κ̄)², for a skewed sample, up to the order 1/n."""
    values = rng.generator(seed, "skewed").beta(2.0, 5.0, size=600)
    left_out = np.array([kurtosis(np.delete(values, i))[0] for i in range(600)])
    expected = math.sqrt(599 / 600 * ((left_out - left_out.mean()) ** 2).sum())
    assert kurtosis(values)[1] == pytest.approx(expected, rel=0.05)


def test_kurtosis_of_a_gaussian_sample_is_3():
    """κ = 3 ± √(24/n)."""
    value, error = kurtosis(rng.generator(1, "gauss").standard_normal(100_000))
    assert abs(value - 3) < 4 * error
    assert error == pytest.approx(math.sqrt(24e-5), rel=0.05)


def test_tails_are_told_apart():
    """Student's t with 3 degrees of freedom has 2.88 at its largest 1 % (3 in the limit), a Gaussian sample 9.0."""
    generator = rng.generator(1, "tails")
    for values, alpha in ((generator.standard_t(3, size=50_000), 2.88), (generator.standard_normal(50_000), 9.0)):
        net = nn.Linear(50_000, 2, bias=False).double()
        nn.init.zeros_(net.weight)  # then ∂L/∂w = ±x/2 for one example
        (found,) = gradient_tails(net, torch.tensor(values)[None], torch.tensor([0]))
        assert found.hill is not None
        assert found.hill.count == 1000
        assert found.hill.alpha == pytest.approx(alpha, rel=0.15)
        assert found.power_law is not None


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_gradients_beyond_the_range_of_squares_have_statistics(scale):
    """log std shifts by ln(scale); kurtosis and max/std do not move."""
    values = rng.generator(1, "scaled").standard_normal(500)
    net = nn.Linear(500, 2, bias=False).double()
    nn.init.zeros_(net.weight)
    plain, scaled = (gradient_tails(net, torch.tensor(values * s)[None], torch.tensor([0]))[0] for s in (1.0, scale))
    assert scaled.log_std == pytest.approx(plain.log_std + math.log(scale), rel=1e-12)
    assert scaled.kurtosis == pytest.approx(plain.kurtosis, rel=1e-9)
    assert scaled.max_over_std == pytest.approx(plain.max_over_std, rel=1e-9)


def test_gradients_of_zero_have_no_tail():
    """A dead layer: -inf, NaN and None, and no warning."""
    net = conv_net().double()
    with torch.no_grad():
        net[3].bias.fill_(-1e6)
    found = gradient_tails(net, X, Y, parameters=["0.weight"])[0]
    assert found.log_std == -math.inf
    assert math.isnan(found.kurtosis)
    assert found.hill is found.power_law is None
    assert found.histogram().zeros == found.values.size


def test_bins_are_powers_of_ten_for_all_data():
    """Edges 10^(k/n): counts of each sign between them, zeros apart, nothing lost."""
    found = signed_histogram([0.0, 1.5, 20.0, -20.0, 2e-3, 1.0, 0.0], per_decade=1)
    np.testing.assert_allclose(found.edges, [1e-3, 1e-2, 1e-1, 1, 10, 100])
    np.testing.assert_array_equal(found.positive, [1, 0, 0, 2, 1])
    np.testing.assert_array_equal(found.negative, [0, 0, 0, 0, 1])
    assert found.zeros == 2
    values = rng.generator(1, "bins").standard_normal(1000)
    fine = signed_histogram(values, per_decade=8)
    np.testing.assert_array_equal(fine.positive, np.histogram(values[values > 0], fine.edges)[0])
    np.testing.assert_array_equal(fine.negative, np.histogram(-values[values < 0], fine.edges)[0])


def test_ratios_of_sizes_have_an_error_over_networks():
    """Mean of ln std over networks, difference, errors added in squares; infinite for one network."""
    net = nn.Linear(400, 2, bias=False).double()
    nn.init.zeros_(net.weight)

    def sized(scale, seeds):
        draws = [torch.tensor(rng.generator(k, "ratio").standard_normal(400) * scale)[None] for k in seeds]
        return [gradient_tails(net, x, torch.tensor([0]))[0] for x in draws]

    large, small = sized(100.0, range(10)), sized(1.0, range(10, 30))
    found = log_size_ratio(large, small)
    assert abs(found.value - math.log(100)) < 4 * found.se
    spread = [np.std([one.log_std for one in side], ddof=1) / math.sqrt(len(side)) for side in (large, small)]
    assert found.se == pytest.approx(math.hypot(*spread))
    assert log_size_ratio(large[:1], small).se == math.inf


def test_unknown_parameters_are_refused():
    """By name."""
    with pytest.raises(InvalidArgumentError, match=r"`parameters` must be one of .*; got '1.w'"):
        gradient_tails(conv_net().double(), X, Y, parameters=["1.w"])
