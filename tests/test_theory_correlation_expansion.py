"""First correction in 1/width to correlations: pairs drawn exactly in law, Fisher's samples, orders in 1/width."""

import numpy as np
import pytest

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS
from rmtbn.theory.correlation_expansion import correlation_expansion
from rmtbn.theory.propagation import decorrelations


def drawn(name, *, width, depth, sigmas, count, c0):
    """1 - c_l of `count` networks: given a layer, and over its units; each (depth, count)."""
    phi, draws = ACTIVATIONS[name].phi, rng.generator(1, "pairs", name, width)
    q1 = q2 = np.full(count, sigmas[0] ** 2 + sigmas[1] ** 2)
    p, given, over_units = q1 - sigmas[0] ** 2 * (1 - c0), [], []
    for _ in range(depth):
        given.append(1 - p / np.sqrt(q1 * q2))
        z, w = draws.standard_normal((2, count, width))
        h1 = np.sqrt(q1)[:, None] * z
        h2 = (p / np.sqrt(q1))[:, None] * z + np.sqrt(q2 - p * p / q1)[:, None] * w
        over_units.append(1 - np.sum(h1 * h2, 1) / np.sqrt(np.sum(h1 * h1, 1) * np.sum(h2 * h2, 1)))
        a, b = phi(h1), phi(h2)
        q1, q2, p = (sigmas[0] ** 2 * np.mean(x, axis=1) + sigmas[1] ** 2 for x in (a * a, b * b, a * b))
    return np.array(given), np.array(over_units)


@pytest.mark.parametrize(
    ("name", "sigmas", "c0"),
    [
        ("linear", (1.0, 0.0), 0.4),
        ("tanh", (2.0, 0.3), 0.4),
        ("hard_tanh", (1.5, 0.3), 0.4),
        ("tanh", (2.0, 0.3), -0.8),
    ],
)
def test_networks_of_width_40_have_the_predicted_correlations(name, sigmas, c0):
    """E(1 - c) within 4 standard errors and a quarter of the correction, Var c within 8 %, at all of 6 layers."""
    width, depth, count = 40, 6, 30_000
    given, over_units = drawn(name, width=width, depth=depth, sigmas=sigmas, count=count, c0=c0)
    found = correlation_expansion(name, widths=(width,) * (depth + 1), c0=c0, sigma_w=sigmas[0], sigma_b=sigmas[1])
    for sample, shift, variance in (
        (given, found.shift, found.variance),
        (over_units, found.shift + found.sample_shift, found.variance + found.sample_variance),
    ):
        error = sample.std(axis=1) / count**0.5
        assert (np.abs(sample.mean(1) - found.decorrelation - shift) < 4 * error + 0.25 * np.abs(shift) + 1e-14).all()
        np.testing.assert_allclose(sample.var(axis=1)[1:], variance[1:], rtol=0.08)
    if c0 > 0:  # the correction is seen
        assert abs(given[-1].mean() - found.decorrelation[-1]) > 5 * given[-1].std() / count**0.5


@pytest.mark.parametrize(("name", "sigmas"), [("tanh", (1.14, 0.316)), ("relu", (1.0, 0.3))])
def test_inputs_that_become_alike_keep_relative_digits(name, sigmas):
    """In the ordered phase mean and variance of 1 - c are right relative to it."""
    depth, count = 10, 3000
    given, _ = drawn(name, width=100, depth=depth, sigmas=sigmas, count=count, c0=0.4)
    found = correlation_expansion(name, widths=(100,) * (depth + 1), c0=0.4, sigma_w=sigmas[0], sigma_b=sigmas[1])
    error = given.std(axis=1) / count**0.5
    rest = np.abs(given.mean(1) - found.decorrelation - found.shift)
    assert found.decorrelation[-1] < 0.15
    assert (rest < 4 * error + 0.01 * found.decorrelation).all()
    np.testing.assert_allclose(given.var(axis=1)[1:], found.variance[1:], rtol=0.25)


def test_one_linear_layer_is_a_sample_of_pairs():
    """c₂ of a linear network is that of n pairs: mean c - c(1 - c²)/(2n), variance (1 - c²)²/n (Fisher 1915)."""
    found = correlation_expansion("linear", widths=(7, 30, 30), c0=0.6, sigma_w=1.3)
    assert found.shift[1] == pytest.approx(0.6 * (1 - 0.36) / 60, rel=1e-11)
    assert found.variance[1] == pytest.approx((1 - 0.36) ** 2 / 30, rel=1e-11)
    np.testing.assert_allclose((found.sample_shift, found.sample_variance)[0], found.shift[1], rtol=1e-11)


@pytest.mark.parametrize("name", ["gelu", "selu", "relu"])
def test_corrections_are_of_first_order_and_depth_may_be_large(name):
    """∝ 1/n; the leading order is the recursion; variances relative to 1 - c of 1e-8 and less stay finite."""
    sigmas = {"sigma_w": 0.8, "sigma_b": 0.3}
    small, large = (correlation_expansion(name, widths=(n,) * 41, c0=0.2, **sigmas) for n in (10**3, 10**6))
    expected = decorrelations(0.8, name, q0=1.0, depth=40, **sigmas)
    np.testing.assert_allclose(small.decorrelation, expected, rtol=1e-12)
    np.testing.assert_allclose(large.shift * 1e3, small.shift, rtol=1e-9)
    np.testing.assert_allclose(large.variance * 1e3, small.variance, rtol=1e-9)
    assert expected[-1] < 1e-3
    assert (small.variance / expected**2 < 1).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [({"widths": (5,)}, "`widths`"), ({"widths": (5, 0)}, "`widths`.*0"), ({"c0": 1.0}, "`c0`.*1"),
     ({"sigma_w": 0.0}, "`sigma_w`.*0"), ({"q0": 0.0}, "`q0`.*0"), ({"sigma_b": -1.0}, "`sigma_b`.*-1")],
)  # fmt: skip
def test_arguments_out_of_range_are_named(change, named):
    """Widths >= 1 and at least two, |c0| < 1, σ_w > 0, σ_b >= 0, q0 > 0."""
    with pytest.raises(InvalidArgumentError, match=named):
        correlation_expansion("tanh", **{"widths": (5, 5), "c0": 0.5, "sigma_w": 1.0, **change})
    with pytest.raises(InvalidArgumentError, match=r"`widths`.*1e-100; got '99 layers'"):
        correlation_expansion("gelu", widths=(5,) * 100, c0=0.5, sigma_w=0.1, sigma_b=0.1)
