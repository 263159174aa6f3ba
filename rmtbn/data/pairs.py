"""Pairs of inputs of a chosen correlation and length, as the correlation map takes them."""

import torch
from jaxtyping import Float
from torch import Tensor

from rmtbn import _checks


def correlated_pairs(
    *, pairs: int, features: int, correlation: float, generator: torch.Generator, mean_square: float = 1.0
) -> Float[Tensor, "examples features"]:
    """Draw pairs of inputs whose cosine and mean square are exactly as asked, in random directions.

    Parameters
    ----------
    pairs
        Number of pairs, >= 1.
    features
        Size of an input, >= 2.
    correlation
        c = ⟨a, b⟩/(‖a‖‖b‖), in [-1, 1].
    generator
        Source of the draws, on the CPU.
    mean_square
        ‖a‖²/features = ‖b‖²/features, > 0.

    Returns
    -------
    Tensor
        Shape (2·pairs, features), float64: rows 0 and 1 are a pair, 2 and 3 the next, …

    Raises
    ------
    InvalidArgumentError
        If an argument is out of range.
    """
    count = _checks.integer("pairs", pairs, at_least=1)
    size = _checks.integer("features", features, at_least=2)
    c = _checks.real("correlation", correlation, at_least=-1.0, at_most=1.0)
    length = (_checks.real("mean_square", mean_square, above=0.0) * size) ** 0.5
    draws = torch.randn(count, size, 2, generator=generator, dtype=torch.float64)
    first, across = torch.linalg.qr(draws).Q.unbind(-1)
    second = c * first + (1 - c * c) ** 0.5 * across
    return length * torch.stack([first, second], dim=1).reshape(2 * count, size)
