"""Re-factorising as growth asks for it."""

import math

import pytest
import torch
from torch import Tensor

from rmtbn import rng
from rmtbn.linalg import product as products
from rmtbn.linalg import product_values
from rmtbn.linalg.push_forward import TangentMap, push_forward

POINT = torch.zeros(1)


def gaussian(width: int, depth: int) -> list[Tensor]:
    generator = rng.torch_generator(1, "push", width, depth)
    return list(torch.randn(depth, width, width, generator=generator, dtype=torch.float64) / math.sqrt(width))


def orthogonal(width: int, depth: int) -> list[Tensor]:
    return [torch.linalg.qr(factor)[0] for factor in gaussian(width, depth)]


def steps(factors: list[Tensor]) -> list[list[TangentMap]]:
    return [[lambda point, u, factor=factor: (point, factor @ u)] for factor in factors]


def pushed(factors: list[Tensor]) -> products.Product:
    return push_forward(products.identity(factors[0].shape[-1]), POINT, steps(factors))[0]


def test_well_conditioned_factors_are_seldom_refactorised():
    """Blocks grow if nothing else does: 127 orthogonal factors in 7 to 11 pushes, 100 Gaussian ones in 20 to 50.

    One more push makes U orthonormal to rounding.
    """
    assert 8 <= pushed(orthogonal(24, 127)).pushes <= 12
    assert 20 <= pushed(gaussian(24, 100)).pushes <= 50


def test_the_budget_holds_and_the_result_is_that_of_every_layer():
    """Blocks taken back leave no trace: the values are those of a push after each factor."""
    factors = [*orthogonal(16, 40), *gaussian(16, 40), torch.diag(torch.logspace(0, -6, 16).double()), *gaussian(16, 9)]
    product = products.identity(16)
    for factor in factors:
        product = products.push(product, factor @ product.u)
    found, expected = product_values.log_singular_values(pushed(factors)), product_values.log_singular_values(product)
    difference = float((found.values - expected.values).abs().max())
    assert difference <= float(found.relative_error + expected.relative_error) < 1e-6


def test_points_are_passed_along():
    """Maps see the image of the point under the maps before them, also when a block is taken back and done again."""
    seen = []

    def square(point: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(float(point[0]))
        return point.square(), 2.0 * point[:, None] * u

    point = torch.tensor([1.1, 0.7], dtype=torch.float64)
    product, image = push_forward(products.identity(2), point, [[square]] * 8)
    torch.testing.assert_close(image, point ** (2**8))
    expected = 8 * math.log(2) + (2**8 - 1) * point.log()
    torch.testing.assert_close(
        product_values.log_singular_values(product).values, expected.sort(descending=True).values
    )
    assert set(seen) == {1.1} | {float((point[0]).double() ** (2**k)) for k in range(8)} or len(set(seen)) == 8


def test_maps_of_one_step_are_refactorised_together():
    """A step of three maps costs one push, and one more makes U orthonormal to rounding."""
    factors = gaussian(10, 3)
    together = push_forward(products.identity(10), POINT, [[step[0] for step in steps(factors)]])[0]
    assert together.pushes == 2
    expected = sum(torch.linalg.slogdet(factor).logabsdet for factor in factors)
    assert float(product_values.log_singular_values(together).values.sum()) == pytest.approx(float(expected), abs=1e-10)


def test_what_a_map_cancels_is_zero():
    """The mean of what has just been centred is noise of 1e-17, recognised whether or not a push comes in between."""
    width = 12
    centre = torch.eye(width, dtype=torch.float64) - 1.0 / width
    mean = torch.full((1, width), 1.0 / width, dtype=torch.float64)
    for chain in ([[*steps([centre])[0], *steps([mean])[0]]], steps([centre, mean])):
        product, _ = push_forward(products.identity(width), POINT, chain)
        assert bool(torch.isneginf(product_values.log_singular_values(product).values).all())
    kept, _ = push_forward(products.identity(width), POINT, steps([mean]))
    assert float(product_values.log_singular_values(kept).values[0]) == pytest.approx(-0.5 * math.log(width))


def single_and_double(width: int, depth: int, *, spread: float) -> tuple[list[list[TangentMap]], list[Tensor]]:
    """Steps that take tangents in either precision, and their factors, of singular values 1 to e^-spread."""
    slopes = torch.exp(
        -spread * torch.rand(depth, width, 1, generator=rng.torch_generator(3, "slopes", width)).double()
    )
    left, right = orthogonal(width, 2 * depth)[:depth], orthogonal(width, 2 * depth)[depth:]
    factors = [(q @ (s * p)).float() for q, s, p in zip(left, slopes, right, strict=True)]
    return [[lambda point, u, factor=factor: (point, factor.to(u.dtype) @ u)] for factor in factors], factors


def test_chains_that_grow_fast_are_continued_in_double():
    """Values of 1 to e^-5, N = 48: by single steps in float32; by long blocks in float64, more accurate by a decade."""
    chain, factors = single_and_double(48, 40, spread=5.0)
    start = products.identity(48, dtype=torch.float32)
    by_steps, _ = push_forward(start, POINT, chain)
    by_blocks, _ = push_forward(start, POINT, chain, single=True)
    truth, _ = push_forward(products.identity(48), POINT, steps([factor.double() for factor in factors]))
    values = [product_values.log_singular_values(product) for product in (by_steps, by_blocks, truth)]
    errors = [float((found.values - values[2].values).abs().max()) for found in values[:2]]
    assert by_steps.u.dtype == torch.float32
    assert by_blocks.u.dtype == torch.float64
    assert by_blocks.t.dtype == torch.float32
    assert by_blocks.pushes < by_steps.pushes / 2
    assert errors[0] <= float(values[0].relative_error)
    assert errors[1] <= float(values[1].relative_error) < float(values[0].relative_error) / 10


def test_chains_that_grow_slowly_stay_in_single():
    """Values of 1 to e^-0.1: float32 takes long blocks itself, at half the price of each."""
    chain, _ = single_and_double(48, 40, spread=0.1)
    product, _ = push_forward(products.identity(48, dtype=torch.float32), POINT, chain, single=True)
    assert product.u.dtype == torch.float32
    assert product.pushes < 15


def test_values_need_no_basis():
    """`wanted=False`: the same values, U of its shape but not a number."""
    factors = gaussian(20, 12)
    whole = push_forward(products.identity(20), POINT, steps(factors))[0]
    bare = push_forward(products.identity(20), POINT, steps(factors), wanted=False)[0]
    found, expected = (product_values.log_singular_values(product) for product in (bare, whole))
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=float(expected.relative_error))
    assert bare.u.shape == whole.u.shape
    assert bool(bare.u.isnan().all())
    assert not bool(whole.u.isnan().any())
