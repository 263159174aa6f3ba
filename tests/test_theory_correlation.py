"""The correlation map and its slope: closed values, second routes, extreme arguments."""

import math

import numpy as np
import pytest

from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS
from rmtbn.theory import gauss_hermite
from rmtbn.theory.correlation import correlation_map, correlation_slope, decorrelation_map
from rmtbn.theory.length import chi1, length_map

SMOOTH = ["tanh", "erf", "gelu", "silu"]


def hermite_series(name, q, *, terms=160):
    """Coefficients a_n² of E φ(h₁)φ(h₂) = Σ a_n² c^n in normalised Hermite polynomials (300-node Gauss–Hermite)."""
    z, w = np.polynomial.hermite_e.hermegauss(300)
    w = w / w.sum()
    values, previous, current = [], np.zeros_like(z), np.ones_like(z)
    for n in range(terms):
        values.append(np.sum(w * ACTIVATIONS[name].phi(math.sqrt(q) * z) * current))
        previous, current = current, (z * current - math.sqrt(n) * previous) / math.sqrt(n + 1)
    return np.square(values)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("c", [-1.0, -0.6, 0.0, 0.3, 0.9])
def test_the_map_is_its_hermite_series(name, c):
    """c′ = [σ_w² Σ a_n² c^n + σ_b²]/q′ (Daniely et al. 2016, arXiv:1602.05897), another route for smooth φ."""
    q, weight, bias = 0.3, 1.7, 0.2
    series = float(np.polynomial.polynomial.polyval(c, hermite_series(name, q)))
    after = float(length_map(q, name, sigma_w=weight**0.5, sigma_b=bias**0.5))
    found = float(correlation_map(c, name, q=q, sigma_w=weight**0.5, sigma_b=bias**0.5))
    assert found == pytest.approx((weight * series + bias) / after, abs=1e-10)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("q", [1e-12, 0.7, 1e12])
def test_the_map_at_its_ends(name, q):
    """c = 1 is kept exactly; c = 0 goes to [σ_w² (E φ)² + σ_b²]/q′; 1 - c = 1e-12 is multiplied by σ_w² q E φ′²/q′."""
    record, sigmas = ACTIVATIONS[name], {"sigma_w": 1.3, "sigma_b": 0.4}
    mean = float(gauss_hermite.expectation(record.phi, q, kinks=record.kinks))
    after = float(length_map(q, name, **sigmas))
    assert float(correlation_map(1.0, name, q=q, **sigmas)) == 1.0
    independent = (sigmas["sigma_w"] ** 2 * mean**2 + sigmas["sigma_b"] ** 2) / after
    assert float(correlation_map(0.0, name, q=q, **sigmas)) == pytest.approx(independent, abs=1e-10)
    ratio = float(decorrelation_map(1e-24, name, q=q, **sigmas)) / 1e-24
    assert ratio == pytest.approx(q * float(chi1(q, name, sigma_w=1.3)) / after, rel=1e-6 if q == 1e12 else 1e-10)


def panels(edges):
    """Gauss–Legendre nodes and weights on the panels between edges along the last axis."""
    nodes, weights = np.polynomial.legendre.leggauss(14)
    half = np.diff(edges, axis=-1)[..., None] / 2
    middle = (edges[..., 1:] + edges[..., :-1])[..., None] / 2
    flat = (*edges.shape[:-1], -1)
    return (middle + half * nodes).reshape(flat), (half * weights + 0 * nodes).reshape(flat)


def density(h, variance):
    with np.errstate(under="ignore"):
        return np.exp(-h * (h / variance) / 2) / np.sqrt(2 * np.pi * variance)


