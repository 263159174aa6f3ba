"""Statistics of the layers of many networks in one pass: four moments, spread between networks, correlation of pairs.

The twins in theory: q and c of `rmtbn.theory.propagation`, Var ln q of `rmtbn.theory.width_expansion`, and those of
residual networks in `rmtbn.theory.residual_moments`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.measure.ensemble import State, pushed
from rmtbn.result import DepthProfile

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FourMoments:
    """First four moments, each of shape (networks, layers).

    Parameters
    ----------
    mean
        Divided by the root mean square of the layer.
    log_variance
        Natural logarithm; -inf for a constant.
    skewness, kurtosis
        Third and fourth standardised moments (0 and 3 for a Gaussian); NaN for a constant, which has none.
    """

    mean: Array
    log_variance: Array
    skewness: Array
    kurtosis: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EnsembleMoments:
    """Statistics of the outputs h of the layers of many networks, shape (examples, units) each.

    Parameters
    ----------
    layers
        Names of the layers.
    log_second_moment
        log of the mean square over all entries, log q, shape (networks, layers).
    example_log_second_moment
        The same for each example, shape (networks, layers, examples).
    overall
        Moments over all entries.
    over_units
        Over the units, averaged over the examples (of which each network has its own moments).
    over_examples
        Over the examples, averaged over the units.
    decorrelation
        1 - c of the examples (0, 1), (2, 3), …, with full digits near c = 1; shape (networks, layers, pairs).
    """

    layers: tuple[str, ...]
    log_second_moment: Array
    example_log_second_moment: Array
    overall: FourMoments
    over_units: FourMoments
    over_examples: FourMoments
    decorrelation: Array

    @property
    def depth(self) -> Array:
        """Layer numbers from 1."""
        return np.arange(1.0, len(self.layers) + 1)

    def log_q(self) -> DepthProfile:
        """Mean over networks of log q, with its standard error."""
        return DepthProfile.over_networks(
            self.log_second_moment, depth=self.depth, symbol="q", label="mean square", is_log=True
        )

    def log_q_spread(self) -> DepthProfile:
        """Variance between networks of log q; its standard error is that of a variance of Gaussian values."""
        return _spread(self.log_second_moment, self.depth, symbol="Var ln q", label="log mean square")

    def log_variance_spread(self) -> DepthProfile:
        """Variance between networks of the log variance over all entries; its error is as in `log_q_spread`."""
        return _spread(self.overall.log_variance, self.depth, symbol="Var ln var", label="log variance")

    def correlation(self) -> DepthProfile:
        """Mean over networks of the correlation c, averaged over the pairs of a network."""
        pairs = self.decorrelation.mean(axis=2)
        return DepthProfile.over_networks(1 - pairs, depth=self.depth, symbol="c", label="correlation of two inputs")


def ensemble_moments(
    modules: Sequence[nn.Module],
    x: Float[Tensor, "examples ..."],
    *,
    layers: Sequence[str] | None = None,
    batch_stats: str | None = None,
) -> EnsembleMoments:
    """Measure the layers of many networks in one pass, however deep they are.

    Parameters
    ----------
    modules
        Networks of one architecture, left as found.
    x
        Inputs (examples, ...features), the same for all; see `rmtbn.data.pairs` for pairs of a chosen correlation.
    layers
        Names of layers as `rmtbn.measure.ensemble.pushed` sees them; those that hold a weight matrix if left out.
    batch_stats
        "batch", "running", or None for the modules' own mode.

    Returns
    -------
    EnsembleMoments
        In the order of the layers.

    Raises
    ------
    InvalidArgumentError
        As `rmtbn.measure.ensemble.pushed`, for an unknown layer, and if there is none to look at.
    """
    wanted = None if layers is None else set(layers)

    with pushed(modules, x, batch_stats=batch_stats) as states:
        found = [
            (state.name, _statistics(state))
            for state in states
            if (state.has_weight if wanted is None else state.name in wanted)
        ]
    names = tuple(name for name, _ in found)
    for name in wanted or ():
        _checks.one_of("layers", name, names)
    if not found:
        raise _checks.fail("layers", "one or more names, where no layer holds a weight matrix", layers)
    columns = {key: _stack([statistics[key] for _, statistics in found]) for key in found[0][1]}
    return EnsembleMoments(
        layers=names,
        log_second_moment=columns["log_second_moment"],
        example_log_second_moment=columns["example_log_second_moment"],
        overall=_four(columns, "all"),
        over_units=_four(columns, "units"),
        over_examples=_four(columns, "examples"),
        decorrelation=columns["decorrelation"],
    )


def _statistics(state: State) -> dict[str, Tensor]:
    h = state.outputs.flatten(2).double()
    peak = h.abs().flatten(1).amax(1).clamp_min(torch.finfo(torch.float64).tiny)
    h, log_scale = h / peak[:, None, None], 2 * (state.log_scale + peak.log())
    second = h.square().mean((1, 2))
    result = {
        "log_second_moment": second.log() + log_scale,
        "example_log_second_moment": h.square().mean(2).log() + log_scale[:, None],
        "decorrelation": _decorrelation(h),
    }
    for name, axes in (("all", (1, 2)), ("units", (2,)), ("examples", (1,))):
        mean = h.mean(axes, keepdim=True)
        centred = h - mean
        variance = centred.square().mean(axes, keepdim=True)
        standard = centred / variance.sqrt()
        result |= {
            f"{name}_mean": mean.flatten(1).mean(1) / second.sqrt(),
            f"{name}_log_variance": variance.flatten(1).mean(1).log() + log_scale,
            f"{name}_skewness": standard.pow(3).flatten(1).mean(1),
            f"{name}_kurtosis": standard.pow(4).flatten(1).mean(1),
        }
    return result


def _decorrelation(h: Float[Tensor, "networks examples units"]) -> Float[Tensor, "networks pairs"]:
    """1 - c as half the squared distance of the two directions, which keeps its digits near c = 1."""
    pairs = h.shape[1] // 2
    directions = h / h.norm(dim=2, keepdim=True)
    first, second = directions[:, 0 : 2 * pairs : 2], directions[:, 1 : 2 * pairs : 2]
    return (first - second).square().sum(2) / 2


def _spread(values: Array, depth: Array, *, symbol: str, label: str) -> DepthProfile:
    count = len(values)
    if count < 2:
        raise _checks.fail("modules", "two or more networks, to have a spread", count)
    variance = values.var(axis=0, ddof=1)
    return DepthProfile(
        depth=depth,
        value=variance,
        se=variance * np.sqrt(2 / (count - 1)),
        symbol=symbol,
        label=f"variance between networks of the {label}",
        networks=count,
    )


def _four(columns: dict[str, Array], name: str) -> FourMoments:
    return FourMoments(
        mean=columns[f"{name}_mean"],
        log_variance=columns[f"{name}_log_variance"],
        skewness=columns[f"{name}_skewness"],
        kurtosis=columns[f"{name}_kurtosis"],
    )


def _stack(columns: list[Tensor]) -> Array:
    """Stack layers as the second axis."""
    return np.asarray(torch.stack(columns, dim=1).cpu().numpy())
