"""The records of `rmtbn max-rate`: largest rates and curvatures, as logarithms over networks."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from rmtbn.result import Scalar
from rmtbn.sweep.run import Records

KINDS = ("none", "final")
MOMENTUM = 0.9
LABELS: Mapping[str, str] = {
    "rate": "largest rate that trains",
    "stable": "largest rate that does not diverge",
    "critical": "2/λ_max",
    "excess": "largest rate over 2(1 + μ)/λ_max",
}


class Rates:
    """ln of the largest rate and of 2/λ_max, and the lowest loss of the runs, by kind, depth and seed."""

    def __init__(self, records: Records) -> None:
        self.runs, rows = records.table("runs"), records.table("network")
        low = rows["last"].where(rows["last"] > 0, rows.above)
        high = rows.above.where(np.isfinite(rows.above), low)
        best = self.runs.groupby(["kind", "depth", "seed"]).loss.min()
        rate, critical = np.log(low * high) / 2, np.log(2 / rows.curvature.where(rows.curvature > 0, math.nan))
        self.rows = rows.assign(
            log_rate=rate,
            log_stable=[self._log_stable(row) for row in rows.itertuples()],
            log_critical=critical,
            log_excess=rate - critical - math.log(1 + MOMENTUM),
            best=[float(best[one]) for one in zip(rows.kind, rows.depth, rows.seed, strict=True)],
        )
        widths = np.log(high / low)[(rows["last"] > 0) & np.isfinite(rows.above)]
        self.width = float(widths.max()) if len(widths) else 0.0
        self.depths = tuple(int(depth) for depth in sorted(set(rows.depth)))
        self.networks = rows.seed.nunique()
        first = rows.iloc[0]
        self.examples, self.batch, self.passes = (int(first[name]) for name in ("examples", "batch", "passes"))

    def _log_stable(self, row: Any) -> float:
        """Return ln of the largest rate that did not diverge, half way to the next one tried."""
        runs = self.runs[(self.runs.kind == row.kind) & (self.runs.depth == row.depth) & (self.runs.seed == row.seed)]
        calm, all_rates = runs.rate[~runs.diverged.astype(bool)], sorted(runs.rate)
        last = float(calm.max()) if len(calm) else all_rates[0]
        above = next((rate for rate in all_rates if rate > last), last)
        return math.log(last * above) / 2

    @property
    def resolution(self) -> float:
        """Standard deviation of ln of a largest rate that may be anywhere between two rates of the grid."""
        return self.width / math.sqrt(12)

    def log_mean(self, kind: str, depth: int, column: str) -> Scalar:
        """Average the logarithm of one of `LABELS` over the networks of a kind and depth."""
        values = self._of(kind, depth)[f"log_{column}"]
        found = Scalar.over_networks(values.to_numpy(), symbol=column, label=LABELS[column])
        return found if column == "critical" else self._on_a_grid(found, 1)

    def log_ratio(self, depth: int, *, column: str = "rate") -> Scalar:
        """Average ln of the largest rate with norm over that without, on the same weights and images."""
        return self._difference(self._of("final", depth), self._of("none", depth), f"log_{column}")

    def ends_of_ratio(self, depth: int) -> tuple[float, float]:
        """Return the smallest and the largest ratio that a network may have, its two rates anywhere in their intervals.

        The smallest is over networks that of the rate that trains with norm to the next above the one without; a rate
        below or above the whole search makes one of them 0 or inf.
        """
        normed, plain = self._of("final", depth), self._of("none", depth)
        low, high = normed["last"] / plain.above, normed.above / plain["last"].replace(0.0, math.nan)
        return float(low.min()), float(high.fillna(math.inf).max())

    def log_gain(self, shallow: int, deep: int) -> Scalar:
        """Average ln of the largest rate of the shallower network over that of the deeper, without norm."""
        return self._difference(self._of("none", shallow), self._of("none", deep), "log_rate")

    def slope(self, column: str) -> tuple[Scalar, float]:
        """Fit a column against ln λ_max over depths, without norm; average over networks, with R².

        The columns are ln of the largest rate ("log_rate") and the lowest loss after training ("best").
        """
        plain = self.rows[self.rows.kind == "none"]
        fits = [stats.linregress(-own.log_critical, own[column]) for _, own in plain.groupby("seed")]
        slopes = Scalar.over_networks([fit.slope for fit in fits], symbol="slope", label=column)
        return slopes, float(np.mean([fit.rvalue**2 for fit in fits]))

    def _of(self, kind: str, depth: int) -> pd.DataFrame:
        return self.rows[(self.rows.kind == kind) & (self.rows.depth == depth)].set_index("seed").sort_index()

    def _difference(self, over: pd.DataFrame, under: pd.DataFrame, column: str) -> Scalar:
        values = (over[column] - under[column]).to_numpy()
        return self._on_a_grid(Scalar.over_networks(values, symbol="ln α", label=LABELS["rate"]), 2)

    def _on_a_grid(self, one: Scalar, rates: int) -> Scalar:
        """Add the resolution to the error; networks share the grid, so that it does not average out over them."""
        return replace(one, se=math.hypot(one.se, math.sqrt(rates) * self.resolution))

    def numbers(self) -> dict[str, Any]:
        """Return all as logarithms with their errors."""
        by_kind = {
            kind: {
                str(depth): {f"log_{c}": _number(self.log_mean(kind, depth, c)) for c in ("rate", "critical")}
                for depth in self.depths
            }
            for kind in KINDS
        }
        return {**by_kind, "log_ratio": {str(depth): _number(self.log_ratio(depth)) for depth in self.depths}}


def _number(one: Scalar) -> dict[str, float]:
    return {"value": one.value, "se": one.se}
