"""How large and how heavy-tailed a parameter's gradient is: Figure 2 of Bjorck et al. 2018 (arXiv:1806.02375)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.measure.loss import check_batch, gradient_at, parameters_of
from rmtbn.measure.tail_index import TailIndex, hill, power_law
from rmtbn.result import Scalar

Array = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SignedHistogram:
    """Counts of values by sign and size, in bins whose edges are powers of 10^(1/n): the same bins for all data.

    Parameters
    ----------
    edges
        Edges of |x|, ascending, shape (bins + 1,).
    positive, negative
        Numbers of values in [edge, next edge), of each sign, shape (bins,).
    zeros
        Number of exact zeros.
    """

    edges: Array
    positive: Counts
    negative: Counts
    zeros: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GradientTail:
    """The entries of one parameter's gradient, as a sample.

    Parameters
    ----------
    parameter
        Name of the parameter.
    values
        Its gradient, flattened.
    log_std
        Natural log of the standard deviation; -inf for a constant gradient.
    kurtosis, kurtosis_se
        Fourth central moment over the squared variance, 3 for a Gaussian, and its standard error for independent
        entries. Where the eighth moment is infinite, as in a heavy tail, both grow with the sample.
    max_over_std
        Largest deviation from the mean over the standard deviation.
    hill
        Tail index of the largest 1 % of the entries; None where these are fewer than 10.
    power_law
        Tail index where a power law fits best; None for fewer than 200 non-zero entries.
    """

    parameter: str
    values: Array
    log_std: float
    kurtosis: float
    kurtosis_se: float
    max_over_std: float
    hill: TailIndex | None
    power_law: TailIndex | None

    def histogram(self, *, per_decade: int = 4) -> SignedHistogram:
        """Count the entries by sign and size."""
        return signed_histogram(self.values, per_decade=per_decade)


def gradient_tails(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    y: Int[Tensor, " examples"],
    *,
    parameters: Sequence[str] | None = None,
    batch_stats: str | None = None,
) -> tuple[GradientTail, ...]:
    """Measure size and tails of the gradient of the mean cross-entropy, parameter by parameter.

    Parameters
    ----------
    module
        Any network from inputs to logits; left as found.
    x, y
        Inputs (examples, ...) and their classes.
    parameters
        Names of parameters as in `named_parameters`; all of two or more axes if left out.
    batch_stats
        "batch", "running", or None for the module's own mode.

    Returns
    -------
    tuple of GradientTail
        In the order of the parameters.

    Raises
    ------
    InvalidArgumentError
        For an unknown parameter, a batch or loss that is not finite, or labels that are no classes.
    """
    check_batch(module, x, y)
    matrices = [name for name, p in module.named_parameters() if p.ndim > 1]
    start = parameters_of(module, matrices if parameters is None else parameters)
    _, gradients = gradient_at(module, x, y, parameters=start, batch_stats=batch_stats)
    return tuple(_tail(name, gradient.double().flatten().cpu().numpy()) for name, gradient in gradients.items())


def log_size_ratio(first: Sequence[GradientTail], second: Sequence[GradientTail]) -> Scalar:
    """Compare the sizes of a gradient in two kinds of networks: the mean of ln(std) in the first less in the second.

    Parameters
    ----------
    first, second
        One gradient per network, of independent networks, for example without and with normalisation.

    Returns
    -------
    Scalar
        With its standard error over networks, infinite where one kind has a single network.
    """
    sides = [Scalar.over_networks([one.log_std for one in side], symbol="", label="") for side in (first, second)]
    return Scalar(
        value=sides[0].value - sides[1].value,
        se=float(np.hypot(sides[0].se, sides[1].se)),
        symbol="ln(s₁/s₂)",
        label="log ratio of gradient sizes",
        networks=min(side.networks for side in sides),
    )


def kurtosis(values: ArrayLike) -> tuple[float, float]:
    """Return m₄/m₂² of a sample and its standard error for independent values; NaN for a constant sample.

    The error is that of the linear term: with z the standardised values, κ = E z⁴ and s = E z³, a value changes κ by
    z⁴ - κ - 2κ(z² - 1) - 4sz, divided by their number. For a Gaussian its mean square is 24.
    """
    z = _standardised(_checks.array("values", np.asarray(values)).ravel())
    kappa, skew = float(np.mean(z**4)), float(np.mean(z**3))
    influence = z**4 - kappa - 2 * kappa * (z**2 - 1) - 4 * skew * z
    return kappa, float(np.sqrt(np.mean(influence**2) / z.size))


def signed_histogram(values: ArrayLike, *, per_decade: int = 4) -> SignedHistogram:
    """Count values by sign and size, in bins with edges 10^(k/per_decade), k integer.

    Parameters
    ----------
    values
        Finite numbers, of any shape.
    per_decade
        Bins per factor of 10.
    """
    n = _checks.integer("per_decade", per_decade, at_least=1)
    numbers = _checks.array("values", np.asarray(values)).ravel()
    places = np.floor(np.log10(np.abs(numbers[numbers != 0])) * n).astype(np.int64)
    if places.size == 0:
        empty = np.zeros(0, dtype=np.int64)
        return SignedHistogram(edges=np.ones(1), positive=empty, negative=empty, zeros=numbers.size)
    low, bins = int(places.min()), int(places.max() - places.min()) + 1
    positive = numbers[numbers != 0] > 0
    return SignedHistogram(
        edges=10.0 ** (np.arange(low, low + bins + 1) / n),
        positive=np.bincount(places[positive] - low, minlength=bins),
        negative=np.bincount(places[~positive] - low, minlength=bins),
        zeros=int((numbers == 0).sum()),
    )


def _standardised(values: Array) -> Array:
    """Return (x - mean)/std with no square that overflows; NaN where std is 0."""
    deviation = values / (np.abs(values).max() or 1.0)
    deviation = deviation - deviation.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(deviation / deviation.std())


def _tail(name: str, values: Array) -> GradientTail:
    kappa, se = kurtosis(values)
    scale = np.abs(values).max() or 1.0
    with np.errstate(divide="ignore"):
        log_std = float(np.log(np.std(values / scale)) + np.log(scale))
    nonzero, top = int((values != 0).sum()), values.size // 100
    return GradientTail(
        parameter=name,
        values=values,
        log_std=log_std,
        kurtosis=kappa,
        kurtosis_se=se,
        max_over_std=float(np.abs(_standardised(values)).max()),
        hill=hill(values, count=top) if 10 <= top < nonzero else None,
        power_law=power_law(values) if nonzero >= 200 else None,
    )
