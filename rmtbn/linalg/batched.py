"""Rows and columns of batches of matrices: their norms, and selections."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def take(x: Float[Tensor, "*batch m n"], index: Int[Tensor, "*batch k"], *, dim: int) -> Float[Tensor, "*batch p q"]:
    """Select rows (dim -2) or columns (dim -1) of each matrix by its own index."""
    if index.numel() == index.shape[-1]:  # a single matrix: several times faster
        flat = index.flatten()
        return x.index_select(-2, flat) if dim == -2 else x.mT.index_select(-2, flat).mT
    return x.take_along_dim(index[..., None] if dim == -2 else index[..., None, :], dim=dim)


def columns(x: Float[Tensor, "*batch m n"], index: Int[Tensor, " k"]) -> Float[Tensor, "*batch m k"]:
    """Select the same columns of matrices that lie by rows: up to eight times as fast as by indexing, on the CPU."""
    return x.gather(-1, index.expand(*x.shape[:-1], -1))


def spread(x: Float[Tensor, "*batch m k"], index: Int[Tensor, " k"], size: int) -> Float[Tensor, "*batch m n"]:
    """Put columns back where they were among so many, the others 0."""
    return x.new_zeros(*x.shape[:-1], size).scatter_(-1, index.expand(x.shape), x)


def norms(x: Tensor, *, dim: int, look: bool = True) -> Tensor:
    """2-norms along a dimension; a tiny vector whose squares underflow gets its largest entry, not zero.

    Parameters
    ----------
    x
        Any shape.
    dim
        The dimension.
    look
        Whether the host may look at the numbers, and spare what they allow.
    """
    lies_well = x.stride(dim) == 1  # else products first are several times faster on the CPU
    found = torch.linalg.vector_norm(x, dim=dim) if lies_well else torch.linalg.vecdot(x, x, dim=dim).sqrt()
    small = torch.finfo(x.dtype).tiny ** 0.5 / torch.finfo(x.dtype).eps
    return found if look and bool((found > small).all()) else torch.maximum(found, x.abs().amax(dim=dim))
