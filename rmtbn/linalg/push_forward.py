"""Push a product through a chain of maps, re-factorising only when the growth since the last time asks for it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from rmtbn.linalg.product import Product, power_of_two, push

# A map with its differential: (point, tangents) -> (image of the point, images of the tangents); tangents (..., m, r).
TangentMap: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

# Re-factorise when the log condition number of what has been accumulated would pass this share of ln(1/eps): a block of
# condition K costs eps K, so 1e-11 in float64 and 2e-5 in float32.
_BUDGET = 0.25
# Blocks of Gaussian layers grow faster the longer they are; forgetting the worst slowly keeps blocks taken back near
# one in ten (dimension 128 and 512, depth 50 ... 1000).
_FORGET = 0.9
_PROBES = 4


def push_forward(product: Product, point: Tensor, steps: Sequence[Sequence[TangentMap]]) -> tuple[Product, Tensor]:
    """Multiply a product by the differentials of a chain of maps, taken along the orbit of a point.

    Steps are accumulated in blocks: A_k ... A_1 U is re-factorised when the condition number of the block, foretold
    from the blocks before it, reaches its budget; a block that comes out worse is taken back and cut in two.

    Parameters
    ----------
    product
        The product so far, shape (..., m, n).
    point
        Where the first differential is taken; passed from map to map and not looked at.
    steps
        The chain, first to be applied first, in groups of maps that are not worth a re-factorisation in between.

    Returns
    -------
    product, point
        After the last map.
    """
    budget = -_BUDGET * math.log(torch.finfo(product.u.dtype).eps)
    done, stride, rate = 0, 1, 0.0  # rate: log condition number per step, the worst of late
    while done < len(steps):
        block = steps[done : done + stride]
        pushed, image = _push_block(product, point, [move for step in block for move in step])
        growth = min(float(pushed.log_amplification.max()), 2.0 * budget)
        accepted = growth <= budget or len(block) == 1
        if accepted:
            product, point, done = pushed, image, done + len(block)
        singular = accepted and growth > budget  # a single step: says nothing about how fast products grow
        rate = max(_FORGET * rate, 0.0 if singular else growth / len(block))
        stride = max(1, min(2 * len(block) if accepted else len(block) // 2, int(budget / max(rate, 1e-9))))
    return product, point


def _push_block(product: Product, point: Tensor, maps: Sequence[TangentMap]) -> tuple[Product, Tensor]:
    """Apply the maps to the basis and re-factorise once.

    A few more columns stand for rounding, in units of eps: each map moves those that came before and adds its own, in
    proportion to the rows of its result. They tell noise from small values where a map cancels what it is given.
    """
    generator = torch.Generator().manual_seed(0)
    log_scale = torch.zeros_like(product.error)
    y, noise = product.u, _rounding(product.u, generator)
    for move in maps:
        point, moved = move(point, torch.cat([y, noise], dim=-1))
        scale, log = power_of_two(moved)
        if bool((log.abs() > 0.2 * math.log(torch.finfo(y.dtype).max)).any()):  # or the next map may overflow
            moved, log_scale = moved * scale[..., None, None], log_scale - log
        y = moved[..., :-_PROBES]
        noise = moved[..., -_PROBES:] + _rounding(y, generator)
    scaled = replace(product, log_d=product.log_d + log_scale[..., None])
    return push(scaled, y, row_scale=noise.square().mean(dim=-1).sqrt()), point


def _rounding(y: Float[Tensor, "*batch m r"], generator: torch.Generator) -> Float[Tensor, "*batch m probes"]:
    """Draw random columns in proportion to the norms of the rows of y."""
    noise = torch.randn(y.shape[-2], _PROBES, dtype=y.dtype, generator=generator).to(y.device)
    return torch.linalg.vector_norm(y, dim=-1, keepdim=True, dtype=torch.float64).to(y.dtype) * noise
