"""Push a product through a chain of maps, re-factorising only when the growth since the last time asks for it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from rmtbn.linalg.product import FAR, Product, power_of_two, push

# A map with its differential: (point, tangents) -> (image of the point, images of the tangents); tangents (..., m, r).
TangentMap: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

# Blocks are made so long that their log amplification is foretold to be the first share of ln(1/eps), and taken back if
# it comes out above the second: one push then costs 2e-12 to 1e-11 in float64, 6e-6 to 1e-5 in float32.
_BUDGET, _LIMIT = 0.25, 0.30
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
    digits = -math.log(torch.finfo(product.u.dtype).eps)
    done, stride, rate = 0, 1, 0.0  # rate: log amplification per step, the worst of late
    while done < len(steps):
        block = steps[done : done + stride]
        pushed, image = _push_block(product, point, [move for step in block for move in step])
        growth = float(pushed.log_amplification.max())
        accepted = growth <= _LIMIT * digits or len(block) == 1
        if accepted:
            product, point, done = pushed, image, done + len(block)
        if math.isfinite(growth):
            rate = max(_FORGET * rate, growth / len(block))
            longest = 2 * len(block) if accepted else len(block) - 1
        else:  # singular, which says nothing about how fast products grow
            longest = max(1, len(block) // 2)
        stride = max(1, min(longest, int(_BUDGET * digits / max(rate, 1e-9))))
    return product, point


def _push_block(product: Product, point: Tensor, maps: Sequence[TangentMap]) -> tuple[Product, Tensor]:
    """Apply the maps to the basis and re-factorise once.

    A few more columns stand for rounding, in units of eps: each map moves those that came before and adds its own, in
    proportion to the rows of its result. They tell noise from small values where a map cancels what it is given.
    """
    generator = torch.Generator().manual_seed(0)
    log_scale = torch.zeros_like(product.error)
    moved = _with_rounding(product.u, None, generator)
    for move in maps:
        point, moved = move(point, moved)
        scale, log = power_of_two(moved)
        if bool((log.abs() > FAR * math.log(torch.finfo(moved.dtype).max)).any()):  # or the next map may overflow
            moved, log_scale = moved * scale[..., None, None], log_scale - log
        moved = _with_rounding(moved[..., :-_PROBES], moved[..., -_PROBES:], generator)
    scaled = replace(product, log_d=product.log_d + log_scale[..., None])
    row_scale = moved[..., -_PROBES:].square().mean(dim=-1).sqrt()
    return push(scaled, moved[..., :-_PROBES], row_scale=row_scale), point


def _with_rounding(
    y: Float[Tensor, "*batch m r"], noise: Float[Tensor, "*batch m probes"] | None, generator: torch.Generator
) -> Float[Tensor, "*batch m width"]:
    """Append the noise to y, and to the noise random columns in proportion to the norms of the rows of y."""
    draws = torch.randn(y.shape[-2], _PROBES, dtype=y.dtype, generator=generator).to(y.device)
    added = y.double().square().sum(dim=-1, keepdim=True).sqrt().to(y.dtype) * draws
    return torch.cat([y, added if noise is None else noise + added], dim=-1)
