"""How alike are the gradients at neighbouring inputs? Balduzzi et al. 2017 (arXiv:1702.08591), Figure 1.

The gradient of a network's output with respect to its input is followed along a grid of inputs (256 of them in [-2, 2]
in the paper, one input unit, 200 hidden ones), and its autocorrelation laid beside that of white noise (independent
values) and of brown noise (their running sums). Without biases a ReLU network of one input unit has only two gradients,
at x < 0 and x > 0: give it biases, or a line in a space of more dimensions. The twin in theory, for two inputs, is
`rmtbn.theory.shattering`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.measure.snapshot import probe
from rmtbn.result import Scalar

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Autocorrelation:
    """Autocorrelation of curves, mean over networks.

    Parameters
    ----------
    lags
        Distances along the grid, from 0, shape (lags,).
    value, se
        Mean over the networks and its standard error, infinite for one network, shape (lags,).
    networks
        Number of curves behind the mean.
    constant
        Number of curves left out because they are constant (zero, where not centred), so that nothing can correlate.
    """

    lags: NDArray[np.int64]
    value: Array
    se: Array
    networks: int
    constant: int


def input_gradients(
    module: nn.Module, x: Float[Tensor, "points ..."], *, batch_stats: str | None = None
) -> Float[np.ndarray, "points features"]:
    """Measure the gradient of the sum of all outputs with respect to every input.

    Parameters
    ----------
    module
        Any network; left as found.
    x
        Inputs (points, ...), for example a grid of shape (256, 1).
    batch_stats
        "batch", "running", or None for the module's own mode. With "batch" the outputs at all points depend on each
        input through the statistics; "running" holds these fixed, and gives the gradient at each point by itself.

    Returns
    -------
    Array
        Shape (points, features); for one output unit and no batch statistics, ∂f/∂x at each point.

    Raises
    ------
    InvalidArgumentError
        For inputs or outputs that are not finite.
    """
    if not bool(torch.isfinite(x).all()):
        raise _checks.fail("x", "finite", "a tensor with NaN or infinity")
    with probe(module, batch_stats):
        start = x.detach().clone().requires_grad_()
        total = module(start).double().sum()
        if not bool(torch.isfinite(total)):
            raise _checks.fail("module", "finite at x", "inf or NaN in its output")
        (gradient,) = torch.autograd.grad(total, start)
    return gradient.flatten(1).double().cpu().numpy()


def autocorrelation(
    curves: Float[np.ndarray, "networks points"], *, most: int | None = None, centred: bool = True
) -> Autocorrelation:
    """Average the autocorrelation of curves: r_k = Σ_t a_t a_{t+k}/Σ_t a_t², a the curve less its mean.

    Parameters
    ----------
    curves
        One curve per network, of gradients or of noise.
    most
        Largest lag, from 1 to points - 1; a third of the points if left out, since later ones are means of few terms.
    centred
        Whether the mean of each curve is taken away. A constant gradient, as of a linear network, then has no
        autocorrelation; left as it is, it has 1 - k/points.

    Returns
    -------
    Autocorrelation

    Raises
    ------
    InvalidArgumentError
        For lags out of range, or if every curve is constant.
    """
    points = curves.shape[1]
    last = points // 3 if most is None else most
    last = _checks.integer("most", last, at_least=1, at_most=points - 1)
    scale = np.abs(curves).max(axis=1, keepdims=True)
    deviation = curves / np.where(scale > 0, scale, 1.0)
    deviation = deviation - deviation.mean(axis=1, keepdims=True) if centred else deviation
    squares = (deviation**2).sum(axis=1)
    varied = squares > points * np.finfo(np.float64).eps ** 2
    if not varied.any():
        raise _checks.fail("curves", "curves of which one or more vary", "constants")
    kept, sizes = deviation[varied], squares[varied]
    found = np.stack([(kept[:, : points - k] * kept[:, k:]).sum(axis=1) / sizes for k in range(last + 1)], axis=1)
    count = len(found)
    se = found.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.full(last + 1, np.inf)
    return Autocorrelation(
        lags=np.arange(last + 1), value=found.mean(axis=0), se=se, networks=count, constant=len(curves) - count
    )


def white_noise(count: int, points: int, *, generator: np.random.Generator) -> Float[np.ndarray, "count points"]:
    """Draw curves of independent standard normal values."""
    shape = (_checks.integer("count", count, at_least=1), _checks.integer("points", points, at_least=2))
    return generator.standard_normal(shape)


def brown_noise(count: int, points: int, *, generator: np.random.Generator) -> Float[np.ndarray, "count points"]:
    """Draw curves that are running sums of independent standard normal values."""
    return white_noise(count, points, generator=generator).cumsum(axis=1)


def pair_correlation(
    first: Float[np.ndarray, "networks features"], second: Float[np.ndarray, "networks features"]
) -> Scalar:
    """Correlate the gradients at two inputs over networks: E⟨g, g'⟩/√(E‖g‖² E‖g'‖²), E the mean over the networks.

    The gradients have mean 0 over networks, so nothing is subtracted.

    Parameters
    ----------
    first, second
        Gradients at either input, one row per network, as `input_gradients` gives them.

    Returns
    -------
    Scalar
        With the standard error of the jackknife over networks; infinite for one network.
    """
    cross, one, other = (first * second).sum(1), (first**2).sum(1), (second**2).sum(1)
    value = float(cross.sum() / np.sqrt(one.sum() * other.sum()))
    n = len(cross)
    left_out = (cross.sum() - cross) / np.sqrt((one.sum() - one) * (other.sum() - other)) if n > 1 else cross
    se = float(np.sqrt((n - 1) * left_out.var())) if n > 1 else float("inf")
    return Scalar(value=value, se=se, symbol="corr(g, g′)", label="correlation of gradients at two inputs", networks=n)
