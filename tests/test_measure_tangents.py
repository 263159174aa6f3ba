"""Tangents through one layer: the known rules against autodiff."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

from rmtbn import rng
from rmtbn.measure.tangents import acts_on_entries, push_tangents

LAYERS = {
    "linear": nn.Linear(6, 4),
    "linear without bias": nn.Linear(6, 9, bias=False),
    "relu": nn.ReLU(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "gelu": nn.GELU(),
    "gelu by tanh": nn.GELU(approximate="tanh"),
    "softplus": nn.Softplus(),
    "layer norm": nn.LayerNorm(6),
}


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=rng.torch_generator(1, "tangents", *shape), dtype=torch.float64)


@pytest.mark.parametrize("budget", [1, 2**20])
@pytest.mark.parametrize("name", LAYERS)
def test_tangents_are_those_of_autodiff(name, budget):
    """Every rule equals the derivative that torch finds, one tangent at a time and all at once."""
    layer, point, tangents = LAYERS[name].double(), draw(3, 6), draw(7, 3, 6)
    with torch.no_grad():
        expected = vmap(lambda tangent: jvp(layer, (point,), (tangent,))[1])(tangents)
        found = push_tangents(layer, point, tangents, memory_budget=budget)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_a_layer_with_a_hook_is_differentiated_with_it():
    """What a hook does to the output belongs to the map."""
    layer, point, tangents = nn.Linear(3, 3).double(), draw(2, 3), draw(4, 2, 3)
    layer.register_forward_hook(lambda _layer, _inputs, output: 2.0 * output)
    with torch.no_grad():
        found = push_tangents(layer, point, tangents, memory_budget=2**20)
        torch.testing.assert_close(found, 2.0 * tangents @ layer.weight.mT)


@pytest.mark.parametrize(("layer", "slope"), [(nn.Tanh(), 4.0), (nn.Sigmoid(), 1.0)])
def test_slopes_of_saturated_units_are_accurate(layer, slope):
    """tanh'(x) -> 4 exp(-2x), σ'(x) -> exp(-x), where 1 - tanh² is 0 in float64."""
    point = torch.tensor([[40.0]], dtype=torch.float64)
    rate = 2.0 if slope == 4.0 else 1.0
    for sign in (1.0, -1.0):
        found = push_tangents(layer, sign * point, torch.ones(1, 1, 1, dtype=torch.float64), memory_budget=1)
        assert float(found) == pytest.approx(slope * float(torch.exp(-rate * point)), rel=1e-14)


def test_the_slope_of_gelu_is_accurate_in_its_tail():
    """Φ(x) + x Φ'(x) at x = -9, against 50 digits: 0.5 (1 + erf) has none left there."""
    import mpmath

    with mpmath.workdps(50):
        expected = mpmath.ncdf(-9) - 9 * mpmath.npdf(-9)
    point = torch.tensor([[-9.0]], dtype=torch.float64)
    found = push_tangents(nn.GELU(), point, torch.ones(1, 1, 1, dtype=torch.float64), memory_budget=1)
    assert float(found) == pytest.approx(float(expected), rel=1e-12)


def test_what_acts_on_entries_is_known_to():
    """J is diagonal: stock activations without hooks; no layer with weights, nothing that couples, nothing unknown."""
    hooked = nn.Tanh()
    hooked.register_forward_hook(lambda *_: None)
    entrywise = (nn.Tanh(), nn.ReLU(), nn.GELU(), nn.Sigmoid(), nn.Identity())
    assert all(acts_on_entries(layer) for layer in entrywise)
    assert not any(acts_on_entries(layer) for layer in (nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Softmax(dim=-1), hooked))


def test_a_layer_with_a_forward_of_its_own_has_no_rule():
    """An instance whose forward was replaced is differentiated as it is."""
    layer = nn.Linear(2, 2)
    layer.forward = lambda h: 3.0 * h
    found = push_tangents(layer, torch.ones(1, 2), torch.ones(1, 1, 2), memory_budget=1)
    torch.testing.assert_close(found, torch.full((1, 1, 2), 3.0))


def test_tangents_may_be_overwritten():
    """With leave the result of an activation lies where the tangents were; without it they stay."""
    x, tangents = torch.tensor([[0.3, -0.2]]), torch.ones(1, 1, 2)
    kept = push_tangents(nn.Tanh(), x, tangents, memory_budget=1)
    assert bool((tangents == 1).all())
    found = push_tangents(nn.Tanh(), x, tangents, memory_budget=1, overwrite=True)
    assert found.data_ptr() == tangents.data_ptr()
    torch.testing.assert_close(found, kept)
