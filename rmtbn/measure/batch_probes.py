"""Batch Jacobians that do not fit in memory: ‖J‖_F², the share of the per-sample blocks, the largest singular values.

All by products of J, or of its transpose, with vectors. Errors are over the random vectors of one network; over
networks, average what several seeds of the network give.
"""

import math

import torch
from torch import Tensor, nn

from rmtbn import _checks, rng
from rmtbn.linalg import lanczos
from rmtbn.linalg.operator import Operator
from rmtbn.measure.jacobian_operator import jacobian_operator
from rmtbn.result import Scalar

_AT_ONCE = 16  # vectors in flight


def squared_norm(module: nn.Module, x: Tensor, *, probes: int = 64, seed: int = 0) -> Scalar:
    """Estimate ‖J‖_F² = E |J ω|² over random vectors ω of independent signs, with batch statistics.

    Parameters
    ----------
    module, x
        As in `rmtbn.measure.jacobian.spectrum`.
    probes
        Number of ω, >= 2. The relative standard error is at most √(2 m₂/(m₁² d probes)), with d outputs and the
        moments m of λ.
    seed
        Of ω.

    Returns
    -------
    Scalar
        With its standard error over the vectors.

    Raises
    ------
    InvalidArgumentError
        As `rmtbn.measure.jacobian.spectrum`, and for fewer than 2 probes.

    References
    ----------
    Hutchinson, Commun. Stat. Simul. Comput. 18 (1989) 1059.
    """
    probes = _checks.integer("probes", probes, at_least=2)
    draws = rng.torch_generator(seed, "batch Jacobian", "norm")
    with jacobian_operator(module, x, batch_stats="batch") as jacobian:
        squares = [_images(jacobian, count, draws) for count in _portions(probes)]
    found = torch.cat(squares)
    return Scalar(
        value=float(found.mean()),
        se=float(found.std()) / math.sqrt(probes),
        symbol="‖J‖²",
        label="squared Frobenius norm of the batch Jacobian",
        networks=1,
    )


def block_share(module: nn.Module, x: Tensor, *, probes: int = 64, seed: int = 0) -> Scalar:
    """Estimate the share of ‖J‖_F² in the per-sample diagonal blocks, Σ_i ‖J_ii‖²/‖J‖².

    A random cotangent at one random example is pulled back; the share is the mean square that arrives at that example
    over the mean square that arrives at all.

    Parameters
    ----------
    module, x, seed
        As in `squared_norm`.
    probes
        Cotangents, >= 2, spread over the examples as evenly as possible.

    Returns
    -------
    Scalar
        With the standard error of the ratio over the cotangents.

    Raises
    ------
    InvalidArgumentError
        As `squared_norm`.
    """
    probes = _checks.integer("probes", probes, at_least=2)
    draws = rng.torch_generator(seed, "batch Jacobian", "blocks")
    order = torch.cat([torch.randperm(len(x), generator=draws) for _ in range(-(-probes // len(x)))])[:probes]
    pairs = []
    with jacobian_operator(module, x, batch_stats="batch") as jacobian:
        for examples in torch.split(order, _AT_ONCE):
            signs = _signs(len(examples), jacobian.outputs // len(x), draws, like=jacobian)
            cotangents = torch.zeros(len(examples), len(x), signs.shape[1], dtype=x.dtype, device=x.device)
            places = torch.arange(len(examples)), examples
            cotangents[places] = signs
            pulled = jacobian.apply_transpose(cotangents.flatten(1)).reshape(len(examples), len(x), -1).double()
            squares = pulled.square().sum(dim=2)
            pairs.append(torch.stack([squares[places], squares.sum(dim=1)]))
    own, every = torch.cat(pairs, dim=1)
    share = float(own.mean() / every.mean())
    residual = own - share * every
    return Scalar(
        value=share,
        se=float(residual.std() / every.mean()) / math.sqrt(probes),
        symbol="share",
        label="share of ‖J‖² in the per-sample blocks",
        networks=1,
    )


def largest(
    module: nn.Module, x: Tensor, *, count: int = 1, tolerance: float = 1e-6, seed: int = 0
) -> lanczos.Extremes:
    """Compute the largest singular values with error bounds, by block Lanczos, with batch statistics.

    Parameters
    ----------
    module, x
        As in `rmtbn.measure.jacobian.spectrum`.
    count
        How many, >= 1.
    tolerance
        Bounds asked for, relative to the largest.
    seed
        Of the start.

    Returns
    -------
    Extremes
        A singular value lies within `bounds` of each of `values`.

    Raises
    ------
    InvalidArgumentError
        As `rmtbn.measure.jacobian.spectrum` and `rmtbn.linalg.lanczos.largest`.
    """
    draws = rng.torch_generator(seed, "batch Jacobian", "largest")
    with jacobian_operator(module, x, batch_stats="batch") as jacobian:
        return lanczos.largest(jacobian, count, tolerance=tolerance, generator=draws)


def _portions(probes: int) -> list[int]:
    return [min(_AT_ONCE, probes - done) for done in range(0, probes, _AT_ONCE)]


def _images(jacobian: Operator, count: int, draws: torch.Generator) -> Tensor:
    """|J ω|² of some vectors of signs."""
    return jacobian.apply(_signs(count, jacobian.inputs, draws, like=jacobian)).double().square().sum(dim=1).cpu()


def _signs(count: int, length: int, draws: torch.Generator, *, like: Operator) -> Tensor:
    ones = torch.randint(0, 2, (count, length), generator=draws)
    return (2 * ones - 1).to(like.dtype).to(like.device)
