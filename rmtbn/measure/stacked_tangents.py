"""Push tangents through one layer of many networks at once."""

from functools import partial
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jvp, vmap

from rmtbn._modules import call, is_altered, stacked_state
from rmtbn.linalg.push_forward import Cancelling, Step, TangentMap
from rmtbn.measure.norm_tangents import cancelling_sizes, norm_rule
from rmtbn.measure.tangents import acts_on_entries, has_rule, image, slope

# Parameters and buffers by name, with the networks in front.
State = dict[str, Tensor]
# Memory for the weights of all networks side by side, by shape: used by one layer after the other.
Shelf = dict[tuple[int, ...], Tensor]

# Weights of up to so many entries are multiplied for all networks in one call: two threads then share the networks (2.0
# times as fast at N = 128; a single product of that size runs on one thread), and one thread loses nothing. Larger
# products keep all threads busy by themselves, and no weights are copied.
_SMALL = 2**16


def stacked_steps(layers: list[list[nn.Module]], *, coupled: bool, memory_budget: int) -> list[Step]:
    """Return the chain of the layers of K networks, grouped: one with a weight matrix, and what follows until the next.

    Activations go with the layer before them, as in `rmtbn.measure.layer_maps.steps`.

    Parameters
    ----------
    layers
        For each layer, in the order of the forward pass, that of every network.
    coupled, memory_budget
        As in `stacked_map`.

    Returns
    -------
    list of steps
        For `rmtbn.linalg.push_forward.push_forward`.
    """
    steps: list[list[list[TangentMap]]] = []
    shelf: Shelf = {}
    own = False  # what comes out of a product of matrices nobody else holds
    for same in layers:
        entrywise = acts_on_entries(same[0])
        if not steps or _has_weight(same[0]):
            steps.append([])
        move = stacked_map(same, coupled=coupled, memory_budget=memory_budget, shelf=shelf, overwrite=own)
        if steps[-1] and entrywise:
            steps[-1][-1].append(move)
        else:
            steps[-1].append([move])
        own = has_rule(same[0]) and (own or not entrywise)
    return [[_joined(moves) for moves in step] for step in steps]


def _joined(moves: list[TangentMap]) -> TangentMap:
    """Join a layer and the activations behind it."""
    move, first = partial(_in_turn, moves), moves[0]
    return Cancelling(move=move, inside=partial(_inside, moves, first)) if isinstance(first, Cancelling) else move


def _inside(moves: list[TangentMap], norm: Cancelling, point: Tensor, sizes: Tensor) -> Tensor:
    """Sizes of what cancels in a norm, behind the activations after it."""
    moved = norm.inside(point, sizes)
    if len(moves) > 1:
        point = norm(point, moved[..., None])[0]
        moved = _in_turn(moves[1:], point, moved[..., None])[1].abs()[..., 0]
    return moved


