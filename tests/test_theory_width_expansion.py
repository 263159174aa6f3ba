"""First corrections in 1/width, against networks drawn exactly in law, exact laws, and the order of what is left."""

import math

import numpy as np
import pytest

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS
from rmtbn.theory.finite_width import log_norm_law
from rmtbn.theory.propagation import lengths
from rmtbn.theory.width_expansion import beta, log_fourth_moment_growth, width_expansion

NETWORKS = [("relu", 2**0.5, 0.0), ("tanh", 1.327, 0.2236), ("tanh", 2.0, 0.3), ("gelu", 1.4, 0.55), ("selu", 0.9, 0.1)]


def networks(name, *, width, depth, sigmas, count, seed):
    """q_l and ln‖J_l v‖²: given a layer, the units of the next are drawn as Gaussian weights make them."""
    record, draws = ACTIVATIONS[name], rng.generator(seed, "networks", name, width)
    x, u = np.ones((count, width)), np.zeros((count, width))
    u[:, 0], u[:, 1] = 2**-0.5, -(2**-0.5)  # a direction across the input
    lengths_, norms = [], []
    for _ in range(depth):
        xx, xu, uu = (sigmas[0] ** 2 * np.mean(a * b, axis=1) for a, b in ((x, x), (x, u), (u, u)))
        xx = np.maximum(xx, 1e-300)  # a dead network stays dead
        z, w, bias = draws.standard_normal((3, count, width))
        across = np.sqrt(np.maximum(uu - xu**2 / xx, 0.0))
        h, tangent = np.sqrt(xx)[:, None] * z + sigmas[1] * bias, (xu / np.sqrt(xx))[:, None] * z + across[:, None] * w
        x, u = record.phi(h), record.dphi(h) * tangent
        lengths_.append(xx + sigmas[1] ** 2)
        with np.errstate(divide="ignore"):  # narrow networks die
            norms.append(np.log(np.sum(u * u, axis=1)))
    return np.array(lengths_), np.array(norms)


@pytest.mark.parametrize(("name", "sigma_w", "sigma_b"), NETWORKS)
def test_networks_of_width_150_have_the_predicted_statistics(name, sigma_w, sigma_b):
    """E q, Var q, E and Var ln‖Jv‖² at 8 layers within 4 standard errors and 15 % of the correction."""
    width, depth, count = 150, 8, 3000
    q, norms = networks(name, width=width, depth=depth, sigmas=(sigma_w, sigma_b), count=count, seed=1)
    found = width_expansion(name, widths=(width,) * (depth + 1), sigma_w=sigma_w, sigma_b=sigma_b)
    rest = 0.15 * np.abs(found.q_shift) + 0.15 * found.q_variance / found.q
    assert (np.abs(q.mean(1) - found.q - found.q_shift) < 4 * q.std(1) / count**0.5 + rest + 1e-14).all()
    mean_error = norms.std(1) / count**0.5
    assert (np.abs(norms.mean(1) - found.log_norm_mean) < 4 * mean_error + 0.2 * depth / width**1.5).all()
    for sample, variance in ((q, found.q_variance), (norms, found.log_norm_variance)):
        error = np.sqrt(np.var((sample.T - sample.mean(1)) ** 2, axis=0) / count)
        assert (np.abs(sample.var(1) - variance) < 4 * error + 0.15 * variance + 1e-12).all()


