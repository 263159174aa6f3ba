"""Tangents of a whole batch in contrasts over its examples: each layer of a batch-normalised network as a linear map.

Batch normalisation maps 1 ⊗ v, the same change v of every example, to zero, and what it returns sums to zero over the
batch. So between one normalisation and the next a tangent is n = B - 1 contrasts per feature, rows of an orthonormal
matrix C orthogonal to (1, …, 1), and the map of a feature is an n × n matrix: (I - s w wᵀ) γ/√(v + ε) for
normalisation, w the direction of C h, s = v/(v + ε), and C diag(φ′) Cᵀ for φ. A linear layer acts on features alone, by
one matrix product. Singular values are those in examples, as C has orthonormal rows.

Columns are laid out by feature: shape (features · k, r), with k = n contrasts or k = B examples in every feature.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from scipy.linalg import helmert
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rmtbn import _checks, _modules
from rmtbn.measure import batch_statistics, network
from rmtbn.measure.column_maps import Blocks, ColumnMap, Mixing
from rmtbn.measure.jacobian_operator import slopes
from rmtbn.measure.norm_tangents import is_stock_batch_norm
from rmtbn.measure.tangents import push_tangents

_CHUNK = 2**28  # bytes of tangents in flight in layers without a map of their own


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chain:
    """The layers of a network as linear maps at one batch.

    Parameters
    ----------
    maps
        One for each layer, first to be applied first.
    begins
        Places in `maps` at which a layer with weights begins.
    inputs, outputs
        Features at the input and the output.
    starts_in_contrasts, ends_in_contrasts
        Whether columns have n rows per feature there, or B.
    batch_size
        B.
    rank, rank_without_eps
        Bounds of the rank, on the space the chain starts from: as the layers are, and as ε tends to 0.
    """

    maps: Sequence[ColumnMap]
    begins: Sequence[int]
    inputs: int
    outputs: int
    starts_in_contrasts: bool
    ends_in_contrasts: bool
    batch_size: int
    rank: int
    rank_without_eps: int

    def apply(self, columns: Float[Tensor, "start r"]) -> Float[Tensor, "end r"]:
        """Push columns through all layers."""
        return functools.reduce(lambda moved, move: move(moved), self.maps, columns)

    @property
    def start_rows(self) -> int:
        """Rows of the columns at the start."""
        return self.inputs * (self.batch_size - self.starts_in_contrasts)

    @property
    def end_rows(self) -> int:
        """Rows of the columns at the end."""
        return self.outputs * (self.batch_size - self.ends_in_contrasts)


@contextmanager
def chained(module: nn.Module, x: Tensor, *, centred: bool) -> Iterator[Chain]:
    """Give the maps of a network's layers with batch statistics, valid while the context lasts.

    Parameters
    ----------
    module
        The network, left bit for bit as it is found: no running statistic moves.
    x
        The batch, B >= 2.
    centred
        As in `chain`.

    Raises
    ------
    InvalidArgumentError
        As `rmtbn.measure.jacobian.spectrum`, or if `x` is not (B, features) with B >= 2.
    """
    network.check_input(module, x)
    if x.ndim != 2 or len(x) < 2:
        raise _checks.fail("x", "of shape (B, features), B >= 2", tuple(x.shape))
    with network.layer_by_layer(module, batch_statistics.resolve(module, "batch")):
        network.check_output(module, x)
        yield chain([layer for _, layer in _modules.layers(module)], x, centred=centred)


def contrasts(batch_size: int, *, like: Tensor) -> Float[Tensor, "n batch"]:
    """Return C, of orthonormal rows orthogonal to (1, …, 1): Helmert's."""
    return torch.from_numpy(helmert(batch_size)).to(like)


def uses_batch(layer: nn.Module) -> bool:
    """Tell whether a layer is torch's batch normalisation with the statistics of the batch."""
    return is_stock_batch_norm(layer) and (layer.training or cast(_BatchNorm, layer).running_var is None)


def chain(layers: Sequence[nn.Module], x: Float[Tensor, "batch features"], *, centred: bool) -> Chain:
    """Read the maps off the layers at a batch, inside `network.layer_by_layer`.

    Parameters
    ----------
    layers
        One after the other; each maps (B, features) to (B, features').
    x
        The batch.
    centred
        Whether columns start and end in contrasts, on 1^⊥. If not they start in contrasts only where the rest is known
        to be lost (linear layers, then batch normalisation), and end as the last layer leaves them.
    """
    c, begins = contrasts(len(x), like=x), [i for i, layer in enumerate(layers) if list(_matrices(layer))]
    start = within = centred or _loses_the_mean(layers)
    inputs, maps, bounds = x.shape[1], list[ColumnMap](), [(x.numel(), x.numel())]
    for i, layer in enumerate(layers):
        image, after = layer(x), layers[i + 1 :]
        leaves_mean = _loses_the_mean(after) or (centred and all(type(rest) is nn.Linear for rest in after))
        normed = i > 0 and uses_batch(layers[i - 1])
        move, within, bound = _mapped(layer, x, image, c, within=within, leaves_mean=leaves_mean, normed=normed)
        maps.append(move)
        bounds.append(bound)
        x = image
    if centred and not within:
        maps, within = [*maps, functools.partial(_by_matrix, c)], True
    ends = [len(c if start else x) * inputs, len(c if within else x) * x.shape[1]]
    rank, without_eps = (min(*ends, *(bound[i] for bound in bounds)) for i in (0, 1))
    return Chain(
        maps=maps,
        begins=begins,
        inputs=inputs,
        outputs=x.shape[1],
        starts_in_contrasts=start,
        ends_in_contrasts=within,
        batch_size=len(x),
        rank=rank,
        rank_without_eps=without_eps,
    )


