"""The planner: prices from dimensions, the cheapest route that fits and resolves, refusals with the figures."""

import dataclasses

import pytest
import torch
from torch import nn

from rmtbn._checks import InvalidArgumentError
from rmtbn.measure import network, planner
from rmtbn.measure.planner import Size
from rmtbn.theory.fuss_catalan import FussCatalan

CPU = torch.device("cpu")


def size(n=512, *, layers=50, groups=1):
    return Size(groups=groups, inputs=n, outputs=n, widest=n, layers=layers, push=2.0 * layers * n**2)


def planned(wanted, *, method="auto", floor=None, memory_budget=2**40, dtype=torch.float64):
    return planner.plan(wanted, method=method, floor=floor, memory_budget=memory_budget, dtype=dtype, device=CPU)


def test_every_value_of_a_deep_network_is_by_products():
    """Nothing is asked but all values: the product, whatever cheaper routes there are."""
    for layers in (1, 50, 1000):
        assert planned(size(layers=layers)).route == "product"


@pytest.mark.parametrize(
    ("layers", "floor", "route"),
    [(50, 1e-6, "slq"), (200, 1e-6, "slq"), (3, 1e-6, "dense"), (50, 1e-20, "dense"), (50, 1e-40, "product")],
)
def test_the_cheapest_route_that_resolves_the_floor_is_taken(layers, floor, route):
    """Graded and coarse: few values above the floor, matrix-free. Shallow or fine: dense. Beyond rounding: products."""
    found = planned(size(1024, layers=layers), floor=floor)
    assert found.route == route
    assert f"λ above {floor:g}" in found.reason
    able = [r for r in ("product", "dense", "slq") if planner.resolvable(r, size(1024), torch.float64) <= floor]
    assert found.prices[route].flops == min(found.prices[r].flops for r in able)


def test_precision_decides_what_a_route_resolves():
    """A floor of 1e-20 is beyond float32, where only products go."""
    assert planned(size(1024), floor=1e-20, dtype=torch.float32).route == "product"


def test_less_memory_takes_another_route_and_says_so():
    """Between the prices of the routes the choice changes; below the least it is refused with figures."""
    prices = planner.prices(size(), floor=None, dtype=torch.float64)
    assert prices["slq"].memory < prices["dense"].memory < prices["product"].memory
    found = planned(size(), memory_budget=int(prices["product"].memory) - 1)
    assert found.route == "dense"
    assert "does not fit in memory" in found.reason
    assert "product" in found.reason
    assert "too much" in found.reason
    assert planned(size(), memory_budget=int(prices["dense"].memory) - 1).route == "slq"
    rule = r"`memory_budget` must be at least .* MB, which the route 'slq' takes for 512 × 512, 50 layers; got '1 kB'"
    with pytest.raises(InvalidArgumentError, match=rule):
        planned(size(), memory_budget=1000)


@pytest.mark.parametrize("method", planner.ROUTES)
def test_a_named_route_is_taken_or_refused(method):
    """As asked where it fits; with its own figures where it does not."""
    found = planned(size(), method=method)
    assert found.route == method
    assert found.reason.startswith("as asked")
    with pytest.raises(InvalidArgumentError, match=f"which the route '{method}' takes .*; got '10 B'"):
        planned(size(), method=method, memory_budget=10)


def test_prices_scale_as_the_algorithms_do():
    """Dense: N³ L and N²; twice the groups cost twice the time and no more memory."""
    one, wide, many = (planner.prices(s, floor=None, dtype=torch.float64) for s in (size(), size(1024), size(groups=2)))
    assert wide["dense"].flops / one["dense"].flops == pytest.approx(8.0)
    assert wide["dense"].memory / one["dense"].memory == pytest.approx(4.0)
    for route in planner.ROUTES:
        assert many[route].flops == pytest.approx(2 * one[route].flops)
        assert many[route].memory == one[route].memory
    half = planner.prices(size(), floor=None, dtype=torch.float32)
    assert half["dense"].memory == one["dense"].memory / 2
    assert half["product"].memory > one["product"].memory  # which may go on in float64, beside what there was


@pytest.mark.parametrize("layers", [2, 20, 50, 200])
def test_share_above_the_floor_is_that_of_gaussian_products(layers):
    """1 - F(floor · edge) of the Fuss–Catalan law, to 1 %."""
    law = FussCatalan(depth=layers)
    exact = 1 - float(law.cdf(1e-6 * law.support[1]))
    assert planner.share_above(1e-6, layers) == pytest.approx(exact, rel=0.01)


def shapes(layers, x):
    return network.check_output(nn.Sequential(*layers), x).shapes


def test_sizes_are_read_off_the_layers():
    """Linear layers cost 2 in · out per tangent, convolutions as much at every place; the widest point counts."""
    layers = [nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 4)]
    found = planner.size_of(layers, shapes(layers, torch.zeros(3, 6)), coupled=False)
    assert (found.groups, found.inputs, found.outputs, found.widest, found.layers) == (3, 6, 4, 20, 2)
    assert found.push == 2 * (6 * 20 + 20 * 4) + 4 * (20 + 20 + 4)
    whole = planner.size_of(layers, shapes(layers, torch.zeros(3, 6)), coupled=True)
    assert (whole.groups, whole.inputs, whole.widest, whole.push) == (1, 18, 60, 3 * found.push)
    kernel = [nn.Conv2d(2, 5, 3, padding=1)]
    conv = planner.size_of(kernel, shapes(kernel, torch.zeros(1, 2, 4, 4)), coupled=False)
    assert conv.push == 2 * (5 * 2 * 9) * 16 + 4 * 80


def test_copies_of_live_units_are_counted():
    """Half of the weights before a ReLU, half of those behind, a quarter in between; none where examples couple."""
    layers = [nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 4)]
    met = shapes(layers, torch.zeros(3, 6))
    found = planner.size_of(layers, met, coupled=False)
    assert found.copied == 60 + 40 + 16
    assert planner.size_of(layers, met, coupled=True).copied == 0
    assert planner.size_of(layers[4:], met[4:], coupled=False).copied == 0
    bare = dataclasses.replace(found, copied=0.0)
    for route, more in (("slq", 1.3 * 4 * 116), ("lanczos", 1.3 * 4 * 116), ("dense", 0.0), ("product", 0.0)):
        prices = [planner.prices(size, floor=0.1, dtype=torch.float32)[route] for size in (found, bare)]
        assert prices[0].memory - prices[1].memory == pytest.approx(more)


def test_rates_and_memory_are_those_of_a_machine():
    """Flops per second between a kiloflop and an exaflop; more than 100 MB."""
    assert 1e3 < planner.measured_rate(torch.float64, CPU) < 1e18
    assert planner.default_memory(CPU) > 1e8
