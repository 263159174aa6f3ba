"""Push a product through a chain of maps, re-factorising only when the growth since the last time asks for it."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from rmtbn.linalg.product import Product, push

# A map with its differential: (point, tangents) -> (image of the point, images of the tangents); tangents (..., m, r).
TangentMap: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

# Re-factorise when the log condition number of what has been accumulated would pass this share of ln(1/eps): a block of
# condition K costs eps K, so 1e-11 in float64 and 2e-5 in float32.
_BUDGET = 0.3
_PROBES = 4


def push_forward(product: Product, point: Tensor, maps: Sequence[TangentMap]) -> tuple[Product, Tensor]:
    """Multiply a product by the differentials of a chain of maps, taken along the orbit of a point.

    Maps are accumulated in blocks: A_k ... A_1 U is re-factorised when the condition number of the block, foretold from
    the blocks before it, reaches its budget; a block that comes out worse is taken back and cut in two.

    Parameters
    ----------
    product
        The product so far, shape (..., m, n).
    point
        Where the first differential is taken; passed from map to map and not looked at.
    maps
        The chain, first to be applied first.

    Returns
    -------
    product, point
        After the last map.
    """
    budget = -_BUDGET * torch.log(torch.tensor(torch.finfo(product.u.dtype).eps)).item()
    done, stride = 0, 1
    while done < len(maps):
        block = maps[done : done + stride]
        pushed, image = _push_block(product, point, block)
        growth = float(pushed.log_condition.max())
        if growth > budget and len(block) > 1:
            stride = len(block) // 2
            continue
        product, point, done = pushed, image, done + len(block)
        stride = max(1, min(2 * len(block), int(len(block) * budget / max(growth, 1e-300))))
    return product, point


def _push_block(product: Product, point: Tensor, block: Sequence[TangentMap]) -> tuple[Product, Tensor]:
    """Apply the maps to the basis and re-factorise once."""
    r = product.u.shape[-1]
    y = _with_probes(product.u)
    for step in block:
        point, y = step(point, y)
    probes = y[..., r:]
    row_scale = probes.square().mean(dim=-1).sqrt() if probes.shape[-1] else None
    return push(product, y[..., :r], row_scale=row_scale), point


def _with_probes(u: Tensor) -> Tensor:
    """Append random tangents where u does not span the space: they measure the rows of the factor."""
    m, r = u.shape[-2:]
    if r == m:
        return u
    generator = torch.Generator().manual_seed(m)
    probes = torch.randn(m, _PROBES, dtype=u.dtype, generator=generator).to(u.device)
    return torch.cat([u, probes.expand(*u.shape[:-1], _PROBES)], dim=-1)
