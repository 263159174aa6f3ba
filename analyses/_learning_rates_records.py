"""The records of `rmtbn learning-rates`: ends of training runs and their curves, over networks."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from rmtbn.result import Scalar
from rmtbn.sweep.run import Records

LARGE, MIDDLE, SMALL = 0.1, 0.003, 1e-4  # rates of section 3.1
NEAR = 0.02  # of the highest test accuracy: the plateau
LABELS: Mapping[str, str] = {
    "train_accuracy": "training",
    "test_accuracy": "test",
    "gap": "training − test",
    "plateau": "plateau",
}


class Trained:
    """The numbers of `LABELS` by kind, rate and seed, and the curves.

    The plateau begins with the first epoch whose test accuracy is within `NEAR` of the highest of the run.
    """

    def __init__(self, records: Records) -> None:
        self.curves = records.table("curves")
        rows = records.table("ends")
        runs = self.curves.groupby(["kind", "rate", "seed"])
        plateaus = {key: _plateau(run) for key, run in runs}
        keys = zip(rows.kind, rows.rate, rows.seed, strict=True)
        self.rows = rows.assign(
            gap=rows.train_accuracy - rows.test_accuracy, plateau=[float(plateaus[key]) for key in keys]
        )
        self.kinds = tuple(dict.fromkeys(rows.kind))
        self.networks = rows.seed.nunique()
        first = rows.iloc[0]
        self.depth, self.train, self.test, self.batch = (int(first[n]) for n in ("depth", "train", "test", "batch"))

    def rates(self, kind: str) -> tuple[float, ...]:
        """Return the rates of a kind, from the largest down."""
        return tuple(sorted({float(rate) for rate in self.rows.rate[self.rows.kind == kind]}, reverse=True))

    def epochs(self, rate: float) -> int:
        """Return how many epochs networks were trained at a rate."""
        return int(self.rows.epochs[self.rows.rate == rate].iloc[0])

    def values(self, kind: str, rate: float, column: str) -> "pd.Series[float]":
        """Return one of `LABELS` by seed."""
        rows = self.rows[(self.rows.kind == kind) & (self.rows.rate == rate)]
        return rows.set_index("seed")[column].sort_index()

    def mean(self, kind: str, rate: float, column: str) -> Scalar:
        """Average one of `LABELS` over the networks of a kind and rate."""
        return _scalar(self.values(kind, rate, column), column)

    def difference(self, over: tuple[str, float], under: tuple[str, float], column: str) -> Scalar:
        """Average a difference of two kinds and rates, on the same weights and images."""
        return _scalar(self.values(*over, column) - self.values(*under, column), column)

    def log_plateaus(self, kind: str, slow: float, fast: float) -> Scalar:
        """Average ln of the epochs to the plateau at one rate over those at another."""
        ratios = self.values(kind, slow, "plateau") / self.values(kind, fast, "plateau")
        return _scalar(ratios.map(math.log), "plateau")

    def best(self, kind: str) -> "pd.Series[float]":
        """Return the highest test accuracy at any rate, by seed."""
        return self.rows[self.rows.kind == kind].groupby("seed").test_accuracy.max().sort_index()

    def gain(self, kind: str) -> tuple[Scalar, Scalar]:
        """Average the best test accuracy of a kind above that without norm, and half of what batch norm gains less it.

        The second is (kind − none) − (final − none)/2, which is above 0 if the kind has more than half of the gain.
        """
        plain, full = self.best("none"), self.best("final")
        own = self.best(kind)
        return _scalar(own - plain, "test_accuracy"), _scalar((own - plain) - (full - plain) / 2, "test_accuracy")

    def numbers(self) -> dict[str, Any]:
        """Return the numbers of `LABELS` with their errors, by kind and rate."""
        return {
            kind: {f"{rate:g}": {c: _number(self.mean(kind, rate, c)) for c in LABELS} for rate in self.rates(kind)}
            for kind in self.kinds
        }


def _plateau(run: pd.DataFrame) -> int:
    accuracy = run.sort_values("epoch").test_accuracy.to_numpy()
    return int((accuracy >= accuracy.max() - NEAR).argmax()) + 1


def _scalar(values: "pd.Series[float]", column: str) -> Scalar:
    return Scalar.over_networks(values.to_numpy(), symbol=column, label=LABELS[column])


def _number(one: Scalar) -> dict[str, float]:
    return {"value": one.value, "se": one.se}
