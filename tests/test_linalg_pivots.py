"""Which pivots are zero: matrices of known rank, zero rows and zero columns told apart from small values."""

import pytest
import torch
from torch import Tensor

from rmtbn import rng
from rmtbn.linalg import pivots

DTYPES = [torch.float32, torch.float64]


def draw(*shape: int, dtype: torch.dtype, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=rng.torch_generator(seed, "pivots", *shape), dtype=torch.float64).to(dtype)


def tails(y: Tensor) -> Tensor:
    """Norm of the rows from each on."""
    return torch.stack([y[i:].norm() for i in range(min(y.shape))])


def ranked(y: Tensor, *, look: bool = True) -> tuple[Tensor, Tensor]:
    """`pivots.rank` of a matrix, its columns known exactly before."""
    r = torch.linalg.qr(y, mode="r").R
    rest, scale = tails(y), torch.zeros(y.shape[-1], dtype=torch.float64)
    inherited = (torch.zeros_like(y[0]), torch.zeros_like(rest))
    return pivots.rank(r, rest, pivots.structural_zeros(rest, scale), inherited=inherited, look=look)


@pytest.mark.parametrize("look", [True, False])
@pytest.mark.parametrize("rank", [1, 7, 19, 20])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_live_pivots_is_the_rank(dtype, rank, look):
    """rank(A B) = k for Gaussian A (20 × k) and B (k × 20), rounded: the first k pivots live."""
    y = (draw(20, rank, dtype=torch.float64) @ draw(rank, 20, dtype=torch.float64)).to(dtype)
    live, _ = ranked(y, look=look)
    assert live.tolist() == [True] * rank + [False] * (20 - rank)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_projection_loses_one_pivot(dtype):
    """(I - 11'/N) W has one zero pivot, the last; W has none. The weights of many columns add up in it."""
    w = draw(200, 200, dtype=dtype)
    live, leftover = ranked(w - w.mean(dim=0))
    assert int(live.sum()) == 199
    assert not bool(live[-1])
    assert not bool(leftover.any())
    assert bool(ranked(w)[0].all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_column_that_depends_on_those_before_is_told_from_those_after(dtype):
    """Column 5 the sum of two before it: pivot 5 alone is zero, and later columns hold more in its row."""
    y = draw(12, 12, dtype=dtype)
    y[:, 5] = y[:, 1] + y[:, 3]
    live, leftover = ranked(y)
    assert live.tolist()[:6] == [True] * 5 + [False]
    assert not bool(leftover[5])
    assert bool(leftover[6:].all())
    assert not bool(leftover[:5].any())


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_columns_are_values(dtype):
    """A column eps² of the others in its component off their span is a zero; at eps^{1/2} of it, a value."""
    eps = torch.finfo(dtype).eps
    y = draw(10, 10, dtype=dtype)
    extra = y[:, 9].clone()
    for share, expected in ((eps**0.5, True), (eps**2, False)):
        y[:, 9] = y[:, :9].sum(dim=-1) + share * extra
        assert bool(ranked(y)[0][9]) is expected


@pytest.mark.parametrize(("pivot", "error", "expected"), [(1e-10, 0.0, True), (1e-10, 1e6, False), (1e-9, 1e6, True)])
def test_what_columns_had_before_counts(pivot, error, expected):
    """1e-10 is a value if its column is exact, a zero if it had errors of 1e6 eps; above eps^0.6, a value."""
    y = torch.eye(4, dtype=torch.float64)
    y[3, 3], y[2, 3] = pivot, 1.0
    rest, structural = torch.ones(4, dtype=torch.float64), torch.zeros(4, dtype=torch.bool)
    inherited = (torch.full((4,), error, dtype=torch.float64), rest)
    live, _ = pivots.rank(y, rest, structural, inherited=inherited, look=True)
    assert live.tolist() == [True, True, True, expected]


def test_zero_rows_and_zero_scales_are_structural():
    """No rows left, or a column of scale zero: zero whatever R holds there."""
    rest = torch.tensor([[2.0, 1.0, 0.0], [2.0, 1.0, 0.5]], dtype=torch.float64)
    scale = torch.tensor([[0.0, -1.0, -2.0, -3.0], [0.0, -torch.inf, -2.0, -3.0]], dtype=torch.float64)
    assert pivots.structural_zeros(rest, scale).tolist() == [[False, False, True], [False, True, False]]


@pytest.mark.parametrize("look", [True, False])
def test_what_is_dropped_does_not_enter_a_solution(look):
    """Solving with the rest is solving with the rows and columns kept; unknowns dropped are the right-hand side."""
    r, b = draw(6, 8, dtype=torch.float64).triu(), draw(6, 1, dtype=torch.float64, seed=2)
    dropped = torch.tensor([False, True, False, False, True, False])
    found = torch.linalg.solve_triangular(pivots.without(r, dropped, look=look), b, upper=True)
    kept = torch.linalg.solve(r[:, :6][~dropped][:, ~dropped], b[~dropped])
    torch.testing.assert_close(found[~dropped], kept, rtol=1e-10, atol=1e-10)
    assert torch.equal(found[dropped], b[dropped])
    nothing = torch.zeros(6, dtype=torch.bool)
    assert torch.equal(pivots.without(r, nothing, look=look), r[:, :6])
