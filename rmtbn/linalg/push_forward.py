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

    A few more columns stand for rounding, in units of eps. Some start at random and each map adds its own to them, in
    proportion to the rows of its result: they tell noise from small values where a map cancels what it is given. Others
    start orthogonal to U: they tell what becomes of errors outside of the range of the product.
    """
    generator = torch.Generator().manual_seed(0)
    log_scale = torch.zeros_like(product.error)
    r = product.u.shape[-1]
    moved = torch.cat([product.u, _rounding(product.u, generator), *_outside(product.u, generator)], dim=-1)
    for move in maps:
        point, moved = move(point, moved)
        scale, log = power_of_two(moved)
        if bool((log.abs() > FAR * math.log(torch.finfo(moved.dtype).max)).any()):  # or the next map may overflow
            moved, log_scale = moved * scale[..., None, None], log_scale - log
        y, noise, outside = moved.tensor_split([r, r + _PROBES], dim=-1)
        moved = torch.cat([y, noise + _rounding(y, generator), outside], dim=-1)
    y, noise, outside = moved.tensor_split([r, r + _PROBES], dim=-1)
    scaled = replace(product, log_d=product.log_d + log_scale[..., None])
    return push(scaled, y, row_scale=_rms(noise), outside_scale=_rms(outside)), point


def _rounding(y: Float[Tensor, "*batch m r"], generator: torch.Generator) -> Float[Tensor, "*batch m probes"]:
    """Draw random columns in proportion to the norms of the rows of y."""
    draws = torch.randn(y.shape[-2], _PROBES, dtype=y.dtype, generator=generator).to(y.device)
    return y.double().square().sum(dim=-1, keepdim=True).sqrt().to(y.dtype) * draws


def _outside(u: Float[Tensor, "*batch m r"], generator: torch.Generator) -> list[Float[Tensor, "*batch m probes"]]:
    """Draw random columns of size 1 and project them off the range of u; none where u spans the space."""
    m, r = u.shape[-2:]
    if m == r:
        return []
    draws = torch.randn(m, _PROBES, dtype=u.dtype, generator=generator).to(u.device) / math.sqrt(m)
    return [draws - u @ (u.mT @ draws)]


def _rms(columns: Float[Tensor, "*batch m probes"]) -> Float[Tensor, "*batch m"]:
    return columns.square().sum(dim=-1).sqrt() / math.sqrt(_PROBES)
