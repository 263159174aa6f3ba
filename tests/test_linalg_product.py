"""Long products: every log singular value against exact arithmetic, exact identities, ranks and shapes."""

import math
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from cases import SEEDS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.linalg import product as products
from rmtbn.linalg import product_values
from rmtbn.linalg.product import Product
from rmtbn.linalg.product_values import LogSingularValues
from rmtbn.linalg.push_forward import push_forward

EPS = torch.finfo(torch.float64).eps


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=rng.torch_generator(seed, "factors", *shape), dtype=torch.float64)


def gaussian(width: int, depth: int, *, seed: int) -> list[Tensor]:
    """Square Gaussian factors of variance 1/width."""
    return list(draw(depth, width, width, seed=seed) / math.sqrt(width))


def orthogonal(width: int, depth: int, *, seed: int) -> list[Tensor]:
    return list(torch.linalg.qr(draw(depth, width, width, seed=seed))[0])


def saturated(width: int, depth: int, *, seed: int) -> list[Tensor]:
    """Gaussian factors whose rows are scaled by the slopes of tanh at pre-activations of standard deviation 3."""
    slopes = torch.cosh(3.0 * draw(depth, width, 1, seed=seed + 100)).reciprocal().square()
    return [slope * factor for slope, factor in zip(slopes, gaussian(width, depth, seed=seed), strict=True)]


def multiplied(factors: list[Tensor], *, stride: int = 1) -> Product:
    """The product, re-factorised after every `stride` factors."""
    product = products.identity(factors[0].shape[-1], batch=tuple(factors[0].shape[:-2]), dtype=factors[0].dtype)
    for first in range(0, len(factors), stride):
        y = product.u
        for factor in factors[first : first + stride]:
            y = factor @ y
        product = products.push(product, y)
    return product


def log_singular_values(factors: list[Tensor]) -> LogSingularValues:
    """By the route that measurements take: re-factorised as growth asks for it."""
    steps = [[lambda point, u, factor=factor: (point, factor @ u)] for factor in factors]
    identity = products.identity(factors[0].shape[-1], batch=tuple(factors[0].shape[:-2]), dtype=factors[0].dtype)
    return product_values.log_singular_values(push_forward(identity, torch.zeros(1), steps)[0])


def exact(factors: list[Tensor], *, digits: int) -> np.ndarray:
    """Log singular values of the product, multiplied and decomposed with so many digits, descending."""
    with mpmath.workdps(digits):
        product = mpmath.eye(factors[0].shape[-1])
        for factor in factors:
            product = mpmath.matrix(factor.double().tolist()) * product
        values = mpmath.svd_r(product, compute_uv=False)
        return -np.sort(-np.array([float(mpmath.log(value)) for value in values]))


def largest_difference(found: Tensor, expected: np.ndarray | Tensor) -> float:
    return float((found - torch.as_tensor(expected)).abs().max())


@pytest.mark.parametrize(
    ("family", "width", "depth", "digits"),
    [(gaussian, 8, 50, 60), (gaussian, 16, 100, 120), (gaussian, 8, 1000, 900), (saturated, 10, 50, 420)],
)
def test_every_singular_value_is_that_of_exact_arithmetic(family, width, depth, digits):
    """|log σ - log σ_exact| <= 1e-8, the smallest included, and within the stated error, which is no idle bound."""
    factors = family(width, depth, seed=1)
    found = log_singular_values(factors)
    error = largest_difference(found.values, exact(factors, digits=digits))
    assert error <= 1e-8
    assert error <= float(found.relative_error) <= 1e4 * max(error, EPS)


def test_the_multiplied_out_product_fails_the_same_check():
    """Float64 holds 36 nats: the SVD of the assembled product is wrong by many nats below that."""
    factors = gaussian(8, 50, seed=1)
    naive = torch.linalg.svdvals(torch.linalg.multi_dot(factors[::-1])).log()
    expected = exact(factors, digits=60)
    assert expected[0] - expected[-1] > 40
    assert largest_difference(naive, expected) > 1.0
    assert abs(float(naive[0]) - expected[0]) < 1e-10


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", [gaussian, saturated, orthogonal])
def test_the_stated_error_holds(family, seed):
    """Measured error <= stated error <= 1e5 measured, in float64 and float32 (events of 1 in 1,000 are allowed for)."""
    for dtype in (torch.float64, torch.float32):
        factors = [factor.to(dtype) for factor in family(8, 24, seed=seed)]
        found = log_singular_values(factors)
        error = largest_difference(found.values, exact(factors, digits=320))
        assert error <= float(found.relative_error) <= 1e5 * max(error, torch.finfo(dtype).eps / 8)


