"""One network, four routes: they agree where they know, and say what they do not know."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from rmtbn import rng
from rmtbn.measure import jacobian
from rmtbn.measure.ensemble_jacobian import ensemble_spectrum

ROUTES = ("product", "dense", "slq", "lanczos")
FLOOR = 1e-6


def draw(*shape, seed=1):
    return torch.randn(shape, generator=rng.torch_generator(seed, "routes", *shape), dtype=torch.float64)


def network(depth, width, *, activation=nn.Identity, norm=False, seed=1):
    """Linear layers of variance 2/width for ReLU, 1/width otherwise."""
    layers = []
    for i in range(depth):
        layer = nn.Linear(width, width, bias=False, dtype=torch.float64)
        gain = 2 if activation is nn.ReLU else 1
        layer.weight.data.copy_(math.sqrt(gain / width) * draw(width, width, seed=1000 * seed + i))
        layers += [layer, *([nn.BatchNorm1d(width, dtype=torch.float64)] if norm else []), activation()]
    return nn.Sequential(*layers)


def distance(found, expected, floor):
    """W₁ in ln λ of spectra held at a floor in ln λ."""
    first, second = (np.maximum(2 * s.log_singular_values, floor) for s in (found, expected))
    return float(np.mean(np.abs(first - second)))


NETWORKS = {
    "linear": (network(50, 96), draw(1, 96)),
    "relu": (network(30, 96, activation=nn.ReLU), draw(1, 96)),
    "two examples": (network(30, 64, activation=nn.Tanh), draw(2, 64)),
    "batch norm": (network(6, 12, activation=nn.ReLU, norm=True), draw(8, 12)),
    "narrow": (nn.Sequential(network(20, 64), nn.Linear(64, 24).double()), draw(1, 64)),
    "wide": (nn.Sequential(nn.Linear(24, 64).double(), network(20, 64)), draw(1, 24)),
}


@pytest.mark.parametrize("route", ["dense", "slq", "lanczos"])
@pytest.mark.parametrize("name", NETWORKS)
def test_routes_agree_with_products_above_their_floors(name, route):
    """λ above 1e-6 of the top: dense and Lanczos value by value to 0.1 %, the quadrature to W₁ < 0.08 (a few ranks)."""
    module, x = NETWORKS[name]
    expected = jacobian.spectrum(module, x)
    found = jacobian.spectrum(module, x, method=route, floor=FLOOR)
    assert (found.method, found.dimension) == (route, expected.dimension)
    top = float(expected.log_singular_values[0])
    floor = max(found.log_lam_floor, 2 * top + math.log(FLOOR)) + 1e-6
    if route == "slq":
        assert distance(found, expected, floor) < 0.08
        assert distance(found, expected, floor) < 0.25 * distance(expected, expected, floor + 4) + 0.08
    else:
        above = expected.log_singular_values > floor / 2
        np.testing.assert_allclose(
            found.log_singular_values[above], expected.log_singular_values[above], rtol=0, atol=1e-3
        )
        assert (found.log_singular_values[~above] < floor / 2 + 1e-6).all()
    assert found.zero_fraction <= expected.zero_fraction + 1e-12
    assert found.zero_fraction + found.censored_fraction >= expected.zero_fraction - 1e-12


def test_zeros_of_the_layers_are_zeros_whatever_the_route():
    """Dead ReLUs of the emptiest layer, outputs beyond the inputs, the mean under batch statistics: exact zeros."""
    for name, zeros in (("wide", 40 / 64), ("batch norm", 1 / 8)):
        module, x = NETWORKS[name]
        for route in ("dense", "slq", "lanczos"):
            found = jacobian.spectrum(module, x, method=route)
            assert found.zero_fraction >= zeros - 1e-12
            assert found.zero_fraction <= jacobian.spectrum(module, x).zero_fraction + 1e-12
    dead = nn.Sequential(nn.ReLU())
    x = draw(1, 40)
    for route in ROUTES:
        found = jacobian.spectrum(dead, x, method=route)
        np.testing.assert_allclose(found.zero_fraction, float((x <= 0).double().mean()))
        assert found.censored_fraction <= (0.1 if route == "slq" else 0.0)  # its masses are estimates


def test_a_dense_svd_knows_nothing_below_rounding():
    """50 factors: most values lie under N ε of the top, where the raw SVD is wrong by nats; they are censored."""
    module, x = NETWORKS["linear"]
    exact, found = jacobian.spectrum(module, x), jacobian.spectrum(module, x, method="dense")
    assert found.censored_fraction == pytest.approx(np.mean(exact.by_network < found.log_floor), abs=0.02)
    assert 0.2 < found.censored_fraction < 0.9
    assert found.log_floor == pytest.approx(exact.log_singular_values[0] + math.log(96 * 2.22e-16), abs=0.01)
    matrix = torch.linalg.multi_dot([layer.weight.detach() for layer in module if isinstance(layer, nn.Linear)][::-1])
    raw = torch.linalg.svdvals(matrix).log().numpy()
    assert np.abs(raw - exact.log_singular_values).max() > 3.0


def test_a_failing_svd_falls_back_and_is_reported(monkeypatch):
    """torch's SVD raises: the same values by another algorithm on the CPU, and a note in the reason."""
    module, x = NETWORKS["narrow"]
    expected = jacobian.spectrum(module, x, method="dense")

    def fails(matrix):
        raise torch.linalg.LinAlgError("cusolver error")

    monkeypatch.setattr(torch.linalg, "svdvals", fails)
    found = jacobian.spectrum(module, x, method="dense")
    known = ~expected.censored
    np.testing.assert_allclose(found.by_network[known], expected.by_network[known], rtol=0, atol=1e-3)
    assert "on the CPU" in found.reason
    assert "on the CPU" not in expected.reason


