"""Censored values: known to be small, counted by their mass, never given a logarithm."""

import math

import numpy as np
import pytest

from rmtbn._checks import InvalidArgumentError
from rmtbn.result import EmpiricalSpectrum


def spectrum(rows, *, log_floor=None, **changes):
    fields = {"by_network": np.asarray(rows), "relative_error": 1e-12, "method": "dense"} | changes
    return EmpiricalSpectrum(**fields, log_floor=None if log_floor is None else np.asarray(log_floor))


ROWS = [[1.0, 0.0, -5.0, -7.0, -np.inf], [2.0, 1.0, -1.0, -3.0, -9.0]]


def test_values_below_the_floor_are_censored_and_zeros_are_not():
    """Floors -4 and -3: two values of the first network, two of the second (one at its floor); the zero stays zero."""
    found = spectrum(ROWS, log_floor=[-4.0, -3.0])
    np.testing.assert_array_equal(found.by_network, [[1, 0, -4, -4, -np.inf], [2, 1, -1, -3, -3]])
    np.testing.assert_array_equal(found.censored.sum(axis=1), [2, 2])
    assert found.censored_fraction == 0.4
    assert found.zero_fraction == 0.1
    assert found.log_lam_floor == -6.0


def test_floors_that_no_value_reaches_censor_nothing():
    """A floor of -20 below values of -9 and more: all are known, and the law is the one without a floor."""
    found = spectrum(ROWS, log_floor=[-20.0, -20.0])
    assert found.censored_fraction == 0.0
    assert found.log_lam_floor == -math.inf
    assert found.log_bulk == spectrum(ROWS).log_bulk == (-18.0, 4.0)
    full = [ROWS[1], ROWS[1]]
    assert spectrum(full, log_floor=[-20.0, -20.0]).log_moment(2) == spectrum(full).log_moment(2)


def test_distribution_above_the_floor_is_that_of_the_values():
    """F(λ) for ln λ >= the floor does not depend on what is below it; the bulk has no known lower edge."""
    raw, found = spectrum(ROWS), spectrum(ROWS, log_floor=[-4.0, -3.0])
    x = np.linspace(-6.0, 5.0, 50)
    np.testing.assert_array_equal(found.cdf_log(x), raw.cdf_log(x))
    assert found.log_bulk == (-math.inf, 4.0)
    assert found.condition_number() == math.inf


def test_logarithms_of_censored_values_are_not_averaged():
    """E ln λ needs every ln λ: an error rather than a number that is the floor's."""
    with pytest.raises(InvalidArgumentError, match="`spectrum` must be without censored values"):
        spectrum(ROWS, log_floor=[-4.0, -3.0]).log_moment()


def test_moments_are_off_by_at_most_the_mass_times_the_floor():
    """0 <= m_k (held at the floor) - m_k <= share e^{k floor}."""
    raw, found = spectrum(ROWS), spectrum(ROWS, log_floor=[-4.0, -4.0])
    for k in (1, 2):
        assert 0 < found.moment(k) - raw.moment(k) <= found.censored_fraction * math.exp(-8.0 * k)


def test_pooled_networks_keep_their_floors_errors_and_reasons():
    """Networks with and without a floor pool: -inf stands for none; errors are the largest, reasons are said once."""
    parts = [
        spectrum(ROWS[:1], log_floor=[-4.0], cdf_error=0.1, reason="small"),
        spectrum(ROWS[1:], reason="small"),
    ]
    found = EmpiricalSpectrum.pool(parts)
    np.testing.assert_array_equal(found.log_floor, [-4.0, -np.inf])
    assert (found.cdf_error, found.reason) == (0.1, "small")
    assert found.censored_fraction == 0.2
    assert EmpiricalSpectrum.pool(parts[1:]).log_floor is None


def test_density_leaves_censored_values_out():
    """The kernel estimate integrates to the share of known non-zero values."""
    generator = np.random.default_rng(1)
    rows = np.concatenate([generator.normal(size=(1, 300)), np.full((1, 100), -30.0)], axis=1)
    x = np.linspace(-100.0, 15.0, 40_000)
    mass = np.trapezoid(np.exp(spectrum(rows, log_floor=[-20.0]).log_pdf_log(x)), x)
    assert mass == pytest.approx(0.75, abs=1e-3)


def test_floors_of_another_number_of_networks_are_refused():
    """One floor per network."""
    with pytest.raises(InvalidArgumentError, match="`log_floor` must be one number for each of 2 networks"):
        spectrum(ROWS, log_floor=[-4.0])
