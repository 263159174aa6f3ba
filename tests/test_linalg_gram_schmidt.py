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
    q, r = gram_schmidt.factorised(y)
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
    q, r = (part.double() for part in gram_schmidt.factorised(y))
    error = (q @ r - y.double()).norm(dim=-1) / y.double().norm(dim=-1)
    assert float(error.max()) < 30 * torch.finfo(dtype).eps


def test_columns_of_any_size_are_as_good():
    """diag(s) on the right scales R and leaves Q, over 200 decades; a panel is judged with its columns made unit."""
    y, s = gaussian(120, 100), torch.logspace(0, -100, 100, dtype=torch.float64)
    plain, scaled = gram_schmidt.factorised(y), gram_schmidt.factorised(y * s)
    torch.testing.assert_close(scaled[0], plain[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(scaled[1] / s, plain[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("place", [7, 60, 130])
@pytest.mark.parametrize("gap", [1e-12, 1e-6, 1e-3])
def test_columns_that_nearly_depend_on_others_are_left_to_householder(gap, place):
    """A column the same as another of its panel but for `gap` of it: Q R = Y to rounding, and Q'Q = I to eps/gap.

    By its Gram matrix the panel would lose twice as many digits.
    """
    y = gaussian(210, 200)
    y[:, place] = y[:, place - 4] + gap * y[:, place]
    q, r = gram_schmidt.factorised(y)
    torch.testing.assert_close(q @ r, y, rtol=0, atol=1e-13)
    assert float((q.mT @ q - torch.eye(200)).abs().max()) < 1e-13 / gap
    expected = torch.linalg.qr(y, mode="r").R.diagonal().abs()
    torch.testing.assert_close(r.diagonal().abs(), expected, rtol=1e-9 + 1e-15 / gap, atol=0)


def test_dependent_columns_give_a_pivot_of_rounding_size():
    """Two equal columns in the first panel: R shows it, and the rows of Q R are right all the same."""
    y = gaussian(100, 90)
    y[:, 7] = y[:, 3]
    _, r = gram_schmidt.factorised(y)
    assert float(r.diagonal().abs().min()) < 1e-13
