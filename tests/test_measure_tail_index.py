"""Tail indices: Pareto samples whose index is known, maximum likelihood by scipy, and what is no power law."""

import math

import numpy as np
import pytest
from cases import SEEDS
from scipy import integrate, stats

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.measure.tail_index import hill, power_law


def pareto(alpha, size, seed):
    """Signed values with P(|X| > x) = x^-α."""
    generator = rng.generator(seed, "pareto", alpha)
    return generator.uniform(size=size) ** (-1 / alpha) * generator.choice([-1.0, 1.0], size=size)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("alpha", [0.8, 2.0, 5.0])
def test_indices_of_pareto_samples_are_theirs(alpha, seed):
    """|α̂ - α| < 4 se with se = α/√k, by Hill at k = 1000 and by the threshold that fits best."""
    values = pareto(alpha, 20_000, seed)
    first = hill(values, count=1000)
    assert first.se == pytest.approx(first.alpha / math.sqrt(1000))
    for found in (first, power_law(values)):
        assert abs(found.alpha - alpha) < 4 * found.se
        assert found.se < 0.15 * alpha


def test_standard_errors_are_the_spread_over_samples():
    """Std of α̂ over 200 samples is α/√k, within 4 of its own standard errors."""
    found = [hill(pareto(2.0, 2000, seed), count=100).alpha for seed in range(200)]
    assert np.std(found) == pytest.approx(2.0 / math.sqrt(100), rel=4 / math.sqrt(400))


def test_hill_is_the_maximum_of_the_likelihood():
    """scipy's Pareto fit with the location 0 and the scale at the threshold."""
    values = pareto(1.7, 3000, 1)
    found = hill(values, count=400)
    tail = np.sort(np.abs(values))[-400:]
    shape, _, _ = stats.pareto.fit(tail, floc=0, fscale=found.threshold)
    assert found.alpha == pytest.approx(shape, rel=1e-4)
    assert found.threshold == np.sort(np.abs(values))[-401]
    assert found.ks == pytest.approx(stats.kstest(tail, stats.pareto(found.alpha, scale=found.threshold).cdf).statistic)


@pytest.mark.parametrize("seed", SEEDS)
def test_thresholds_are_found_where_a_power_law_begins(seed):
    """Half Gaussian bulk of width 1, half a tail of index 1.5 from 10 on: the index comes from beyond the bulk."""
    generator = rng.generator(seed, "mixed")
    values = np.concatenate([generator.standard_normal(5000), 10 * pareto(1.5, 5000, seed)])
    found = power_law(values)
    assert 9 < found.threshold < 100
    assert abs(found.alpha - 1.5) < 4 * found.se


def test_gaussian_samples_have_the_index_of_their_share():
    """1/E[ln(x/x_p) | x > x_p] for |N(0, 1)| at p = 1 %: 9.0, as the docstring says."""
    threshold = stats.norm.isf(0.005)
    mean = integrate.quad(lambda x: math.log(x / threshold) * stats.norm.pdf(x) * 200, threshold, 40)[0]
    assert 1 / mean == pytest.approx(9.0, abs=0.05)
    values = rng.generator(1, "gauss").standard_normal(200_000)
    found = hill(values, count=2000)
    assert abs(found.alpha - 1 / mean) < 4 * found.se


def test_scale_and_sign_do_not_matter():
    """|X| alone counts, and its unit cancels, even at 1e-300; zeros are left out."""
    values = pareto(2.0, 1000, 1)
    expected = hill(values, count=100).alpha
    assert hill(-values * 1e-300, count=100).alpha == pytest.approx(expected, rel=1e-10)
    assert hill(np.concatenate([values, np.zeros(500)]), count=100).alpha == expected


def test_equal_values_have_an_infinite_index():
    """No tail at all beyond the threshold."""
    assert hill(np.ones(100), count=10).alpha == math.inf
    assert power_law(np.ones(200)).alpha == math.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hill([1.0, 2.0, 3.0], count=3), "`count` must be an integer >= 2 and <= 2; got 3"),
        (lambda: hill([1.0, math.inf, 3.0], count=2), "`values` must be finite; got inf"),
        (lambda: hill([1.0, math.nan, 3.0], count=2), "`values` must be numbers without NaN; got nan"),
        (lambda: power_law(np.arange(1.0, 50.0)), "`fewest` must be an integer >= 2 and <= 24; got 50"),
        (lambda: power_law(np.ones(9), largest_share=1.0), "`largest_share` must be a finite number > 0.0 and < 1.0"),
    ],
)
def test_samples_without_a_tail_are_refused(call, message):
    """One line that names argument, rule and value."""
    with pytest.raises(InvalidArgumentError, match=message):
        call()
