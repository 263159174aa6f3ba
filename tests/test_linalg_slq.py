"""Stochastic Lanczos quadrature: against dense spectra, multiplicities, zeros, errors that cover, floors."""

import math

import numpy as np
import pytest
import torch

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.linalg import slq
from rmtbn.linalg.operator import composition, from_matrix

N = 192
STEPS = torch.tensor([3.0, 2.0, 1.0]).double(), torch.tensor([96, 64, 32])


def generator(seed=1):
    return rng.torch_generator(seed, "slq")


def draw(*shape, seed=1, dtype=torch.float64):
    return torch.randn(shape, generator=rng.torch_generator(seed, "slq", *shape), dtype=dtype)


def product(depth, *, relu=False, dtype=torch.float64, n=N, seed=1):
    """Factors of a product of Gaussian matrices, as operator; a random half of the rows of each is 0 for ReLU."""
    factors = [draw(n, n, seed=100 * seed + i) / math.sqrt(n) for i in range(depth)]
    if relu:
        factors = [math.sqrt(2) * f * (draw(n, 1, seed=100 * seed + i) > 0) for i, f in enumerate(factors)]
    return composition([from_matrix(f.to(dtype)) for f in factors])


def log_lam(operator):
    """Dense oracle, float64, descending; -inf at rounding noise."""
    matrix = operator.apply(torch.eye(operator.inputs, dtype=operator.dtype)).double()
    values = torch.linalg.svdvals(matrix)
    return 2 * torch.where(values > 1e-13 * values[0], values, 0.0).log().numpy()


