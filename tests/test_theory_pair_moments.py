"""Moments of φ over pairs of Gaussians: closed forms against quadrature, differences against slopes."""

from dataclasses import replace

import numpy as np
import pytest

from rmtbn.activations import ACTIVATIONS, leaky_relu
from rmtbn.theory import gauss_hermite
from rmtbn.theory.length import dphi_second_moment, phi_second_moment
from rmtbn.theory.pair_moments import closed_form, dphi_product, phi_difference

LENGTHS = np.array([1e-12, 1e-3, 1.0, 50.0, 1e12])
DECORRELATIONS = np.array([1e-12, 1e-6, 0.01, 0.3, 1.0, 1.7, 2 - 1e-6, 2 - 1e-12, 2.0])
Q, D = (grid.ravel() for grid in np.meshgrid(LENGTHS, DECORRELATIONS))
CLOSED = [*(r for r in ACTIVATIONS.values() if closed_form(r)), leaky_relu(-1.0), leaky_relu(0.3)]


def by_quadrature(record):
    """The same φ without its closed forms."""
    return replace(record, name="nameless", slopes=None)


def test_the_named_closed_forms_are_there():
    """Linear, ReLU, leaky ReLU, erf and GELU have them; tanh has none."""
    assert {record.name for record in CLOSED} == {"linear", "relu", "leaky_relu", "erf", "gelu"}
    assert closed_form("tanh") is None


@pytest.mark.parametrize("record", CLOSED, ids=lambda r: r.formula[:28])
def test_closed_forms_are_the_integrals(record):
    """E(φ₁ - φ₂)²/2 relative to itself (of the modulus, leaky_relu(-1), it is as small at c = -1), E φ′φ′ to E φ′²."""
    np.testing.assert_allclose(phi_difference(Q, D, by_quadrature(record)), phi_difference(Q, D, record), rtol=2e-10)
    np.testing.assert_allclose(
        dphi_product(Q, D, by_quadrature(record)), dphi_product(Q, D, record), rtol=0, atol=1e-12
    )


def graded_angles(theta):
    """Nodes and weights over (0, θ) on panels that halve towards both ends, where the integrand bends."""
    halves = theta / 2 * 0.5 ** np.arange(12)
    edges = np.unique(np.concatenate([[0.0], halves, theta - halves, [theta]]))
    centre, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    return (centre[:, None] + half[:, None] * gauss_hermite.NODES).ravel(), np.outer(
        half, gauss_hermite.WEIGHTS
    ).ravel()


@pytest.mark.parametrize("name", ["tanh", "hard_tanh", "silu", "selu", "gelu", "erf"])
@pytest.mark.parametrize(("q", "d"), [(1.0, 1e-12), (1.0, 0.5), (0.01, 2.0), (300.0, 1e-3)])
def test_differences_are_integrals_of_slope_products(name, q, d):
    """E(φ₁ - φ₂)²/2 = q ∫₀^d E φ′φ′ dd′ (Price 1958), by another integral in another variable."""
    record = by_quadrature(ACTIVATIONS[name])
    theta, weight = graded_angles(2 * np.arcsin(np.sqrt(d / 2)))
    along = 2 * np.sin(theta / 2) ** 2
    integral = q * float(np.sum(weight * np.sin(theta) * dphi_product(q, along, record)))
    assert float(phi_difference(q, d, record)) == pytest.approx(integral, rel=1e-10)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("q", LENGTHS)
def test_close_inputs_part_by_the_mean_square_slope(name, q):
    """E(φ₁ - φ₂)²/2 → q d E φ′² as d → 0, also where d is far below the spacing of floats near 1; kinks add O(√d)."""
    d = 1e-30 / max(q, 1.0)
    expected = q * d * float(dphi_second_moment(q, name))
    assert float(phi_difference(q, d, name)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_ends_of_the_range(name):
    """d = 0: no difference; d = 1: E φ² - (E φ)²; d = 2: E φ² - E φ(h)φ(-h)."""
    record, q = ACTIVATIONS[name], np.array([0.02, 1.0, 40.0])
    mean, odd = (
        gauss_hermite.expectation(f, q, kinks=(*record.kinks, *(-k for k in record.kinks)))
        for f in (record.phi, lambda h: record.phi(h) * record.phi(-h))
    )
    second = phi_second_moment(q, record)
    assert float(phi_difference(1.0, 0.0, record)) == 0.0
    np.testing.assert_allclose(phi_difference(q, 1.0, record), second - mean**2, rtol=1e-11)
    np.testing.assert_allclose(phi_difference(q, 2.0, record), second - odd, rtol=1e-11)
    np.testing.assert_allclose(dphi_product(q, 0.0, record), dphi_second_moment(q, record), rtol=1e-11)


def test_shapes_broadcast():
    """q of shape (2, 1) and d of shape (3,) give (2, 3), in closed form and by quadrature."""
    for name in ("erf", "tanh"):
        assert phi_difference(np.ones((2, 1)), np.full(3, 0.5), name).shape == (2, 3)
        assert dphi_product(1.0, 0.5, name).shape == ()