@pytest.mark.parametrize("name", ["tanh", "selu"])
def test_the_correction_is_needed_and_it_suffices(name):
    """Var ln‖Jv‖² over β without the motion of lengths is off; with it little is left at width 80."""
    sigmas, depth, rest = (0.9, 0.1) if name == "selu" else (1.8, 0.3), 12, []
    for width in (20, 80):
        _, norms = networks(name, width=width, depth=depth, sigmas=sigmas, count=40_000 // depth * 4, seed=2)
        found = width_expansion(name, widths=(width,) * (depth + 1), sigma_w=sigmas[0], sigma_b=sigmas[1])
        rest.append(norms[-1].var() / found.log_norm_variance[-1] - 1)
        at_fixed_length = beta(name, widths=(width,) * (depth + 1), q=float(found.q[-1]))
        assert abs(at_fixed_length / found.log_norm_variance[-1] - 1) > 0.03
    assert abs(rest[0]) < 0.2
    assert abs(rest[1]) < 0.05


@pytest.mark.parametrize("name", ["linear", "relu", "leaky_relu"])
def test_homogeneous_log_norms_tend_to_the_exact_law(name):
    """Mean and variance against the exact law of finite_width: what is left falls as 1/width² (slope -2 ± 0.2)."""
    sigma_w = {"linear": 1.0}.get(name, (2 / (1 + ACTIVATIONS[name].slopes[0] ** 2)) ** 0.5)
    widths, rest = np.array([50, 400]), []
    for width in widths:
        chain = (int(width),) * 6
        found, exact = width_expansion(name, widths=chain, sigma_w=sigma_w), log_norm_law(name, widths=chain)
        rest.append((found.log_norm_mean[-1] - exact.mean, found.log_norm_variance[-1] - exact.variance))
    slopes = np.diff(np.log(np.abs(rest)), axis=0)[0] / np.log(widths[1] / widths[0])
    np.testing.assert_allclose(slopes, -2.0, atol=0.2)


def test_unequal_widths_enter_layer_by_layer():
    """β counts n_1 … n_L and not the input; the mean holds Σ ln(n_l/n_{l-1}) = ln(n_L/n_0)."""
    chain = (10, 40, 80, 20)
    found = width_expansion("relu", widths=chain, sigma_w=2**0.5)
    total = 5 * (1 / 40 + 1 / 80 + 1 / 20)
    assert beta("relu", widths=chain) == pytest.approx(total, rel=1e-12)
    assert found.log_norm_variance[-1] == pytest.approx(total, rel=1e-12)
    assert found.log_norm_mean[-1] == pytest.approx(math.log(20 / 10) - total / 2, rel=1e-12)


def test_beta_is_five_for_relu_and_two_for_linear():
    """3 E φ′⁴/(E φ′²)² - 1: linear 2, ReLU 5, leaky ReLU 6(1+a⁴)/(1+a²)² - 1, tanh more than 2 and growing with q."""
    a = ACTIVATIONS["leaky_relu"].slopes[0]
    expected = {"linear": 2.0, "relu": 5.0, "leaky_relu": 6 * (1 + a**4) / (1 + a**2) ** 2 - 1}
    for name, value in expected.items():
        assert beta(name, widths=(7, 1)) == pytest.approx(value, rel=1e-12)
    assert 2 < beta("tanh", widths=(7, 1), q=0.1) < beta("tanh", widths=(7, 1), q=1.0)


@pytest.mark.parametrize("name", ["linear", "relu"])
def test_fourth_moments_grow_as_the_product(name):
    """E‖x_L‖⁴/(E‖x_L‖²)² = Π(1 + β₁/n_l), exactly, and for drawn networks."""
    chain = (3, 4, 6)
    one = {"linear": 2, "relu": 5}[name]
    expected = math.log((1 + one / 4) * (1 + one / 6))
    assert log_fourth_moment_growth(name, widths=chain) == pytest.approx(expected, rel=1e-14)
    q, _ = networks(name, width=4, depth=3, sigmas=((2 if name == "relu" else 1) ** 0.5, 0.0), count=200_000, seed=3)
    growth = np.mean(q[-1] ** 2) / np.mean(q[-1]) ** 2
    assert growth == pytest.approx(math.exp(log_fourth_moment_growth(name, widths=(4, 4, 4))), rel=0.1)


def test_the_mean_field_is_the_leading_order():
    """q is the length map's, and the corrections vanish as 1/width."""
    small, large = (width_expansion("tanh", widths=(n,) * 6, sigma_w=1.5, sigma_b=0.2) for n in (10**3, 10**6))
    np.testing.assert_allclose(large.q, lengths(1.0, "tanh", depth=5, sigma_w=1.5, sigma_b=0.2), rtol=1e-13)
    np.testing.assert_allclose(large.q_shift * 1e3, small.q_shift, rtol=1e-10)
    np.testing.assert_allclose(large.log_q_mean, np.log(large.q), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"widths": (5,)}, "`widths`"), ({"widths": (5, 0)}, "`widths`.*0"), ({"sigma_w": 0.0}, "`sigma_w`.*0"),
     ({"q0": 0.0}, "`q0`.*0"), ({"cosine": 2.0}, "`cosine`.*2")],
)  # fmt: skip
def test_arguments_out_of_range_are_named(change, named):
    """Widths >= 1 and at least two, σ_w > 0, q0 > 0, |cosine| <= 1; fourth moments need a homogeneous φ."""
    with pytest.raises(InvalidArgumentError, match=named):
        width_expansion("tanh", **{"widths": (5, 5), "sigma_w": 1.0, **change})
    with pytest.raises(InvalidArgumentError, match=r"`activation`.*'tanh'"):
        log_fourth_moment_growth("tanh", widths=(5, 5))
