"""D'^-1 R D formed from logarithms: against exact arithmetic, within the floating range and far beyond it."""

import math

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from rmtbn import rng
from rmtbn.linalg import graded_ratios


def triangle(n: int, *, dtype: torch.dtype) -> Tensor:
    generator = rng.torch_generator(1, "ratios", n)
    return torch.randn(n, n, generator=generator, dtype=torch.float64).triu().to(dtype)


def exact(r: Tensor, old: Tensor, new: Tensor) -> np.ndarray:
    """R_ij exp(old_j - new_i) for j >= i, with 40 digits."""
    n = r.shape[-1]
    found = np.zeros((n, n))
    with mpmath.workdps(40):
        for i in range(n):
            for j in range(i, n):
                power = mpmath.exp(mpmath.mpf(float(old[j])) - mpmath.mpf(float(new[i])))
                found[i, j] = float(mpmath.mpf(float(r[i, j])) * power)
    return found


@pytest.mark.parametrize("look", [True, False])
@pytest.mark.parametrize("span", [0.0, 40.0, 3000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ratios_are_those_of_exact_arithmetic(dtype, span, look):
    """Each is right to its own size: eps times the exponent, unless below eps of the floating range's root."""
    r = triangle(12, dtype=dtype)
    old = torch.linspace(0.0, -span, 12, dtype=torch.float64)
    new = old + torch.linspace(-0.7, 0.9, 12, dtype=torch.float64)
    found = graded_ratios.ratios(r.clone(), old, new, look=look).double().numpy()
    expected = exact(r, old, new)
    eps = torch.finfo(dtype).eps
    counts = np.abs(expected) > eps**2
    assert counts.sum() >= 12
    np.testing.assert_allclose(found[counts], expected[counts], rtol=eps * (20 + 3 * abs(math.log(eps))))
    assert np.abs(found[~counts]).max() <= 2 * eps**2
    assert not np.tril(found, -1).any()


def test_panels_change_nothing():
    """N = 256, where panels pay, over 2,000 nats: looking, panel by panel, and not looking, entry by entry."""
    r = triangle(256, dtype=torch.float64)
    old = torch.linspace(500.0, -1500.0, 256, dtype=torch.float64)
    new = old + r.diagonal().abs().log()
    found, plain = (graded_ratios.ratios(r.clone(), old, new, look=look) for look in (True, False))
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-30)
    torch.testing.assert_close(found.diagonal().abs(), torch.ones(256, dtype=torch.float64), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("look", [True, False])
def test_a_ratio_beyond_the_floating_range_meets_an_entry_as_far_below_it(look):
    """1e-300 × e^730 = e^39.2, though e^730 overflows."""
    r = torch.tensor([[1.0, 1e-300], [0.0, 1.0]], dtype=torch.float64)
    old, new = torch.tensor([0.0, 0.0], dtype=torch.float64), torch.tensor([-730.0, 0.0], dtype=torch.float64)
    found = float(graded_ratios.ratios(r.clone(), old, new, look=look)[0, 1])
    assert math.log(found) == pytest.approx(math.log(1e-300) + 730.0, abs=1e-9)


@pytest.mark.parametrize("look", [True, False])
def test_zero_scales_give_zero(look):
    """A column or a row of scale zero gives zeros, and nothing that is not finite, in each matrix of a batch alone."""
    r = triangle(4, dtype=torch.float64).expand(2, 4, 4)
    old = torch.tensor([[0.0, -1.0, -torch.inf, -torch.inf], [0.0, -1.0, -2.0, -3.0]], dtype=torch.float64)
    new = torch.tensor([[0.0, -1.0, -torch.inf, -torch.inf], [0.0, -1.0, -2.0, -torch.inf]], dtype=torch.float64)
    found = graded_ratios.ratios(r.clone(), old, new, look=look)
    assert bool(torch.isfinite(found).all())
    assert float(found[0, :, 2:].abs().max()) < 1e-150
    assert float(found[1, 3].abs().max()) < 1e-150
    np.testing.assert_allclose(found[1, :3].numpy(), exact(r[1], old[1], new[1].nan_to_num(neginf=0.0))[:3], rtol=1e-12)
