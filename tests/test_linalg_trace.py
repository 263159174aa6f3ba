"""Trace estimates: exact for low rank, unbiased, errors that cover, and better than plain samples where it matters."""

import math

import numpy as np
import pytest
import torch

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.linalg import trace
from rmtbn.linalg.operator import from_matrix

N = 60
METHODS = {"xtrace": trace.xtrace, "hutch++": trace.hutch_plus_plus}


def generator(seed=1):
    return rng.torch_generator(seed, "trace")


def psd(values, *, seed=1):
    """A symmetric matrix with the eigenvalues given."""
    draws = torch.randn(N, N, generator=rng.torch_generator(seed, "trace matrix"), dtype=torch.float64)
    q = torch.linalg.qr(draws).Q
    return q @ torch.diag(torch.as_tensor(np.asarray(values, dtype=float))) @ q.mT


EMPTY = torch.zeros(0, N, dtype=torch.float64)
MATRICES = {
    "flat": psd(np.linspace(1.0, 2.0, N)),
    "graded": psd(0.7 ** np.arange(N)),
    "heavy": psd(1.0 / (1.0 + np.arange(N)) ** 2),
}


def estimates(method, matrix, *, products, draws):
    return [
        METHODS[method](lambda block: block @ matrix, EMPTY, products=products, generator=generator(seed))
        for seed in range(draws)
    ]


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("method", METHODS)
def test_estimates_are_unbiased_and_their_errors_cover(method, name):
    """Mean over 300 draws within 4 standard errors of tr A; the stated error is the scatter or more (jackknife)."""
    found = estimates(method, MATRICES[name], products=24, draws=300)
    values, errors = np.array([one.value for one in found]), np.array([one.standard_error for one in found])
    exact = float(MATRICES[name].trace())
    assert abs(values.mean() - exact) < 4 * values.std() / math.sqrt(300)
    least, most = {"xtrace": (0.9, 4.0), "hutch++": (0.5, 2.0)}[method]
    assert least < np.sqrt(np.mean(errors**2)) / values.std() < most


@pytest.mark.parametrize("rank", [13, 18, N])
def test_errors_of_xtrace_cover_near_the_rank(rank):
    """12 vectors, about as many as the rank: scores of 200 draws have a mean square <= 1.3² and 1 in 100 above 3.5."""
    matrix = psd([1.0 + i % 7 for i in range(rank)] + [0.0] * (N - rank))
    found = estimates("xtrace", matrix, products=24, draws=200)
    scores = np.array([(one.value - float(matrix.trace())) / one.standard_error for one in found])
    assert math.sqrt(np.mean(scores**2)) < 1.3
    assert np.quantile(np.abs(scores), 0.99) < 3.5


@pytest.mark.parametrize("method", METHODS)
def test_low_rank_is_exact(method):
    """Rank 5 with 8 range vectors: nothing is left to sample."""
    matrix = psd([5.0, 4.0, 3.0, 2.0, 1.0] + [0.0] * (N - 5))
    (found,) = estimates(method, matrix, products=24, draws=1)
    assert found.value == pytest.approx(15.0, rel=1e-12)
    assert found.standard_error < 1e-10
    assert found.products == 24


def test_graded_spectra_need_few_products():
    """Scatter over 100 draws with 24 products, eigenvalues 0.7^i: XTrace < Hutch++/2 < Hutchinson/4."""
    matrix = MATRICES["graded"]
    spread = {
        method: np.std([one.value for one in estimates(method, matrix, products=24, draws=100)]) for method in METHODS
    }
    hutchinson = math.sqrt(2 * float(matrix.square().sum()) / 24)
    assert spread["xtrace"] < spread["hutch++"] / 2 < hutchinson / 4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_moments_are_those_of_the_dense_spectrum(method, k):
    """tr (J Jᵀ)^k / m of a rectangular J, 40 × 60, within 4 standard errors; the mean is over the outputs."""
    jacobian = torch.randn(40, N, generator=generator(5), dtype=torch.float64) / math.sqrt(N)
    found = trace.moment(from_matrix(jacobian), k, products=36, method=method, generator=generator())
    exact = float(torch.linalg.svdvals(jacobian).pow(2 * k).sum()) / 40
    assert 0 < found.standard_error < 0.1 * exact
    assert abs(found.value - exact) < 4 * found.standard_error
    assert abs(found.value - exact * 40 / 60) > 4 * found.standard_error


def test_zero_has_trace_zero():
    """A = 0: no division by its vanishing image."""
    for method in METHODS:
        (found,) = estimates(method, torch.zeros(N, N, dtype=torch.float64), products=12, draws=1)
        assert (found.value, found.standard_error) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("k", "options", "message"),
    [
        (0, {}, "`k` must be an integer >= 1; got 0"),
        (1, {"products": 2}, "`products` must be an integer >= 4 and <= 120; got 2"),
        (1, {"products": 121}, "`products` must be an integer >= 4 and <= 120; got 121"),
        (1, {"products": 5, "method": "hutch++"}, "`products` must be an integer >= 6 and <= 180; got 5"),
        (1, {"method": "hutch"}, "`method` must be one of 'xtrace', 'hutch\\+\\+'; got 'hutch'"),
    ],
)
def test_impossible_requests_are_refused(k, options, message):
    """Orders from 1, enough products for both parts, methods that are there."""
    with pytest.raises(InvalidArgumentError, match=message):
        trace.moment(from_matrix(torch.eye(N, dtype=torch.float64)), k, **options, generator=generator())
