"""QR by block Gram–Schmidt against Householder's, row by row, and what it refuses."""

import pytest
import torch
from torch import Tensor

from rmtbn import rng
from rmtbn.linalg import gram_schmidt


def gaussian(*shape: int) -> Tensor:
    return torch.randn(shape, generator=rng.torch_generator(1, "panels", *shape), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(200, 200), (3, 150, 90), (2, 2, 81, 80), (1040, 1030)])
def test_q_and_r_are_those_of_householder(shape):
    """Q R = Y, Q'Q = I, R upper triangular: the same R but for the signs of rows."""
    y = gaussian(*shape)
    found = gram_schmidt.factorised(y)
    assert found is not None
    q, r = found
    torch.testing.assert_close(q @ r, y, rtol=0, atol=1e-13)
    eye = torch.eye(shape[-1], dtype=torch.float64)
    torch.testing.assert_close(q.mT @ q, eye.expand_as(r), rtol=0, atol=1e-9)
    expected = torch.linalg.qr(y, mode="r").R
    torch.testing.assert_close(r.abs(), expected.abs(), rtol=1e-8, atol=1e-9)
    assert not bool(r.tril(-1).any())
    assert q.shape == y.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_row_is_kept_in_proportion_to_its_own_size(dtype):
    """|(Q R - Y)_i| <= 30 eps |Y_i| for rows 6 decades apart, as 200 rows of 90 columns let Y be well conditioned."""
    y = (torch.logspace(0, -6, 200, dtype=torch.float64)[:, None] * gaussian(200, 90)).to(dtype)
    y[-90:] = gaussian(90, 90).to(dtype)
    found = gram_schmidt.factorised(y)
    assert found is not None
    q, r = (part.double() for part in found)
    error = (q @ r - y.double()).norm(dim=-1) / y.double().norm(dim=-1)
    assert float(error.max()) < 30 * torch.finfo(dtype).eps


def test_columns_of_any_size_are_as_good():
    """diag(s) on the right scales R and leaves Q, over 200 decades; a panel is judged with its columns made unit."""
    y, s = gaussian(120, 100), torch.logspace(0, -100, 100, dtype=torch.float64)
    plain, scaled = gram_schmidt.factorised(y), gram_schmidt.factorised(y * s)
    assert plain is not None
    assert scaled is not None
    torch.testing.assert_close(scaled[0], plain[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(scaled[1] / s, plain[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("gap", [0.0, 1e-12, 1e-3])
def test_columns_that_nearly_depend_on_others_are_refused(gap):
    """Two columns of one panel the same but for 1e-3 of them: its Gram matrix would lose six digits."""
    y = gaussian(100, 90)
    assert gram_schmidt.factorised(y) is not None
    y[:, 7] = y[:, 3] + gap * y[:, 7]
    assert gram_schmidt.factorised(y) is None


def test_the_last_columns_may_be_as_bad_as_they_like():
    """The tail is left to Householder: a column 1e-10 from the span of the others, and Q R = Y all the same."""
    y = gaussian(90, 90)
    y[:, -1] = y[:, -2] + 1e-10 * y[:, -1]
    found = gram_schmidt.factorised(y)
    assert found is not None
    torch.testing.assert_close(found[0] @ found[1], y, rtol=0, atol=1e-12)
