"""Push a product through a chain of maps, re-factorising only when the growth since the last time asks for it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from rmtbn import _checks
from rmtbn.linalg import heap
from rmtbn.linalg.batched import norms
from rmtbn.linalg.floating_range import FAR, rescaled
from rmtbn.linalg.probes import normals
from rmtbn.linalg.product import Product, push, push_in_range
from rmtbn.linalg.stride import begun, longest, noted

# A map with its differential: (point, tangents) -> (image of the point, images of the tangents); tangents (..., m, r).
TangentMap: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Step: TypeAlias = Sequence[TangentMap]

# A block is cut if its log amplification comes out above this, for a chain of 50 steps. Tanh networks of 50 layers then
# state 1e-9 … 4e-9 in float64 and 0.1 in float32 at N = 512; a lower limit in float32 buys accuracy
# at the price of a push per layer.
_LIMIT = {torch.float64: 11.4, torch.float32: 8.7}
# The same where the values are asked to single precision only, and the arithmetic is double.
_LIMIT_OF_SINGLE = 23.0
# The first block has as many steps as would fit if each took so much: the fastest start for tanh networks, N = 128 to
# 512, at the limits of double and of single, and as fast as any for ReLU (recorded growth of 23 networks of 50 layers).
_STEP = 5.5
_AT, _LEAST = 50, 2.0
# Errors of n pushes add up to n^(3/4) of one (graded_products.md, section 5), so the limit falls by as much.
_FALL = 0.75
# A block that comes out above by more is not too long but holds a factor that is nearly singular: it is halved.
_FAR_ABOVE = 8.0
_PROBES = 8
# What the basis became after so many steps is kept: most blocks that are cut lose one or two steps.
_KEPT = 3
# Blocks between two looks of the host at a device that it must wait for: twice as many each time, up to
_PATIENCE = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cancelling:
    """A map in which large parts of a row cancel, so that its rounding is not in proportion to what is left.

    Parameters
    ----------
    move
        The map.
    inside
        (point, norms of the rows of the tangents) -> norms of the rows of what is subtracted from one another.
    """

    move: TangentMap
    inside: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, point: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the map."""
        return self.move(point, tangents)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Moved:
    """The basis after some steps of a block, before it is re-factorised.

    Parameters
    ----------
    steps
        How many.
    point
        Image of the point.
    columns
        Images of the basis and of the columns that stand for rounding, over exp(log_scale).
    sizes
        Norms of the rows of the image of the basis, over exp(log_scale).
    log_scale
        Shape (...).
    """

    steps: int
    point: Tensor
    columns: Float[Tensor, "*batch m all"]
    sizes: Float[Tensor, "*batch m"]
    log_scale: Float[Tensor, "*batch"]


