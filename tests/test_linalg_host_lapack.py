"""LAPACK on the host: whichever copy of it computes, the numbers are the same."""

import numpy as np
import pytest
import torch

from rmtbn import rng
from rmtbn.linalg import host_lapack


@pytest.fixture(params=[1, 2])
def threads(request):
    """Threads of torch, put back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("size", [40, 400])
def test_singular_values_and_r_are_those_of_known_factors(threads, size, monkeypatch):
    """σ(U diag(s) V') = s to eps of the largest; |diag R| of Q diag(r) is r. Torch computes with two threads only."""
    calls = []
    monkeypatch.setattr(
        torch.linalg, "svdvals", lambda matrix, svdvals=torch.linalg.svdvals: calls.append(1) or svdvals(matrix)
    )
    left, right = np.linalg.qr(rng.generator(1, "lapack", size).standard_normal((2, size, size)))[0]
    values = np.geomspace(1.0, 1e-6, size)
    found = host_lapack.singular_values(left * values @ right)
    np.testing.assert_allclose(found, values, rtol=0, atol=1e-14)
    np.testing.assert_allclose(np.abs(np.diag(host_lapack.triangular_factor(left * values))), values, rtol=1e-12)
    assert bool(calls) == (threads == 2 and size == 400)


def test_values_that_are_not_finite_do_not_converge(threads):
    """The same error from both."""
    with pytest.raises(np.linalg.LinAlgError):
        host_lapack.singular_values(np.full((400, 400), np.nan))
