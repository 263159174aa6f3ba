"""Rows and columns of batches of matrices against loops, and norms whose squares leave the floating range."""

import math

import pytest
import torch
from torch import Tensor

from rmtbn import rng
from rmtbn.linalg import batched


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=rng.torch_generator(1, "batched", *shape), dtype=torch.float64).to(dtype)


def orders(*shape: int) -> Tensor:
    return torch.rand(shape, generator=rng.torch_generator(2, "orders", *shape)).argsort(dim=-1)


@pytest.mark.parametrize("batch", [(), (1,), (1, 1), (3,), (2, 3)])
@pytest.mark.parametrize("dim", [-2, -1])
def test_each_matrix_is_selected_by_its_own_index(batch, dim):
    """take(x, i)_b = x_b[i_b] or x_b[:, i_b], element by element; one index is not lent to another matrix."""
    x = draw(*batch, 4, 5)
    size = x.shape[dim]
    index = orders(*batch, size)[..., : size - 1]
    found = batched.take(x, index, dim=dim)
    for b, one in enumerate(index.reshape(-1, size - 1).tolist()):
        matrix = x.reshape(-1, 4, 5)[b]
        expected = torch.stack([matrix[i] if dim == -2 else matrix[:, i] for i in one], dim=0 if dim == -2 else 1)
        assert torch.equal(found.reshape(-1, *found.shape[-2:])[b], expected)
    assert found.shape == (*batch, *((3, 5) if dim == -2 else (4, 4)))


@pytest.mark.parametrize("look", [True, False])
@pytest.mark.parametrize("dim", [-2, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norms_are_root_sums_of_squares(dtype, dim, look):
    """‖x‖ = (Σ x²)^½, summed exactly."""
    x = draw(2, 6, 3, dtype=dtype)
    found = batched.norms(x, dim=dim, look=look)
    vectors = x.movedim(dim, -1).reshape(-1, x.shape[dim]).tolist()
    expected = torch.tensor([math.sqrt(math.fsum(v * v for v in vector)) for vector in vectors], dtype=dtype)
    torch.testing.assert_close(found.flatten(), expected, rtol=4 * torch.finfo(dtype).eps, atol=0.0)


@pytest.mark.parametrize("look", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tiny_vector_is_not_zero(dtype, look):
    """s (3, 4), s² below the floating range: 4 s <= norm <= 5 s; the vector beside it keeps its norm; zero is zero."""
    s = torch.finfo(dtype).tiny ** 0.75
    x = torch.tensor([[3.0, 4.0], [3.0 * s, 4.0 * s], [0.0, 0.0]], dtype=dtype)
    found = batched.norms(x, dim=-1, look=look).tolist()
    assert found[0] == pytest.approx(5.0, rel=1e-6)
    assert 4.0 * s * (1 - 1e-6) <= found[1] <= 5.0 * s
    assert found[2] == 0.0
