"""Zero rows left out of a factorisation."""

import pytest
import torch

from rmtbn import rng
from rmtbn.linalg import product as products
from rmtbn.linalg import product_values
from rmtbn.linalg.live_rows import live_rows, put_back


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=rng.torch_generator(1, "live", *shape), dtype=torch.float64)


@pytest.mark.parametrize(
    ("sizes", "rows"),
    [
        ([1.0, 0.0, 2.0, 0.0], [0, 2]),
        ([[0.0, 1e-300, 0.0]], [1]),
        ([1.0, 2.0, 3.0], None),
        ([0.0, 0.0], None),
        ([1.0] * 19 + [0.0], None),
        ([1.0] * 9 + [0.0], list(range(9))),
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], None),
    ],
)
def test_rows_are_found_where_that_pays(sizes, rows):
    """Of one matrix, some but not nearly all of them; a row is zero only if its norm is 0."""
    found = live_rows(torch.tensor(sizes, dtype=torch.float64))
    assert (None if found is None else found.tolist()) == rows


def test_rows_are_put_back_where_they_were():
    """Zeros in between, and columns that each lie in one piece."""
    q, rows = draw(1, 3, 2), torch.tensor([0, 2, 5])
    whole = put_back(q, rows, 7)
    expected = torch.zeros(1, 7, 2, dtype=torch.float64)
    expected[:, rows] = q
    assert torch.equal(whole, expected)
    assert whole.mT.is_contiguous()
    assert put_back(q, None, 3) is q


@pytest.mark.parametrize("dead", [[1, 2, 6, 7], [0, 1, 2, 3, 4, 5, 6, 8, 9]])
def test_a_factor_with_dead_rows_has_the_values_of_lapack(dead):
    """10 x 6, with 6 rows left and with a single one, between two other factors."""
    first, middle, last = draw(6, 6), draw(10, 6), draw(8, 10)
    middle[dead] = 0.0
    product = products.identity(6)
    for factor in (first, middle, last):
        product = products.push(product, factor @ product.u)
    rank = min(6, 10 - len(dead))
    found = product_values.log_singular_values(product).values
    expected = torch.linalg.svdvals(last @ middle @ first)
    torch.testing.assert_close(found[:rank].exp(), expected[:rank], rtol=1e-12, atol=0)
    assert bool(found[rank:].isneginf().all())
    torch.testing.assert_close(product.u.mT @ product.u, torch.eye(rank, dtype=torch.float64), rtol=0, atol=1e-13)


def test_leaving_rows_out_changes_no_estimate():
    """Columns equal to 1e-10: errors from outside of the range are amplified as if dead rows had never been there."""
    start = products.push(products.identity(4), draw(9, 4))
    y, outside = draw(8, 4), 1e3 * draw(8).abs()
    y[:, 3] = y[:, 2] + 1e-10 * y[:, 3]
    dead, live = [0, 1, 4], [2, 3, 5, 6, 7]
    y[dead], outside[dead] = 0.0, 0.0
    whole = products.push(start, y, outside_scale=outside)
    rest = products.push(start, y[live], outside_scale=outside[live])
    assert float(rest.log_amplification) > 2.0 + float(products.push(start, y[live]).log_amplification)
    torch.testing.assert_close(whole.log_amplification, rest.log_amplification, rtol=1e-5, atol=0)
    torch.testing.assert_close(whole.error, rest.error, rtol=1e-4, atol=0)
