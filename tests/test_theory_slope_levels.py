"""Levels of a slope: against draws, the root law next to a zero, monotone to the last bit."""

import math

import numpy as np
import pytest

from rmtbn import rng
from rmtbn.activations import activation
from rmtbn.theory.log_slope import RATES, split_slope
from rmtbn.theory.slope_levels import slope_levels
from rmtbn.theory.slope_panels import Slope


def levels(name, q, *, low=None, copies=1):
    """Levels of a smooth slope over ±37 standard deviations, or from `low` on."""
    slope = Slope(split=split_slope(activation(name)), q=q, rate=RATES.get(name))
    reach = min(37.0 * math.sqrt(q), 20.0)
    return slope_levels(slope, [(-reach if low is None else low, reach)], copies=copies)


@pytest.mark.parametrize("name", ["tanh", "erf", "gelu", "silu"])
def test_levels_are_the_share_of_draws_below(name):
    """P(ln d <= x) against 200,000 draws of h, 4 standard errors; its slope is the density."""
    q, count = 1.7, 200_000
    draws = math.sqrt(q) * rng.generator(1, "levels", name).standard_normal(count)
    log_d = 2 * np.log(np.abs(activation(name).dphi(draws)))
    x = np.quantile(log_d, [0.02, 0.2, 0.5, 0.8, 0.97])
    density, mass = levels(name, q).at(x)
    share = np.array([(log_d <= one).mean() for one in x])
    assert np.all(np.abs(mass - share) < 4 * np.sqrt(share * (1 - share) / count))
    step = 1e-5
    rise = (levels(name, q).at(x + step)[1] - levels(name, q).at(x - step)[1]) / (2 * step)
    np.testing.assert_allclose(density, rise, rtol=1e-5)


def test_one_half_of_an_even_slope_counts_twice():
    """Tanh: 0 < h with copies = 2 is the whole line."""
    x = np.array([-6.0, -1.0, -0.1, -1e-6])
    for half, whole in zip(levels("tanh", 0.8, low=0.0, copies=2).at(x), levels("tanh", 0.8).at(x), strict=True):
        np.testing.assert_allclose(half, whole, rtol=1e-9)


@pytest.mark.parametrize(("name", "zero"), [("gelu", -0.7517915246935645), ("silu", -1.2784645427610738)])
def test_masses_next_to_a_zero_fall_as_its_root(name, zero):
    """P(d <= e^x) → 2 g(h*) e^{x/2}/|φ″(h*)| on |h| < 3, and the density of ln d is half of it, down to e^-600."""
    found, x = levels(name, 1.0, low=-3.0), np.array([-30.0, -200.0, -600.0])
    density, mass = found.at(x)
    phi, step = activation(name).dphi, 1e-5
    bend = float((phi(np.array([zero + step])) - phi(np.array([zero - step])))[0]) / (2 * step)
    expected = 2 * math.exp(-zero * zero / 2) / math.sqrt(2 * math.pi) / abs(bend) * np.exp(x / 2)
    np.testing.assert_allclose(mass, expected, rtol=1e-6, atol=5e-16)
    np.testing.assert_allclose(density, expected / 2, rtol=1e-6)


@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_the_mass_never_falls(name):
    """At thousands of floats next to the pile-up at d = 1, but for the rounding of a sum: two units of 2⁻⁵²."""
    x = np.sort(np.concatenate([np.arange(-4000, 4000) * 2.0**-52, np.linspace(-1e-6, 1e-6, 4001)]))
    density, mass = levels(name, 8.7).at(x)
    assert np.diff(mass).min() >= -2 * 2.0**-52
    assert np.all(density > 0)
