"""The records of `rmtbn schemes`, asked for by activation, norm and scheme, and what theory says beside them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from rmtbn import inits
from rmtbn.compare import SpectrumComparison, compare
from rmtbn.result import DepthProfile, EmpiricalSpectrum, SpectralMeasure
from rmtbn.sweep.run import Records

from ._failure import Failure, failures
from ._predictions import Network

Key = tuple[str, str, str]
"""Activation, norm and scheme: one kind of network."""

PANELS = (("relu", "none"), ("relu", "batch"), ("tanh", "none"), ("tanh", "batch"))
NAMES: Mapping[str, str] = MappingProxyType(
    {"relu": "ReLU", "tanh": "tanh", "none": "no normalisation", "batch": "batch normalisation"}
)


class Schemes:
    """The records of a run, averaged and compared as the page needs them."""

    def __init__(self, records: Records, *, gaussian_sigma_w: float) -> None:
        self.depths, self.layers = records.table("depths"), records.table("layers")
        self.inputs, self.spectra = records.table("inputs"), records.table("spectra")
        self.gaussian_sigma_w = gaussian_sigma_w
        sizes: Mapping[str, Any] = records.records[0].cell.parameters
        self.width, self.examples, self.deepest = sizes["width"], sizes["examples"], sizes["max_depth"]
        self.bn_width, self.bn_batch = sizes["bn_width"], sizes["bn_batch"]
        self.networks = int(self.depths.seed.nunique())
        self._laws: dict[tuple[str, str, int], SpectralMeasure] = {}
        self._comparisons: dict[tuple[str, str, int], SpectrumComparison] = {}

    def of(self, table: pd.DataFrame, key: Key) -> pd.DataFrame:
        """Return the rows of one kind of network."""
        activation, norm, scheme = key
        return table[(table.activation == activation) & (table.norm == norm) & (table.scheme == scheme)]

    def by_network(self, key: Key, column: str) -> pd.DataFrame:
        """Return a quantity with one row per network and one column per depth."""
        by_depth = column in self.depths
        rows = self.of(self.depths if by_depth else self.layers, key)
        return rows.pivot_table(index="seed", columns="depth" if by_depth else "layer", values=column, dropna=False)

    def profile(self, key: Key, column: str, *, symbol: str, label: str) -> DepthProfile:
        """Return a measured quantity at the depths of the study; the gradient against its value at depth 1."""
        depths = sorted(self.depths.depth.unique())
        values = self.by_network(key, column)[depths]
        if column == "log_gradient":
            values = values.sub(values[1], axis=0)
        return DepthProfile.over_networks(
            values.to_numpy(), depth=depths, symbol=symbol, label=label, is_log=column.startswith("log_")
        )

    def weights(self, activation: str, scheme: str) -> inits.WeightLaw:
        """Return the weight law of a scheme."""
        sigma_w = self.gaussian_sigma_w if scheme == "gaussian" else None
        return inits.weight_law(scheme, activation, fan_in=self.width, sigma_w=sigma_w)

    def network(self, key: Key) -> Network:
        """Describe one kind of network to theory, as it meets the whole batch."""
        activation, norm, scheme = key
        return Network(
            activation=activation,
            norm=norm,
            law=self.weights(activation, scheme),
            q0=float(self.inputs.q0.mean()),
            c0=float(self.inputs.c0.mean()),
            batch_size=self.examples,
        )

    def summary(self, key: Key) -> pd.DataFrame:
        """Average over networks what decides failure, one row per depth."""
        depths = self.of(self.depths, key).groupby("depth", as_index=False)[["log_gradient", "log_condition"]].mean()
        layers = self.of(self.layers, key).rename(columns={"layer": "depth"})
        return depths.merge(layers.groupby("depth", as_index=False)[["log_q", "correlation"]].mean(), on="depth")

    def failures(self, key: Key) -> list[Failure]:
        """List the criteria that fail in one kind of network, earliest first."""
        return failures(self.summary(key))

    def spectrum(self, activation: str, scheme: str, depth: int) -> EmpiricalSpectrum:
        """Return the Jacobian spectra of the unnormalised networks of one depth, pooled."""
        key = (activation, "none", scheme)
        rows, figures = self.of(self.spectra, key), self.of(self.depths, key)
        values = np.stack([np.asarray(row) for row in rows[rows.depth == depth].log_singular_values])
        error = float(figures[figures.depth == depth].relative_error.max())
        return EmpiricalSpectrum(by_network=values, relative_error=error, method="product")

    def law(self, activation: str, scheme: str, depth: int) -> SpectralMeasure:
        """Return the law of the Jacobian spectrum of an unnormalised network, at the input where it is measured."""
        asked = (activation, scheme, depth)
        if asked not in self._laws:
            q0 = float(self.of(self.inputs, (activation, "none", scheme)).jacobian_q0.mean())
            network = Network(activation=activation, norm="none", law=self.weights(activation, scheme), q0=q0)
            law = network.jacobian_law(depth)
            if law is None:
                raise AssertionError("unnormalised networks have a law")
            self._laws[asked] = law
        return self._laws[asked]

    def comparison(self, activation: str, scheme: str, depth: int) -> SpectrumComparison:
        """Compare the spectrum of an unnormalised network with its law."""
        asked = (activation, scheme, depth)
        if asked not in self._comparisons:
            self._comparisons[asked] = compare(self.law(*asked), self.spectrum(*asked))
        return self._comparisons[asked]


def numbers(schemes: Schemes) -> dict[str, Any]:
    """Return, per activation, norm and scheme, the failures and what decides them."""
    found: dict[str, Any] = {}
    for activation, norm in PANELS:
        panel = found.setdefault(activation, {}).setdefault(norm, {})
        for scheme in inits.INITS:
            key = (activation, norm, scheme)
            failed = [{"criterion": f.criterion, "depth": f.depth, "how": f.how} for f in schemes.failures(key)]
            panel[scheme] = {"failures": failed, "by_depth": schemes.summary(key).to_dict(orient="list")}
    return found
