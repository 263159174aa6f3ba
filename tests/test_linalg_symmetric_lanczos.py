"""Lanczos' recursion for symmetric maps: both ends against dense eigenvalues and ARPACK, with bounds that hold."""

import numpy as np
import pytest
import torch
from scipy.sparse import linalg as sparse

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.linalg.operator import from_matrix
from rmtbn.linalg.symmetric_lanczos import spectrum_ends


def generator(seed=1):
    return rng.torch_generator(seed, "symmetric lanczos")


def symmetric(values):
    """A symmetric matrix with these eigenvalues and Haar eigenvectors."""
    q = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator(), dtype=torch.float64)).Q
    return q @ torch.diag(torch.as_tensor(values, dtype=torch.float64)) @ q.mT


SPECTRA = {
    "indefinite": np.linspace(-2.0, 3.0, 60),
    "positive": np.exp(-np.arange(40.0)),
    "negative": -np.arange(1.0, 31.0),
    "repeated": np.repeat([-1.0, 0.0, 4.0], 10),
    "one": np.array([-2.5]),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_ends_are_those_of_the_dense_matrix(name):
    """θ_min = λ_min and θ_max = λ_max, in as many products as there are different eigenvalues at most."""
    values = SPECTRA[name]
    found = spectrum_ends(from_matrix(symmetric(values)), tolerance=1e-10, generator=generator())
    np.testing.assert_allclose([found.smallest, found.largest], [values.min(), values.max()], rtol=1e-9, atol=1e-9)
    assert found.products <= len(set(values.tolist()))


def test_a_second_route_finds_the_same_ends():
    """`scipy.sparse.linalg.eigsh`."""
    matrix = symmetric(np.random.default_rng(1).normal(size=80))
    expected = sparse.eigsh(matrix.numpy(), k=2, which="BE", return_eigenvectors=False)
    found = spectrum_ends(from_matrix(matrix), tolerance=1e-9, generator=generator())
    np.testing.assert_allclose([found.smallest, found.largest], expected, rtol=1e-8)


def test_a_small_largest_eigenvalue_is_found_beside_a_large_negative_one():
    """λ = 1 beside -1000: the residual is asked for relative to 1."""
    values = np.concatenate([[-1000.0], np.linspace(-1.0, 0.9, 60), [1.0]])
    found = spectrum_ends(from_matrix(symmetric(values)), tolerance=1e-3, generator=generator())
    assert found.largest_bound <= 1e-3 * found.largest
    assert found.largest == pytest.approx(1.0, rel=1e-3)
    assert found.products < len(values)


@pytest.mark.parametrize("limit", [1, 4, 9])
def test_bounds_hold_wherever_the_recursion_stops(limit):
    """An eigenvalue within ‖Av - θv‖ of θ, and λ_min <= θ_min, θ_max <= λ_max (Cauchy interlacing)."""
    values = SPECTRA["indefinite"]
    found = spectrum_ends(from_matrix(symmetric(values)), tolerance=1e-12, limit=limit, generator=generator())
    assert found.products == limit
    for end, bound in ((found.smallest, found.smallest_bound), (found.largest, found.largest_bound)):
        assert 0 < np.abs(values - end).min() <= bound
    assert values.min() <= found.smallest <= found.largest <= values.max()


def test_the_recursion_stops_at_the_tolerance():
    """Residuals below the tolerance times the largest, and times the larger end in size; and not before."""
    map_ = from_matrix(symmetric(SPECTRA["indefinite"]))
    found = spectrum_ends(map_, tolerance=0.05, generator=generator())
    assert max(found.smallest_bound, found.largest_bound) <= 0.05 * 3.0
    before = spectrum_ends(map_, tolerance=1e-12, limit=found.products - 1, generator=generator())
    size = max(-before.smallest, before.largest)
    assert before.smallest_bound > 0.05 * size or before.largest_bound > 0.05 * before.largest


def test_float32_reaches_its_own_precision():
    """A tolerance below rounding is no trap: the recursion ends, a few eps off."""
    found = spectrum_ends(from_matrix(symmetric(SPECTRA["repeated"]).float()), tolerance=1e-12, generator=generator())
    assert found.largest == pytest.approx(4.0, rel=1e-5)
    assert found.smallest == pytest.approx(-1.0, rel=1e-5)


def test_numbers_out_of_range_are_refused():
    """A map of two dimensions, and a tolerance of 0."""
    with pytest.raises(InvalidArgumentError, match=r"`operator` must be of equal dimensions; got \(3, 2\)"):
        spectrum_ends(from_matrix(torch.ones(2, 3)), generator=generator())
    with pytest.raises(InvalidArgumentError, match=r"`tolerance` must be a finite number > 0\.0; got 0\.0"):
        spectrum_ends(from_matrix(torch.eye(2)), tolerance=0.0, generator=generator())