def mean_product(record, q, d):
    """E φ(h₁)φ(h₂)/E φ², h₂ given h₁ being N(c h₁, q(1 - c²)): products, where the library takes differences."""
    root, spread = math.sqrt(q), math.sqrt(q * d * (2 - d))
    doubling = 2.0 ** np.arange(-4, 5)
    steps = np.concatenate([np.array(record.kinks), *(sign * s * doubling for s in (1.0, root) for sign in (-1, 1))])
    h1, outer = panels(np.unique(np.clip(np.append(steps, 0.0), -9 * root, 9 * root)))
    centre = (1 - d) * h1[:, None]
    own = centre + spread * np.arange(-9, 10)
    fixed = np.broadcast_to(np.append(steps, 0.0), (h1.size, steps.size + 1))
    edges = np.sort(np.clip(np.concatenate([own, fixed], axis=1), own[:, :1], own[:, -1:]), axis=1)
    h2, inner = panels(edges)
    inner = np.sum(inner * density(h2 - centre, spread**2) * record.phi(h2), axis=1)
    outer = outer * density(h1, q)
    return np.sum(outer * record.phi(h1) * inner) / np.sum(outer * record.phi(h1) ** 2)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("q", [1e-12, 1.0, 1e12])
def test_the_map_holds_at_the_ends_of_its_range(name, q):
    """c′ = E φφ/E φ² without bias to 1e-10, by nested conditional integrals; 1 ∓ c of 1e-12, and between."""
    for d in (1e-12, 0.7, 2 - 1e-12):
        found = 1 - float(decorrelation_map(d, name, q=q, sigma_w=1.3))
        assert found == pytest.approx(mean_product(ACTIVATIONS[name], q, d), abs=1e-10)


@pytest.mark.parametrize("name", ["linear", "tanh", "erf", "hard_tanh"])
@pytest.mark.parametrize("c", [1e-3, 0.5, 1 - 1e-12, 1.0])
def test_odd_activations_without_bias_keep_the_sign(name, c):
    """c′(-c) = -c′(c) for odd φ and σ_b = 0, also within 1e-12 of ±1."""
    sigmas = {"q": 2.0, "sigma_w": 1.3}
    up, down = (float(correlation_map(x, name, **sigmas)) for x in (c, -c))
    assert down == pytest.approx(-up, abs=1e-12)


def test_relu_is_the_arc_cosine_kernel():
    """c′ = [√(1 - c²) + (π - arccos c)c]/π (Cho & Saul 2009), whatever σ_w and q."""
    c = np.linspace(-1, 1, 41)
    expected = (np.sqrt(1 - c * c) + (np.pi - np.arccos(c)) * c) / np.pi
    np.testing.assert_allclose(correlation_map(c, "relu", q=3.0, sigma_w=0.8), expected, atol=1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_slope_is_the_derivative_of_the_map(name):
    """dc′/dc by central differences of the map, error O(1e-8²) and rounding."""
    c, step, sigmas = np.array([-0.7, 0.0, 0.4, 0.95]), 1e-5, {"q": 1.4, "sigma_w": 1.2, "sigma_b": 0.3}
    numeric = (correlation_map(c + step, name, **sigmas) - correlation_map(c - step, name, **sigmas)) / (2 * step)
    np.testing.assert_allclose(correlation_slope(c, name, **sigmas), numeric, rtol=1e-7)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"c": 1.2}, "`c`.*1.2"),
        ({"c": float("nan")}, "`c`.*nan"),
        ({"q": -1.0}, "`q`.*-1"),
        ({"sigma_w": -0.5}, "`sigma_w`.*-0.5"),
        ({"sigma_w": 0.0}, "`sigma_w` must be > 0 where `sigma_b` is 0"),
        ({"activation": "swish"}, "`activation`.*'swish'"),
    ],
)
def test_arguments_out_of_range_are_named(change, named):
    """-1 <= c <= 1, q >= 0, σ_w >= 0, a next length above 0, a known φ."""
    arguments = {"c": 0.5, "activation": "relu", "q": 1.0, "sigma_w": 1.0} | change
    with pytest.raises(InvalidArgumentError, match=named):
        correlation_map(
            arguments["c"], arguments["activation"], q=arguments["q"], sigma_w=arguments["sigma_w"], sigma_b=0.0
        )
