"""Exponents of nonlinear networks: closed forms, limits, the laws they are the limits of, and matrices."""

import math

import numpy as np
import pytest
from scipy import special

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.theory import mean_field
from rmtbn.theory.exponent_spectrum import exponent_spectrum, relu_exponents
from rmtbn.theory.finite_width import log_norm_law, lyapunov_exponents
from rmtbn.theory.gauss_hermite import expectation
from rmtbn.theory.jacobian import jacobian_law

SHARES = np.array([0.001, 0.1, 0.3, 0.45, 0.499])


def test_linear_networks_have_newmans_limit():
    """e^{2λ} = σ_w²(1 - u) for Gaussian weights, σ_w² for orthogonal ones."""
    u = np.linspace(0.01, 0.99, 15)
    np.testing.assert_allclose(exponent_spectrum("linear", u, q=1.0, sigma_w=1.3), math.log(1.3) + np.log1p(-u) / 2,
                               rtol=1e-10, atol=1e-12)  # fmt: skip
    flat = exponent_spectrum("linear", u, q=1.0, sigma_w=1.3, weights="orthogonal")
    np.testing.assert_allclose(flat, math.log(1.3), rtol=1e-10)


def test_relu_networks_lose_half_of_their_exponents():
    """e^{2λ} = σ_w²(½ - u), and that over 1 - u for orthogonal weights; -∞ beyond u = ½."""
    found = exponent_spectrum("relu", SHARES, q=1.0, sigma_w=1.0)
    np.testing.assert_allclose(np.exp(2 * found), 0.5 - SHARES, rtol=1e-9)
    haar = exponent_spectrum("relu", SHARES, q=0.3, sigma_w=1.0, weights="orthogonal")
    np.testing.assert_allclose(np.exp(2 * haar), (0.5 - SHARES) / (1 - SHARES), rtol=1e-9)
    assert np.isneginf(exponent_spectrum("relu", [0.51, 0.9], q=1.0, sigma_w=1.0)).all()


@pytest.mark.parametrize("weights", ["gaussian", "orthogonal"])
@pytest.mark.parametrize("activation", ["tanh", "erf", "hard_tanh", "leaky_relu", "gelu"])
def test_top_exponent_is_half_the_log_of_chi1(activation, weights):
    """λ(u) → ½ ln χ₁ as u → 0."""
    chi = float(mean_field.chi1(0.8, activation, sigma_w=1.4))
    found = float(exponent_spectrum(activation, 1e-7, q=0.8, sigma_w=1.4, weights=weights))
    assert found == pytest.approx(0.5 * math.log(chi), abs=2e-6)


@pytest.mark.parametrize(("weights", "shift"), [("gaussian", -0.5), ("orthogonal", 0.0)])
@pytest.mark.parametrize("activation", ["tanh", "leaky_relu"])
def test_mean_exponent_is_the_mean_logarithm(activation, weights, shift):
    """∫ λ(u) du = E ln|φ′| + ln σ_w - ½ (Gaussian) or 0 (orthogonal): ln|det| is additive."""
    x = np.arange(-30, 30, 0.25)  # u = 1/(1 + e^-x): the trapezoidal rule is exact for what is analytic
    u = special.expit(x)
    mean = 0.25 * np.sum(exponent_spectrum(activation, u, q=0.6, sigma_w=1.2, weights=weights) * u * (1 - u))
    kinks = (0.0,) if activation == "leaky_relu" else ()
    slope = {"tanh": lambda h: 1 / np.cosh(h) ** 2, "leaky_relu": lambda h: np.where(h > 0, 1.0, 0.01)}[activation]
    expected = float(expectation(lambda h: np.log(slope(h)), 0.6, kinks=kinks)) + math.log(1.2) + shift
    assert mean == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("weights", ["gaussian", "orthogonal"])
