"""The records of `rmtbn shattering`: correlations of gradients at pairs of inputs, and along a line."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from rmtbn import rng
from rmtbn.measure.shattering import Array, Autocorrelation, autocorrelation, brown_noise, white_noise
from rmtbn.result import Scalar
from rmtbn.sweep.run import Records
from rmtbn.theory.shattering import BLOCKS, balduzzi_correlation, batch_gradient_correlation, gradient_correlation

KINDS = (*BLOCKS, "looks_linear")
NAMES: Mapping[str, str] = MappingProxyType(
    {
        "plain": "plain",
        "residual": "residual",
        "plain_batch": "plain, batch norm",
        "residual_batch": "residual, batch norm",
        "looks_linear": "looks-linear",
        "brown": "brown noise",
        "white": "white noise",
    }
)
NOISES: Mapping[str, Callable[..., Array]] = MappingProxyType({"brown": brown_noise, "white": white_noise})
NOISE_CURVES = 200


class Gradients:
    """The records, by kind and depth."""

    def __init__(self, records: Records) -> None:
        self.pairs, self.curves = records.table("pairs"), records.table("curve")
        first = self.pairs.iloc[0]
        self.width, self.examples, self.points = int(first.width), int(first.examples), int(first.points)
        self.networks = self.pairs.seed.nunique()
        self.depths = tuple(sorted(int(depth) for depth in set(self.pairs.depth)))
        self.spacing = float(np.ptp(self.curves.t)) / (self.points - 1)
        shown = [(kind, depth) for kind in KINDS for depth in self.depths] + [(noise, 0) for noise in NOISES]
        self._along = {at: autocorrelation(self.curve(*at), centred=at[0] != "looks_linear") for at in shown}

    def correlation(self, kind: str, depth: int) -> Scalar:
        """Correlate gradients at pairs of inputs over networks: E⟨g, g'⟩/E‖g‖², with the jackknife's error."""
        rows = self.pairs[(self.pairs.kind == kind) & (self.pairs.depth == depth)]
        cross, own, count = rows.cross.to_numpy(), rows.own.to_numpy(), len(rows)
        left_out = (cross.sum() - cross) / (own.sum() - own) if count > 1 else cross
        return Scalar(
            value=float(cross.sum() / own.sum()),
            se=float(np.sqrt((count - 1) * left_out.var())) if count > 1 else float("inf"),
            symbol="R",
            label="correlation of gradients at two inputs",
            networks=count,
        )

    def curve(self, kind: str, depth: int = 0) -> Array:
        """Return ∂f/∂t of all networks along the line, or draws of a noise, one row each, root mean square 1."""
        if kind in NOISES:
            drawn = NOISES[kind](NOISE_CURVES, self.points, generator=rng.generator(0, kind))
        else:
            rows = self.curves[(self.curves.kind == kind) & (self.curves.depth == depth)]
            drawn = rows.sort_values(["seed", "t"]).gradient.to_numpy().reshape(-1, self.points)
        size: Array = np.sqrt((drawn**2).mean(axis=1, keepdims=True))
        return drawn / np.where(size > 0, size, 1.0)

    def along(self, kind: str, depth: int = 0) -> Autocorrelation:
        """Return the autocorrelation along the line; each curve less its mean, but for looks-linear networks."""
        return self._along[kind, depth]

    def at_lag(self, kind: str, lag: int, *, depth: int = 0) -> Scalar:
        """Return the autocorrelation at one distance."""
        found = self.along(kind, depth)
        return Scalar(
            value=float(found.value[lag]),
            se=float(found.se[lag]),
            symbol=f"r_{lag}",
            label="autocorrelation of the gradient",
            networks=found.networks,
        )

    def law(self, kind: str, depth: int) -> float:
        """Predict the correlation at pairs of inputs of a wide network."""
        if kind == "looks_linear":
            return 1.0
        if kind.endswith("batch"):
            return batch_gradient_correlation(kind, depth=depth, batch_size=self.examples)
        return gradient_correlation(kind, depth=depth)

    @staticmethod
    def formula(kind: str, depth: int) -> float:
        """Predict it with Balduzzi et al.: 2^-L, (3/4)^L, 1.13/√L; 1 for looks-linear networks."""
        return 1.0 if kind == "looks_linear" else balduzzi_correlation(kind, depth=depth)
