"""The records of `rmtbn bn-modes`: the facts, and the gap between train and eval mode."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from rmtbn.result import Scalar
from rmtbn.sweep.run import Records
from rmtbn.theory.running_average import initial_share, relative_noise

MOMENTA = (0.01, 0.03, 0.1, 0.3, 1.0)
SEGMENTS, SEGMENT_EPOCHS = 8, 2  # of the running means that are followed at weights that are held
ERRORS: Mapping[str, str] = MappingProxyType({"shift": "running mean", "log_variance": "running variance"})


class Modes:
    """The records: facts by network; accuracy and layers by batch size, momentum and network."""

    def __init__(self, records: Records) -> None:
        self.facts, layers = records.table("facts"), records.table("layers")
        self.accuracies = records.table("accuracy")
        first = self.facts.iloc[0]
        self.depth, self.epochs, self.rate = int(first.depth), int(first.epochs), float(first.rate)
        self.train, self.test, self.facts_batch = int(first.train), int(first.test), int(first.batch)
        self.data = str(first["data"])
        self.networks = self.facts.seed.nunique()
        self.batches = tuple(int(batch) for batch in sorted(set(layers.batch)))
        self.layer_count = layers.layer.nunique()
        self.layers = layers.assign(law_square=self._law(layers))

    def fact_rows(self, fact: int) -> list[tuple[str, float, Scalar]]:
        """List what was measured of a fact: what, the number that it should be (NaN: above 0), the measured one."""
        rows = self.facts[self.facts.fact == fact]
        return [
            (str(what), float(own.predicted.mean()), _over_networks(own.measured.to_numpy(), str(what)))
            for what, own in rows.groupby("what", sort=False)
        ]

    def furthest(self, fact: int, what: str) -> float:
        """Return the most that a network is away from the number that it should have."""
        rows = self.facts[(self.facts.fact == fact) & (self.facts.what == what)]
        return float((rows.measured - rows.predicted).abs().max())

    def steps(self, batch: int) -> int:
        """Return the number of steps of a run."""
        return self.epochs * (self.train // batch)

    def first_share(self, batch: int, momentum: float) -> float:
        """Return the share of the first statistics that is left after training."""
        return initial_share(momentum, steps=self.steps(batch))

    def accuracy(self, batch: int, momentum: float, statistics: str) -> Scalar:
        """Average the test accuracy with "batch" or "running" statistics."""
        rows = self._of(self.accuracies, batch, momentum)
        return _over_networks(rows[f"{statistics}_accuracy"].to_numpy(), statistics)

    def gap(self, batch: int, momentum: float) -> Scalar:
        """Average the accuracy with batch statistics minus that with running ones."""
        rows = self._of(self.accuracies, batch, momentum)
        return _over_networks((rows.batch_accuracy - rows.running_accuracy).to_numpy(), "gap in accuracy")

    def error(self, batch: int, momentum: float, column: str, *, layer: int | None = None) -> Scalar:
        """Average a column of `ERRORS`, of one layer or the root mean square of all, after training."""
        rows = self._of(self.layers, batch, momentum)
        chosen = rows if layer is None else rows[rows.layer == layer]
        squares = (chosen[column] ** 2).groupby(chosen.seed).mean()
        return _over_networks(np.sqrt(squares.to_numpy()), column)

    def held(self, batch: int, momentum: float) -> Scalar:
        """Average the root mean square error of running means at weights that are held."""
        return self._root_mean(batch, momentum, "held_square")

    def law(self, batch: int, momentum: float, *, dealt: bool = True) -> float:
        """Return its law: the measured spread of batch means times the noise of an average of batches.

        Batches that epochs deal out, or that are drawn anew.
        """
        spread = self._of(self.layers, batch, momentum).spread.mean()
        return float(np.sqrt(spread * self._noise(batch, momentum, dealt=dealt)))

    def held_over_law(self, layers: range, *, momenta: tuple[float, ...] = MOMENTA) -> Scalar:
        """Average the mean square at held weights over its law: over some layers, then batches and momenta."""
        rows = self.layers[self.layers.layer.isin(layers) & self.layers.momentum.isin(momenta)]
        squares = rows.groupby(["seed", "batch", "momentum"])[["held_square", "law_square"]].mean()
        ratios = (squares.held_square / squares.law_square).groupby("seed").mean()
        return _over_networks(ratios.to_numpy(), "held over law")

    def log_ratio(self, column: str, momentum: float, other: float) -> Scalar:
        """Average ln of the mean square error at one momentum over that at another, over batches and networks, halved.

        `column` is "held_square" or "trained_square".
        """
        rows = self.layers.assign(trained_square=self.layers["shift"] ** 2)
        means = np.log(rows.groupby(["seed", "batch", "momentum"])[column].mean()).unstack("momentum") / 2
        return _over_networks((means[momentum] - means[other]).groupby("seed").mean().to_numpy(), "ln ratio")

    def _law(self, layers: pd.DataFrame) -> list[float]:
        places = zip(layers.batch, layers.momentum, layers.spread, strict=True)
        return [spread * self._noise(int(batch), momentum, dealt=True) for batch, momentum, spread in places]

    def _noise(self, batch: int, momentum: float, *, dealt: bool) -> float:
        per_epoch = self.train // batch
        return relative_noise(
            momentum, steps=SEGMENT_EPOCHS * per_epoch, batches_per_epoch=per_epoch if dealt else None
        )

    def _root_mean(self, batch: int, momentum: float, column: str) -> Scalar:
        rows = self._of(self.layers, batch, momentum)
        return _over_networks(np.sqrt(rows.groupby("seed")[column].mean().to_numpy()), column)

    def _of(self, table: pd.DataFrame, batch: int, momentum: float) -> pd.DataFrame:
        return table[(table.batch == batch) & (table.momentum == momentum)]


def _over_networks(values: ArrayLike, symbol: str) -> Scalar:
    return Scalar.over_networks(values, symbol=symbol, label=symbol)
