"""The records of `rmtbn bn-jacobian`: spectra by kind of network and depth, their laws, zeros and blocks."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from rmtbn.compare import SpectrumComparison, compare
from rmtbn.result import EmpiricalSpectrum, Scalar
from rmtbn.sweep.grid import Value
from rmtbn.theory import bn_mean_field
from rmtbn.theory.bn_mean_field import batch_jacobian_law

from ._bn_jacobian_law import LaidLaw, laid


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of network: activation, law of the weights, examples of the batch, width."""

    activation: str
    weights: str
    batch: int
    width: int

    def parameters(self) -> dict[str, Value]:
        """Return the parameters of a cell, with the spread over the batch at the fixed point."""
        return {
            "activation": self.activation,
            "weights": self.weights,
            "batch": self.batch,
            "width": self.width,
            "spread": spread_of(self.activation, self.batch),
        }

    @property
    def ratio(self) -> float:
        """B/N."""
        return self.batch / self.width


@cache
def spread_of(activation: str, batch: int) -> float:
    """Return the spread over the batch at the fixed point, q*(1 - c*)."""
    point = bn_mean_field.fixed_point(activation, batch_size=batch)
    return point.q * (1 - point.c)


@cache
def law_of(activation: str, weights: str, batch: int, depth: int) -> LaidLaw:
    """Return the law of a kind, which knows no width."""
    return laid(batch_jacobian_law(activation, batch_size=batch, depth=depth, weights=weights))


class BatchSpectra:
    """Spectra of all kinds and depths, with their comparisons, each computed once.

    Parameters
    ----------
    rows
        The table "spectra" of a run: one row per network.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        self.rows = rows
        named = rows[["activation", "weights", "batch", "width"]].drop_duplicates().itertuples(index=False, name=None)
        self.kinds = tuple(Kind(activation=a, weights=w, batch=int(b), width=int(n)) for a, w, b, n in named)
        self.depths = tuple(sorted({int(depth) for depth in rows.depth}))
        self.widths = tuple(sorted({kind.width for kind in self.kinds}))
        self.batches = tuple(sorted({kind.batch for kind in self.kinds}))
        self.depths_of = cache(self._depths_of)
        self.comparison = cache(self._comparison)
        self.deeper = cache(self._deeper)

    def _depths_of(self, kind: Kind) -> tuple[int, ...]:
        """Return the depths at which networks of a kind were measured."""
        return tuple(sorted({int(depth) for depth in self._of(kind).depth}))

    def widest(self, batch: int) -> int:
        """Return the largest width at a batch of networks that were measured at every depth."""
        kinds = (kind for kind in self.kinds if kind.batch == batch)
        return max(kind.width for kind in kinds if self.depths_of(kind) == self.depths)

    @property
    def near(self) -> int:
        """The second smallest batch, at which second moments are finite and B/N is small."""
        return self.batches[min(1, len(self.batches) - 1)]

    def _of(self, kind: Kind) -> pd.DataFrame:
        rows = self.rows
        return rows[
            (rows.activation == kind.activation)
            & (rows.weights == kind.weights)
            & (rows.batch == kind.batch)
            & (rows.width == kind.width)
        ]

    def chosen(self, kind: Kind, depth: int) -> pd.DataFrame:
        """Return the rows of one kind and depth."""
        rows = self._of(kind)
        return rows[rows.depth == depth]

    def counts(self, kind: Kind) -> str:
        """Return how many networks there are of a kind, at all depths: "3" or "3 to 12"."""
        numbers = [len(self.chosen(kind, depth)) for depth in self.depths_of(kind)]
        return " to ".join(dict.fromkeys(str(number) for number in (min(numbers), max(numbers))))

    def spectrum(self, kind: Kind, depth: int) -> EmpiricalSpectrum:
        """Pool the networks of one kind and depth; what ε lets pass is counted among the zeros."""
        rows = self.chosen(kind, depth)
        return EmpiricalSpectrum(
            by_network=np.array(rows.log_singular_values.tolist(), dtype=np.float64),
            relative_error=float(rows.relative_error.max()),
            method="dense" if (rows.method == "dense").all() else "product",
            batch_stats="batch",
        )

    def law(self, kind: Kind, depth: int) -> LaidLaw:
        """Return the law that theory gives."""
        return law_of(kind.activation, kind.weights, kind.batch, depth)

    def _comparison(self, kind: Kind, depth: int) -> SpectrumComparison:
        return compare(self.law(kind, depth), self.spectrum(kind, depth))

    def _deeper(self, kind: Kind, depth: int) -> SpectrumComparison:
        """Compare with the law of one layer more."""
        return compare(self.law(kind, depth + 1), self.spectrum(kind, depth))

    def zeros(self, kind: Kind, depth: int, *, leaked: bool) -> Scalar:
        """Mean share of exact zeros of the whole B·N × B·N matrix, with what ε lets pass or without."""
        rows = self.chosen(kind, depth)
        counts = rows.zeros + (rows.leaked if leaked else 0) + kind.width  # 1 ⊗ v goes to zero
        return Scalar.over_networks(counts / (kind.batch * kind.width), symbol="", label="share of zeros")

    def zeros_of_contrasts(self, kind: Kind, depth: int) -> tuple[float, float]:
        """Mean shares of the values on 1^⊥ that are exactly zero, and that are zero but for ε."""
        rows, dimension = self.chosen(kind, depth), (kind.batch - 1) * kind.width
        return float(rows.zeros.mean()) / dimension, float(rows.leaked.mean()) / dimension

    def block_share(self, kind: Kind, depth: int) -> Scalar:
        """Share of the mean ‖J‖² in the per-sample blocks, its error over networks by the ratio of means."""
        rows = self.chosen(kind, depth)
        own, every = rows.block_norm.to_numpy(dtype=np.float64), rows.whole_norm.to_numpy(dtype=np.float64)
        share = own.sum() / every.sum()
        spread = np.std(own - share * every, ddof=1) / np.sqrt(len(own)) if len(own) > 1 else np.inf
        label = "share of ‖J‖² in the per-sample blocks"
        return Scalar(value=share, se=float(spread / every.mean()), symbol="", label=label, networks=len(own))
