"""Rank and orthogonality against depth: exact recursions, their limits, and products of random matrices."""

import math

import numpy as np
import pytest

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.theory import bn_mean_field, rank


def draws(*labels):
    """A generator named by labels."""
    return rng.generator(1, "rank", *labels)


@pytest.mark.parametrize(("width", "initial"), [(1, 3.0), (3, 2.0), (20, 7.5), (500, 1.0)])
def test_soft_rank_of_linear_networks_is_the_recursion(width, initial):
    """(E tr K², E (tr K)²) ← [[1 + 1/d, 1/d], [2/d, 1]] applied l times, from (1, r₀)."""
    step = np.array([[1 + 1 / width, 1 / width], [2 / width, 1]])
    moments, expected = np.array([1.0, initial]), [initial]
    for _ in range(30):
        moments = step @ moments
        expected.append(moments[1] / moments[0])
    np.testing.assert_allclose(rank.linear_soft_rank(initial, width=width, depth=30), expected, rtol=1e-12)
    assert sorted(np.linalg.eigvals(step).real) == pytest.approx([1 - 1 / width, 1 + 2 / width])


@pytest.mark.parametrize("width", [4, 9])
def test_soft_rank_of_linear_networks_is_that_of_products(width):
    """Means of tr K² and (tr K)² over 20,000 products of Gaussian matrices, n = 3, L = 1, 3: within 4 s.e."""
    generator = draws("products", width)
    start = generator.standard_normal((3, width))
    x = np.broadcast_to(start, (20_000, 3, width))
    initial = np.trace(start @ start.T) ** 2 / np.sum((start @ start.T) ** 2)
    predicted = rank.linear_soft_rank(initial, width=width, depth=3)
    for layer in range(4):
        gram = x @ x.transpose(0, 2, 1)
        squares, traces = np.sum(gram**2, axis=(1, 2)), np.trace(gram, axis1=1, axis2=2) ** 2
        residual = traces - predicted[layer] * squares
        assert abs(residual.mean()) <= 4 * residual.std() / math.sqrt(residual.size) + 1e-9 * squares.mean()
        x = x @ generator.standard_normal((20_000, width, width)) / math.sqrt(width)


def test_soft_rank_keeps_the_digits_of_what_exceeds_one():
    """Rank - 1 falls as ((1 - 1/d)/(1 + 2/d))^l far below the spacing of floats at 1, where it is 1; depth 0 is r₀."""
    found = rank.linear_soft_rank(4.0, width=10, depth=300)
    assert found[0] == 4.0
    assert found[-1] == 1.0
    assert found[20] - 1 == pytest.approx(3 * (9 / 12) ** 20 / (2 - (9 / 12) ** 20), rel=1e-12)


def test_relu_networks_collapse_as_one_over_the_square_of_the_depth():
    """(1 - c_l) l² → 9π²/2, and the rank with it: (rank - 1) l² → 9π²(n - 1)/n."""
    depth, n = 30_000, 4
    found = rank.relu_soft_rank(0.0, examples=n, depth=depth)
    assert found[0] == n
    limit = 2 * rank.RELU_COLLAPSE * (n - 1) / n
    assert (found[-1] - 1) * depth**2 == pytest.approx(limit, rel=0.005)
    assert pytest.approx(9 * math.pi**2 / 2) == rank.RELU_COLLAPSE
    one = 1 / math.pi  # c of orthogonal inputs after one layer
    assert found[1] == pytest.approx(n / (1 + (n - 1) * one**2), rel=1e-10)


@pytest.mark.parametrize("n", [2, 5, 9])
def test_uncentred_normalisation_shrinks_deviations_by_n_over_n_plus_two(n):
    """n E hhᵀ/|h|² = I + n/(n + 2) δ + O(δ²) for h ~ N(0, I + δ): ±δ, 400,000 draws, 4 s.e."""
    generator = draws("decay", n)
    delta = generator.standard_normal((n, n))
    delta = delta + delta.T - 2 * np.trace(delta) / n * np.eye(n)
    delta *= 0.1 / np.linalg.norm(delta)
    z, slopes = generator.standard_normal((400_000, n)), []
    for sign in (1, -1):
        h = z @ np.linalg.cholesky(np.eye(n) + sign * delta).T
        h /= np.linalg.norm(h, axis=1, keepdims=True)
        slopes.append(sign * n * np.einsum("ri,ij,rj->r", h, delta, h) / np.sum(delta**2))
    slope = (slopes[0] + slopes[1]) / 2
    assert slope.mean() == pytest.approx(n / (n + 2), abs=4 * slope.std() / math.sqrt(slope.size) + 0.01)
    assert slope.std() / math.sqrt(slope.size) < 0.01


def uncentred_gaps(n, width, *, depth, seed, haar=False, start=None):
    """Squared orthogonality gaps and isometry gaps of a linear network with uncentred BN, layer by layer."""
    generator = draws("uncentred", n, width, seed)
    x = generator.standard_normal((n, width)) if start is None else start(generator)
    found = []
    for _ in range(depth):
        x = x / np.sqrt(np.mean(x**2, axis=0))
        gram = x @ x.T / width  # trace n
        isometry = -np.linalg.slogdet(gram)[1] / n
        found.append((np.sum((gram / n - np.eye(n) / n) ** 2), isometry))
        weights = generator.standard_normal((width, width))
        x = x @ (np.linalg.qr(weights)[0] if haar else weights / math.sqrt(width))
    return np.array(found)


