"""Laws given the ranks or the lengths of the layers: against the free law, exact moments and zeros, and draws."""

import math

import numpy as np
import pytest
from scipy import integrate

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import activation
from rmtbn.theory.given_layers import law_given_lengths, law_given_ranks, zero_share
from rmtbn.theory.jacobian import jacobian_law


def test_expected_zeros_are_those_of_drawn_layers():
    """E[1 - min n_l/N] against 40,000 draws of 4 layers, and exactly for one layer and for N = 1."""
    draws = rng.generator(1, "binomial").binomial(10, 0.3, size=(40_000, 4)).min(axis=1)
    error = draws.std() / 10 / math.sqrt(draws.size)
    assert zero_share(0.3, width=10, depth=4) == pytest.approx(1 - draws.mean() / 10, abs=4 * error)
    assert zero_share(0.3, width=10, depth=1) == pytest.approx(0.7, abs=1e-12)
    assert zero_share(0.5, width=1, depth=5) == pytest.approx(1 - 0.5**5, abs=1e-12)
    published = {1: 0.5, 2: 0.5282, 8: 0.5710, 64: 0.6167, 1024: 0.6610}
    assert {depth: round(zero_share(0.5, width=100, depth=depth), 4) for depth in published} == published


@pytest.mark.parametrize(("name", "sigma_b"), [("relu", 0.0), ("hard_tanh", 0.05**0.5)])
@pytest.mark.parametrize("weights", ["gaussian", "orthogonal"])
def test_the_law_of_equal_ranks_is_the_free_law(name, sigma_b, weights):
    """n_l = p N in every layer gives back the law of the Jacobian: distribution function and atoms."""
    free = jacobian_law(name, depth=3, weights=weights, sigma_b=sigma_b)
    share = 1 - free.atoms[0][1]
    law = law_given_ranks([share] * 3, weights=weights, sigma_w=free.sigma_w)
    x = free.log_ppf(np.linspace(1 - share + 0.01, 0.99, 20))
    np.testing.assert_allclose(law.cdf_log(x), free.cdf_log(x), atol=1e-9)
    assert law.moment(1) == pytest.approx(1.0, rel=1e-12)
    assert law.atoms[0][1] == pytest.approx(1 - share, abs=1e-12)


def test_the_law_of_ranks_has_the_mean_and_the_zeros_of_its_layers():
    """E λ = σ_w^{2L} ∏ p_l; 1 - min p_l zeros; the variance adds 1/p_l - 1 + g per layer."""
    shares = [0.5, 0.25, 0.75]
    for weights, g in (("gaussian", 1), ("orthogonal", 0)):
        law = law_given_ranks(shares, weights=weights, sigma_w=1.3)
        mean = 1.3**6 * np.prod(shares)
        assert law.moment(1) == pytest.approx(mean, rel=1e-12)
        assert law.moment(2) / mean**2 == pytest.approx(1 + sum(1 / p - 1 + g for p in shares), rel=1e-12)
        assert law.atoms == ((0.0, pytest.approx(0.75)),)


@pytest.mark.parametrize("name", ["tanh", "selu", "hard_tanh"])
@pytest.mark.parametrize("weights", ["gaussian", "orthogonal"])
def test_the_law_of_equal_lengths_is_the_free_law(name, weights):
    """q_l = q* in every layer gives back the law of the Jacobian."""
    free = jacobian_law(name, depth=3, weights=weights, sigma_w=1.2, sigma_b=0.3)
    law = law_given_lengths(name, free.q, weights=weights, sigma_w=1.2)
    p = np.linspace(0.1, 0.99, 12)
    np.testing.assert_allclose(law.log_ppf(p), free.log_ppf(p), rtol=0, atol=1e-9)
    assert law.moment(2) == pytest.approx(free.moment(2), rel=1e-12)
    np.testing.assert_allclose(law.atoms, free.atoms, rtol=0, atol=1e-13)


def _slope_moment(name, q, k):
    """E φ′(h)^k by `quad`."""
    phi = activation(name).dphi
    return integrate.quad(
        lambda z: float(phi(np.array([math.sqrt(q) * z]))[0]) ** k * math.exp(-z * z / 2) / math.sqrt(2 * math.pi),
        -12, 12, epsabs=1e-13, limit=200,
    )[0]  # fmt: skip


def test_the_law_of_lengths_has_the_moments_of_its_layers():
    """m_1 = ∏ σ_w² E φ′², m_2/m_1² = 1 + Σ (E φ′⁴/(E φ′²)² - 1 + g), the layers' lengths all different."""
    lengths = [0.2, 0.9, 4.0, 4.0]
    second, fourth = (np.array([_slope_moment("gelu", q, k) for q in lengths]) for k in (2, 4))
    for weights, g in (("gaussian", 1), ("orthogonal", 0)):
        law = law_given_lengths("gelu", lengths, weights=weights, sigma_w=1.4)
        assert law.moment(1) == pytest.approx(float(np.prod(1.4**2 * second)), rel=1e-10)
        spread = float(np.sum(fourth / second**2 - 1 + g))
        assert law.moment(2) / law.moment(1) ** 2 == pytest.approx(1 + spread, rel=1e-10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: law_given_ranks([], weights="gaussian", sigma_w=1.0), "`shares` must be one number per layer"),
        (lambda: law_given_ranks([0.5, 0.0], weights="gaussian", sigma_w=1.0), "`shares` must be .*> 0.*got 0.0"),
        (lambda: law_given_ranks([0.5], weights="uniform", sigma_w=1.0), "`weights` must be one of.*'uniform'"),
        (lambda: law_given_ranks([0.5], weights="gaussian", sigma_w=0.0), "`sigma_w` must be .*got 0.0"),
        (lambda: law_given_lengths("tanh", [], sigma_w=1.0), "`q` must be one finite number per layer"),
        (lambda: law_given_lengths("tanh", [1.0, -1.0], sigma_w=1.0), "`q` must be .*>= 0.*got -1.0"),
        (lambda: zero_share(1.5, width=3, depth=1), "`p` must be .*got 1.5"),
        (lambda: zero_share(0.5, width=0, depth=1), "`width` must be .*got 0"),
        (lambda: zero_share(0.5, width=3, depth=0), "`depth` must be .*got 0"),
    ],
)
def test_bad_layers_are_refused(call, message):
    with pytest.raises(InvalidArgumentError, match=message):
        call()
