"""Edges and points on z < 0: closed forms, a polynomial's critical points, and E λ/(z - λ) integrated."""

import math

import numpy as np
import pytest
from scipy import integrate

from rmtbn.theory.free import factors
from rmtbn.theory.free.chain import Placed, spectral_curve
from rmtbn.theory.free.edges import anchors, edges, real_w
from rmtbn.theory.free.terms import Place
from rmtbn.theory.free_probability import free_product_law
from rmtbn.theory.marchenko_pastur import MarchenkoPastur


def curve_of(*parts):
    return spectral_curve([Placed(factor=factor, count=count) for factor, count in parts])


@pytest.mark.parametrize("depth", [1, 2, 10, 1000])
def test_edge_of_gaussian_products(depth):
    """(L + 1)^{L+1}/L^L, and the bulk reaches 0."""
    low, high = edges(curve_of((factors.gaussian(), depth)))
    assert low == -math.inf
    assert high == pytest.approx((depth + 1) * math.log(depth + 1) - depth * math.log(depth), abs=1e-10)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_both_edges_of_marchenko_pastur(ratio):
    """(1 ± √c)²."""
    expected = [2 * math.log(1 - math.sqrt(ratio)), 2 * math.log(1 + math.sqrt(ratio))]
    np.testing.assert_allclose(edges(curve_of((factors.gaussian(ratio=ratio), 1))), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("p", "depth"), [(0.5, 2), (0.5, 16), (0.9, 30), (0.2, 3)])
def test_bulk_edge_of_orthogonal_layers_that_switch_units_off(p, depth):
    """((1 - p)/p) L^L/(L - 1)^{L-1}, where L(1 - p) >= 1, and also where an atom is above it."""
    found = edges(curve_of((factors.bernoulli(p, value=1 / p), depth)))
    expected = math.log((1 - p) / p) + depth * math.log(depth) - (depth - 1) * math.log(depth - 1)
    assert found[1] == pytest.approx(expected, abs=1e-10)
    assert found[0] == -math.inf


def silverstein_edges(values, weights, ratio):
    """Critical values of x(m) = -1/m + c Σ w_i d_i/(1 + d_i m), by the roots of a polynomial.

    W has c times as many rows as columns, entries of variance 1/columns; x(m) inverts the Stieltjes transform of Wᵀ D W
    (Silverstein & Choi 1995), whose non-zero spectrum is that of √D W Wᵀ √D.
    """
    top = np.polynomial.Polynomial([1.0])
    for d in values:
        top = top * np.polynomial.Polynomial([1.0, d]) ** 2
    rate = top  # x′ m² ∏(1 + d_i m)² = ∏(1 + d_i m)² - c Σ w_i d_i² m² ∏_{j≠i}(1 + d_j m)²
    for i, (d, w) in enumerate(zip(values, weights, strict=True)):
        rest = np.polynomial.Polynomial([0.0, 0.0, ratio * w * d**2])
        for j, other in enumerate(values):
            rest = rest * (np.polynomial.Polynomial([1.0, other]) ** 2 if j != i else 1)
        rate = rate - rest
    m = rate.roots()
    m = m[np.abs(m.imag) < 1e-7].real
    x = -1 / m + ratio * sum(w * d / (1 + d * m) for d, w in zip(values, weights, strict=True))
    return np.sort(x)


@pytest.mark.parametrize(
    ("values", "weights", "ratio", "count"),
    [
        ([1.0, 30.0], [0.5, 0.5], 0.1, 4),
        ([1.0, 7.0], [0.7, 0.3], 1.3, 2),
        ([1.0, 20.0, 500.0], [0.2, 0.5, 0.3], 0.05, 6),
    ],
)
def test_edges_of_gaps_are_those_of_the_inverse_map(values, weights, ratio, count):
    """Outer edges and those of the gaps of √D W Wᵀ √D, against the roots of a polynomial."""
    law = free_product_law([factors.gaussian(ratio=ratio), factors.points(values, weights)])
    found = [end for part in law.bulk for end in (part.chart.low, part.chart.high)]
    expected = np.log(silverstein_edges(values, weights, ratio))
    assert len(found) == expected.size == count
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)
    masses = [part.mass for part in law.bulk]
    if count == 2 * len(values):  # every value has an interval of its own
        np.testing.assert_allclose(masses, weights, rtol=0, atol=1e-9)


@pytest.mark.parametrize("ratio", [0.3, 1.0, 2.5])
def test_points_on_the_negative_axis_are_those_of_the_law(ratio):
    """M(z) = -E λ/(|z| + λ) at z < 0, against the density of Marchenko & Pastur integrated."""
    law, curve = MarchenkoPastur(ratio=ratio), curve_of((factors.gaussian(ratio=ratio), 1))
    points = anchors(curve)
    np.testing.assert_allclose(points.u.imag, -math.pi)
    np.testing.assert_allclose(points.w.imag, math.pi, rtol=1e-14)
    assert np.all(np.diff(points.w.real) < 0)
    m = Place.at(points.u, rank=curve.rank).m.real
    for i in range(4, 30, 4):
        size = math.exp(points.w[i].real)
        assert m[i] == pytest.approx(-_mean_share(law, size), rel=1e-8)


def _mean_share(law, size):
    """E λ/(|z| + λ), by `quad` in ln λ."""
    low, high = law.log_bulk
    return integrate.quad(
        lambda w: math.exp(float(law.log_pdf_log(w))) / (1 + size * math.exp(-w)),
        max(low, high - 60), high, limit=400, epsabs=1e-14,
    )[0]  # fmt: skip


def test_the_point_at_a_given_u_is_on_the_curve():
    """Re u ↦ ln |z|: for one Gaussian factor z = (1 + M)²/M, s = M/(1 + M) = -e^u."""
    curve = curve_of((factors.gaussian(), 1))
    for u in (-3.0, 0.0, 5.0):
        m = -math.exp(u) / (1 + math.exp(u))
        assert real_w(curve, u) == pytest.approx(math.log((1 + m) ** 2 / -m), abs=1e-12)
