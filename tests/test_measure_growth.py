"""Growth along depth: prefix spectra, exact exponents of linear networks, the mean field's χ, and its shape."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.inits import initialise
from rmtbn.measure import jacobian
from rmtbn.measure.growth import growth
from rmtbn.nets.mlp import mlp
from rmtbn.theory.finite_width import lyapunov_exponents
from rmtbn.theory.mean_field import fixed_point


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=rng.torch_generator(1, "growth", *shape), dtype=torch.float64)


def networks(count: int, *, sigma_w: float = 1.0, **options: object) -> list[nn.Sequential]:
    """Networks with Gaussian weights of standard deviation sigma_w/sqrt(fan_in)."""
    made = []
    for seed in range(count):
        generator, module = rng.torch_generator(seed, "growth net"), mlp(**options).double()
        initialise(module, "gaussian", generator=generator, sigma_w=sigma_w, sigma_b=0.1)
        made.append(module)
    return made


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_every_point_is_the_spectrum_of_that_prefix(norm):
    """log σ after layer l as `jacobian.prefix_spectra` finds it, network by network; with BN too."""
    modules, x = networks(2, depth=6, width=5, activation="tanh", norm=norm, sigma_w=1.3), draw(4, 5)
    found = growth(modules, x, after=["phi_2", "linear_4", "phi_6"])
    assert found.after == ("phi_2", "linear_4", "phi_6")
    assert found.depth.tolist() == [2.0, 4.0, 6.0]
    by_network = found.log_singular_values.reshape(2, -1, 3, found.log_singular_values.shape[-1])
    for rows, module in zip(by_network, modules, strict=True):
        for i, (_, prefix) in enumerate(jacobian.prefix_spectra(module, x, after=found.after).items()):
            values = -np.sort(-np.exp(rows[:, i].ravel()))
            np.testing.assert_allclose(values, np.exp(prefix.by_network[0]), rtol=1e-8, atol=1e-30)


def test_linear_networks_have_newmans_exponents():
    """E log σ_k(J_L)/L = ½[ln(2/N) + ψ((N-k+1)/2)], k = 1 and N, at L = 300, and per layer between depths."""
    width, count = 8, 6
    found = growth(networks(count, depth=300, width=width, activation="linear"), draw(1, width))
    expected = lyapunov_exponents(width)
    for k in (1, width):
        profile = found.profile(k)
        assert profile.depth[-1] == 300
        assert abs(profile.value[-1] - expected[k - 1]) < 4 * profile.se[-1] + 2.0 / 300
        local = found.local_exponents[:, 5:, k - 1].mean()
        assert local == pytest.approx(expected[k - 1], abs=4 * profile.se[-1] + 0.02)
    assert len(found.after) == 20


def test_the_mean_square_grows_by_chi():
    """(ln mean σ²)(l+1) - (l) = ln χ₁ of the mean field, for wide tanh networks, within 4 standard errors and 4/N."""
    width, sigma_w = 128, 1.5
    modules = networks(6, depth=12, width=width, activation="tanh", sigma_w=sigma_w)
    found = growth(modules, draw(1, width) * 0.8, after=["phi_6", "phi_10"])
    per_layer = np.diff(found.log_mean_square, axis=1)[:, 0] / 4
    se = per_layer.std(ddof=1) / math.sqrt(len(per_layer))
    expected = math.log(fixed_point("tanh", sigma_w=sigma_w, sigma_b=0.1).chi1)
    assert abs(per_layer.mean() - expected) < 4 * se + 4 / width
    assert abs(per_layer.mean() - 2 * expected) > 4 * se


def test_dead_directions_are_minus_infinity():
    """Zeros at one depth are zeros at all later ones, in both kinds of exponent."""
    found = growth(networks(1, depth=8, width=6, activation="relu", sigma_w=2.0), draw(1, 6))
    zeros = np.isneginf(found.log_singular_values[0]).sum(axis=1)
    assert (np.diff(zeros) >= 0).all()
    assert zeros[-1] > 0
    assert (np.isneginf(found.exponents[0]).sum(axis=1) == zeros).all()


def test_widths_may_change():
    """Rows have as many values as there are inputs: those of a narrow layer are followed by -inf."""
    module = nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 3)).double()
    found = growth([module], draw(2, 5))
    assert found.log_singular_values.shape == (2, 2, 5)
    assert np.isneginf(found.log_singular_values[:, 1, 3:]).all()
    assert np.isfinite(found.log_singular_values[:, 0]).all()


def test_invalid_arguments_are_refused():
    """Empty or unknown layers, no network, an exponent that is not there."""
    modules, x = networks(1, depth=2, width=4, activation="tanh"), draw(1, 4)
    with pytest.raises(InvalidArgumentError, match="`after` must be one or more names"):
        growth(modules, x, after=[])
    with pytest.raises(InvalidArgumentError, match=r"`after` must be one of 'linear_1', .*; got 'x'"):
        growth(modules, x, after=["x"])
    with pytest.raises(InvalidArgumentError, match="`modules` must be one or more"):
        growth([], x)
    with pytest.raises(InvalidArgumentError, match="`k` must be an integer >= 1 and <= 4; got 5"):
        growth(modules, x).profile(5)
