"""Pull cotangents back through one layer: the transpose of its differential, applied to many at once."""

from collections.abc import Callable
from typing import TypeAlias, cast

from torch import Tensor, nn
from torch.func import vjp, vmap

from rmtbn._modules import is_altered
from rmtbn.measure.norm_tangents import is_stock_batch_norm
from rmtbn.measure.tangents import push_tangents

Rule: TypeAlias = Callable[[nn.Module, Tensor, Tensor, int], Tensor]


def pull_cotangents(layer: nn.Module, point: Tensor, cotangents: Tensor, *, memory_budget: int) -> Tensor:
    """Apply the transpose of the differential of a layer at a point to cotangents.

    By reverse-mode differentiation (`torch.func.vjp` under `vmap`), except for linear layers (one matrix product), the
    elementwise layers of which `rmtbn.measure.tangents` knows the slope, and batch normalisation, whose differentials
    are symmetric.

    Parameters
    ----------
    layer
        Any module that maps a tensor to a tensor.
    point
        Its input, shape (B, ...features).
    cotangents
        Directions at the output, shape (r, *output).
    memory_budget
        Bytes that the intermediate results of one chunk of cotangents may take.

    Returns
    -------
    Tensor
        Directions at the input, shape (r, B, ...features).
    """
    rule = _RULES.get(type(layer))
    if rule is not None and not is_altered(layer):
        return rule(layer, point, cotangents, memory_budget)
    if is_stock_batch_norm(layer):
        return push_tangents(layer, point, cotangents, memory_budget=memory_budget)
    pull = cast("Callable[[Tensor], tuple[Tensor]]", vjp(layer, point)[1])
    each = 4 * point.element_size() * max(point.numel(), cotangents[0].numel())
    return vmap(lambda cotangent: pull(cotangent)[0], chunk_size=max(1, memory_budget // each))(cotangents)


def _diagonal(layer: nn.Module, point: Tensor, cotangents: Tensor, memory_budget: int) -> Tensor:
    return push_tangents(layer, point, cotangents, memory_budget=memory_budget)


def _linear(layer: nn.Module, point: Tensor, cotangents: Tensor, memory_budget: int) -> Tensor:  # noqa: ARG001
    weight = cast(nn.Linear, layer).weight
    return (cotangents.reshape(-1, weight.shape[0]) @ weight).reshape(*cotangents.shape[:-1], weight.shape[1])


_RULES: dict[type[nn.Module], Rule] = {
    nn.GELU: _diagonal,
    nn.Identity: _diagonal,
    nn.Linear: _linear,
    nn.ReLU: _diagonal,
    nn.Sigmoid: _diagonal,
    nn.Tanh: _diagonal,
}