@pytest.mark.parametrize("route", ["slq", "lanczos"])
def test_matrix_free_routes_survive_a_failing_svd(route, monkeypatch):
    """The small decompositions fall back too: the same values."""
    module, x = NETWORKS["narrow"]
    expected = jacobian.spectrum(module, x, method=route)

    def fails(matrix, **options):
        raise torch.linalg.LinAlgError("cusolver error")

    monkeypatch.setattr(torch.linalg, "svdvals", fails)
    monkeypatch.setattr(torch.linalg, "svd", fails)
    found = jacobian.spectrum(module, x, method=route)
    np.testing.assert_allclose(found.by_network, expected.by_network, rtol=0, atol=1e-3)


def test_the_choice_and_its_reason_are_in_the_result():
    """method="auto": every value by products; down to a floor what is cheapest; in little memory what fits."""
    module, x = NETWORKS["linear"]
    assert jacobian.spectrum(module, x).method == "product"
    assert "all values right" in jacobian.spectrum(module, x).reason
    coarse = jacobian.spectrum(module, x, floor=FLOOR)
    assert coarse.method in ("slq", "dense")
    assert "λ above 1e-06" in coarse.reason
    tight = jacobian.spectrum(module, x, memory_budget=600_000)
    assert tight.method in ("dense", "slq")
    assert "does not fit in memory" in tight.reason


def test_probes_carry_their_error_and_their_seed():
    """The same seed, the same density; another seed, another within the error; computed values have none."""
    module, x = network(4, 96), draw(1, 96)
    first, again, other = (jacobian.spectrum(module, x, method="slq", floor=0.05, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.by_network, again.by_network)
    assert 0 < first.cdf_error < 0.1
    assert first.cdf_error != other.cdf_error
    assert jacobian.spectrum(module, x, method="dense").cdf_error == 0.0


@pytest.mark.parametrize("route", ROUTES)
def test_a_network_that_is_constant_has_zeros_only(route):
    """J = 0: every value an exact zero, nothing censored."""
    module = nn.Sequential(nn.Linear(5, 5).double(), nn.ReLU())
    module[0].bias.data.fill_(-100.0)
    found = jacobian.spectrum(module, draw(2, 5), method=route)
    assert (found.zero_fraction, found.censored_fraction) == (1.0, 0.0)


@pytest.mark.parametrize("examples", [1, 2])
@pytest.mark.parametrize("route", ROUTES)
def test_weights_of_zero_leave_zeros_only(route, examples):
    """A last layer that starts at 0, behind a tanh whose slopes are in range: J = 0, nothing censored."""
    module = nn.Sequential(nn.Linear(5, 5).double(), nn.Tanh(), nn.Linear(5, 4).double())
    module[2].weight.data.zero_()
    found = jacobian.spectrum(module, draw(examples, 5), method=route)
    assert (found.zero_fraction, found.censored_fraction) == (1.0, 0.0)


@pytest.mark.parametrize("route", ROUTES)
def test_single_precision_is_served(route):
    """float32 in, the largest value right to 1e-4 by every route."""
    module, x = NETWORKS["relu"]
    expected = jacobian.spectrum(module, x).log_singular_values[0]
    single = network(30, 96, activation=nn.ReLU).float()
    assert jacobian.spectrum(single, x.float(), method=route).log_singular_values[0] == pytest.approx(
        expected, abs=1e-4
    )


@pytest.mark.parametrize("gain", [1e-3, 1e3])
def test_dense_matrices_stay_in_the_floating_range(gain):
    """float32, 30 layers of gain g, 10 of 1/g: powers of 2 are kept apart, and the largest value is right to 1e-4."""
    gains = [gain] * 30 + [1.0 / gain] * 10
    layers = [nn.Linear(24, 24, bias=False) for _ in gains]
    for i, (layer, factor) in enumerate(zip(layers, gains, strict=True)):
        layer.weight.data.copy_(factor * draw(24, 24, seed=i) / 24**0.5)
    module, x = nn.Sequential(*layers), torch.zeros(1, 24)  # at 0 the points stay in range
    found = jacobian.spectrum(module, x, method="dense")
    together = ensemble_spectrum([module, module], x, method="dense")
    exact = jacobian.spectrum(module.double(), x.double()).log_singular_values
    known = exact > found.log_floor[0]
    assert 3 <= int(known.sum()) < 24
    assert abs(exact[0] - 20 * math.log(gain)) < 20
    np.testing.assert_allclose(found.log_singular_values[known], exact[known], rtol=0, atol=found.relative_error)
    np.testing.assert_allclose(together.by_network[:, known], exact[None, known].repeat(2, 0), rtol=0, atol=1e-1)
    np.testing.assert_allclose(together.by_network[:, 0], exact[0], rtol=0, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("route", ROUTES)
def test_routes_agree_on_the_gpu(route):
    """The same numbers with the network and its inputs on CUDA; the probes are the same draws."""
    module, x = NETWORKS["relu"]
    here = jacobian.spectrum(module, x, method=route, floor=1e-4)
    there = jacobian.spectrum(network(30, 96, activation=nn.ReLU).cuda(), x.cuda(), method=route, floor=1e-4)
    top = 2 * here.log_singular_values[0] + math.log(1e-4)
    assert distance(here, there, max(top, here.log_lam_floor, there.log_lam_floor)) < 1e-3