def test_exponents_are_the_limit_of_the_jacobians_law(weights):
    """Quantiles of ln λ of the free law of L layers, over 2L: the difference about halves when L doubles."""
    u, q = np.array([0.2, 0.5, 0.8]), 0.57
    exact = exponent_spectrum("tanh", u, q=q, sigma_w=1.3, weights=weights)
    sigma_b = math.sqrt(q - float(mean_field.length_map(q, "tanh", sigma_w=1.3, sigma_b=0.0)))
    gaps = []
    for depth in (16, 32, 64):
        law = jacobian_law("tanh", depth=depth, weights=weights, sigma_w=1.3, sigma_b=sigma_b)
        gaps.append(np.abs(law.log_ppf(1 - u) / (2 * depth) - exact).max())
    assert gaps[2] < 0.04
    assert 1.5 < gaps[0] / gaps[1] < 2.6
    assert 1.5 < gaps[1] / gaps[2] < 2.6


def test_exponents_descend():
    u = np.linspace(0.01, 0.99, 99)
    for weights in ("gaussian", "orthogonal"):
        assert (np.diff(exponent_spectrum("tanh", u, q=1.5, sigma_w=2.0, weights=weights)) < 0).all()


@pytest.mark.parametrize("width", [1, 2, 7, 50])
def test_top_exponent_of_relu_is_half_the_mean_log_norm(width):
    """λ_1 = ½ E ln‖Jv‖² of one layer: Hanin and Nica's law, by an integral instead of a sum over binomials."""
    law = log_norm_law("relu", widths=(width, width))
    assert relu_exponents(width)[0] == pytest.approx(law.mean / 2, rel=1e-10)


def test_relu_exponents_are_those_of_matrices():
    """R_kk of the QR factors of D W Q, D of fair coins: mean of ln R_kk within 4 standard errors, where r >= k."""
    draws, width, layers = rng.generator(1, "relu exponents"), 8, 40_000
    w = draws.standard_normal((layers, width, width)) * math.sqrt(2 / width)
    on = draws.random((layers, width, 1)) < 0.5
    r = np.linalg.qr(w * on, mode="r")
    predicted = relu_exponents(width)
    for k in range(1, 6):
        alive = on.sum(axis=(1, 2)) >= k
        logs = np.log(np.abs(r[alive, k - 1, k - 1]))
        assert abs(logs.mean() - predicted[k - 1]) < 4 * logs.std() / math.sqrt(alive.sum())


def test_relu_exponents_approach_those_of_wide_networks_as_one_over_width():
    """At u = k/N = 1/4, slope of ln |difference| in ln N within 0.1 of -1."""
    widths = (64, 128, 256, 512)
    limit = float(exponent_spectrum("relu", 0.25, q=1.0, sigma_w=math.sqrt(2)))
    gaps = [abs(relu_exponents(n)[n // 4 - 1] - limit) for n in widths]
    assert np.polyfit(np.log(widths), np.log(gaps), 1)[0] == pytest.approx(-1, abs=0.1)


def test_relu_keeps_the_scale_of_the_weights():
    np.testing.assert_allclose(relu_exponents(5, sigma_w=3.0) - relu_exponents(5, sigma_w=1.0), math.log(3))
    assert (np.diff(relu_exponents(30)) < 0).all()
    assert (relu_exponents(30, sigma_w=1.0)[:-1] < lyapunov_exponents(30)[:-1]).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"share": 0.0}, r"`share` .*\(0, 1\).*0\.0"), ({"share": [0.5, 1.0]}, r"`share`.*1\.0"), ({"q": 0.0}, "`q`"),
     ({"sigma_w": -1.0}, "`sigma_w`.*-1"), ({"weights": "uniform"}, "`weights`.*'uniform'")],
)  # fmt: skip
def test_arguments_out_of_range_are_named(change, said):
    arguments = {"share": 0.5, "q": 1.0, "sigma_w": 1.0, **change}
    with pytest.raises(InvalidArgumentError, match=said):
        exponent_spectrum("tanh", arguments.pop("share"), **arguments)
    with pytest.raises(InvalidArgumentError, match="`width`"):
        relu_exponents(0)
