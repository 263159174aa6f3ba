"""Matrices kept inside the floating range by powers of 2, which change no digit."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

# Matrices are scaled where their largest entry leaves this power of the floating range.
FAR = 0.2


def rescaled(
    y: Float[Tensor, "*batch m r"], *, look: bool = True
) -> tuple[Float[Tensor, "*batch m r"], Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Bring matrices back that are far from size 1, exactly: the matrices, the logs to be added, the factors."""
    scale, log_scale = power_of_two(y)
    if look and not bool((log_scale.abs() > FAR * math.log(torch.finfo(y.dtype).max)).any() | scale.isnan().any()):
        return y, torch.zeros_like(log_scale), torch.ones_like(scale)
    return y * scale[..., None, None], -log_scale, scale


def power_of_two(y: Float[Tensor, "*batch m r"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Return the power of 2 that brings the largest entry of each matrix to [1/2, 1), exactly, and its log."""
    largest = y.abs().amax(dim=(-2, -1)).clamp_min(torch.finfo(y.dtype).tiny)
    mantissa, exponent = largest.frexp()
    return mantissa / largest, -exponent.double() * math.log(2.0)
