"""Singular vectors of long products against exact arithmetic, and their stated errors."""

import math

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.linalg import product as products
from rmtbn.linalg import product_values
from rmtbn.linalg.push_forward import push_forward
from rmtbn.linalg.singular_vectors import SingularVectors, singular_vectors


def gaussian(width: int, depth: int, *, seed: int = 1) -> list[Tensor]:
    generator = rng.torch_generator(seed, "vectors", width, depth)
    return list(torch.randn(depth, width, width, generator=generator, dtype=torch.float64) / math.sqrt(width))


def pushed(factors: list[Tensor]) -> products.Product:
    steps = [[lambda point, u, factor=factor: (point, factor @ u)] for factor in factors]
    shape = factors[0].shape
    identity = products.identity(shape[-1], batch=tuple(shape[:-2]), dtype=factors[0].dtype)
    return push_forward(identity, torch.zeros(1), steps)[0]


def exact(factors: list[Tensor], *, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """Left and right singular vectors by multiplication and SVD with so many digits, in descending order."""
    with mpmath.workdps(digits):
        product = mpmath.eye(factors[0].shape[-1])
        for factor in factors:
            product = mpmath.matrix(factor.double().tolist()) * product
        left, _, right = mpmath.svd_r(product)
        return np.array(left.tolist(), dtype=float), np.array(right.tolist(), dtype=float).T


def angles(found: Tensor, expected: np.ndarray) -> np.ndarray:
    """Angle of each column to the expected one, up to sign: the length of their difference."""
    columns = found.double().numpy()
    signs = np.sign((columns * expected).sum(axis=0))
    return np.linalg.norm(columns * signs - expected, axis=0)


@pytest.mark.parametrize(("width", "depth", "digits"), [(8, 50, 80), (10, 300, 400)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_vector_is_that_of_exact_arithmetic(width, depth, digits, dtype):
    """Angles to the vectors of a product with 80 or 400 digits are within the stated error, left and right, all k."""
    factors = [factor.to(dtype) for factor in gaussian(width, depth)]
    found = singular_vectors(pushed(factors), width)
    left, right = exact(factors, digits=digits)
    eps = torch.finfo(dtype).eps
    for vectors, expected in ((found.left, left), (found.right, right)):
        assert (angles(vectors, expected) <= found.error.numpy() + 4 * eps).all()
    assert float(found.error.max()) < (1e-7 if dtype == torch.float64 else 1.0)
    assert float(found.error.max()) > eps


def test_the_multiplied_out_product_fails_the_same_check():
    """The SVD of the assembled product is off by 0.04 in the small vectors at depth 50; ours state 1e-9."""
    factors = gaussian(8, 50)
    _, right = exact(factors, digits=80)
    naive = torch.linalg.svd(torch.linalg.multi_dot(factors[::-1]))[2].mT
    assert angles(naive, right)[-3:].max() > 1e-3


def check_triples(found: SingularVectors, product: products.Product) -> None:
    """J v = σ u and J' u = σ v, with J v formed from the factors, row by row of diag(d) T."""
    moved = product.t @ found.right
    image = (product.log_d[..., :, None] - found.log_values[..., None, :]).clamp_max(300.0).exp() * moved
    torch.testing.assert_close(product.u @ image, found.left, rtol=0, atol=1e-9)


def test_triples_belong_together():
    """J v_k = σ_k u_k for the leading 20 of 64 at depth 200; both sets orthonormal."""
    product = pushed(gaussian(64, 200))
    found = singular_vectors(product, 20)
    for vectors in (found.left, found.right):
        torch.testing.assert_close(vectors.mT @ vectors, torch.eye(20, dtype=torch.float64), rtol=0, atol=1e-12)
    expected = product_values.log_singular_values(product).values[:20]
    torch.testing.assert_close(found.log_values, expected, rtol=0, atol=1e-11)
    check_triples(
        SingularVectors(
            log_values=found.log_values[:3], left=found.left[:, :3], right=found.right[:, :3], error=found.error[:3]
        ),
        product,
    )


def test_scales_beyond_the_floating_range():
    """diag(d) of 3,000 nats times a rotation: right vectors are its rows, left ones unit vectors."""
    rotation = torch.linalg.qr(gaussian(6, 1)[0])[0]
    log_d = torch.linspace(0.0, -3000.0, 6, dtype=torch.float64)
    product = products.identity(6)
    for step in range(30):
        scale = torch.diag((log_d / 30).exp())
        product = products.push(product, scale @ (rotation if step == 0 else torch.eye(6).double()) @ product.u)
    found = singular_vectors(product, 6)
    assert angles(found.right, rotation.mT.numpy()).max() < 1e-12
    assert angles(found.left, np.eye(6)).max() < 1e-12
    torch.testing.assert_close(found.log_values, log_d, rtol=1e-12, atol=1e-9)


def test_batches_ranks_and_rectangles():
    """A batch is a loop; vectors of rank-deficient and rectangular products are those of a dense SVD."""
    generator = rng.torch_generator(2, "vectors")
    first, last = (torch.randn(3, *shape, generator=generator, dtype=torch.float64) for shape in ((5, 7), (9, 5)))
    found = singular_vectors(pushed([first, last]), 4)
    assert found.left.shape == (3, 9, 4)
    for i in range(3):
        left, values, right = torch.linalg.svd(last[i] @ first[i], full_matrices=False)
        torch.testing.assert_close(found.log_values[i], values[:4].log(), rtol=0, atol=1e-12)
        assert angles(found.left[i], left[:, :4].numpy()).max() < 1e-11
        assert angles(found.right[i], right[:4].mT.numpy()).max() < 1e-11
    with pytest.raises(InvalidArgumentError, match="`count` must be an integer >= 1 and <= 5; got 6"):
        singular_vectors(pushed([first, last]), 6)


def test_close_values_have_uncertain_vectors():
    """Equal singular values have no vectors of their own: the stated error is 1."""
    found = singular_vectors(pushed([torch.eye(4, dtype=torch.float64)]), 2)
    assert found.error.tolist() == [1.0, 1.0]