def _matrices(layer: nn.Module) -> list[Tensor]:
    return [parameter for parameter in layer.parameters() if parameter.ndim > 1]


def _loses_the_mean(layers: Sequence[nn.Module]) -> bool:
    """Tell whether the same change of all examples goes to zero: linear layers, which keep it so, and then a norm."""
    rest = next((layer for layer in layers if type(layer) is not nn.Linear), None)
    return rest is not None and uses_batch(rest)


def _mapped(
    layer: nn.Module, x: Tensor, image: Tensor, c: Tensor, *, within: bool, leaves_mean: bool, normed: bool
) -> tuple[ColumnMap, bool, tuple[int, int]]:
    """Return the map of a layer, whether it ends in contrasts, and bounds of its rank with ε and without."""
    n, size = c.shape
    if type(layer) is nn.Linear:
        k = n if within else size
        rank = min(x.shape[1], image.shape[1]) * k
        return Mixing(weight=layer.weight, rows=k), within, (rank, rank)
    if uses_batch(layer):
        move = _normalising(cast(_BatchNorm, layer), x, c)
        move = move if within else Blocks(blocks=move.blocks @ c)
        return move, True, (n * x.shape[1], (n - 1) * x.shape[1])
    slope = slopes(layer, x) if image.shape == x.shape and not list(layer.parameters()) else None
    if slope is not None:
        block = _sloped(slope, c, within=within, leaves_mean=leaves_mean)
        alive, most = slope.count_nonzero(dim=0), n if within else size
        rank, cut = (int(alive.clamp(max=at_most).sum()) for at_most in (most, most - normed))
        return Blocks(blocks=block), leaves_mean, (rank, cut)
    return functools.partial(_any, layer, x, c.mT if within else None), False, (image.numel(), image.numel())


def _normalising(layer: _BatchNorm, h: Tensor, c: Tensor) -> Blocks:
    """γ (I - s w wᵀ)/√(v + ε), w = C h/‖C h‖, s = v/(v + ε), and its inverse (I + (v/ε) w wᵀ) √(v + ε)/γ.

    Along w it is γ ε/(v + ε)^{3/2}: the difference of two numbers near 1, where the inverse is a sum.
    """
    g = (c @ h).mT
    square = g.square().sum(dim=1)
    v = square / len(h)
    scale = (v + layer.eps).rsqrt()
    scale = (scale if layer.weight is None else scale * layer.weight)[:, None, None]
    w = g / torch.where(square > 0, square, 1.0).sqrt()[:, None]
    outer = w[:, :, None] * w[:, None, :]
    identity = torch.eye(len(c), dtype=h.dtype, device=h.device)
    share, excess = (v / (v + layer.eps))[:, None, None], (v / layer.eps)[:, None, None]
    return Blocks(blocks=(identity - share * outer) * scale, back=(identity + excess * outer) / scale)


def _sloped(slope: Tensor, c: Tensor, *, within: bool, leaves_mean: bool) -> Float[Tensor, "features after before"]:
    """Form A diag(φ′) Aᵀ of every feature, with C or I for each A."""
    rows = c * slope.mT[:, None, :] if leaves_mean else torch.diag_embed(slope.mT)
    return rows @ c.mT if within else rows


def _by_matrix(matrix: Float[Tensor, "after before"], columns: Tensor) -> Tensor:
    """Apply one matrix to every feature."""
    return (matrix @ columns.reshape(-1, matrix.shape[1], columns.shape[-1])).reshape(-1, columns.shape[-1])


def _any(layer: nn.Module, x: Tensor, expand: Tensor | None, columns: Tensor) -> Tensor:
    """Push tangents through a layer without a map of its own, example by example."""
    columns = columns if expand is None else _by_matrix(expand, columns)
    tangents = columns.reshape(x.shape[1], len(x), -1).permute(2, 1, 0)
    pushed = push_tangents(layer, x, tangents, memory_budget=_CHUNK)
    return pushed.permute(2, 1, 0).reshape(-1, pushed.shape[0])
