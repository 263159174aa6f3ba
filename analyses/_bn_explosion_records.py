"""The records of `rmtbn bn-explosion` by kind of network, and what the mean field says of each."""

import functools
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmtbn.measure.explosion import Explosion
from rmtbn.result import DepthProfile, Scalar
from rmtbn.sweep.run import Records
from rmtbn.theory import bn_mean_field
from rmtbn.theory.batch_norm.fixed_point import FixedPoint
from rmtbn.theory.residual_moments import batch_norm_residual_moments

Array = NDArray[np.float64]

ACTIVATIONS = ("linear", "relu", "leaky_relu", "tanh", "erf", "gelu")
NAMES = {"relu": "ReLU", "leaky_relu": "leaky ReLU", "gelu": "GELU", "silu": "SiLU"}

ALLOWED = 4.0  # standard errors
# What finite width may change a rate by, relatively and in units of 1/N. Measured where the fixed point is stable
# (docs/derivations/explosion_rates.md): up to 2.7 in 20 layers of B = 8 … 2N, 3.4 in 60.
FINITE_WIDTH = 4.0
FEWEST = 6  # examples of a batch for which the standard error of a rate means something
GROWN = 1e3  # by how much the gradient norm has grown at the depth of the table


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of network: the part of the study it is for, block, activation, norm, batch, width and depth."""

    part: str
    block: str
    activation: str
    norm: str
    batch: int
    width: int
    depth: int

    def parameters(self) -> dict[str, str | int]:
        """Return the parameters of its cells."""
        return asdict(self)

    @property
    def name(self) -> str:
        """The name of its activation."""
        return NAMES.get(self.activation, self.activation)


class Explosions:
    """The records of a run."""

    def __init__(self, records: Records) -> None:
        rows = records.table("layers")
        fields = list(Kind.__dataclass_fields__)
        self.found: dict[Kind, Explosion] = {}
        for values, group in rows.groupby(fields, sort=False):
            named: dict[str, Any] = dict(zip(fields, values, strict=True))
            kind = Kind(**named)
            gradients, jacobians = (
                group.pivot_table(index=["seed", "network"], columns="layer", values=column, dropna=False).to_numpy()
                for column in ("log_gradient", "log_jacobian")
            )
            layers = tuple(str(layer) for layer in range(1, gradients.shape[1] + 1))
            edge = max(1, len(layers) // 5)
            self.found[kind] = Explosion(layers=layers, log_gradient=gradients, log_jacobian=jacobians, edge=edge)

    def kinds(self, part: str, *, norm: str | None = None, activation: str | None = None) -> list[Kind]:
        """Return the kinds of one part, with one norm or one activation if asked for."""
        return [
            kind
            for kind in self.found
            if kind.part == part and norm in {None, kind.norm} and activation in {None, kind.activation}
        ]

    def activations(self) -> list[str]:
        """Return the activations whose rates were measured."""
        return list(dict.fromkeys(kind.activation for kind in self.kinds("rates")))


@functools.cache
def point(activation: str, batch: float) -> FixedPoint:
    """Find the fixed point of batch normalisation once."""
    return bn_mean_field.fixed_point(activation, batch_size=batch)


def rate(kind: Kind) -> float:
    """Return the growth per layer that is predicted: λ_G, or χ₁ = 1 of critical networks."""
    return point(kind.activation, kind.batch).explosion_rate if kind.norm == "batch" else 1.0


def is_stable(kind: Kind) -> bool:
    """Whether the networks stay where the rate is predicted."""
    return kind.norm == "none" or point(kind.activation, kind.batch).stable


def largest_eigenvalue(activation: str, batch: float) -> float:
    """Return the largest factor per layer of a deviation from the fixed point."""
    found = point(activation, batch)
    return max(found.forward_g, found.forward_l, found.forward_m)


def slack(measured: Scalar, kind: Kind) -> float:
    """Return what a measured rate may be off: four standard errors and the order of 1/N."""
    return ALLOWED * measured.se + FINITE_WIDTH / kind.width * rate(kind)


def first_unstable(activation: str, *, up_to: int = 4096) -> int | None:
    """Return the least batch whose fixed point is unstable, by bisection; None if that of `up_to` is stable."""
    low, high = 4, up_to
    if point(activation, high).stable:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if point(activation, middle).stable else (low, middle)
    return high


def depth_grown(growth: float) -> float:
    """Return the layers after which the gradient norm (not squared) has grown 10³ if its square grows so per layer."""
    return 2 * math.log(GROWN) / math.log(growth) if growth > 1 else math.inf


def crossing(profile: DepthProfile) -> float | None:
    """Return how many layers before the end the mean log gradient norm has grown 10³, or None."""
    above = np.flatnonzero(profile.value >= 2 * math.log(GROWN))
    return None if above.size == 0 else float(profile.depth[-1] - profile.depth[above[-1]])


def log_gradients(kind: Kind) -> Array:
    """Predict ln ‖∂ℓ/∂h^l‖² against the last layer, l = 1 … L, for inputs of spread 1.

    Under batch normalisation the first layer divides by that spread and not by the one of the fixed point.
    """
    layers = np.arange(kind.depth - 1.0, -1, -1)
    if kind.block == "plain":
        values = layers * math.log(rate(kind))
        if kind.norm == "batch":
            found = point(kind.activation, kind.batch)
            values[0] += math.log(found.q * (1 - found.c))
        return values
    if kind.norm == "none":  # He's branch keeps the length: 2 per block
        return layers * math.log(2.0)
    moments = batch_norm_residual_moments(
        kind.activation, depth=kind.depth, batch_size=kind.batch, sigma_w=math.sqrt(2.0)
    )
    return moments.log_gradient[1:]


def power(kind: Kind, found: Explosion) -> float:
    """Predict the exponent of a power of depth through the ends of the inner layers, as it is measured."""
    predicted = log_gradients(kind)
    first, last = found.edge, kind.depth - found.edge - 1
    return float((predicted[first] - predicted[last]) / math.log((last + 1) / (first + 1)))


def local_rates(found: Explosion, *, bin_size: int) -> tuple[Array, Array, Array]:
    """Average the ratios of squared gradients over bins of layers: middle layer, mean and error over networks.

    The first ratio is left out: it meets the spread of the inputs, which is not that of the fixed point.
    """
    ratios = np.exp(-np.diff(found.log_gradient, axis=1))[:, 1:]
    count = ratios.shape[1] // bin_size
    binned = ratios[:, : count * bin_size].reshape(len(ratios), count, bin_size).mean(axis=2)
    middle = 2.5 + bin_size * np.arange(count) + (bin_size - 1) / 2
    error = binned.std(axis=0, ddof=1) / math.sqrt(len(binned))
    return middle, binned.mean(axis=0), error
