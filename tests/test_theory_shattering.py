"""Laws of shattering: closed forms, the correlation map of the mean field, quadrature, and rates in depth."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from rmtbn._checks import InvalidArgumentError
from rmtbn.theory import mean_field
from rmtbn.theory.shattering import balduzzi_correlation, batch_gradient_correlation, gradient_correlation

HE = {"q": 1.0, "sigma_w": math.sqrt(2), "sigma_b": 0.0}


def together(c):
    """2 P(u > 0, v > 0) of unit Gaussians of correlation c, by scipy."""
    if abs(c) > 1 - 1e-12:
        return 1.0 if c > 0 else 0.0
    return 2 * stats.multivariate_normal(cov=[[1, c], [c, 1]]).cdf([0, 0])


@pytest.mark.parametrize("c", [-0.9, 0.0, 0.3, 0.99])
def test_plain_networks_multiply_the_shares_of_units_active_at_both(c):
    """∏ 2P(h > 0, h' > 0) along the correlation map of the mean field."""
    expected, correlation = 1.0, c
    for _ in range(6):
        expected *= together(correlation)
        correlation = float(mean_field.correlation_map(correlation, "relu", **HE))
    assert gradient_correlation("plain", depth=6, c=c) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("c", [-0.9, 0.0, 0.3, 0.99])
def test_residual_networks_average_with_the_stream(c):
    """∏ (1 + 2P)/2, the correlation being the mean of the stream's and the branch's, each of the same length."""
    expected, correlation = 1.0, c
    for _ in range(6):
        expected *= (1 + together(correlation)) / 2
        correlation = (correlation + float(mean_field.correlation_map(correlation, "relu", **HE))) / 2
    assert gradient_correlation("residual", depth=6, c=c) == pytest.approx(expected, rel=1e-6)


def test_plain_correlations_fall_as_the_cube_of_depth():
    """c_l → 1 with 1 - c_l ~ 9π²/(2l²), so J₀ ~ 1 - 3/l: the slope in ln L is -3, not that of 2^-L."""
    for block in ("plain", "residual"):
        ends = [math.log(gradient_correlation(block, depth=L)) for L in (2000, 4000)]
        assert (ends[1] - ends[0]) / math.log(2) == pytest.approx(-3, abs=0.1)


def test_normalised_residual_correlations_fall_by_a_power_of_the_mean_taken_out():
    """Γ(2/a)/Γ(3/(2a)) L^{-1/(2a)}, a = 1 - 1/π: exponent 0.733, where 1.13/√L has 1/2."""
    a = 1 - 1 / math.pi
    constant = math.gamma(2 / a) / math.gamma(1.5 / a)
    found = batch_gradient_correlation("residual_batch", depth=20_000)
    assert found == pytest.approx(constant * 20_000 ** (-1 / (2 * a)), rel=1e-3)


def test_balduzzi_products_are_those_of_the_paper():
    """2^-L, (3/4)^L, and ∏ (1 + 1/(2l))/(1 + 1/l) over l = 1 … L, about 2/√(πL) = 1.128/√L."""
    assert balduzzi_correlation("plain", depth=7) == balduzzi_correlation("plain_batch", depth=7) == 2.0**-7
    assert balduzzi_correlation("residual", depth=7) == 0.75**7
    product = np.prod([(1 + 0.5 / layer) / (1 + 1 / layer) for layer in range(1, 31)])
    assert balduzzi_correlation("residual_batch", depth=30) == pytest.approx(product, rel=1e-12)
    assert balduzzi_correlation("residual_batch", depth=10**6) * 1000 == pytest.approx(2 / math.sqrt(math.pi), rel=1e-5)


@pytest.mark.parametrize("batch_size", [8, 32])
def test_variances_of_a_batch_have_the_mean_inverse_kappa(batch_size):
    """E[1/s] = (B-1)/(B-3) for s = χ²_{B-1}/(B-1), and one residual block is (1 + κJ₀(c₀))/(1 + κ)."""
    n = batch_size - 1
    kappa = integrate.quad(lambda t: n / t * stats.chi2.pdf(t, n), 0, np.inf)[0]
    expected = (1 + kappa * together(-1 / n)) / (1 + kappa)
    found = batch_gradient_correlation("residual_batch", depth=1, batch_size=batch_size)
    assert found == pytest.approx(expected, rel=1e-6)
    plain = batch_gradient_correlation("plain_batch", depth=4, batch_size=batch_size)
    assert plain == pytest.approx(together(-1 / n) ** 4, rel=1e-6)


def test_equal_inputs_have_equal_gradients():
    """c = 1: correlation 1 at any depth; no layer at all: 1 for any inputs."""
    assert gradient_correlation("plain", depth=50, c=1.0) == gradient_correlation("residual", depth=50, c=1.0) == 1.0
    assert gradient_correlation("plain", depth=0) == batch_gradient_correlation("residual_batch", depth=0) == 1.0
    assert gradient_correlation("plain", depth=3, c=-1.0) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradient_correlation("plain_batch", depth=1), "`block` must be one of 'plain', 'residual'; got"),
        (lambda: gradient_correlation("plain", depth=1, c=1.1), "`c` must be a finite number >= -1.0 and <= 1.0"),
        (
            lambda: batch_gradient_correlation("plain", depth=1),
            "`block` must be one of 'plain_batch', ",
        ),
        (
            lambda: batch_gradient_correlation("plain_batch", depth=1, batch_size=3),
            "`batch_size` must be above 3; got 3",
        ),
        (lambda: balduzzi_correlation("plain", depth=-1), "`depth` must be an integer >= 0; got -1"),
    ],
)
def test_arguments_out_of_range_are_refused(call, message):
    """One line that names argument, rule and value."""
    with pytest.raises(InvalidArgumentError, match=message):
        call()
