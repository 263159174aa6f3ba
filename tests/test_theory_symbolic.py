"""What sympy derives from φ, against the numerical code, quadrature and the printed closed forms."""

from dataclasses import replace

import numpy as np
import pytest
import sympy as sp

from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS
from rmtbn.theory import gauss_hermite, symbolic
from rmtbn.theory.correlation import correlation_map, correlation_slope
from rmtbn.theory.length import chi1, dphi_second_moment, length_map, phi_second_moment
from rmtbn.theory.pair_moments import dphi_product, phi_difference

LENGTHS = np.array([1e-3, 0.2, 1.0, 3.0, 40.0])
CORRELATIONS = np.array([-0.9, -0.3, 0.0, 0.5, 0.99])
Q, C = (grid.ravel() for grid in np.meshgrid(LENGTHS, CORRELATIONS))
SINGLE = ["linear", "relu", "leaky_relu", "erf", "hard_tanh", "gelu", "selu"]
PAIRS = ["linear", "relu", "leaky_relu", "erf", "gelu"]


def test_what_can_be_derived_is_what_is_listed_here():
    """tanh and SiLU have no closed form; hard-tanh and SELU have none for pairs."""
    assert [name for name in ACTIVATIONS if symbolic.derive(name).second_moment is not None] == SINGLE
    assert [name for name in ACTIVATIONS if symbolic.derive(name).slope_second_moment is not None] == SINGLE
    assert [name for name in ACTIVATIONS if symbolic.derive(name).pair_moment is not None] == PAIRS
    assert [name for name in ACTIVATIONS if symbolic.derive(name).slope_product is not None] == PAIRS


@pytest.mark.parametrize("name", SINGLE)
def test_derived_moments_are_the_numerical_ones(name):
    """E φ² and E φ′², lambdified, against the functions of the library and against quadrature of φ."""
    record, found = ACTIVATIONS[name], symbolic.derive(name)
    for expression, function, f in (
        (found.second_moment, phi_second_moment, record.phi),
        (found.slope_second_moment, dphi_second_moment, record.dphi),
    ):
        values = symbolic.numerical(expression, "q")(LENGTHS)
        by_quadrature = gauss_hermite.expectation(lambda h: f(h) ** 2, LENGTHS, kinks=record.kinks)  # noqa: B023
        np.testing.assert_allclose(values, function(LENGTHS, name), rtol=1e-12)
        np.testing.assert_allclose(values, by_quadrature, rtol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_derived_pair_moments_are_the_numerical_ones(name):
    """E φ(h₁)φ(h₂) = E φ² - E(φ₁ - φ₂)²/2 and E φ′φ′, lambdified, against the library and against quadrature."""
    found, scale = symbolic.derive(name), phi_second_moment(Q, name)
    values = symbolic.numerical(found.pair_moment, "q", "c")(Q, C)
    slopes = symbolic.numerical(found.slope_product, "q", "c")(Q, C)
    for record in (ACTIVATIONS[name], replace(ACTIVATIONS[name], name="by quadrature", slopes=None)):
        product = scale - phi_difference(Q, 1 - C, record)
        np.testing.assert_allclose(values / scale, product / scale, rtol=0, atol=1e-13)
        np.testing.assert_allclose(slopes, dphi_product(Q, 1 - C, record), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", SINGLE)
def test_maps_are_those_of_the_mean_field(name):
    """What is written in LaTeX, evaluated: q′, χ₁, q′c′ and χ at one point of the plane."""
    at, found = {"q": 1.3, "c": 0.4, "sigma_w": 1.2, "sigma_b": 0.3}, symbolic.maps(name)
    after = float(length_map(1.3, name, sigma_w=1.2, sigma_b=0.3))
    sigmas = {"q": 1.3, "sigma_w": 1.2}
    expected = {
        "length_map": after,
        "chi1": float(chi1(1.3, name, sigma_w=1.2)),
        "correlation_map": after * float(correlation_map(0.4, name, **sigmas, sigma_b=0.3)),
        "chi": float(correlation_slope(0.4, name, **sigmas, sigma_b=0.3)) * after / 1.3,
    }
    for key in found.keys() - {"phi"}:
        value = symbolic.numerical(found[key], *at)(*at.values())
        assert float(value) == pytest.approx(expected[key], rel=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_slopes_are_the_derivative_of_the_pair_moment(name):
    """∂ E φφ/∂c = q E φ′φ′ (Price 1958), symbolically differentiated and evaluated."""
    found = symbolic.derive(name)
    derivative = sp.diff(found.pair_moment, symbolic.C) / symbolic.Q
    for q, c in ((0.3, 0.2), (4.0, -0.7)):
        at = {symbolic.Q: q, symbolic.C: c}
        assert float(derivative.subs(at)) == pytest.approx(float(found.slope_product.subs(at)), rel=1e-12)


def test_known_forms_are_found():
    """ReLU q/2 and slopes 1/4 + arcsin(c)/2π (Cho & Saul 2009); erf (2/π) arcsin(2q/(1+2q)) (Williams 1997)."""
    q, c = symbolic.Q, symbolic.C
    relu, erf = symbolic.derive("relu"), symbolic.derive("erf")
    assert relu.second_moment == q / 2
    assert sp.simplify(relu.slope_product - (sp.Rational(1, 4) + sp.asin(c) / (2 * sp.pi))) == 0
    assert sp.simplify(sp.sin(sp.pi * erf.pair_moment / 2) - 2 * q * c / (1 + 2 * q)) == 0
    assert sp.simplify(erf.slope_second_moment - 4 / (sp.pi * sp.sqrt(1 + 4 * q))) == 0


def test_latex_names_the_maps_that_are_known():
    """φ always; the maps where they have a closed form, with σ_w and σ_b."""
    assert set(symbolic.latex("tanh")) == {"phi"}
    assert set(symbolic.latex("hard_tanh")) == {"phi", "length_map", "chi1"}
    relu = symbolic.latex("relu")
    assert set(symbolic.maps("relu")) == set(relu)
    assert symbolic.latex("hard_tanh")["phi"].endswith(r"x\ \mathrm{otherwise}")  # in one line, not as cases
    assert set(relu) == {"phi", "length_map", "chi1", "correlation_map", "chi"}
    assert relu["length_map"] == r"q' = \frac{q \sigma_{w}^{2}}{2} + \sigma_{b}^{2}"
    assert "1.0507009" not in symbolic.latex("selu")["phi"]  # long constants are rounded for reading


def test_unknown_names_are_refused():
    """As everywhere."""
    with pytest.raises(InvalidArgumentError, match=r"`activation`.*'swish'"):
        symbolic.derive("swish")