@pytest.mark.parametrize(("n", "width"), [(4, 64), (6, 96)])
def test_orthogonality_floor_is_that_of_networks(n, width):
    """Stationary g² = (n-1)(n+2)²/(4n(n+1)d), to 5 %: corrections are of relative order n/d; 30 networks, 4 s.e."""
    depth = 30
    squares = np.array([uncentred_gaps(n, width, depth=depth, seed=seed)[10:, 0].mean() for seed in range(30)])
    predicted = rank.orthogonality_gap(1.0, examples=n, width=width, depth=200)[-1] ** 2
    assert predicted == pytest.approx(rank.orthogonality_floor(examples=n, width=width) ** 2)
    error = squares.std(ddof=1) / math.sqrt(squares.size)
    assert squares.mean() == pytest.approx(predicted, abs=4 * error + 0.05 * predicted)
    assert error < 0.05 * predicted
    soft = 1 / (1 / n + squares)
    assert soft.mean() == pytest.approx(rank.stationary_soft_rank(examples=n, width=width), rel=0.02)


def test_orthogonality_gap_decays_to_its_floor():
    """g_l² = f² + (g_0² - f²)(n/(n+2))^{2l}: from g_0 at l = 0, by that ratio, to f."""
    n, width = 6, 400
    found = rank.orthogonality_gap(0.3, examples=n, width=width, depth=100) ** 2
    floor = rank.orthogonality_floor(examples=n, width=width) ** 2
    assert found[0] == pytest.approx(0.09)
    assert found[-1] == pytest.approx(floor)
    np.testing.assert_allclose((found[1:20] - floor) / (found[:19] - floor), (n / (n + 2)) ** 2, rtol=1e-9)


def test_stationary_soft_rank_is_at_most_about_the_root_of_the_width():
    """n/(1 + n²/4d) to order 1/n; its maximum √d is at n = 2√d, beyond which it is stated not to hold."""
    for n in (100, 1000):
        exact, large = rank.stationary_soft_rank(examples=n, width=10**6), n / (1 + n * n / 4e6)
        assert exact == pytest.approx(large, rel=3 / n)
    ranks = [rank.stationary_soft_rank(examples=n, width=10**4) for n in range(50, 500)]
    assert max(ranks) == pytest.approx(100, rel=0.02)
    assert 50 + int(np.argmax(ranks)) == pytest.approx(200, abs=5)


@pytest.mark.slow
def test_soft_rank_of_larger_batches_stays_near_the_root_of_the_width():
    """d = 144: the formula holds within 6 % to n = 2√d = 24; at n = 48 it is 20 % low, the rank is √d = 12 to 10 %."""
    for n, low, high in ((12, 0.97, 1.03), (24, 0.97, 1.08), (48, 1.15, 1.4)):
        squares = [uncentred_gaps(n, 144, depth=4 * n, seed=seed)[2 * n :, 0] for seed in range(4)]
        soft = float(np.mean(1 / (1 / n + np.array(squares))))
        assert low < soft / rank.stationary_soft_rank(examples=n, width=144) < high
    assert soft == pytest.approx(12, rel=0.1)


@pytest.mark.parametrize("width", [8, 24])
def test_isometry_gap_shrinks_by_d_over_d_plus_two(width):
    """Haar weights, n = d: mean log ratio per layer of small gaps is ln(d/(d + 2)) within 4 s.e. of 40 networks."""

    def start(generator):
        return np.eye(width) + 0.03 / math.sqrt(width) * generator.standard_normal((width, width))

    gaps = np.array(
        [uncentred_gaps(width, width, depth=6, seed=seed, haar=True, start=start)[:, 1] for seed in range(40)]
    )
    rates = (gaps[:, -1] / gaps[:, 0]) ** 0.2
    predicted = (rank.isometry_gap(1.0, width=width, depth=5)[-1]) ** 0.2
    assert predicted == pytest.approx(width / (width + 2))
    assert rates.mean() == pytest.approx(predicted, abs=4 * rates.std(ddof=1) / math.sqrt(40) + 0.02 / width)
    assert rates.std() / math.sqrt(40) < 0.3 * (1 - predicted)


@pytest.mark.parametrize("batch_size", [2, 6, 50])
def test_centred_batches_are_never_orthogonal(batch_size):
    """‖G/(B-1) - I/B‖_F = 1/√(B(B-1)); linear BN networks end there, for their forward eigenvalue is below 1."""
    gram = np.eye(batch_size) - 1 / batch_size
    gap = np.linalg.norm(gram / np.trace(gram) - np.eye(batch_size) / batch_size)
    assert rank.centred_gap(batch_size=batch_size) == pytest.approx(gap)
    if batch_size >= 4:
        point = bn_mean_field.fixed_point("linear", batch_size=batch_size)
        n = batch_size - 1
        assert point.forward_l == pytest.approx(n / (n + 2))
        assert point.forward_m == pytest.approx(n / (n + 2))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: rank.linear_soft_rank(0.5, width=4, depth=2), "`initial` must be .* >= 1.0; got 0.5"),
    (lambda: rank.linear_soft_rank(2.0, width=0, depth=2), "`width` must be an integer >= 1; got 0"),
    (lambda: rank.relu_soft_rank(-0.9, examples=3, depth=2), "`correlation` must be .*; got -0.9"),
    (lambda: rank.orthogonality_gap(-1.0, examples=3, width=4, depth=2), "`initial` must be .*; got -1.0"),
    (lambda: rank.orthogonality_floor(examples=1, width=4), "`examples` must be an integer >= 2; got 1"),
    (lambda: rank.isometry_gap(1.0, width=4, depth=-1), "`depth` must be an integer >= 0; got -1"),
    (lambda: rank.centred_gap(batch_size=1), "`batch_size` must be an integer >= 2; got 1"),
])  # fmt: skip
def test_bad_arguments_are_refused(call, message):
    """One line that names the argument, the rule and the value."""
    with pytest.raises(InvalidArgumentError, match=message):
        call()
