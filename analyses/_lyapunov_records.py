"""The records of `rmtbn lyapunov`: exponents by kind of network and width, beside what theory says of them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmtbn.result import DepthProfile, Scalar
from rmtbn.sweep.run import Records

from ._lyapunov_theory import Kind, Prediction, name, predict

Array = NDArray[np.float64]


class Exponents:
    """The records, by kind of network and width."""

    def __init__(self, records: Records) -> None:
        self.rows: Any = records.table("spectra")
        columns = ["activation", "norm", "init", "sigma_w2", "sigma_b2"]
        different = self.rows[columns].drop_duplicates().to_numpy().tolist()
        self.kinds = tuple(Kind(**dict(zip(columns, values, strict=True))) for values in different)
        self._values: dict[tuple[Kind, int, int], Array] = {}

    def widths(self, kind: Kind) -> list[int]:
        """Widths that were measured of a kind, ascending."""
        return sorted(set(self._of(kind).width.tolist()))

    def depths(self, kind: Kind) -> list[int]:
        """Depths at which its networks were measured, ascending."""
        return sorted(set(self._of(kind).layer.tolist()))

    def batch(self, kind: Kind) -> int:
        """Examples of the batch; 1 without batch normalisation."""
        return int(self._of(kind).batch.iloc[0])

    def log_sigma(self, kind: Kind, *, width: int, depth: int) -> Array:
        """All ln σ after `depth` layers, shape (networks, dimension), descending."""
        key = (kind, width, depth)
        if key not in self._values:
            rows = self._of(kind)
            rows = rows[(rows.width == width) & (rows.layer == depth)].sort_values(["seed", "network"])
            self._values[key] = np.stack([np.asarray(row, dtype=np.float64) for row in rows.log_singular_values])
        return self._values[key]

    def exponents(self, kind: Kind, *, width: int) -> Array:
        """Growth of ln σ_k per layer between half the depth and the depth, shape (networks, dimension).

        What the first layers and the frames of singular vectors add to ln σ_k once drops out of the difference. Zeros
        are -∞.
        """
        depth = self.depths(kind)[-1]
        half = max(d for d in self.depths(kind) if d <= depth // 2)
        last, middle = (self.log_sigma(kind, width=width, depth=d) for d in (depth, half))
        live = np.isfinite(last)
        return np.where(live, last - np.where(live, middle, 0.0), -np.inf) / (depth - half)

    def profile(self, kind: Kind, *, width: int) -> DepthProfile:
        """Exponents that are finite in every network that is not dead; k stands where profiles have layers."""
        values = self._alive(kind, width=width)
        values = values[:, np.isfinite(values).all(axis=0)]
        return DepthProfile.over_networks(
            values, depth=np.arange(1, values.shape[1] + 1), symbol="λ_k", label="exponent"
        )

    def top(self, kind: Kind, *, width: int) -> Scalar:
        """Average the largest exponent over the networks that are not dead (-∞ if all are)."""
        values = self._alive(kind, width=width)[:, 0]
        return Scalar.over_networks(values if values.size else [-np.inf], symbol="λ₁", label="largest exponent")

    def mean(self, kind: Kind, *, width: int) -> Scalar:
        """Average the mean of all exponents, the growth of ln|det J| per unit; -∞ if a network has zeros."""
        values = self.exponents(kind, width=width).mean(axis=1)
        finite = bool(np.isfinite(values).all())
        return Scalar.over_networks(values if finite else [-np.inf], symbol="mean λ", label="mean exponent")

    def prediction(self, kind: Kind, *, width: int) -> Prediction:
        """Return what theory says."""
        return predict(kind, width=width, depth=self.depths(kind)[-1], batch=self.batch(kind))

    def _alive(self, kind: Kind, *, width: int) -> Array:
        """Exponents of the networks that have any: a ReLU layer all of whose units are off leaves none."""
        values = self.exponents(kind, width=width)
        return values[np.isfinite(values[:, 0])]

    def _of(self, kind: Kind) -> Any:
        chosen = self.rows
        for parameter, value in kind.parameters().items():
            chosen = chosen[chosen[parameter] == value]
        return chosen


def numbers(exponents: Exponents) -> dict[str, Any]:
    """Return exponents and predictions of every kind and width as plain numbers."""
    return {
        name(kind): {str(width): _width_numbers(exponents, kind, width=width) for width in exponents.widths(kind)}
        for kind in exponents.kinds
    }


def _width_numbers(exponents: Exponents, kind: Kind, *, width: int) -> dict[str, Any]:
    found, predicted = exponents.profile(kind, width=width), exponents.prediction(kind, width=width)
    top, mean = exponents.top(kind, width=width), exponents.mean(kind, width=width)
    return {
        "depth": exponents.depths(kind)[-1],
        "networks": found.networks,
        "dimension": int(exponents.exponents(kind, width=width).shape[1]),
        "exponents": found.value.tolist(),
        "se": found.se.tolist(),
        "predicted": predicted.spectrum.tolist(),
        "top": {"measured": top.value, "se": top.se, "predicted": predicted.top, "theory": predicted.top_source},
        "mean": {"measured": mean.value, "se": mean.se, "predicted": predicted.mean},
    }
