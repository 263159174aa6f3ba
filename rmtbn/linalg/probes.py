"""Random vectors that estimate norms: drawn once and kept, as every re-factorisation takes the same."""

import functools

import torch
from jaxtyping import Float
from torch import Tensor


def normals(seed: int, rows: int, columns: int, *, like: Tensor) -> Float[Tensor, "rows columns"]:
    """Return independent standard normal numbers, the same ones for the same seed and shape.

    Parameters
    ----------
    seed
        Names them.
    rows, columns
        Shape.
    like
        Of its dtype, drawn on its device. The result is shared and must not be changed.
    """
    return _drawn(seed, (rows, columns), like.dtype, like.device)


@functools.lru_cache(maxsize=64)
def _drawn(seed: int, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    with torch.inference_mode(mode=False):  # what is kept may be needed outside of it
        return torch.randn(shape, dtype=dtype, device=device, generator=generator)