def _in_turn(moves: list[TangentMap], point: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    for move in moves:
        point, u = move(point, u)
    return point, u


def stacked_map(
    layers: list[nn.Module], *, coupled: bool, memory_budget: int, shelf: Shelf | None = None, overwrite: bool = False
) -> TangentMap:
    """Return one layer of many networks together with its differential.

    Parameters
    ----------
    layers
        The same layer of each of K networks, as `rmtbn.measure.ensemble.aligned` finds them; the first is called, with
        the weights of each.
    coupled
        Whether the examples of a network form one group, or each its own.
    memory_budget
        Bytes that the intermediate results of one chunk of tangents may take.
    shelf
        Memory that layers of a chain share; None: of its own.
    overwrite
        Whether the result may take the place of u, as it does for activations.

    Returns
    -------
    TangentMap
        (point, u) -> (image, pushed), in the dtype of the points where the rule is known: points (K, B, ...features);
        u of shape (K·G, m, r), columns of all examples together (G = 1) if coupled, and of one example each (G = B) if
        not.
    """
    base = layers[0]
    linear = type(base) is nn.Linear and not is_altered(base)
    activation = acts_on_entries(base)
    state = {} if linear or activation else _stacked_state(layers)
    affine = [cast(nn.Linear, layer) for layer in layers] if linear else []
    shelf = {} if shelf is None else shelf

    def move(point: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:  # plain types: shapes here are built for each layer
        lead = (len(point), u.shape[-1], point.shape[1]) if coupled else (*point.shape[:2], u.shape[-1])
        tangents = u.mT.reshape(*lead, *point.shape[2:])
        if linear:  # the order of tangents and examples does not matter
            result, pushed = _linear(affine, point, tangents, shelf)
            return result, pushed.reshape(len(u), u.shape[-1], -1).mT
        tangents = tangents if coupled else tangents.transpose(1, 2)
        held = _in_dtype(state, point.dtype)
        if activation:
            slopes = slope(base, point)[:, None]
            pushed = tangents.mul_(slopes) if overwrite else tangents * slopes
        else:
            pushed = _pushed(base, held, point, tangents, memory_budget)
        result = _image(base, held, point)
        return result, (pushed if coupled else pushed.transpose(1, 2)).reshape(len(u), u.shape[-1], -1).mT

    if norm_rule(base) is None:
        return move

    def inside(point: Tensor, sizes: Tensor) -> Tensor:
        held = _in_dtype(state, point.dtype)
        of = partial(cancelling_sizes, base)
        entries = sizes.reshape(point.shape)
        found = vmap(lambda own, h, s: of(h, s, state=own))(held, point, entries) if held else vmap(of)(point, entries)
        return found.reshape(sizes.shape)

    return Cancelling(move=move, inside=inside)


def _image(base: nn.Module, state: State, point: Tensor) -> Tensor:
    """Apply a layer to the inputs of each network."""
    if acts_on_entries(base):
        return cast(Tensor, base(point))
    return vmap(partial(call, base))(state, point) if state else vmap(base)(point)


def _has_weight(layer: nn.Module) -> bool:
    return not acts_on_entries(layer) and any(parameter.ndim > 1 for parameter in layer.parameters())


def _stacked_state(layers: list[nn.Module]) -> State:
    """Parameters and buffers with the networks in front."""
    has_state = any(True for _ in layers[0].parameters()) or any(True for _ in layers[0].buffers())
    parameters, buffers = stacked_state(layers) if has_state else ({}, {})
    return parameters | buffers


def _in_dtype(state: State, dtype: torch.dtype) -> State:
    return {name: held.to(dtype) if held.is_floating_point() else held for name, held in state.items()}


def _pushed(base: nn.Module, state: State, point: Tensor, tangents: Tensor, memory_budget: int) -> Tensor:
    """Apply the differential of the layer of each network to its tangents (K, r, B, ...features)."""
    each = 4 * point.element_size() * point.numel() * (1 + _growth(base, point))
    chunk, norm = max(1, memory_budget // each), norm_rule(base)

    def of_one(own: State, h: Tensor, t: Tensor) -> Tensor:
        if norm is not None:
            return norm(base, h, t, state=own)
        layer = partial(call, base, own) if own else base
        return vmap(lambda tangent: jvp(layer, (h,), (tangent,))[1], chunk_size=chunk)(t)

    return vmap(of_one)(state, point, tangents) if state else vmap(partial(of_one, {}))(point, tangents)


def _growth(base: nn.Module, point: Tensor) -> int:
    """How many times as many entries go out as come in."""
    return image(base, point[0]).numel() // max(1, point[0].numel())


def _linear(
    layers: list[nn.Linear], point: Tensor, tangents: Float[Tensor, "networks ... m"], shelf: Shelf
) -> tuple[Tensor, Tensor]:
    """Apply linear layers to the points and their weights to the tangents of each network."""
    flat = tangents.reshape(len(layers), -1, tangents.shape[-1])
    if flat.is_cuda or layers[0].weight.numel() <= _SMALL:
        weights = _side_by_side([layer.weight for layer in layers], shelf, dtype=point.dtype).mT
        pushed = flat @ weights
        images = (point.reshape(len(layers), -1, flat.shape[-1]) @ weights).reshape(*point.shape[:-1], -1)
        if layers[0].bias is not None:
            biases = torch.stack([layer.bias for layer in layers]).to(point.dtype)
            images = images + biases.reshape(len(layers), *(1,) * (images.ndim - 2), -1)
    else:
        images = torch.stack([image(layer, h) for layer, h in zip(layers, point, strict=True)])
        pushed = flat.new_empty(*flat.shape[:-1], layers[0].out_features)
        for matrix, layer, out in zip(flat, layers, pushed, strict=True):
            torch.mm(matrix, layer.weight.to(point.dtype).mT, out=out)
    return images, pushed.reshape(*tangents.shape[:-1], -1)


def _side_by_side(weights: list[Tensor], shelf: Shelf, *, dtype: torch.dtype) -> Float[Tensor, "networks k m"]:
    """Stack weights in memory that has been used before: fresh pages would take longer than the copy."""
    shape = (len(weights), *weights[0].shape)
    if shape not in shelf:
        shelf[shape] = torch.empty(shape, dtype=dtype, device=weights[0].device)
    if dtype == weights[0].dtype:
        return torch.stack(weights, out=shelf[shape])
    for place, weight in zip(shelf[shape], weights, strict=True):
        place.copy_(weight)
    return shelf[shape]
