"""Linear maps known only by what they and their transposes do to blocks of vectors.

A block of k vectors is a matrix of k rows, so that a linear layer acts on it by one product of matrices at the full
rate of the machine: narrow blocks of columns run at a quarter of it.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp, vjp, vmap

from rmtbn import _checks

# (k, in) -> (k, out): the images of k vectors.
BlockMap: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operator:
    """A linear map J from R^inputs to R^outputs.

    Parameters
    ----------
    inputs, outputs
        Its dimensions n and m.
    apply
        V -> V Jᵀ: the images of the rows of V, shape (k, inputs) -> (k, outputs).
    apply_transpose
        U -> U J: the same for the transpose, shape (k, outputs) -> (k, inputs).
    dtype, device
        Of the blocks.
    """

    inputs: int
    outputs: int
    apply: BlockMap
    apply_transpose: BlockMap
    dtype: torch.dtype
    device: torch.device

    @property
    def transposed(self) -> "Operator":
        """The transpose Jᵀ, from R^outputs to R^inputs."""
        return Operator(
            inputs=self.outputs,
            outputs=self.inputs,
            apply=self.apply_transpose,
            apply_transpose=self.apply,
            dtype=self.dtype,
            device=self.device,
        )


def from_matrix(matrix: Float[Tensor, "m n"]) -> Operator:
    """Return the operator x -> matrix @ x."""
    return Operator(
        inputs=matrix.shape[1],
        outputs=matrix.shape[0],
        apply=lambda v: v @ matrix.mT,
        apply_transpose=lambda u: u @ matrix,
        dtype=matrix.dtype,
        device=matrix.device,
    )


def composition(operators: Sequence[Operator]) -> Operator:
    """Return the operator that applies the given ones one after the other, the first first.

    Raises
    ------
    InvalidArgumentError
        If there is none, or one does not take what the one before it gives.
    """
    sizes = [(operator.inputs, operator.outputs) for operator in operators]
    if not sizes or any(before[1] != after[0] for before, after in itertools.pairwise(sizes)):
        raise _checks.fail("operators", "one or more, each taking what the one before it gives", sizes)
    return Operator(
        inputs=sizes[0][0],
        outputs=sizes[-1][1],
        apply=functools.partial(_chain, [operator.apply for operator in operators]),
        apply_transpose=functools.partial(_chain, [operator.apply_transpose for operator in reversed(operators)]),
        dtype=operators[0].dtype,
        device=operators[0].device,
    )


def differential(function: Callable[[Tensor], Tensor], point: Tensor, *, chunk_size: int | None = None) -> Operator:
    """Return the differential of a function at a point: JVPs forward, VJPs back, many at once (`torch.func.vmap`).

    Parameters
    ----------
    function
        Maps a tensor to a tensor; anything that `torch.func` differentiates.
    point
        Where; tangents and cotangents are flattened to rows.
    chunk_size
        Vectors in flight at a time; None: all of the block.

    Returns
    -------
    Operator
        From R^(point.numel()) to R^(function(point).numel()).
    """
    image, pull = cast("tuple[Tensor, Callable[[Tensor], tuple[Tensor]]]", vjp(function, point))
    push = vmap(lambda tangent: jvp(function, (point,), (tangent,))[1], chunk_size=chunk_size)
    back = vmap(lambda cotangent: pull(cotangent)[0], chunk_size=chunk_size)
    return Operator(
        inputs=point.numel(),
        outputs=image.numel(),
        apply=lambda v: push(v.reshape(-1, *point.shape)).reshape(len(v), -1),
        apply_transpose=lambda u: back(u.reshape(-1, *image.shape)).reshape(len(u), -1),
        dtype=point.dtype,
        device=point.device,
    )


def _chain(maps: Sequence[BlockMap], block: Tensor) -> Tensor:
    return functools.reduce(lambda vectors, move: move(vectors), maps, block)