def push_forward(
    product: Product,
    point: Tensor,
    steps: Sequence[Step],
    *,
    attended: bool | None = None,
    wanted: bool = True,
) -> tuple[Product, Tensor]:
    """Multiply a product by the differentials of a chain of maps, taken along the orbit of a point.

    Steps are accumulated in blocks: A_k ... A_1 U is re-factorised when the condition number of the block, foretold
    from the blocks before it, reaches its budget; a block that comes out worse is cut. On the CPU it ends where fewer
    rows are left than U has columns: a loss of rank that is plain there, and within a block is not.

    Parameters
    ----------
    product
        The product so far, shape (..., m, n).
    point
        Where the first differential is taken; passed from map to map and not looked at.
    steps
        The chain, first to be applied first, in groups of maps that are not worth a re-factorisation in between.
    attended
        Whether the host looks at the result of every block, for which it must wait, and spares what it sees can be
        spared. If not, it looks after 1, 2, 4, … 64 blocks, and takes all of them back if there is need to. None: on
        the CPU.
    wanted
        Whether U is needed at the end; singular values and right singular vectors do without.

    Returns
    -------
    product, point
        After the last map; U orthonormal to rounding, if wanted.

    Raises
    ------
    InvalidArgumentError
        If a differential is not finite.
    """
    attended = product.u.device.type == "cpu" if attended is None else attended
    heap.keep(16 * product.u.nbytes if attended else 0)
    limit, pace = _limit(product, len(steps)), begun(product.u.shape[-1])
    known: list[_Moved] = []
    done, stride, rounds, look = 0, min(len(steps), max(1, int(limit / _STEP))), 1, attended
    while done < len(steps):
        blocks = _blocks(steps[done:], stride, 1 if look else rounds)
        length = taken = len(blocks[0])
        if look:
            last = not wanted and done + length == len(steps)
            pushed, known = _push_block(product, point, blocks[0], known=known, last=last, limit=limit)
            image, growth, taken = known[-1].point, float(pushed.log_amplification.max()), known[-1].steps
        else:
            pushed, image, growth = _push_blocks(product, point, blocks)
        if math.isnan(growth):  # something was met that needs looking at
            look, stride = True, 1
            continue
        accepted = taken == 1 or growth <= limit
        if accepted:
            product, point, done = pushed, image, done + (taken if look else sum(len(block) for block in blocks))
            look, known = attended, []
        rounds = min(2 * rounds, _PATIENCE) if accepted else max(1, rounds // 2)
        pace = noted(pace, taken, growth, limit=limit)
        shorter = taken // 2 if growth > limit + _FAR_ABOVE else taken - 1
        stride = longest(pace, limit=limit, at_most=2 * length if accepted else shorter)
    return product if product.exact or not wanted else push(product, product.u), point


def _limit(product: Product, steps: int) -> float:
    """Log amplification up to which a block of a chain of so many steps is accepted."""
    limit = _LIMIT_OF_SINGLE if product.single else _LIMIT[product.u.dtype]
    return max(_LEAST, limit - _FALL * math.log(max(1.0, steps / _AT)))


def _blocks(steps: Sequence[Step], stride: int, count: int) -> list[Sequence[Step]]:
    """Cut up to `count` blocks of `stride` steps from the front; only if there is just one may it be shorter."""
    count = max(1, min(count, len(steps) // stride))
    return [steps[i * stride : (i + 1) * stride] for i in range(count)]


def _push_blocks(product: Product, point: Tensor, blocks: Sequence[Sequence[Step]]) -> tuple[Product, Tensor, float]:
    """Push block by block, and look at the largest log amplification at the end; NaN if it is unknown."""
    worst = torch.full_like(product.log_amplification, -torch.inf)
    for block in blocks:
        moved = _advanced(product, point, block, known=[], look=False)[-1]
        product, point = _refactorised(product, moved, look=False), moved.point
        worst = torch.maximum(worst, product.log_amplification)
    return product, point, float(worst.max())


def _push_block(
    product: Product, point: Tensor, block: Sequence[Step], *, known: list[_Moved], last: bool, limit: float
) -> tuple[Product, list[_Moved]]:
    """Apply the steps to the basis and re-factorise once, unless rounding is amplified too much in several steps.

    The second result is the basis after the last steps, so that a block cut short need not be done again. After the
    last block no basis is wanted.
    """
    moved = _advanced(product, point, block, known=known, look=True)
    taken = moved[-1].steps
    last = last and taken == len(block)
    return _refactorised(product, moved[-1], last=last, limit=limit if taken > 1 else math.inf), moved


def _advanced(
    product: Product, point: Tensor, block: Sequence[Step], *, known: list[_Moved], look: bool
) -> list[_Moved]:
    """Apply the steps of a block to the basis, up to a loss of rank if looked, and return it after the last few.

    A few more columns stand for rounding, in units of eps. Some start at random and each map adds its own to them, in
    proportion to the rows of its result, or to those of what cancels inside it: they tell noise from small values where
    a map cancels what it is given. Others start orthogonal to U: they tell what becomes of errors outside of the range
    of the product.
    """
    r, ranks = product.u.shape[-1], product.log_d.isfinite().sum(dim=-1)
    found = [moved for moved in known if moved.steps <= len(block)]
    if not found:
        sizes = _sizes(product, look=look)
        columns = _beside(product.u, _rounding(sizes, 0), *_outside(product.u))
        found = [_Moved(steps=0, point=point, columns=columns, sizes=sizes, log_scale=torch.zeros_like(product.error))]
    for step in block[found[-1].steps :]:
        point, columns, sizes, log_scale = found[-1].point, found[-1].columns, found[-1].sizes, found[-1].log_scale
        steps = found[-1].steps + 1
        for i, move in enumerate(step):
            inside = move.inside(point, sizes) if isinstance(move, Cancelling) else None
            point, columns = move(point, columns)
            columns, log, sizes = _in_range(columns, r, look=look)  # or the next map may overflow
            log_scale = log_scale + log
            rough = sizes if inside is None else torch.maximum(sizes, inside * torch.exp(-log).to(sizes)[..., None])
            columns = _with_rounding(columns, _rounding(rough, steps + i * len(block)), r, before=found[-1].columns)
        found.append(_Moved(steps=steps, point=point, columns=columns, sizes=sizes, log_scale=log_scale))
        found = found[-_KEPT:] if look else found[-1:]
        if look and bool((sizes.count_nonzero(dim=-1) < ranks).any()):
            break
    return found


def _refactorised(
    product: Product, moved: _Moved, *, look: bool = True, last: bool = False, limit: float = math.inf
) -> Product:
    """Take up what the steps have made of the basis."""
    r = product.u.shape[-1]
    y, noise, outside = moved.columns.tensor_split([r, r + _PROBES], dim=-1)
    sizes, beyond = torch.maximum(moved.sizes, _rms(noise)), _rms(outside) if outside.shape[-1] else None
    if look and not bool(torch.isfinite(sizes).all()):
        raise _checks.fail("steps", "maps with finite differentials", "inf or nan")
    start = replace(product, log_d=product.log_d + moved.log_scale[..., None])
    pushed = push_in_range(start, y, sizes, outside=beyond, look=look, exact=last, wanted=not last, limit=limit)
    if look:
        return pushed
    finite = torch.isfinite(sizes).all(dim=-1)
    return replace(pushed, log_amplification=torch.where(finite, pushed.log_amplification, torch.nan))


def _beside(*columns: Float[Tensor, "*batch m _"]) -> Float[Tensor, "*batch m all"]:
    """Put columns beside one another, each column in one piece of memory, as LAPACK and layers like them."""
    return torch.cat([column.mT for column in columns], dim=-2).mT


def _with_rounding(columns: Tensor, rounding: Tensor, r: int, *, before: Tensor) -> Tensor:
    """Add rounding to the columns that stand for it: in place where they are new and lie well."""
    if columns.mT.is_contiguous() and columns.data_ptr() != before.data_ptr():
        columns[..., r : r + rounding.shape[-1]] += rounding
        return columns
    y, noise, outside = columns.tensor_split([r, r + rounding.shape[-1]], dim=-1)
    return _beside(y, noise + rounding, outside)


def _in_range(columns: Tensor, r: int, *, look: bool) -> tuple[Tensor, Tensor, Float[Tensor, "*batch m"]]:
    """Bring matrices back that are far from size 1: them, the logs to be added, and the norms of rows of r columns."""
    if look:
        sizes = norms(columns[..., :r], dim=-1)
        reach = FAR * math.log(torch.finfo(sizes.dtype).max)
        if bool((sizes.amax(dim=-1).log().abs() <= reach).all()):
            return columns, torch.zeros_like(sizes[..., 0], dtype=torch.float64), sizes
    columns, log, _ = rescaled(columns, look=look)
    return columns, log, norms(columns[..., :r], dim=-1, look=look)


def _sizes(product: Product, *, look: bool) -> Float[Tensor, "*batch m"]:
    """Norms of the rows of U: 1 where it is square and nothing is zero, to what it is orthonormal to."""
    if look and product.u.shape[-2] == product.u.shape[-1] and bool(product.log_d.isfinite().all()):
        return torch.ones_like(product.u[..., 0])
    return norms(product.u, dim=-1, look=look)


def _rounding(sizes: Float[Tensor, "*batch m"], seed: int) -> Float[Tensor, "*batch m probes"]:
    """Draw random columns in proportion to the norms of rows."""
    return sizes[..., None] * normals(seed, sizes.shape[-1], _PROBES, like=sizes)


def _outside(u: Float[Tensor, "*batch m r"]) -> list[Float[Tensor, "*batch m probes"]]:
    """Draw random columns of size 1 and project them off the range of u; none where u spans the space."""
    m, r = u.shape[-2:]
    if m == r:
        return []
    normal = normals(-1, m, _PROBES, like=u) / math.sqrt(m)
    return [normal - u @ (u.mT @ normal)]


def _rms(columns: Float[Tensor, "*batch m probes"]) -> Float[Tensor, "*batch m"]:
    return columns.square().sum(dim=-1).sqrt() / math.sqrt(_PROBES)
