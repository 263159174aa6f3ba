"""Products of block upper triangular matrices against full ones."""

import pytest
import torch

from rmtbn import rng
from rmtbn.linalg import triangular


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=rng.torch_generator(1, "triangles", *shape), dtype=torch.float64)


@pytest.mark.parametrize("batch", [(), (1,), (2,)])
@pytest.mark.parametrize("n", [40, 256, 301])
@pytest.mark.parametrize("columns", ["triangular", "square", "wide"])
def test_products_are_those_of_full_matrices(batch, n, columns):
    """A B for upper triangular A and for B upper triangular, square or wide; zeros stay zeros."""
    a = draw(*batch, n, n).triu()
    b = draw(*batch, n, n + 30 if columns == "wide" else n)
    b = b.triu() if columns == "triangular" else b
    found = triangular.multiply(a, b, triangular=columns == "triangular")
    torch.testing.assert_close(found, a @ b, rtol=0, atol=1e-12)
    if columns == "triangular":
        edge = n // 4 if triangular.pays(n) else 0
        assert not bool(found[..., edge:, :edge].any())


def test_columns_may_lie_in_either_order():
    """R comes with its columns in one piece of memory, T with its rows."""
    a, b = draw(256, 256).triu(), draw(256, 256).triu()
    found = triangular.multiply(a.mT.contiguous().mT, b.mT.contiguous().mT, triangular=True)
    torch.testing.assert_close(found, a @ b, rtol=0, atol=1e-12)


def test_an_order_within_panels_keeps_them():
    """Columns may change places with others of their panel."""
    order = torch.arange(256)
    order[[3, 60]] = order[[60, 3]]
    assert triangular.keeps_panels(order)
    order[[3, 70]] = order[[70, 3]]
    assert not triangular.keeps_panels(order)
