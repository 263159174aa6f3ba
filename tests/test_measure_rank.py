"""Rank measures against their formulas in numpy, at their extremes, and over many networks."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.inits import initialise
from rmtbn.measure.rank import ensemble_ranks, layer_ranks
from rmtbn.nets.mlp import mlp

FIELDS = ("log_participation", "log_entropy", "log_orthogonality_gap", "isometry_gap", "dead_share", "log_trace")


def linear(matrix):
    """A module whose output for the unit vectors is the matrix, row by row."""
    layer = nn.Linear(matrix.shape[0], matrix.shape[1], bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(matrix).T)
    return nn.Sequential(layer)


def ranks_of(matrix):
    return layer_ranks(linear(matrix), torch.eye(len(matrix), dtype=torch.float64))


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_measures_are_their_formulas_whatever_the_scale(scale):
    """K = HHᵀ: ln (tr K)²/tr K², entropy of p, ‖K/tr K - I/n‖, ln (tr K/n)/det^{1/n}, from K in numpy."""
    h = rng.generator(1, "h").standard_normal((5, 9)) @ np.diag(np.geomspace(1, 1e-2, 9))
    found, k = ranks_of(h * scale), h @ h.T
    p = np.linalg.eigvalsh(k) / np.trace(k)
    assert found.log_participation[0, 0] == pytest.approx(-math.log(np.sum(p**2)), rel=1e-10)
    assert found.log_entropy[0, 0] == pytest.approx(-np.sum(p * np.log(p)), rel=1e-10)
    gap = np.linalg.norm(k / np.trace(k) - np.eye(5) / 5)
    assert found.log_orthogonality_gap[0, 0] == pytest.approx(math.log(gap), rel=1e-10)
    isometry = math.log(np.trace(k) / 5) - np.linalg.slogdet(k)[1] / 5
    assert found.isometry_gap[0, 0] == pytest.approx(isometry, rel=1e-9)
    assert found.log_collapse[0, 0] == pytest.approx(math.log(1 - np.sum(p**2)), rel=1e-9)
    assert found.log_trace[0, 0] == pytest.approx(math.log(np.trace(k)) + 2 * math.log(scale), rel=1e-10)


def test_orthogonal_rows_have_full_rank_and_no_gap():
    """n orthogonal rows: both ranks n, gaps 0 to rounding."""
    found = ranks_of(np.linalg.qr(rng.generator(2, "q").standard_normal((8, 8)))[0][:6] * 3)
    assert (found.log_participation[0, 0], found.log_entropy[0, 0]) == pytest.approx((math.log(6),) * 2, rel=1e-12)
    assert found.log_orthogonality_gap[0, 0] < math.log(1e-14)
    assert abs(found.isometry_gap[0, 0]) < 1e-13


def test_nearly_equal_rows_keep_the_digits_of_their_collapse():
    """Two rows at distance ε: 1 - Σp² = 2 p₁p₂ = ε²/2 to first order, far below the spacing of floats near 1."""
    for size in (1e-5, 1e-12):
        found = ranks_of(np.array([[1.0, size / 2, 0.0], [1.0, -size / 2, 0.0]]))
        assert found.log_collapse[0, 0] == pytest.approx(math.log(size**2 / 2), rel=1e-6)
        assert found.log_participation[0, 0] == pytest.approx(0.0, abs=1e-9)


def test_more_rows_than_units_cannot_be_isometric():
    """n > units: isometry gap inf, orthogonality gap at least √(1/units - 1/n)."""
    found = ranks_of(rng.generator(3, "h").standard_normal((7, 4)))
    assert found.isometry_gap[0, 0] == math.inf
    assert found.log_orthogonality_gap[0, 0] >= math.log(math.sqrt(1 / 4 - 1 / 7))


def test_dead_units_are_counted_after_the_activation():
    """Columns that are 0 for all examples, in the layer named."""
    h = np.abs(rng.generator(4, "h").standard_normal((3, 10)))
    h[:, :4] *= -1
    module = nn.Sequential(*linear(h), nn.ReLU())
    assert layer_ranks(module, torch.eye(3, dtype=torch.float64), layers=["1"]).dead_share[0, 0] == pytest.approx(0.4)


def test_ensembles_are_networks_one_by_one():
    """Every layer, φ included, of three networks in one pass against each alone."""
    modules = [mlp(depth=3, width=12).double() for _ in range(3)]
    for i, module in enumerate(modules):
        initialise(module, "he_normal", generator=rng.torch_generator(i, "net"))
    x = torch.randn(5, 12, dtype=torch.float64, generator=rng.torch_generator(1, "x"))
    together = ensemble_ranks(modules, x)
    assert together.layers == ("linear_1", "phi_1", "linear_2", "phi_2", "linear_3", "phi_3")
    for i, module in enumerate(modules):
        alone = layer_ranks(module, x, layers=together.layers)
        for field in FIELDS:
            np.testing.assert_allclose(getattr(together, field)[i], getattr(alone, field)[0], rtol=1e-9, atol=1e-10)


def test_chosen_layers_are_measured_in_their_order():
    """Two of the layers, however they are named: the same numbers; a layer that is not there is refused."""
    modules, x = [mlp(depth=3, width=5).double()], torch.eye(4, 5, dtype=torch.float64)
    everything, some = ensemble_ranks(modules, x), ensemble_ranks(modules, x, layers=["phi_3", "linear_1"])
    assert some.layers == ("linear_1", "phi_3")
    np.testing.assert_array_equal(some.log_entropy, everything.log_entropy[:, [0, 5]])
    with pytest.raises(InvalidArgumentError, match=r"`layers` must be one of 'linear_1', .*; got 'phi_9'"):
        ensemble_ranks(modules, x, layers=["phi_9"])


def test_traces_are_held_as_logarithms():
    """Linear networks of σ_w = 10 and 200 layers: ln tr K grows by about 2 ln 10 per layer, far beyond floats."""
    module = mlp(depth=200, width=40, activation="linear").double()
    initialise(module, "gaussian", generator=rng.torch_generator(1, "net"), sigma_w=10.0)
    found = ensemble_ranks([module], torch.eye(3, 40, dtype=torch.float64), layers=["linear_1", "linear_200"])
    assert np.diff(found.log_trace[0])[0] == pytest.approx(199 * 2 * math.log(10), rel=0.02)


def test_relu_networks_collapse_to_rank_one():
    """Without normalisation the participation rank of deep layers tends to 1: ln(1 - Σp²) falls with depth."""
    module = mlp(depth=60, width=100).double()
    initialise(module, "he_normal", generator=rng.torch_generator(1, "net"))
    found = layer_ranks(module, torch.randn(6, 100, dtype=torch.float64, generator=rng.torch_generator(1, "x")))
    assert found.log_collapse[0, 0] > math.log(0.5)
    assert found.log_collapse[0, -1] < math.log(0.05)


def test_one_example_has_no_rank():
    """At least two examples."""
    with pytest.raises(InvalidArgumentError, match="number of examples"):
        layer_ranks(mlp(depth=1, width=2), torch.ones(1, 2))
