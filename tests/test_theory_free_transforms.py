"""Transforms at complex arguments against closed forms, and against each other."""

import math

import numpy as np
import pytest

from rmtbn._checks import InvalidArgumentError
from rmtbn.theory.free import factors
from rmtbn.theory.free.branch import ConvergenceError
from rmtbn.theory.free_probability import (
    cauchy_transform,
    chi,
    free_product_law,
    moment_transform,
    psi,
    r_transform,
    s_transform,
)
from rmtbn.theory.fuss_catalan import FussCatalan
from rmtbn.theory.jacobian import jacobian_law
from rmtbn.theory.marchenko_pastur import MarchenkoPastur

Z = np.array([1 + 1j, -2.0, 0.3 - 0.2j, 5 + 0.5j, 12 + 1j, -0.01])
M = np.array([-0.5, -0.2 - 0.1j, 0.1 - 0.3j, -0.01])
LAWS = {
    "product": free_product_law([factors.gaussian()] * 3),
    "tanh": jacobian_law("tanh", depth=3, sigma_b=0.3, weights="orthogonal"),
    "one factor": jacobian_law("tanh", depth=1, sigma_b=0.3, weights="orthogonal"),
    "one point": jacobian_law("linear", depth=3, weights="orthogonal"),
    "relu": jacobian_law("relu", depth=3),
    "by quantiles": FussCatalan(depth=3),
    "with an atom": MarchenkoPastur(ratio=4.0),
}


@pytest.mark.parametrize("name", ["product", "by quantiles"])
def test_moment_transform_of_a_product_of_three_matrices(name):
    """M z = (1 + M)^4, from the curve and by quadrature over quantiles."""
    m = moment_transform(LAWS[name], Z)
    np.testing.assert_allclose((1 + m) ** 4 / m, Z, rtol=1e-12)
    np.testing.assert_allclose(cauchy_transform(LAWS[name], Z) * Z, 1 + m, rtol=1e-14)


@pytest.mark.parametrize("name", LAWS)
def test_chi_is_the_inverse_of_psi(name):
    """χ(ψ(w)) = w, in both half-planes and on w < 0."""
    w = 1 / Z
    np.testing.assert_allclose(chi(LAWS[name], psi(LAWS[name], w)), w, rtol=1e-11)


@pytest.mark.parametrize("name", LAWS)
def test_transforms_are_the_sums_of_the_moments_far_out(name):
    """M(z) = Σ m_k z^-k."""
    law = LAWS[name]
    z = np.array([3000j, -4000.0]) * law.moment(1)
    series = sum(law.moment(k) * z**-k for k in range(1, 8))
    np.testing.assert_allclose(moment_transform(law, z), series, rtol=1e-11)


@pytest.mark.parametrize("name", ["product", "by quantiles"])
def test_s_transforms_multiply(name):
    """S = 1/(1 + m)³ for three Gaussian matrices."""
    np.testing.assert_allclose(s_transform(LAWS[name], M) * (1 + M) ** 3, 1.0, rtol=1e-12)


def test_s_transform_of_a_network_is_that_of_a_layer_to_the_depth():
    """S_L = S_1^L for orthogonal weights, φ = tanh."""
    np.testing.assert_allclose(s_transform(LAWS["tanh"], M), s_transform(LAWS["one factor"], M) ** 3, rtol=1e-12)


def test_s_transform_of_a_projection():
    """S = (1 + m)/(p + m), from points with a mass at zero."""
    law = free_product_law([factors.bernoulli(0.7)])
    np.testing.assert_allclose(s_transform(law, M), (1 + M) / (0.7 + M), rtol=1e-13)


@pytest.mark.parametrize(
    "law", [MarchenkoPastur(ratio=0.5), free_product_law([factors.gaussian(ratio=0.5)])], ids=["quantiles", "curve"]
)
def test_r_transform_of_marchenko_pastur(law):
    """R(g) = 1/(1 - c g)."""
    g = np.array([-1.0, -0.3 + 0.2j, 0.4 - 0.3j, 0.1 + 0.2j])
    np.testing.assert_allclose(r_transform(law, g), 1 / (1 - 0.5 * g), rtol=1e-11)


def test_points_on_the_support_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"z.*off the real axis"):
        moment_transform(LAWS["product"], 2.0)
    with pytest.raises(InvalidArgumentError, match=r"m.*\(-p, 0\).*0.7"):
        chi(free_product_law([factors.bernoulli(0.7)]), -0.8)


def test_what_quadrature_cannot_resolve_is_said():
    """Next to the support a law by its quantiles is points."""
    with pytest.raises(ConvergenceError, match=r"too near the support of FussCatalan"):
        moment_transform(FussCatalan(depth=20), 1 + 0.001j)


def test_values_that_the_transform_does_not_take_are_refused():
    """ψ of the free Poisson law maps to |arg| < π only up to the curve m = ψ(x + i0)."""
    with pytest.raises(ConvergenceError, match=r"no value|too near"):
        chi(MarchenkoPastur(ratio=1.0), 50 - 0.5j)
    assert math.isclose(abs(chi(LAWS["one point"], -0.5)), 1.0, rel_tol=1e-12)
