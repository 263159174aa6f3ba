"""The records of `rmtbn rank` by kind of network, and what theory says of each."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmtbn.result import DepthProfile, Scalar
from rmtbn.sweep.run import Records
from rmtbn.theory import bn_mean_field, rank

Array = NDArray[np.float64]

START = 0.3  # correlation of any two inputs in the profiles over depth
COLUMNS = ("log_rank", "log_gap", "isometry", "log_trace")
NAMES = {"linear": "linear", "relu": "ReLU", "none": "no norm", "batch": "batch norm", "uncentred": "uncentred norm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of network, the part of the study it is for, and its inputs: n examples of correlation `start`."""

    part: str
    activation: str
    norm: str
    weights: str
    examples: int
    width: int
    depth: int
    start: float

    def parameters(self) -> dict[str, str | int | float]:
        """Return the parameters of its cells."""
        return asdict(self)

    @property
    def name(self) -> str:
        """Activation and norm."""
        return f"{NAMES[self.activation]}, {NAMES[self.norm]}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """What was measured of one kind: blocks, shape (points,), and arrays of shape (networks, points)."""

    blocks: Array
    log_rank: Array
    log_gap: Array
    isometry: Array
    log_trace: Array

    def soft_rank(self) -> DepthProfile:
        """Return the mean soft rank over networks."""
        return self._profile(np.exp(self.log_rank), symbol="(tr K)²/tr K²", label="soft rank")

    def squared_gap(self) -> DepthProfile:
        """Return the mean square of the orthogonality gap over networks."""
        return self._profile(np.exp(2 * self.log_gap), symbol="g²", label="squared orthogonality gap")

    def log_isometry(self) -> DepthProfile:
        """Return the mean log of the isometry gap over networks."""
        with np.errstate(divide="ignore"):
            logs = np.log(np.maximum(self.isometry, 0))
        return self._profile(logs, symbol="", label="isometry gap", is_log=True)

    def ratio_of_means(self) -> tuple[Array, Array, Array]:
        """Return mean (tr K)² over mean tr K², its error, and what share of the networks carries it.

        The share is (Σw)²/(N Σw²) for the weights w = tr K² of the N networks.
        """
        logs = 2 * self.log_trace - self.log_rank
        weights = np.exp(logs - logs.max(axis=0))
        weights /= weights.sum(axis=0)
        ranks = np.exp(self.log_rank)
        ratio = np.sum(weights * ranks, axis=0)
        error = np.sqrt(np.sum((weights * (ranks - ratio)) ** 2, axis=0))
        return ratio, error, 1 / (len(ranks) * np.sum(weights**2, axis=0))

    def late(self, values: Array) -> Scalar:
        """Average over the blocks in the second half of the depth, then over networks."""
        chosen = self.blocks > self.blocks[-1] / 2
        return Scalar.over_networks(values[:, chosen].mean(axis=1), symbol="", label="late layers")

    def _profile(self, values: Array, *, symbol: str, label: str, is_log: bool = False) -> DepthProfile:
        return DepthProfile.over_networks(values, depth=self.blocks, symbol=symbol, label=label, is_log=is_log)


class Ranked:
    """The records of a run."""

    def __init__(self, records: Records) -> None:
        rows = records.table("ranks")
        fields = list(Kind.__dataclass_fields__)
        self.found: dict[Kind, Measured] = {}
        for values, group in rows.groupby(fields, sort=False):
            named: dict[str, Any] = dict(zip(fields, values, strict=True))
            tables = {
                column: group.pivot_table(index=["seed", "network"], columns="block", values=column, dropna=False)
                for column in COLUMNS
            }
            blocks = np.array(tables["log_rank"].columns, dtype=np.float64)
            self.found[Kind(**named)] = Measured(
                blocks=blocks, **{column: table.to_numpy() for column, table in tables.items()}
            )

    def kinds(self, part: str, *, activation: str | None = None, norm: str | None = None) -> list[Kind]:
        """Return the kinds of one part, of one activation or norm if asked for."""
        return [
            kind
            for kind in self.found
            if kind.part == part and activation in {None, kind.activation} and norm in {None, kind.norm}
        ]

    def soft_rank(self, kind: Kind) -> Scalar:
        """Return the soft rank over the second half of the depth."""
        found = self.found[kind]
        return found.late(np.exp(found.log_rank))


def predicted_rank(kind: Kind, found: Measured) -> Array | None:
    """Predict the soft rank after blocks 0 … L, or None where nothing is known.

    With normalisation the inputs are those of the measurement: their gap starts the recursion.
    """
    n, d = kind.examples, kind.width
    if kind.weights != "gaussian":
        return None
    if kind.norm == "none":
        if kind.activation == "relu":
            return rank.relu_soft_rank(kind.start, examples=n, depth=kind.depth)
        return rank.linear_soft_rank(float(np.exp(found.log_rank[:, 0]).mean()), width=d, depth=kind.depth)
    if kind.norm == "batch":
        stationary = _batch_rank(kind)
        return None if stationary is None else np.full(kind.depth + 1, stationary)
    gaps = predicted_gap(kind, found)
    return None if gaps is None else 1 / (1 / n + gaps**2)


def _batch_rank(kind: Kind) -> float | None:
    """Predict where torch's batch normalisation ends: K is of dimension n - 1 for linear φ; ReLU has c* for N → ∞."""
    if kind.activation == "linear":
        return rank.stationary_soft_rank(examples=kind.examples - 1, width=kind.width) if kind.examples > 2 else None
    if kind.examples < 4:
        return None
    c = bn_mean_field.fixed_point(kind.activation, batch_size=kind.examples).c
    return kind.examples / (1 + (kind.examples - 1) * c * c)


def predicted_gap(kind: Kind, found: Measured) -> Array | None:
    """Predict the root mean square orthogonality gap with uncentred normalisation and linear φ."""
    if (kind.norm, kind.activation, kind.weights) != ("uncentred", "linear", "gaussian"):
        return None
    initial = float(np.exp(found.log_gap[:, 0]).mean())
    return rank.orthogonality_gap(initial, examples=kind.examples, width=kind.width, depth=kind.depth)


def isometry_decay(kind: Kind) -> float | None:
    """Predict the growth per layer of ln of the isometry gap with uncentred normalisation: ln(d/(d + 2)) for Haar."""
    haar = (kind.norm, kind.weights, kind.activation) == ("uncentred", "orthogonal", "linear")
    return math.log(kind.width / (kind.width + 2)) if haar and kind.examples == kind.width else None


def late_slope(found: Measured, values: Array) -> Scalar:
    """Return the slope of a quantity in the second half of the depth, through its ends, over networks."""
    chosen = np.flatnonzero(found.blocks > found.blocks[-1] / 2)
    first, last = chosen[0], chosen[-1]
    slopes = (values[:, last] - values[:, first]) / (found.blocks[last] - found.blocks[first])
    return Scalar.over_networks(slopes, symbol="", label="slope in late layers")
