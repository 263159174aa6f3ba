"""Gaussian expectations: against mpmath, against closed forms, and against identities, for every variance."""

import math
import re

import mpmath as mp
import numpy as np
import pytest
import sympy
from cases import ACTIVATION_NAMES
from hypothesis import given
from hypothesis import strategies as st

from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS
from rmtbn.theory.gauss_hermite import expectation

X = sympy.Symbol("x", real=True)
VARIANCES = [1e-12, 0.5, 1e2, 1e5, 1e12]
LOG_Q = st.floats(-100, 100)


def exact(f, q, kinks):
    """E f(h) by 20-digit quadrature over panels cut at the kinks and at every scale between 0.01 and √q."""
    with mp.workdps(20):
        root = mp.sqrt(mp.mpf(q))
        scales = [mp.mpf(t) * s for t in (0.1, 1, 3, 8, 24) for s in (1, root)] + [root * 13]
        cuts = {mp.mpf(0), *map(mp.mpf, kinks)} | {t for s in scales for t in (s, -s)}
        inside = sorted(t for t in cuts if abs(t) <= 13 * root)
        return float(mp.quad(lambda h: f(h) * mp.exp(-h * h / (2 * q)), inside) / (root * mp.sqrt(2 * mp.pi)))


@pytest.mark.parametrize("q", VARIANCES)
@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_moments_of_activations_agree_with_mpmath(name, q):
    """E φ² and E φ′² by quadrature, to 1e-11 relative, whatever the variance and wherever the kinks."""
    record = ACTIVATIONS[name]
    formula = sympy.sympify(record.formula, locals={"x": X})
    for values, expression in ((record.phi, formula), (record.dphi, sympy.diff(formula.rewrite(sympy.Piecewise), X))):
        function = sympy.lambdify(X, expression**2, modules="mpmath")
        found = expectation(lambda h, values=values: values(h) ** 2, q, kinks=record.kinks)
        assert float(found) == pytest.approx(exact(function, q, record.kinks), rel=1e-11)


@given(LOG_Q, st.integers(0, 5))
def test_even_powers_are_double_factorials(log_q, k):
    """E h^2k = (2k - 1)!! q^k."""
    q = math.exp(log_q)
    odd_factorial = math.prod(range(1, 2 * k, 2))
    assert float(expectation(lambda h: h ** (2 * k), q)) == pytest.approx(odd_factorial * q**k, rel=1e-12)


@given(LOG_Q, st.integers(0, 4))
def test_odd_powers_vanish(log_q, k):
    """E h^(2k+1) = 0, to rounding of E |h|^(2k+1)."""
    q = math.exp(log_q)
    size = float(expectation(lambda h: np.abs(h) ** (2 * k + 1), q, kinks=(0.0,)))
    assert abs(float(expectation(lambda h: h ** (2 * k + 1), q))) <= 1e-13 * size


@given(st.floats(-12, 12), st.floats(-5, 5))
def test_kinks_anywhere_cost_no_accuracy(log_q, kink):
    """E max(h - a, 0) = √q N(a/√q) - a Q(a/√q), Q the Gaussian tail."""
    q = math.exp(log_q)
    z = mp.mpf(kink) / mp.sqrt(mp.mpf(q))
    closed = float(mp.sqrt(mp.mpf(q)) * mp.npdf(z) - mp.mpf(kink) * mp.erfc(z / mp.sqrt(2)) / 2)
    found = float(expectation(lambda h: np.maximum(h - kink, 0.0), q, kinks=(kink,)))
    assert found == pytest.approx(closed, rel=1e-11, abs=1e-30 * math.sqrt(q))


@given(st.floats(0, 4))
def test_characteristic_function_is_gaussian(q):
    """E cos h = exp(-q/2); the panels widen with |h|, so that a function must calm down there, which activations do."""
    assert float(expectation(np.cos, q)) == pytest.approx(math.exp(-q / 2), abs=1e-14)


@pytest.mark.parametrize("q", [1e20, 1e60, 1e120, 1e250])
def test_local_functions_of_very_long_signals_see_the_density_at_zero(q):
    """E sech⁴ h → (4/3)/√(2πq) for q → ∞, with corrections of relative order 1/q."""
    assert float(expectation(lambda h: (4 * np.exp(-2 * np.abs(h)) / (1 + np.exp(-2 * np.abs(h))) ** 2) ** 2, q)) * (
        math.sqrt(2 * math.pi * q)
    ) == pytest.approx(4 / 3, rel=1e-11)


@pytest.mark.parametrize("q", [0.0, 1e-320, 1e-300, 1e-200])
def test_zero_variance_is_the_limit_from_above(q):
    """At q → 0+ a kink at 0 still splits the Gaussian in halves: E 1[h > 0] = 1/2; a smooth f gives f(0)."""
    assert float(expectation(lambda h: np.where(h > 0, 1.0, 0.0), q, kinks=(0.0,))) == pytest.approx(0.5, rel=1e-13)
    assert float(expectation(np.cosh, q)) == pytest.approx(1.0, rel=1e-13)


def test_kinks_that_are_not_named_are_not_seen():
    """The split is what makes a kink exact: without it E 1[h > 0.3] is off in the fifth digit or before."""
    exact_share = 0.5 * math.erfc(0.3 / math.sqrt(2))
    step = lambda h: np.where(h > 0.3, 1.0, 0.0)  # noqa: E731
    assert float(expectation(step, 1.0, kinks=(0.3,))) == pytest.approx(exact_share, rel=1e-13)
    assert abs(float(expectation(step, 1.0)) - exact_share) > 1e-6


@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3), (0,), (2, 0)])
def test_results_have_the_shape_of_the_variances(shape):
    """One expectation for each q, the same as if asked alone."""
    q = np.geomspace(1e-3, 1e3, int(np.prod(shape))).reshape(shape)
    found = expectation(np.tanh, q) + expectation(np.abs, q, kinks=(0.0,))
    assert found.shape == shape
    np.testing.assert_allclose(found, np.sqrt(2 * q / np.pi), rtol=1e-12)


@pytest.mark.parametrize("q", [-1e-9, math.nan, math.inf, 1e251])
def test_impossible_variances_are_refused(q):
    """A variance is >= 0 and small enough for h² to be a number."""
    rule = re.escape(f"`q` must be numbers without NaN >= 0.0 and <= 1e+250; got {q}")
    with pytest.raises(InvalidArgumentError, match=rule):
        expectation(np.tanh, [1.0, q])
