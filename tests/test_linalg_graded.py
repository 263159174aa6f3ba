"""Singular values of diag(exp(log_d)) T over any span of scales."""

import mpmath
import numpy as np
import pytest
from scipy.stats import ortho_group

from rmtbn import rng
from rmtbn.linalg import graded

EPS = float(np.finfo(np.float64).eps)


def normal(*shape: int) -> np.ndarray:
    return rng.generator(1, "graded", *shape).standard_normal(shape)


def exact(log_d: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Log singular values with 1,200 digits, descending."""
    with mpmath.workdps(1200):
        scales = mpmath.diag([mpmath.exp(mpmath.mpf(float(value))) for value in log_d])
        values = mpmath.svd_r((scales * mpmath.matrix(t.tolist())).T, compute_uv=False)
        return -np.sort(-np.array([float(mpmath.log(value)) for value in values]))


@pytest.mark.parametrize("span", [0.0, 5.0, 60.0, 300.0, 2000.0])
@pytest.mark.parametrize("columns", [9, 14])
def test_values_are_those_of_exact_arithmetic(span, columns):
    """|log σ - log σ_exact| <= 100 eps κ, for spans beyond the floating range and unsorted scales too."""
    log_d = rng.generator(1, "order").permutation(np.linspace(0.0, -span, 9))
    t = normal(9, columns)
    found, condition = graded.log_singular_values(log_d, t)
    assert np.abs(found - exact(log_d, t)).max() <= 100 * EPS * condition + EPS * span
    assert condition < 1e6


def test_diagonal_matrices_are_their_own_values():
    """σ = d for orthogonal T, at once for scales that are all equal or 2,000 nats apart."""
    t = ortho_group.rvs(7, random_state=rng.generator(1, "haar"))
    for log_d in (np.zeros(7), np.linspace(1000.0, -1000.0, 7)):
        found, condition = graded.log_singular_values(log_d, t)
        np.testing.assert_allclose(found, log_d, rtol=1e-14, atol=1e-13)
        assert condition < 100


def test_windows_change_nothing():
    """Scales beyond the margin change the values of a window by less than the accuracy asked; without one, by more.

    The span, 318 nats, is beyond what bidiagonalisation takes at once.
    """
    log_d, t = -1.6 * np.arange(200.0), normal(200, 200) + 20 * np.eye(200)
    wide, _ = graded.log_singular_values(log_d, t, accuracy=1e-30)
    for accuracy in (1e-13, 1e-9, 1e-3):
        found, _ = graded.log_singular_values(log_d, t, accuracy=accuracy)
        np.testing.assert_allclose(found, wide, rtol=0, atol=accuracy + 1e-12)
    narrow, _ = graded.log_singular_values(log_d, t, accuracy=0.1)
    assert np.abs(narrow - wide).max() > 1e-9


def test_mild_and_graded_routes_meet():
    """Either side of the span at which Jacobi takes over the values agree."""
    t = ortho_group.rvs(30, random_state=rng.generator(2, "haar"))
    for span in (2.0, 20.0):
        log_d = np.linspace(0.0, -span, 30)
        found, _ = graded.log_singular_values(log_d, t @ np.diag(np.linspace(1, 2, 30)))
        plain = np.linalg.svd(np.diag(np.exp(log_d)) @ t @ np.diag(np.linspace(1, 2, 30)), compute_uv=False)
        np.testing.assert_allclose(found, np.log(plain), rtol=0, atol=1e-6)
