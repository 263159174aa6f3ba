"""The records of `rmtbn noise-scale`: accuracy by kind of network, batch size and rate, and what is best."""

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from rmtbn.result import Scalar
from rmtbn.sweep.run import Records

KINDS = ("none", "batch")
COLUMNS = ("accuracy", "stored", "train_accuracy", "train_loss")


class Runs:
    """The records: one run per kind, batch size, rate and seed."""

    def __init__(self, records: Records) -> None:
        rows = records.table("runs")
        self.rows = rows.assign(scale=rows.rate / rows.batch)  # exact: rates and batches rise by powers of two
        first = rows.iloc[0]
        self.depth, self.epochs = int(first.depth), int(first.epochs)
        self.train, self.test = int(first.train), int(first.test)
        self.networks = rows.seed.nunique()
        self.batches = tuple(int(batch) for batch in sorted(set(rows.batch)))
        self.rates = tuple(float(rate) for rate in sorted(set(rows.rate)))
        self.scales = tuple(float(scale) for scale in sorted(set(self.rows.scale)))

    def accuracy(self, kind: str, batch: int, rate: float, column: str = "accuracy") -> Scalar:
        """Average one of `COLUMNS` over the networks."""
        rows = self._of(kind, batch)
        return _over_networks(rows[rows.rate == rate][column].to_numpy(), column)

    def diverged(self, kind: str, batch: int, rate: float) -> int:
        """Count the networks whose training diverged."""
        rows = self._of(kind, batch)
        return int(rows[rows.rate == rate].diverged.sum())

    def best(self, kind: str, batch: int, column: str = "accuracy") -> Scalar:
        """Average over the networks what they reach at the rate that is best for each."""
        best = self._best_rows(kind, batch)
        return _over_networks(best.groupby("seed")[column].mean().to_numpy(), column)

    def log_best_rate(self, kind: str, batch: int) -> Scalar:
        """Average ln of the rate that is best for each network."""
        return _over_networks(self._log_best_rates(kind, batch).to_numpy(), "ln α")

    def gap(self, batch: int) -> Scalar:
        """Average the best accuracy with batch norm minus that without, of networks of one seed."""
        return _over_networks(self._gaps(batch).to_numpy(), "difference of accuracies")

    def gap_growth(self) -> Scalar:
        """Average the gap at the largest batch minus that at the smallest."""
        return self._growth(self._gaps, "growth of the gap")

    def log_rate_ratio(self, batch: int) -> Scalar:
        """Average ln of the best rate with batch norm over that without."""
        return _over_networks(self._log_ratios(batch).to_numpy(), "ln ratio of rates")

    def log_ratio_growth(self) -> Scalar:
        """Average ln of the ratio of best rates at the largest batch over that at the smallest."""
        return self._growth(self._log_ratios, "growth of the ratio")

    def rate_slope(self, kind: str) -> Scalar:
        """Fit ln of the best rate against ln |B| for each network; 1 if the best rate is proportional to the batch."""
        logs = pd.DataFrame({batch: self._log_best_rates(kind, batch) for batch in self.batches})
        slopes = [float(np.polyfit(np.log(self.batches), row, 1)[0]) for row in logs.to_numpy()]
        return _over_networks(np.array(slopes), "slope")

    def spread(self, kind: str, by: str, *, rising: bool = False) -> Scalar:
        """Average over networks the root mean square difference in accuracy of batch sizes at equal `by`.

        Parameters
        ----------
        kind
            Of the networks.
        by
            "scale" (α/|B|) or "rate" (α).
        rising
            Whether to look only at runs with at most the rate that is best for their batch size.
        """
        return _over_networks(np.array(list(self._spreads(kind, by, rising=rising))), f"spread at equal {by}")

    def log_collapse(self, kind: str, *, rising: bool = False) -> Scalar:
        """Average ln of the spread at equal α/|B| over the spread at equal α; below 0 if the former tells more."""
        spreads = [np.array(list(self._spreads(kind, by, rising=rising))) for by in ("scale", "rate")]
        with np.errstate(divide="ignore", invalid="ignore"):
            return _over_networks(np.log(spreads[0]) - np.log(spreads[1]), "ln ratio of spreads")

    def _spreads(self, kind: str, by: str, *, rising: bool) -> Iterator[float]:
        for seed in sorted(set(self.rows.seed)):
            rows = self.rows[(self.rows.kind == kind) & (self.rows.seed == seed) & ~self.rows.diverged.astype(bool)]
            if rising:
                rows = pd.concat([self._up_to_best(rows, kind, batch, seed) for batch in self.batches])
            table = rows.pivot(index=by, columns="batch", values="accuracy")
            pairs = [(table[a] - table[b]).dropna() for a, b in combinations(table.columns, 2)]
            squares = np.concatenate([np.empty(0), *pairs]) ** 2
            yield float(np.sqrt(squares.mean())) if squares.size else float("nan")

    def _up_to_best(self, rows: pd.DataFrame, kind: str, batch: int, seed: int) -> pd.DataFrame:
        best = float(self._log_best_rates(kind, batch)[seed])
        return rows[(rows.batch == batch) & (np.log(rows.rate) <= best + 1e-9)]

    def _best_rows(self, kind: str, batch: int) -> pd.DataFrame:
        """Return the runs that are best for each network; several where they are equally accurate."""
        rows = self._of(kind, batch)
        return rows[rows.accuracy == rows.groupby("seed").accuracy.transform("max")]

    def _log_best_rates(self, kind: str, batch: int) -> "pd.Series[float]":
        best = self._best_rows(kind, batch)
        return best.assign(log_rate=np.log(best.rate)).groupby("seed").log_rate.mean()

    def _gaps(self, batch: int) -> "pd.Series[float]":
        without, with_norm = (self._best_rows(kind, batch).groupby("seed").accuracy.first() for kind in KINDS)
        return with_norm - without

    def _log_ratios(self, batch: int) -> "pd.Series[float]":
        without, with_norm = (self._log_best_rates(kind, batch) for kind in KINDS)
        return with_norm - without

    def _growth(self, at: Callable[[int], "pd.Series[float]"], symbol: str) -> Scalar:
        return _over_networks((at(self.batches[-1]) - at(self.batches[0])).to_numpy(), symbol)

    def _of(self, kind: str, batch: int) -> pd.DataFrame:
        return self.rows[(self.rows.kind == kind) & (self.rows.batch == batch)]


def _over_networks(values: ArrayLike, symbol: str) -> Scalar:
    return Scalar.over_networks(values, symbol=symbol, label=symbol)
