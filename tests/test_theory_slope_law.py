"""The law of φ′² as a factor: masses, moments against `quad`, and what is refused."""

import math

import numpy as np
import pytest
from scipy import integrate

from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import activation
from rmtbn.theory.slope_law import slope_factor


def expectation(function, q):
    root = math.sqrt(q)
    pieces = [(-12, -3), (-3, -1), (-1, 0), (0, 1), (1, 3), (3, 12)]
    return sum(
        integrate.quad(lambda z: function(root * z) * math.exp(-z * z / 2), a, b, epsabs=1e-14, limit=300)[0]
        for a, b in pieces
    ) / math.sqrt(2 * math.pi)


@pytest.mark.parametrize("q", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("name", ["tanh", "erf", "gelu", "silu", "selu"])
def test_moments_are_those_of_the_slope(name, q):
    """E d^k = E φ′^2k, k = 1, 2, 3, to 1e-11."""
    factor, record = slope_factor(activation(name), q), activation(name)
    for k in (1, 2, 3):
        exact = expectation(lambda h, k=k: float(record.dphi(np.array([h]))[0]) ** (2 * k), q)
        assert math.exp(factor.law.log_moment(k) + k * factor.log_mean) == pytest.approx(exact, rel=1e-11)


@pytest.mark.parametrize("name", ["tanh", "gelu"])
def test_moment_transform_is_the_mean_of_its_kernel(name):
    """M(ζ) = E d/(ζ - d), off the axis and near it."""
    factor, record = slope_factor(activation(name), 0.7), activation(name)
    for zeta in (2 + 1j, 0.4 + 0.05j, -0.01):
        m = factor.law.sums(np.array([np.log(zeta + 0j) - factor.log_mean]))[0][0]

        def kernel(h, zeta=zeta):
            d = float(record.dphi(np.array([h]))[0]) ** 2
            return d / (zeta - d)

        exact = expectation(lambda h: complex(kernel(h)).real, 0.7) + 1j * expectation(
            lambda h: complex(kernel(h)).imag, 0.7
        )
        assert abs(m - exact) < 1e-10 * abs(exact)


@pytest.mark.parametrize("q", [1e-4, 0.3, 50.0])
def test_hard_tanh_is_a_projection(q):
    """P(|h| < 1) = erf(1/√(2q))."""
    factor = slope_factor(activation("hard_tanh"), q)
    assert factor.rank == pytest.approx(math.erf(1 / math.sqrt(2 * q)), rel=1e-14)


def test_selu_has_an_atom_of_one_half():
    """φ′ is constant for h > 0."""
    ((_, mass),) = slope_factor(activation("selu"), 1.0).atoms
    assert mass == pytest.approx(0.5, abs=1e-15)


def test_what_spans_too_many_decades_is_refused():
    with pytest.raises(InvalidArgumentError, match=r"q.*so small.*5000"):
        slope_factor(activation("erf"), 5000.0)