def distance(values, expected, floor):
    """W₁ in ln λ of the two spectra held at the floor, per value."""
    return float(np.mean(np.abs(np.maximum(values, floor) - np.maximum(expected, floor))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("relu", [False, True])
def test_density_of_deep_products_is_resolved_down_to_the_floor(relu, dtype):
    """50 factors, λ above 1e-6 of the top: W₁ in ln λ < 0.05 (10 of 192 values off by a nat), a third of the space."""
    operator = product(50, relu=relu, dtype=dtype)
    expected = log_lam(operator)
    found = slq.density(operator, floor=1e-6, generator=generator())
    floor = max(2 * found.resolved, expected[0] + math.log(1e-6))
    assert distance(2 * found.log_singular_values(), expected, floor) < 0.05
    assert floor < expected[0] + math.log(1e-5)
    assert len(found.log_nodes) < N / 3
    last = 2 * found.log_nodes[-1]
    assert found.missed == pytest.approx(np.mean((expected > floor) & (expected < last)), abs=0.02)
    assert found.products < N
    twisted = 2 * found.log_singular_values() + 1.0
    assert distance(twisted, expected, floor) > 0.05


def test_a_krylov_space_that_is_full_gives_every_value():
    """One Gaussian factor has no grading: the space grows to the whole, and every value is right."""
    operator = product(1, n=64)
    found = slq.density(operator, floor=1e-9, tolerance=1e-12, generator=generator())
    assert found.converged.all()
    np.testing.assert_allclose(2 * found.log_singular_values(), log_lam(operator), rtol=0, atol=1e-9)
    assert found.standard_error.max() == 0.0
    assert found.log_singular_values().min() > found.resolved


def test_limited_spaces_say_where_they_end():
    """A third of the space of one factor: resolved to its last node only, and W₁ above that node below 0.15."""
    operator = product(1)
    found = slq.density(operator, floor=1e-6, limit=N // 3, generator=generator())
    assert found.resolved == pytest.approx(found.log_nodes[-1])
    assert found.missed == 0.0
    expected = log_lam(operator)
    assert -6.0 < 2 * found.resolved - expected[0] < -2.0
    assert distance(2 * found.log_singular_values(), expected, 2 * found.resolved) < 0.15


@pytest.mark.parametrize("block", [4, 8])
def test_values_of_high_multiplicity_keep_their_mass(block):
    """σ = 3, 2, 1 with shares 1/2, 1/3, 1/6: nodes there, masses within 4 standard errors, which scale as 1/√block."""
    operator = from_matrix(torch.linalg.qr(draw(N, N, seed=7)).Q * torch.repeat_interleave(*STEPS))
    found = slq.density(operator, floor=1e-6, block=block, generator=generator())
    np.testing.assert_allclose(sorted(set(np.exp(found.log_nodes).round(6))), [1, 2, 3])
    assert not found.converged.any()
    survival = np.cumsum(found.mass)
    for i, share in ((block - 1, 1 / 2), (2 * block - 1, 5 / 6)):
        assert abs(survival[i] - share) < 4 * found.standard_error[i]
        assert 0.2 < found.standard_error[i] * math.sqrt(block * N / 2) / math.sqrt(share * (1 - share)) < 2.0
    assert survival[-1] == pytest.approx(1.0)


def test_isometries_are_one_value():
    """J = 2 Q: one node, mass 1, whatever the dimension; all is resolved."""
    operator = from_matrix(2 * torch.linalg.qr(draw(N, N)).Q)
    found = slq.density(operator, floor=1e-6, generator=generator())
    np.testing.assert_allclose(found.log_singular_values(), math.log(2.0), atol=1e-12)
    assert found.resolved < math.log(2.0) - 5


@pytest.mark.parametrize("zeros", [0.25, 0.5])
def test_zeros_are_mass_below_the_nodes(zeros):
    """A Gaussian matrix with a share of its rows at 0: as much mass below the last node above the floor."""
    rows = torch.ones(N, 1, dtype=torch.float64)
    rows[: int(zeros * N)] = 0.0
    operator = from_matrix(rows * draw(N, N) / math.sqrt(N))
    found = slq.density(operator, floor=1e-9, generator=generator())
    above = found.mass[found.log_nodes > found.resolved].sum()
    assert above == pytest.approx(1 - zeros, abs=0.01)


def test_standard_errors_cover_the_truth():
    """Share of σ = 3 (one half) over 60 draws of 8 probes: z = (estimate - 1/2)/se is about standard normal."""
    operator = from_matrix(torch.linalg.qr(draw(N, N, seed=7)).Q * torch.repeat_interleave(*STEPS))
    scores = []
    for seed in range(60):
        found = slq.density(operator, floor=1e-6, block=8, generator=generator(seed))
        scores.append((found.mass[:8].sum() - 0.5) / found.standard_error[7])
    assert 0.7 < np.std(scores) < 1.6  # Student's t with 7 degrees of freedom has 1.18
    assert abs(np.mean(scores)) < 4 * 1.18 / math.sqrt(60)


def test_what_has_converged_takes_no_part_in_the_variance():
    """Graded spectrum: the error at the top is 0, and the largest below that of plain probes for a share of 1/5."""
    found = slq.density(product(50), floor=1e-6, generator=generator())
    top = found.converged.cumprod().sum()
    assert top > 10
    assert found.standard_error[top - 1] == 0.0
    np.testing.assert_allclose(found.mass[:top], 1 / N)
    assert found.standard_error.max() < 0.7 * math.sqrt(0.2 * 0.8 / (16 * N / 2))


def test_draws_do_not_depend_on_the_precision_of_the_operator_beyond_rounding():
    """The same named stream, the same density."""
    operator = product(10)
    first, second = (slq.density(operator, floor=1e-3, generator=generator()).log_nodes for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"floor": 0.0}, "`floor` must be a finite number > 0.0 and < 1.0; got 0.0"),
        ({"floor": 1.0}, "`floor` must be a finite number > 0.0 and < 1.0; got 1.0"),
        ({"tolerance": 0.0}, "`tolerance` must be a finite number > 0.0; got 0.0"),
        ({"block": 0}, "`block` must be an integer >= 1 and <= 8; got 0"),
        ({"limit": 0}, "`limit` must be an integer >= 1; got 0"),
    ],
)
def test_impossible_requests_are_refused(options, message):
    """A floor between 0 and 1, a positive tolerance, blocks that fit."""
    with pytest.raises(InvalidArgumentError, match=message):
        slq.density(from_matrix(draw(8, 8)), **({"floor": 0.1} | options), generator=generator())
