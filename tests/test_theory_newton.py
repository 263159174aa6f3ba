"""Vectorised Newton: it solves, and says so when it cannot."""

import numpy as np
import pytest

from rmtbn.theory.newton import newton


def test_every_entry_is_solved():
    """u + tanh u = c, slope in [1, 2]."""
    target = np.linspace(-50, 50, 101)
    u = newton(lambda u: (u + np.tanh(u) - target, 2 - np.tanh(u) ** 2), target)
    np.testing.assert_allclose(u + np.tanh(u), target, atol=1e-13)
    assert newton(lambda u: (u, np.ones_like(u)), np.empty(0)).size == 0


def test_an_equation_without_root_is_an_error():
    """u² + 1 = 0 has no real root: no number is returned for it."""
    with pytest.raises(ArithmeticError, match="did not settle"):
        newton(lambda u: (u**2 + 1, 2 * u), np.array([0.7]))
