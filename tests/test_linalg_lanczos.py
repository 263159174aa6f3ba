"""Block bidiagonalisation: its defining identities, and the largest values with bounds that hold."""

import math

import numpy as np
import pytest
import torch
from scipy.sparse import linalg as sparse

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.linalg import lanczos
from rmtbn.linalg.operator import composition, from_matrix


def generator(seed=1):
    return rng.torch_generator(seed, "lanczos")


def draw(*shape, seed=1, dtype=torch.float64):
    return torch.randn(shape, generator=rng.torch_generator(seed, "lanczos", *shape), dtype=dtype)


def with_values(values, *, outputs, inputs, seed=1):
    """A matrix with the singular values given and Haar singular vectors."""
    u = torch.linalg.qr(draw(outputs, len(values), seed=seed)).Q
    v = torch.linalg.qr(draw(inputs, len(values), seed=seed + 1)).Q
    return u @ torch.diag(torch.as_tensor(values, dtype=torch.float64)) @ v.mT


MATRICES = {
    "square": draw(40, 40),
    "tall": draw(60, 30),
    "wide": draw(30, 60),
    "graded": with_values(np.exp(-np.arange(40.0)), outputs=40, inputs=40),
    "repeated": with_values([3.0] * 5 + [2.0] * 20 + [1.0] * 5, outputs=40, inputs=36),
    "low rank": with_values([2.0, 1.0, 0.5], outputs=40, inputs=40),
}


@pytest.mark.parametrize("name", MATRICES)
def test_bidiagonalisation_keeps_its_identities(name):
    """UᵀU = 1, VᵀV = 1, Uᵀ J V = B, Uᵀ J = B Vᵀ at every step, to rounding of ‖J‖."""
    matrix = MATRICES[name]
    operator = from_matrix(matrix)
    start = lanczos.orthonormal_rows(4, matrix.shape[1], like=operator, generator=generator())
    for found in lanczos.bidiagonalisations(operator, start):
        u, v, scale = found.left, found.right, torch.linalg.matrix_norm(matrix, ord=2)
        assert torch.dist(u @ u.mT, torch.eye(len(u), dtype=u.dtype)) < 1e-13 * len(u)
        assert torch.dist(v @ v.mT, torch.eye(len(v), dtype=v.dtype)) < 1e-13 * len(v)
        assert torch.dist(u @ matrix @ v.mT, found.matrix) < 1e-13 * len(v) * scale
        assert torch.dist(u @ matrix, found.matrix @ v) < 1e-13 * len(v) * scale
    assert found.last == 0
    assert len(found.left) <= {"graded": 40}.get(name, int(torch.linalg.matrix_rank(matrix)))  # graded down to rounding


@pytest.mark.parametrize("name", ["square", "tall", "wide", "graded", "low rank"])
def test_invariant_spaces_hold_the_whole_spectrum(name):
    """When the Krylov spaces are invariant, B has the non-zero singular values of J."""
    matrix = MATRICES[name]
    operator = from_matrix(matrix)
    start = lanczos.orthonormal_rows(4, matrix.shape[1], like=operator, generator=generator())
    *_, found = lanczos.bidiagonalisations(operator, start)
    expected = torch.linalg.svdvals(matrix)
    values = torch.linalg.svdvals(found.matrix)
    torch.testing.assert_close(values, expected[: len(values)], rtol=0, atol=1e-13 * 40 * float(expected[0]))
    assert float(expected[len(values) :].sum()) < 1e-12


@pytest.mark.parametrize("name", MATRICES)
def test_bounds_of_the_largest_values_hold(name):
    """A true value lies within the bound of each, also where the iteration stops far from convergence."""
    matrix, expected = MATRICES[name], torch.linalg.svdvals(MATRICES[name])
    for count, limit in ((1, None), (3, None), (3, 6), (5, 10)):
        found = lanczos.largest(from_matrix(matrix), count, limit=limit, block=3, generator=generator())
        distance = (found.values[:, None] - expected).abs().amin(dim=1)
        assert bool((distance <= found.bounds).all())
        if limit is None and name != "repeated":
            torch.testing.assert_close(found.values, expected[:count], rtol=1e-9, atol=1e-9)
            assert float(found.bounds.max()) < 1e-9 * float(expected[0])


def test_bounds_can_be_far_from_zero():
    """Stopped after one block, the bounds say that the values are not converged: no bound is free."""
    found = lanczos.largest(from_matrix(MATRICES["square"]), 3, limit=3, block=3, generator=generator())
    assert float(found.bounds.min()) > 1e-2


def test_largest_values_are_those_of_scipy():
    """σ₁ … σ₆ of a product of 10 factors of width 120 against ARPACK's `svds`."""
    factors = [draw(120, 120, seed=seed) / math.sqrt(120) for seed in range(10)]
    found = lanczos.largest(composition([from_matrix(f) for f in factors]), 6, generator=generator())
    product = torch.linalg.multi_dot(factors[::-1]).numpy()
    expected = np.sort(sparse.svds(product, k=6, return_singular_vectors=False, random_state=1))[::-1]
    np.testing.assert_allclose(found.values, expected, rtol=1e-11)
    assert found.products < 2 * 120


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_is_that_of_the_operator(dtype):
    """float32 gives float32 values, right to a few eps of the largest."""
    matrix = MATRICES["square"].to(dtype)
    found = lanczos.largest(from_matrix(matrix), 2, tolerance=1e-5, generator=generator())
    assert found.values.dtype == dtype
    error = (found.values.double() - torch.linalg.svdvals(MATRICES["square"])[:2]).abs().max()
    assert float(error) < 30 * torch.finfo(dtype).eps * float(found.values[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MATRICES)
def test_values_above_a_share_are_all_found(name, dtype):
    """Every σ > 0.3 σ₁, as often as it occurs (20 copies with blocks of 3), and the bounds hold."""
    matrix = MATRICES[name].to(dtype)
    expected = torch.linalg.svdvals(matrix.double()).to(dtype)
    found = lanczos.above(from_matrix(matrix), 0.3, block=3, tolerance=1e-6, generator=generator())
    expected = expected[expected > 0.3 * expected[0]]
    torch.testing.assert_close(found.values, expected, rtol=1e-5, atol=0)
    assert bool(((found.values - expected).abs() <= found.bounds).all())
    assert not len(lanczos.above(from_matrix(0 * matrix), 0.5, generator=generator()).values)


def test_zero_has_zeros():
    """J = 0: values and bounds are 0."""
    found = lanczos.largest(from_matrix(torch.zeros(5, 4, dtype=torch.float64)), 2, generator=generator())
    assert not found.values.any()
    assert not found.bounds.any()


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (0, {}, "`count` must be an integer >= 1 and <= 30; got 0"),
        (31, {}, "`count` must be an integer >= 1 and <= 30; got 31"),
        (2, {"block": 31}, "`block` must be an integer >= 1 and <= 30; got 31"),
        (2, {"limit": 1}, "`limit` must be an integer >= 2; got 1"),
        (2, {"tolerance": 0.0}, "`tolerance` must be a finite number > 0.0; got 0.0"),
    ],
)
def test_impossible_requests_are_refused(count, options, message):
    """Between 1 and the smaller dimension; tolerances are positive."""
    with pytest.raises(InvalidArgumentError, match=message):
        lanczos.largest(from_matrix(MATRICES["tall"]), count, **options, generator=generator())
