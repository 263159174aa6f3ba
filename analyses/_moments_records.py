"""The records of `rmtbn moments`, by kind of network, and what the recursions say of each."""

import functools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from rmtbn.result import DepthProfile
from rmtbn.sweep.run import Records
from rmtbn.theory import bn_mean_field
from rmtbn.theory.correlation_expansion import CorrelationExpansion, correlation_expansion
from rmtbn.theory.propagation import Propagation, propagation
from rmtbn.theory.residual_moments import (
    ResidualMoments,
    batch_norm_residual_moments,
    block_scale,
    residual_moments,
)
from rmtbn.theory.width_expansion import WidthExpansion, width_expansion

Array = NDArray[np.float64]

QUANTITIES = {  # column: symbol, label, whether it is a logarithm
    "log_q": ("q", "mean square", True),
    "correlation": ("c", "correlation of two inputs", False),
    "log_gradient": ("‖g‖²", "squared gradient norm", True),
}
SCHEMES = MappingProxyType({"residual": "none", "scaled": "depth"})  # of the scale of branches, by block


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of network: block (plain, residual, scaled), activation, norm, σ_w² and σ_b²."""

    block: str
    activation: str
    norm: str
    sigma_w2: float
    sigma_b2: float

    def parameters(self) -> dict[str, str | float]:
        """Return the parameters of its cells."""
        return asdict(self)

    def sigmas(self) -> dict[str, float]:
        """Return σ_w and σ_b."""
        return {"sigma_w": self.sigma_w2**0.5, "sigma_b": self.sigma_b2**0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """Deviation of the mean of ln q or c from the recursion, with its error, and its first order in 1/width."""

    kind: Kind
    width: int
    measured: float
    se: float
    predicted: float


class Moments:
    """The records of a run."""

    def __init__(self, records: Records, *, start: Mapping[str, float], batch: int) -> None:
        rows = records.table("layers")
        rows["correlation"] = 1 - rows.decorrelation
        # the gradient against that at the last layer: the growth from the end of the network
        keys = ["block", "activation", "norm", "sigma_w2", "sigma_b2", "width", "seed", "network"]
        rows["log_gradient"] = rows.log_gradient - rows.groupby(keys).log_gradient.transform("last")
        self.rows, self.start, self.batch = rows, start, batch
        self.widths = sorted(int(width) for width in rows.width.unique())
        self.depth = int(rows.layer.max())
        names = ["block", "activation", "norm", "sigma_w2", "sigma_b2"]
        self.kinds = tuple(
            Kind(block=str(a), activation=str(b), norm=str(c), sigma_w2=float(d), sigma_b2=float(e))
            for a, b, c, d, e in rows[names].drop_duplicates().itertuples(index=False)
        )

    def by_network(self, kind: Kind, column: str, *, width: int) -> Array:
        """Return a quantity, shape (networks, layers)."""
        rows = self.rows[self.rows.width == width]
        for name, value in kind.parameters().items():
            rows = rows[rows[name] == value]
        return rows.pivot_table(index=["seed", "network"], columns="layer", values=column, dropna=False).to_numpy()

    def profile(self, kind: Kind, column: str, *, width: int) -> DepthProfile:
        """Return a measured quantity, averaged over networks."""
        symbol, label, is_log = QUANTITIES[column]
        values = self.by_network(kind, column, width=width)
        depth = np.arange(1.0, values.shape[1] + 1)
        return DepthProfile.over_networks(values, depth=depth, symbol=symbol, label=label, is_log=is_log)

    def prediction(self, kind: Kind, column: str) -> DepthProfile:
        """Return the recursion's quantity at infinite width."""
        symbol, label, is_log = QUANTITIES[column]
        values = (_plain if kind.block == "plain" else _residual)(kind, column, self)
        depth = np.arange(1.0, len(values) + 1)
        zeros = np.zeros(len(values))
        return DepthProfile(depth=depth, value=values, se=zeros, symbol=symbol, label=label, is_log=is_log)

    def first_order(self, kind: Kind, column: str, *, width: int) -> Array:
        """Return the first order in 1/width of ln q or c, as measured over a layer, of a plain network without norm.

        A mean of N squares: E ln of it is lower by 1/N than ln of the length of its law.
        """
        if column == "log_q":
            lengths = _expanded(kind, depth=self.depth, width=width)
            return np.asarray(lengths.log_q_mean - np.log(lengths.q) - 1 / width)
        pairs = _pairs_expanded(kind, depth=self.depth, width=width, c0=self.start["none"])
        return np.asarray(-pairs.shift - pairs.sample_shift)

    @cached_property
    def plain_kinds(self) -> tuple[Kind, ...]:
        """The kinds whose lengths have a first order in 1/width."""
        return tuple(kind for kind in self.kinds if (kind.block, kind.norm) == ("plain", "none"))

    def deviation(self, kind: Kind, column: str, *, width: int) -> tuple[float, float]:
        """Return the mean over layers beyond a fifth of the depth of ln q or c less the recursion's, and its error."""
        values = self.by_network(kind, column, width=width) - self.prediction(kind, column).value
        late = values[:, self.depth // 5 :].mean(axis=1)
        return float(late.mean()), float(late.std(ddof=1) / math.sqrt(len(late)))


def _plain(kind: Kind, column: str, moments: Moments) -> Array:
    if kind.norm == "batch":
        return _batch_normalised(kind, column, moments)
    found = _propagated(kind, depth=moments.depth, c0=moments.start["none"])
    if column == "log_gradient":
        return _from_the_end(np.log(found.chi1[:-1]))
    return found.log_q if column == "log_q" else 1 - found.decorrelation


@functools.lru_cache(maxsize=64)
def _propagated(kind: Kind, *, depth: int, c0: float) -> Propagation:
    """Run the recursions once for all quantities."""
    return propagation(c0, kind.activation, q0=1.0, depth=depth, **kind.sigmas())


@functools.lru_cache(maxsize=256)
def _expanded(kind: Kind, *, depth: int, width: int) -> WidthExpansion:
    return width_expansion(kind.activation, widths=(width,) * (depth + 1), **kind.sigmas())


@functools.lru_cache(maxsize=256)
def _pairs_expanded(kind: Kind, *, depth: int, width: int, c0: float) -> CorrelationExpansion:
    return correlation_expansion(kind.activation, widths=(width,) * (depth + 1), c0=c0, **kind.sigmas())


def _batch_normalised(kind: Kind, column: str, moments: Moments) -> Array:
    """Every layer but the first is at the fixed point; gradients at the first meet the spread of the inputs there."""
    point = bn_mean_field.fixed_point(kind.activation, batch_size=moments.batch)
    first, others = {
        "log_q": (math.log(kind.sigma_w2), math.log(kind.sigma_w2 * point.q)),
        "correlation": (moments.start["batch"], point.c),
        "log_gradient": (
            math.log(point.explosion_rate * point.q * (1 - point.c) / (1 - moments.start["batch"])),
            math.log(point.explosion_rate),
        ),
    }[column]
    values = np.array([first, *[others] * (moments.depth - 1)])
    return _from_the_end(values[:-1]) if column == "log_gradient" else values


def _from_the_end(steps: Array) -> Array:
    """Add up growth per layer from the last layer, where it is 0."""
    return np.append(np.cumsum(steps[::-1])[::-1], 0.0)


def _residual(kind: Kind, column: str, moments: Moments) -> Array:
    found = _residual_moments(kind, moments)
    values = {"log_q": found.log_q, "correlation": 1 - found.decorrelation, "log_gradient": found.log_gradient}
    return values[column][1:]


def _residual_moments(kind: Kind, moments: Moments) -> ResidualMoments:
    alpha = block_scale(SCHEMES[kind.block], depth=moments.depth)
    if kind.norm == "batch":
        return batch_norm_residual_moments(
            kind.activation,
            depth=moments.depth,
            batch_size=moments.batch,
            sigma_w=kind.sigmas()["sigma_w"],
            alpha=alpha,
            c0=moments.start["batch"],
        )
    sigma_w, sigma_b = kind.sigmas().values()
    return residual_moments(
        kind.activation, depth=moments.depth, alpha=alpha, c0=moments.start["none"], sigma_w=sigma_w, sigma_b=sigma_b
    )


def deviations(moments: Moments, column: str) -> list[Deviation]:
    """List, per plain kind and width, the deviation of ln q or c from the recursion and its prediction."""
    found_all = []
    for kind in moments.plain_kinds:
        for width in moments.widths:
            measured, se = moments.deviation(kind, column, width=width)
            first = moments.first_order(kind, column, width=width)[moments.depth // 5 :].mean()
            one = Deviation(kind=kind, width=width, measured=measured, se=se, predicted=float(first))
            found_all.append(one)
    return found_all
