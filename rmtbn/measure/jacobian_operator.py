"""The Jacobian of a network as an operator: blocks of tangents forward, blocks of cotangents back, layer by layer.

What a route needs that never assembles the Jacobian; and what can be read off the layers about its rank.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import cast

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rmtbn import _checks, _modules
from rmtbn.linalg.batched import columns
from rmtbn.linalg.operator import Operator, composition
from rmtbn.measure import batch_statistics, network
from rmtbn.measure.cotangents import pull_cotangents
from rmtbn.measure.live_units import filled, is_matrix, live_units, restricted, together
from rmtbn.measure.tangents import acts_on_entries, push_tangents, slope

_CHUNK = 2**28  # bytes of tangents in flight in layers without a rule of their own


@contextmanager
def jacobian_operator(
    module: nn.Module, x: Tensor, *, batch_stats: str | None = None, memory_budget: int = _CHUNK
) -> Iterator[Operator]:
    """Give the Jacobian of the batch map x -> module(x) as an operator, valid while the context lasts.

    Parameters
    ----------
    module
        The network, left as it is found; any `nn.Module`, a `Sequential` layer by layer.
    x
        Inputs (B, ...features). The operator takes rows of B·n numbers and gives rows of B·m.
    batch_stats
        "batch" or "running" statistics in batch normalisation; None follows the module's mode.
    memory_budget
        Bytes that the tangents in flight of one layer may take.

    Raises
    ------
    InvalidArgumentError
        As `rmtbn.measure.jacobian.spectrum`.

    Examples
    --------
    Moments of a Jacobian that is never assembled:

    >>> from rmtbn.linalg import trace
    >>> with jacobian_operator(nn.Linear(9, 9), torch.ones(2, 9)) as jacobian:
    ...     found = trace.moment(jacobian, 2, products=36, generator=torch.Generator().manual_seed(0))
    >>> found.products
    36
    """
    network.check_input(module, x)
    with network.layer_by_layer(module, batch_statistics.resolve(module, batch_stats)):
        network.check_output(module, x)
        yield layered([layer for _, layer in _modules.layers(module)], x, memory_budget=memory_budget)


def layered(layers: Sequence[nn.Module], x: Tensor, *, memory_budget: int = _CHUNK) -> Operator:
    """Return the differential at x of layers applied one after the other, inside `network.layer_by_layer`.

    Raises
    ------
    InvalidArgumentError
        If there is no layer.
    """
    budget = _checks.integer("memory_budget", memory_budget, at_least=1)
    operators, live = list[Operator](), None
    for step in together(layers):
        points = list(itertools.accumulate(step, lambda point, layer: layer(point), initial=x))
        if is_matrix(step[0], x):
            operator, live = _by_weight(step, points, live)
            operators.append(operator)
        else:
            operators += [_filling(x, live)] if live is not None else []
            operators += [_differential(*at, budget) for at in zip(step, points, points[1:], strict=False)]
            live = None
        x = points[-1]
    return composition(operators if live is None else [*operators, _filling(x, live)])


def _by_weight(
    step: Sequence[nn.Module], points: Sequence[Tensor], before: Tensor | None
) -> tuple[Operator, Tensor | None]:
    """Multiply by the weights of a linear layer and the slopes behind it, from the units live before to those after."""
    diagonal = slope(step[1], points[1])[0].to(points[0].dtype) if len(step) > 1 else None
    live = live_units(diagonal)
    weight = restricted(cast(nn.Linear, step[0]).weight, rows=live, columns=before)
    scale = torch.ones((), dtype=weight.dtype, device=weight.device) if diagonal is None else diagonal
    scale = scale if live is None else scale[live]
    operator = Operator(
        inputs=weight.shape[1],
        outputs=weight.shape[0],
        apply=lambda rows: (rows @ weight.mT).mul_(scale),
        apply_transpose=lambda rows: (rows * scale) @ weight,
        dtype=weight.dtype,
        device=weight.device,
    )
    return operator, live


def _filling(point: Tensor, live: Tensor) -> Operator:
    """Put in zeros for the units that are not live."""
    return Operator(
        inputs=len(live),
        outputs=point.numel(),
        apply=lambda rows: filled(rows, live, point.numel()),
        apply_transpose=lambda rows: columns(rows, live),
        dtype=point.dtype,
        device=point.device,
    )


def _differential(layer: nn.Module, point: Tensor, image: Tensor, budget: int, /) -> Operator:
    return Operator(
        inputs=point.numel(),
        outputs=image.numel(),
        apply=partial(_push, layer, point, budget),
        apply_transpose=partial(_pull, layer, point, image.shape, budget),
        dtype=point.dtype,
        device=point.device,
    )


def _push(layer: nn.Module, point: Tensor, budget: int, rows: Tensor) -> Tensor:
    pushed = push_tangents(layer, point, rows.reshape(-1, *point.shape), memory_budget=budget)
    return pushed.reshape(len(rows), -1)


def _pull(layer: nn.Module, point: Tensor, shape: torch.Size, budget: int, rows: Tensor) -> Tensor:
    pulled = pull_cotangents(layer, point, rows.reshape(-1, *shape), memory_budget=budget)
    return pulled.reshape(len(rows), -1)


def rank_bounds(layers: Sequence[nn.Module], x: Tensor, *, coupled: bool) -> Int[Tensor, " groups"]:
    """Bound the rank of the Jacobian by the layer of lowest rank: values beyond are exactly 0, whatever rounding says.

    Counted are the numbers between layers, units with slope 0 (dead ReLUs, saturated hard tanhs; not tanhs and the
    like, whose slope underflows) and, under batch statistics, the mean over the batch that each channel loses.

    Parameters
    ----------
    layers
        One after the other, inside `network.layer_by_layer`.
    x
        Inputs (B, ...features).
    coupled
        Whether the examples form one group; or each its own.

    Returns
    -------
    Tensor
        Upper bounds, shape (1,) if `coupled`, (B,) if not.
    """
    groups = 1 if coupled else x.shape[0]
    bound = torch.full((groups,), x.numel() // groups)
    for layer in layers:
        image = layer(x)
        bound = torch.minimum(bound, rank_bound(layer, x, image, groups=groups).cpu())
        x = image
    return bound


def rank_bound(layer: nn.Module, x: Tensor, image: Tensor, *, groups: int) -> Int[Tensor, " groups"]:
    """Do what `rank_bounds` says for one layer, without waiting for a device.

    Parameters
    ----------
    layer, x, image
        The layer, what goes in and what comes out.
    groups
        Groups of examples: 1, or as many as there are examples.
    """
    live = image.numel() // groups
    if isinstance(layer, _BatchNorm) and type(layer).forward is _BatchNorm.forward and layer.training:
        live -= image.shape[1]
    elif image.shape == x.shape and not list(layer.parameters()) and not list(layer.buffers()):
        # a smooth activation's slope is 0 because it underflows
        diagonal = slope(layer, x) if acts_on_entries(layer) else slopes(layer, x)
        if diagonal is not None and not (acts_on_entries(layer) and diagonal.is_floating_point()):
            return diagonal.reshape(groups, -1).count_nonzero(dim=1)
    return torch.full((groups,), live, device=x.device)


def slopes(layer: nn.Module, x: Tensor) -> Tensor | None:
    """Return the diagonal of the differential of an elementwise layer at x, shape of x; None for another layer.

    It is elementwise if it is known to be, or if J v = (J 1) v for a vector v in general position.
    """
    if acts_on_entries(layer):
        return slope(layer, x).to(x.dtype)
    draws = torch.rand(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0)).to(x.device) + 0.5
    ones, moved = push_tangents(layer, x, torch.stack([torch.ones_like(x), draws]), memory_budget=_CHUNK)
    return ones if bool(torch.allclose(moved, ones * draws)) else None
