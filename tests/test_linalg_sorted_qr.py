"""Sorted QR: the factorisation, the rank it finds, and what it says of rounding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rmtbn import rng
from rmtbn.linalg.batched import norms
from rmtbn.linalg.sorted_qr import SortedQR, sorted_qr

EPS = torch.finfo(torch.float64).eps


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=rng.torch_generator(seed, "qr", *shape), dtype=torch.float64)


def residual(y: Tensor, factors: SortedQR) -> float:
    """max |Y[:, columns] - Q R| over the live rows of R."""
    permuted = y.take_along_dim(factors.columns[..., None, :], dim=-1)
    return float((permuted - factors.q @ (factors.r * factors.live[..., None])).abs().max())


@settings(max_examples=100)
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(0, 12)),
    zero_rows=st.integers(0, 6),
    repeated=st.integers(0, 4),
    seed=st.integers(1, 10**6),
)
def test_nothing_but_rounding_is_dropped(shape, zero_rows, repeated, seed):
    """Q R = Y P to rounding, with as many live pivots as Y has rank: low-rank products, zero rows, equal columns."""
    rows, columns, rank = shape
    y = draw(rows, rank, seed=seed) @ draw(rank, columns, seed=seed)
    y[torch.randperm(rows, generator=rng.torch_generator(seed, "rows"))[:zero_rows]] = 0.0
    y = torch.cat([y[:, :repeated], y], dim=1)
    factors = sorted_qr(y, torch.zeros(y.shape[1], dtype=torch.float64))
    assert residual(y, factors) <= 100 * EPS * max(1.0, float(y.norm()))
    assert int(factors.live.sum()) == min(rank, columns, max(0, rows - zero_rows))
    live = factors.q[:, factors.live]
    torch.testing.assert_close(live.mT @ live, torch.eye(live.shape[1], dtype=torch.float64), rtol=0, atol=1e-13)


def test_dependent_columns_before_others_are_put_last():
    """Columns a, a, b: the second a is moved behind b, whose direction its zero pivot would have stood for."""
    y = draw(5, 3)[:, [0, 0, 1]]
    factors = sorted_qr(y, torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64))
    assert factors.columns.tolist() == [0, 2, 1]
    assert factors.live.tolist() == [True, True, False]
    assert residual(y, factors) <= 10 * EPS
    assert bool(factors.cut)


def test_projections_side_by_side_lose_one_direction_each():
    """Blocks I - 11'/4 and zero rows between them, of rank 3 each."""
    centre = torch.eye(4, dtype=torch.float64) - 0.25
    y = torch.block_diag(centre, torch.zeros(2, 1), centre, centre)
    factors = sorted_qr(y, torch.zeros(13, dtype=torch.float64))
    assert int(factors.live.sum()) == 9
    assert residual(y, factors) <= 10 * EPS


def test_columns_come_in_the_order_of_their_scales():
    """Columns are sorted by log_scale + log norm; those of scale 0 are last and not live."""
    y = draw(6, 4)
    scale = torch.tensor([-3.0, 50.0, -torch.inf, 700.0], dtype=torch.float64)
    factors = sorted_qr(y, scale)
    assert factors.columns.tolist() == [3, 1, 0, 2]
    assert factors.live.tolist() == [True, True, True, False]
    assert not bool(factors.cut)


def test_zero_rows_are_no_evidence_of_rounding():
    """Rank lost to rows that are exactly zero is structural: pivots exactly 0, `cut` false."""
    y = draw(8, 8)
    y[[1, 4, 6]] = 0.0
    factors = sorted_qr(y, torch.zeros(8, dtype=torch.float64))
    assert int(factors.live.sum()) == 5
    assert not bool(factors.cut)
    assert bool((factors.r.diagonal()[5:] == 0).all())


def test_graded_rows_are_factorised_row_by_row():
    """|det Y| = Π |R_kk| to 1e-11 for rows scaled by 1 ... 1e-30, whatever order they come in."""
    slopes = torch.logspace(0, -30, 10, dtype=torch.float64)[torch.tensor([3, 9, 0, 5, 7, 1, 8, 2, 6, 4])]
    factor = draw(10, 10)
    found = sorted_qr(slopes[:, None] * factor, torch.zeros(10, dtype=torch.float64))
    expected = torch.linalg.slogdet(factor).logabsdet + slopes.log().sum()
    assert float(found.r.diagonal().abs().log().sum()) == pytest.approx(float(expected), abs=1e-11)
    assert bool(found.live.all())
    assert float(found.amplification) < 1e4


def test_noise_is_told_by_the_scale_of_its_rows():
    """A row of 1e-17 is a value on its own and noise where its rows are known to be of size 1."""
    y = draw(3, 3)
    y[2] *= 1e-17
    scale = torch.zeros(3, dtype=torch.float64)
    assert int(sorted_qr(y, scale).live.sum()) == 3
    assert int(sorted_qr(y, scale, row_scale=torch.ones(3, dtype=torch.float64)).live.sum()) == 2


def test_uncertain_columns_raise_the_bar():
    """A pivot of 1e-11 is a value, unless its column was known to 1e-10 only and such errors come through."""
    y = torch.diag(torch.tensor([1.0, 1.0, 1e-11], dtype=torch.float64)) + torch.tensor(
        [[0, 0, 1], [0, 0, 1], [0, 0, 0]]
    )
    scale, row_scale = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    error = torch.tensor([1.0, 1.0, 1e-10 / EPS], dtype=torch.float64)
    assert int(sorted_qr(y, scale, row_scale=row_scale).live.sum()) == 3
    for outside, rank in ((1.0, 2), (1e-6, 3)):
        assert int(sorted_qr(y, scale, row_scale=row_scale, inherited=(error, outside * row_scale)).live.sum()) == rank


def test_the_amplification_is_that_of_the_pseudo_inverse():
    """||R^-1 diag ν||_F / √rank within the spread of 8 random vectors; √((n + 1)/2) for orthogonal Y."""
    for seed in (1, 2, 3):
        y = draw(30, 30, seed=seed)
        factors = sorted_qr(y, torch.zeros(30, dtype=torch.float64))
        rest = norms(y, dim=-1).sort(descending=True).values.flip(0).square().cumsum(0).sqrt().flip(0)
        exact = (torch.linalg.inv(factors.r) * torch.maximum(rest, factors.r.norm(dim=-1))).norm() / 30**0.5
        assert float(factors.amplification) == pytest.approx(float(exact), rel=0.9)
    orthogonal = torch.linalg.qr(draw(30, 30))[0]
    found = sorted_qr(orthogonal, torch.zeros(30, dtype=torch.float64)).amplification
    assert float(found) == pytest.approx(15.5**0.5, rel=0.3)


def test_norms_do_not_underflow():
    """A vector of 1e-200 has norm at least its largest entry, where the sum of squares is 0."""
    x = torch.full((2, 3), 1e-200, dtype=torch.float64)
    assert bool((norms(x, dim=-1) >= 1e-200).all())
    torch.testing.assert_close(norms(draw(4, 5), dim=0), draw(4, 5).norm(dim=0))