def test_the_sum_of_logs_is_the_log_determinant():
    """Σ log σ = Σ_l log |det W_l|, at N = 64 and depth 1,000."""
    factors = gaussian(64, 1000, seed=1)
    found = log_singular_values(factors)
    expected = sum(float(torch.linalg.slogdet(factor).logabsdet) for factor in factors)
    assert float(found.values.sum()) == pytest.approx(expected, rel=1e-11)
    assert float(found.relative_error) < 1e-8


def test_the_product_is_its_factors():
    """U diag(d) T = W_L ... W_1 where that can be multiplied out; U orthonormal, T of unit rows."""
    factors = [draw(7, 5, seed=1), draw(6, 7, seed=1), draw(9, 6, seed=1)]
    product = products.with_unit_rows(multiplied(factors))
    assembled = product.u @ torch.diag(product.log_d.exp()) @ product.t
    torch.testing.assert_close(assembled, factors[2] @ factors[1] @ factors[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(product.u.mT @ product.u, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(product.t.norm(dim=-1), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("depth", [1, 10, 1000])
def test_products_of_orthogonal_matrices_have_singular_values_one(depth):
    """log σ_k = 0 for all k."""
    found = log_singular_values(orthogonal(32, depth, seed=1))
    assert float(found.values.abs().max()) <= 50 * EPS * math.sqrt(depth)


@settings(max_examples=20)
@given(log_scale=st.floats(-600.0, 600.0), single=st.booleans())
def test_scaling_the_factors_shifts_the_logs(log_scale, single):
    """log σ(c W_L ... c W_1) = L log c + log σ(W_L ... W_1): e^12000 and e^-12000 neither overflow nor underflow."""
    dtype, log_scale = (torch.float32, log_scale / 10) if single else (torch.float64, log_scale)
    factors = gaussian(6, 20, seed=1)
    scale = 2.0 ** round(log_scale / math.log(2.0))  # no rounding
    shifted = log_singular_values([(scale * factor).to(dtype) for factor in factors])
    plain = log_singular_values([factor.to(dtype) for factor in factors])
    assert largest_difference(shifted.values, plain.values + 20 * math.log(scale)) <= float(shifted.relative_error)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rows_far_below_the_others_keep_their_values(dtype):
    """diag(1, ..., 1, s) W of determinant s det W, for s whose square underflows."""
    slope = torch.ones(6, 1, dtype=dtype)
    slope[2] = 2.0**-600 if dtype == torch.float64 else 2.0**-80
    (factor,) = (f.to(dtype) for f in gaussian(6, 1, seed=1))
    found = log_singular_values([slope * factor])
    expected = float(torch.linalg.slogdet(factor.double()).logabsdet + slope[2].double().log())
    assert float(found.values.sum()) == pytest.approx(expected, abs=6 * float(found.relative_error))


@pytest.mark.parametrize(
    ("width", "depth"),
    [
        (32, 200),
        (100, 60),
        (12, 600),
        pytest.param(12, 1500, marks=pytest.mark.slow),
        pytest.param(32, 5000, marks=pytest.mark.slow),
        pytest.param(128, 5000, marks=pytest.mark.slow),
    ],
)
def test_the_transposed_product_has_the_same_singular_values(width, depth):
    """σ(W_1' ... W_L') = σ(W_L ... W_1): two routes that share no rounding, also at depth 5,000.

    Within 1e-8 always, and within what both state but for narrow chains of depth 1,500, of which 1 in 24 meets a place
    where two values nearly cross (graded_products.md, section 5).
    """
    factors = gaussian(width, depth, seed=2)
    forward = log_singular_values(factors)
    backward = log_singular_values([factor.T for factor in reversed(factors)])
    difference = largest_difference(forward.values, backward.values)
    stated = float(forward.relative_error + backward.relative_error)
    assert difference <= min(1e-8, 10 * stated if width * 100 < depth else stated)


def test_refactorising_after_one_or_three_factors_gives_the_same():
    """The result does not depend on where the product is re-factorised."""
    factors = gaussian(16, 60, seed=3)
    one, three = (product_values.log_singular_values(multiplied(factors, stride=s)) for s in (1, 3))
    assert largest_difference(one.values, three.values) <= float(one.relative_error + three.relative_error) < 1e-8


@pytest.mark.parametrize("widths", [(5, 9, 7, 12), (12, 7, 9, 5), (8, 3, 8), (3, 8, 3), (1, 6, 1)])
def test_rectangular_factors(widths):
    """min(m, n) values, as the SVD of the assembled product gives; -inf beyond the narrowest layer."""
    factors = [draw(m, n, seed=1) for n, m in pairwise(widths)]
    found = log_singular_values(factors).values
    assembled = torch.linalg.multi_dot(factors[::-1])
    rank = min(widths)
    assert found.shape == (min(widths[0], widths[-1]),)
    torch.testing.assert_close(found[:rank], torch.linalg.svdvals(assembled)[:rank].log(), rtol=0, atol=1e-12)
    assert bool(torch.isneginf(found[rank:]).all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_dead_units_give_exact_zeros(dtype):
    """rank(D_L W_L ... D_1 W_1) = min_l rank D_l for 0-1 diagonal D and generic W, at any depth."""
    factors, ranks = [], []
    for factor in gaussian(24, 40, seed=1):
        alive = (draw(24, seed=len(ranks)) > -0.3).to(dtype)
        ranks.append(int(alive.sum()))
        factors.append(alive[:, None] * factor.to(dtype))
    found = log_singular_values(factors).values
    assert int(torch.isfinite(found).sum()) == min(ranks) < 24
    assert bool(torch.isneginf(found[min(ranks) :]).all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("axis_aligned", [True, False])
def test_projections_give_exact_zeros(dtype, axis_aligned):
    """W P with P = I - 11'/N kills one direction, whether the basis has met a mixing layer before or not."""
    width = 40
    centre = (torch.eye(width, dtype=torch.float64) - 1.0 / width).to(dtype)
    first = [] if axis_aligned else [factor.to(dtype) for factor in gaussian(width, 1, seed=5)]
    rest = [factor.to(dtype) for factor in gaussian(width, 5, seed=1)]
    found = log_singular_values([*first, centre, *rest, centre]).values
    assert int(torch.isfinite(found).sum()) == width - 1


def test_small_values_are_not_taken_for_zeros():
    """diag(1, 1e-12) between mixing layers keeps its small value: log σ_min = exact, not -inf."""
    slopes = torch.ones(12, dtype=torch.float64)
    slopes[3] = 1e-12
    factors = [slopes[:, None] * factor for factor in orthogonal(12, 6, seed=1)]
    found = log_singular_values(factors)
    assert largest_difference(found.values, exact(factors, digits=150)) <= float(found.relative_error) < 1e-2


def test_a_product_with_no_way_through_is_zero():
    """W_2 0 W_1 = 0: all values -inf, and what follows changes nothing."""
    first, last = gaussian(5, 2, seed=1)
    found = log_singular_values([first, torch.zeros(4, 5, dtype=torch.float64), draw(6, 4, seed=1), draw(5, 6, seed=1)])
    assert bool(torch.isneginf(found.values).all())
    assert found.values.shape == (5,)
    assert bool(torch.isfinite(log_singular_values([first, last]).values).all())


def test_a_batch_is_a_loop():
    """Leading dimensions (2, 3) with ranks of their own give what each product gives alone."""
    alive = (draw(4, 2, 3, 10, 1, seed=1) > -0.8).double()
    factors = list(alive * draw(4, 2, 3, 10, 10, seed=2))
    together = log_singular_values(factors)
    assert together.values.shape == (2, 3, 10)
    assert together.relative_error.shape == (2, 3)
    ranks = set()
    for i in range(2):
        for j in range(3):
            alone = log_singular_values([factor[i, j] for factor in factors])
            finite = torch.isfinite(alone.values)
            ranks.add(int(finite.sum()))
            torch.testing.assert_close(together.values[i, j][finite], alone.values[finite], rtol=0, atol=1e-10)
            assert bool(torch.isneginf(together.values[i, j][~finite]).all())
    assert len(ranks) > 1


def test_float32_agrees_with_float64_within_its_stated_error():
    """The same factors in float32: σ right to the stated error, scales far beyond e^±88 included."""
    factors = [factor.float() for factor in gaussian(32, 300, seed=1)]
    single, double = log_singular_values(factors), log_singular_values([factor.double() for factor in factors])
    assert single.values.dtype == torch.float64
    assert float(double.values.min()) < -300
    assert largest_difference(single.values, double.values) <= float(single.relative_error) < 0.2


def test_the_amplification_grows_with_the_condition_number():
    """½ ln(N/2) for an orthogonal factor, ln κ + constant for one of condition number κ, inf for a singular one."""
    left, right = orthogonal(20, 2, seed=1)

    def log_amplification(diagonal: Tensor) -> float:
        return float(multiplied([left @ torch.diag(diagonal.double()) @ right]).log_amplification)

    assert log_amplification(torch.ones(20)) == pytest.approx(0.5 * math.log(10), abs=0.3)
    mild, strong = (log_amplification(torch.logspace(0, -digits, 20)) for digits in (4, 8))
    assert strong - mild == pytest.approx(math.log(1e4), abs=2.0)
    assert math.isinf(log_amplification(torch.arange(20.0)))


def test_invalid_arguments_are_refused():
    """One clear error each."""
    with pytest.raises(InvalidArgumentError, match="`n` must be an integer >= 1; got 0"):
        products.identity(0)
    with pytest.raises(InvalidArgumentError, match=r"`dtype` must be torch\.float32 or .*; got torch\.float16"):
        products.identity(3, dtype=torch.float16)
    with pytest.raises(InvalidArgumentError, match="`y` must be finite"):
        products.push(products.identity(2), torch.full((2, 2), torch.nan, dtype=torch.float64))
