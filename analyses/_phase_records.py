"""The records of `rmtbn phase`: rates at which correlations settle, accuracies, and what theory says of both."""

import functools
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rmtbn.sweep.run import Records
from rmtbn.theory import mean_field

Array = NDArray[np.float64]

LINE = 6.0  # Schoenholz et al. 2017: networks deeper than 6 ξ_c are not trained
TRAINING_BIAS = 0.05
NOISE = 3.0  # a deviation from c* is followed while it is above so many standard errors and above FLOOR/width
FLOOR = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Decay per layer of |c - c*| at one point of the plane: measured, and of the recursion over the same layers."""

    sigma_w2: float
    sigma_b2: float
    xi_c: float
    layers: int
    measured: float
    se: float
    predicted: float


class Phase:
    """The records of both studies."""

    def __init__(self, correlations: Records, training: Records) -> None:
        self.correlations, self.training = correlations.table("correlations"), training.table("accuracies")
        self.activation = str(self.training.activation.iloc[0])
        self.width, self.units = int(self.correlations.width.iloc[0]), int(self.training.units.iloc[0])
        self.networks, self.steps = int(self.correlations.networks.iloc[0]), int(self.training.steps.iloc[0])
        self.start = float(correlations.records[0].cell.parameters.get("start", 0.6))

    def rates(self) -> list[Rate]:
        """Fit the decay at every point where it can be followed over at least three layers."""
        points = sorted(set(zip(self.correlations.sigma_w2, self.correlations.sigma_b2, strict=True)))
        found = [self._rate(weight, bias) for weight, bias in points]
        return [rate for rate in found if rate is not None]

    def _rate(self, weight: float, bias: float) -> Rate | None:
        rows = self.correlations
        chosen = rows[(rows.sigma_w2 == weight) & (rows.sigma_b2 == bias)]
        d = chosen.pivot_table(index=["seed", "network"], columns="layer", values="decorrelation").to_numpy()
        sigmas = {"sigma_w": weight**0.5, "sigma_b": bias**0.5}
        point = mean_field.fixed_point(self.activation, **sigmas)
        if not 0 < point.q < math.inf:
            return None
        theory = mean_field.decorrelations(
            1 - self.start, self.activation, q0=(point.q - bias) / weight, depth=d.shape[1], **sigmas
        )
        gap = 1 - point.c
        away, error = np.abs(d.mean(axis=0) - gap), d.std(axis=0, ddof=1) / len(d) ** 0.5
        seen = away > np.maximum(NOISE * error, FLOOR / self.width * (gap if gap > 0 else away))
        layers = int(np.argmin(seen)) if not seen.all() else len(seen)
        if layers < 3:
            return None
        slopes = [_slope(np.delete(d, i, axis=0).mean(axis=0) - gap, layers) for i in range(len(d))]
        return Rate(
            sigma_w2=weight,
            sigma_b2=bias,
            xi_c=point.xi_c,
            layers=layers,
            measured=_slope(d.mean(axis=0) - gap, layers),
            se=float(np.std(slopes) * (len(d) - 1) ** 0.5),  # jackknife
            predicted=_slope(theory - gap, layers),
        )

    def accuracy(self, seed: int | None = None) -> pd.DataFrame:
        """Return the accuracy over depth (rows) and σ_w² (columns), of one seed or averaged over all."""
        rows = self.training if seed is None else self.training[self.training.seed == seed]
        return rows.pivot_table(index="depth", columns="sigma_w2", values="accuracy")

    def limit(self, weights: Array) -> Array:
        """Return 6 ξ_c for σ_w² at the training σ_b²; inf on the critical line."""
        return LINE * np.array([_depth_scale(self.activation, float(weight)) for weight in weights])

    def agreement(self, seed: int) -> tuple[float, float, float]:
        """Return how much of the plane the line 6 ξ_c explains, how much the best depth alone does, and the ROC area.

        A network counts as trained if its accuracy is nearer to the best than to chance. Each depth stands for the
        interval of ln(depth) around it.
        """
        accuracy = self.accuracy(seed)
        depths, values = accuracy.index.to_numpy(dtype=np.float64), accuracy.to_numpy()
        trained = values > (values.max() + 0.1) / 2
        area = np.broadcast_to(_intervals(np.log(depths))[:, None], values.shape)
        score = np.log(self.limit(accuracy.columns.to_numpy()))[None, :] - np.log(depths)[:, None]
        by_line = float(np.average(trained == (score >= 0), weights=area))
        cuts = [np.average(trained == (depths[:, None] <= cut), weights=area) for cut in (0.0, *depths)]
        return by_line, float(max(cuts)), _roc_area(score[trained], score[~trained])


@functools.lru_cache(maxsize=1024)
def _depth_scale(activation: str, weight: float) -> float:
    return mean_field.fixed_point(activation, sigma_w=weight**0.5, sigma_b=TRAINING_BIAS**0.5).xi_c


def _slope(deviation: Array, layers: int) -> float:
    """Slope of ln |deviation| over the first layers."""
    return float(np.polyfit(np.arange(layers), np.log(np.abs(deviation[:layers])), 1)[0])


def _intervals(x: Array) -> Array:
    """Width of the interval that each point stands for."""
    if x.size == 1:
        return np.ones(1)
    middle = (x[1:] + x[:-1]) / 2
    edges = np.concatenate([[2 * x[0] - middle[0]], middle, [2 * x[-1] - middle[-1]]])
    return np.diff(edges)


def _roc_area(positive: Array, negative: Array) -> float:
    """Share of pairs (trained, untrained) that the score orders rightly; NaN if one of the two is empty."""
    if not positive.size or not negative.size:
        return math.nan
    order = np.sign(np.subtract.outer(positive, negative))
    return float((order == 1).mean() + (order == 0).mean() / 2)
