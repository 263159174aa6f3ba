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


def spread_factors(width: int, depth: int, *, spread: float) -> list[Tensor]:
    """Factors in float32 whose singular values are 1 to e^-spread."""
    slopes = torch.exp(
        -spread * torch.rand(depth, width, 1, generator=rng.torch_generator(3, "slopes", width)).double()
    )
    left, right = orthogonal(width, 2 * depth)[:depth], orthogonal(width, 2 * depth)[depth:]
    return [(q @ (s * p)).float() for q, s, p in zip(left, slopes, right, strict=True)]


def test_products_asked_to_single_precision_are_right_to_what_they_state():
    """N = 48, values of 1 to e^-5: float32 by single steps; float64 by longer blocks than double takes, and better."""
    factors = spread_factors(48, 40, spread=5.0)
    doubles = steps([factor.double() for factor in factors])
    by_steps, _ = push_forward(products.identity(48, dtype=torch.float32), POINT, steps(factors))
    by_blocks, _ = push_forward(products.identity(48, single=True), POINT, doubles)
    truth, _ = push_forward(products.identity(48), POINT, doubles)
    values = [product_values.log_singular_values(product) for product in (by_steps, by_blocks, truth)]
    errors = [float((found.values - values[2].values).abs().max()) for found in values[:2]]
    assert [product.single for product in (by_steps, by_blocks, truth)] == [False, True, False]
    assert by_blocks.pushes < truth.pushes < by_steps.pushes
    assert errors[0] <= float(values[0].relative_error)
    assert errors[1] <= float(values[1].relative_error) < float(values[0].relative_error) / 10


def with_dead_rows(width: int, depth: int, dead: dict[int, int]) -> list[Tensor]:
    """Orthogonal factors, some of whose rows at the end are zero; `dead` says how many, by factor."""
    factors = orthogonal(width, depth)
    for layer, count in dead.items():
        factors[layer][width - count :] = 0.0
    return factors


def test_a_loss_of_rank_ends_a_block():
    """Orthogonal factors take blocks of many steps; those with dead rows end theirs, and the rank is known exactly."""
    factors = with_dead_rows(24, 30, {4: 3, 9: 10, 17: 6, 20: 11})  # the rank falls by 3, 7, 0 and 1
    seen: list[int] = []

    def noted(u: Tensor, factor: Tensor) -> Tensor:
        seen.append(u.shape[-1])
        return factor @ u

    chain: list[list[TangentMap]] = [[lambda point, u, factor=factor: (point, noted(u, factor))] for factor in factors]
    product, _ = push_forward(products.identity(24), POINT, chain)
    assert product.u.shape == (24, 13)
    # columns that stand for rounding and for what is outside of the range come beside those of U
    assert [seen[i] for i in (0, 4, 5, 9, 10, 20, 21)] == [32, 32, 37, 37, 30, 30, 29]
    assert len(seen) == len(factors)  # no block is taken back
    one_by_one = products.identity(24)
    for factor in factors:
        one_by_one = products.push(one_by_one, factor @ one_by_one.u)
    found, expected = (product_values.log_singular_values(one).values for one in (product, one_by_one))
    assert int(found.isneginf().sum()) == 11
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_loss_of_rank_in_one_of_many_ends_their_block():
    """A batch of two, which lose rank at different steps: values as of each by itself."""
    chains = [with_dead_rows(16, 20, {5: 4}), with_dead_rows(16, 20, {11: 7})]
    together = [torch.stack(pair) for pair in zip(*chains, strict=True)]
    both, _ = push_forward(products.identity(16, batch=(2,)), POINT, steps(together))
    found = product_values.log_singular_values(both).values
    for i, chain in enumerate(chains):
        alone = product_values.log_singular_values(pushed(chain)).values
        torch.testing.assert_close(found[i], alone, rtol=0, atol=1e-12)
    assert found.isneginf().sum(dim=-1).tolist() == [4, 7]
    assert both.pushes == 4


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


def test_values_asked_to_single_precision_state_the_accuracy_they_are_asked_to():
    """1e-4 at least, where the factors have added next to nothing."""
    product, _ = push_forward(products.identity(12, single=True), POINT, steps(orthogonal(12, 3)))
    assert float(product.error) < 1e-6
    assert 1e-4 <= float(product_values.log_singular_values(product).relative_error) < 2e-4


def test_a_block_that_ended_early_is_cut_before_its_loss_of_rank():
    """A nearly singular factor and then dead rows: the steps behind these are taken from the smaller basis only."""
    factors = with_dead_rows(24, 30, {9: 6})
    factors[8] = torch.diag(torch.logspace(0, -7, 24, dtype=torch.float64)) @ factors[8]
    seen: list[tuple[int, int]] = []

    def noted(i: int, u: Tensor) -> Tensor:
        seen.append((i, u.shape[-1]))
        return factors[i] @ u

    chain: list[list[TangentMap]] = [[lambda point, u, i=i: (point, noted(i, u))] for i in range(30)]
    push_forward(products.identity(24), POINT, chain)
    assert {columns for i, columns in seen if i < 10} == {32}
    assert 32 not in {columns for i, columns in seen if i >= 10}
