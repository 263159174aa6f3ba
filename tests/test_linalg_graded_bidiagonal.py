"""Bidiagonalisation of graded triangular matrices: right in every value, or none at all."""

import math

import mpmath
import numpy as np
import pytest

from rmtbn import rng
from rmtbn.linalg import graded, graded_bidiagonal, host_lapack


@pytest.fixture(params=["numpy", "torch"], autouse=True)
def lapack(request, monkeypatch):
    """Both copies of LAPACK."""
    monkeypatch.setattr(host_lapack, "_many_hands", lambda matrix: request.param == "torch" and matrix.size > 0)


def triangle(size: int, *, seed: int) -> np.ndarray:
    """Upper triangular factor of a Gaussian matrix."""
    return np.linalg.qr(rng.generator(seed, "triangle", size).standard_normal((size, size)), mode="r")


@pytest.mark.parametrize("span", [10.0, 60.0, 250.0])
def test_bidiagonalisation_agrees_with_exact_arithmetic(span):
    """|ln σ - ln σ_exact| < 1e-11 for every value, though the smallest is e^-250 of the largest; 600 digits."""
    factor, scales = triangle(9, seed=2), np.linspace(0.0, -span, 9)
    found = graded_bidiagonal.log_singular_values(scales, factor)
    with mpmath.workdps(600):
        exact = mpmath.matrix(factor.tolist()) * mpmath.diag([mpmath.exp(mpmath.mpf(float(s))) for s in scales])
        values = mpmath.svd_r(exact, compute_uv=False)
        expected = -np.sort(-np.array([float(mpmath.log(value)) for value in values]))
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_bidiagonalisation_agrees_with_jacobi(seed):
    """A dense spectrum over 40 nats, of dimension 200, in which the SVD of the reversed matrix errs by whole nats."""
    factor, scales = triangle(200, seed=seed), np.sort(rng.generator(seed, "scales").uniform(-40.0, 0.0, 200))[::-1]
    found = graded_bidiagonal.log_singular_values(scales, factor)
    swept = graded._swept(scales, factor)
    assert found is not None
    jacobi = np.sort(graded._jacobi(swept[1] * np.exp(swept[0])))[::-1]
    np.testing.assert_allclose(found, jacobi, rtol=0, atol=1e-11)
    reversed_values = np.linalg.svd((factor * np.exp(scales))[::-1, ::-1], compute_uv=False)
    assert np.abs(np.log(reversed_values) - jacobi).max() > 1.0


def test_the_determinant_betrays_equal_values_in_front_of_a_gap():
    """Four groups of 15 equal values 12 nats apart: what is returned is right, and most such matrices return nothing.

    `graded.log_singular_values` is right for all of them.
    """
    refused = 0
    for seed in range(12):
        draws = rng.generator(seed, "haar").standard_normal((60, 60))
        log_d = np.repeat([0.0, -12.0, -24.0, -36.0], 15)
        orthogonal = np.linalg.qr(draws)[0]
        scales, factor = graded._lower(log_d, orthogonal)
        found = graded_bidiagonal.log_singular_values(scales, factor)
        refused += found is None
        assert found is None or np.abs(found - log_d).max() < 1e-10
        np.testing.assert_allclose(graded.log_singular_values(log_d, orthogonal)[0], log_d, rtol=0, atol=1e-11)
    assert refused > 6


def test_errors_that_cancel_in_the_determinant_are_told_by_a_second_matrix():
    """Orthogonal 6 × 6, two groups 24 nats apart: the determinant passes errors above 1e-11, the second matrix none.

    σ = d exactly. 4,000 draws, of which the determinant passes some that err; at the limit the error is stated. What
    `graded` returns never errs.
    """
    log_d, passed = np.repeat([0.0, -24.0], 3), 0
    for draws in rng.generator(1, "cancelling").standard_normal((4000, 6, 6)):
        scales, factor = graded._lower(log_d, np.linalg.qr(draws)[0])
        found = graded_bidiagonal.log_singular_values(scales, factor)
        if found is None or np.abs(found - log_d).max() < 1e-11:
            continue
        passed += 1
        stated = graded_bidiagonal.error_by_second(found, scales, factor)
        assert stated is None or np.abs(found - log_d).max() <= min(2 * stated, 2e-11)
        if stated is None:
            assert graded_bidiagonal.confirmed(scales, factor) == (None, math.inf)
        values, condition = graded.log_singular_values(log_d, factor.T)
        assert np.abs(values - log_d).max() <= 100 * float(np.finfo(np.float64).eps) * condition
    assert passed >= 3


def test_the_second_matrix_states_what_the_first_is_wrong_by():
    """A value moved by 1e-13 … 5e-13 is stated at ten times that at least, one moved by 1e-11 is refused."""
    factor, scales = triangle(30, seed=5), np.linspace(0.0, -50.0, 30)
    found = graded_bidiagonal.log_singular_values(scales, factor)
    assert found is not None
    for moved in (1e-13, 5e-13):
        error = graded_bidiagonal.error_by_second(found + moved * np.eye(30)[7], scales, factor)
        assert error is not None
        assert 8 * moved <= error <= 20 * moved + 1e-12
    assert graded_bidiagonal.error_by_second(found + 1e-11 * np.eye(30)[7], scales, factor) is None


def test_confirmed_values_are_the_first_with_the_error_of_the_second():
    """The values of the first matrix bit for bit, the error of the second; neither beyond the range."""
    factor, scales = triangle(30, seed=5), np.linspace(0.0, -50.0, 30)
    first = graded_bidiagonal.log_singular_values(scales, factor)
    values, error = graded_bidiagonal.confirmed(scales, factor)
    assert first is not None
    assert values is not None
    np.testing.assert_array_equal(values, first)
    assert error == graded_bidiagonal.error_by_second(first, scales, factor)
    assert graded_bidiagonal.confirmed(6 * scales - 1, factor)[0] is not None
    assert graded_bidiagonal.confirmed(7 * scales, factor) == (None, math.inf)


def test_matrices_that_cannot_be_done_return_nothing():
    """Scales beyond the range of squares, and a matrix whose smallest value is not resolved."""
    assert graded_bidiagonal.log_singular_values(np.array([0.0, -301.0]), np.eye(2)) is None
    singular = np.array([[1.0, 1.0], [0.0, 0.0]])
    with np.errstate(divide="ignore"):
        assert graded_bidiagonal.log_singular_values(np.zeros(2), singular) is None
    assert graded_bidiagonal.log_singular_values(np.array([math.log(2.0), 0.0]), np.eye(2)) is not None
