"""Dense singular values, and the second algorithm where the first fails."""

import numpy as np
import pytest
import torch

from rmtbn import rng
from rmtbn.linalg import dense

MATRICES = torch.randn(3, 7, 5, generator=rng.torch_generator(1, "dense"), dtype=torch.float64)


def fails(matrix):
    raise torch.linalg.LinAlgError("linalg.svd: the algorithm failed to converge")


def out_of_memory(matrix):
    raise torch.OutOfMemoryError("CUDA out of memory")


def not_finite(matrix):
    return torch.full(matrix.shape[:-1], torch.nan)


@pytest.mark.parametrize("failure", [None, fails, out_of_memory, not_finite])
def test_values_are_right_also_where_the_first_algorithm_fails(failure, monkeypatch):
    """σ_i² are the eigenvalues of MᵀM, whether torch's SVD answers, raises, runs out of memory or returns NaN."""
    if failure:
        monkeypatch.setattr(torch.linalg, "svdvals", failure)
    values, fell_back = dense.singular_values(MATRICES)
    expected = np.linalg.eigvalsh(MATRICES.mT @ MATRICES)[:, ::-1]
    np.testing.assert_allclose(values**2, expected, rtol=1e-12)
    assert fell_back == (failure is not None)
    assert (values.dtype, values.device.type) == (torch.float64, "cpu")


@pytest.mark.parametrize("failure", [None, fails, out_of_memory])
@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (0, 4)])
def test_decompositions_are_right_also_where_the_first_algorithm_fails(failure, shape, monkeypatch):
    """U diag(s) Vh is the matrix, UᵀU = 1 = Vh Vhᵀ, s descending; also without rows."""
    matrix = torch.randn(shape, generator=rng.torch_generator(2, "dense"), dtype=torch.float64)
    if failure and matrix.numel():
        monkeypatch.setattr(torch.linalg, "svd", lambda matrix, **_options: failure(matrix))
    u, s, vh = dense.decomposition(matrix)
    torch.testing.assert_close(u @ torch.diag(s) @ vh, matrix)
    torch.testing.assert_close(u.mT @ u, torch.eye(len(s), dtype=torch.float64))
    torch.testing.assert_close(vh @ vh.mT, torch.eye(len(s), dtype=torch.float64))
    assert bool((s.diff() <= 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_below_the_floor_are_noise(dtype):
    """σ = 10^-i, i = 0 … 19: above max(m, n) ε right to 10 %, below it wrong by more for most."""
    exact = torch.logspace(0, -19, 20, dtype=torch.float64)
    u, v = (
        torch.linalg.qr(torch.randn(20, 20, generator=rng.torch_generator(s, "q"), dtype=torch.float64)).Q
        for s in (1, 2)
    )
    matrix = (u @ torch.diag(exact) @ v).to(dtype)
    values, floor = dense.singular_values(matrix)[0], dense.unresolved_below(matrix)
    wrong = (values / exact - 1).abs() > 0.1
    assert not wrong[exact > floor].any()
    assert wrong[exact < 0.01 * floor].double().mean() > 0.6
