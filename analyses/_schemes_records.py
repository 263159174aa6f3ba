"""The records of `rmtbn schemes`, asked for by activation, norm and scheme."""

import numpy as np
import pandas as pd

from rmtbn import inits
from rmtbn.result import DepthProfile, EmpiricalSpectrum
from rmtbn.sweep.run import Records

from ._predictions import Network


class Schemes:
    """The records of a run, asked for by activation, norm and scheme."""

    def __init__(self, records: Records, *, gaussian_sigma_w: float) -> None:
        self.depths, self.layers = records.table("depths"), records.table("layers")
        self.inputs, self.spectra = records.table("inputs"), records.table("spectra")
        self.gaussian_sigma_w = gaussian_sigma_w
        first = self.depths.iloc[0]
        self.width, self.examples, self.bn_batch = int(first["width"]), int(first["examples"]), int(first["bn_batch"])
        self.networks = int(self.depths.seed.nunique())

    def of(self, table: pd.DataFrame, activation: str, norm: str, scheme: str) -> pd.DataFrame:
        """Return the rows of one kind of network."""
        return table[(table.activation == activation) & (table.norm == norm) & (table.scheme == scheme)]

    def profile(self, key: tuple[str, str, str], column: str, *, symbol: str, label: str) -> DepthProfile:
        """Return a measured quantity against depth, over the networks."""
        rows = self.of(self.depths if column in self.depths else self.layers, *key)
        axis = "depth" if column in self.depths else "layer"
        values = rows.pivot_table(index="seed", columns=axis, values=column, dropna=False)
        depths = sorted(self.depths.depth.unique())
        values = values[depths]
        if column == "log_gradient":
            values = values.sub(values[1], axis=0)
        return DepthProfile.over_networks(
            values.to_numpy(), depth=depths, symbol=symbol, label=label, is_log=column.startswith("log_")
        )

    def network(self, activation: str, norm: str, scheme: str) -> Network:
        """Describe one kind of network to theory."""
        sigma_w = self.gaussian_sigma_w if scheme == "gaussian" else None
        law = inits.weight_law(scheme, activation, fan_in=self.width, sigma_w=sigma_w)
        inputs = {"q0": float(self.inputs.q0.mean()), "c0": float(self.inputs.c0.mean())}
        return Network(activation=activation, norm=norm, law=law, batch_size=self.examples, **inputs)

    def summary(self, activation: str, norm: str, scheme: str) -> pd.DataFrame:
        """Average over networks what decides failure, one row per depth."""
        key = (activation, norm, scheme)
        depths = self.of(self.depths, *key).groupby("depth", as_index=False)[["log_gradient", "log_condition"]].mean()
        layers = self.of(self.layers, *key).rename(columns={"layer": "depth"})
        return depths.merge(layers.groupby("depth", as_index=False)[["log_q", "correlation"]].mean(), on="depth")

    def spectrum(self, activation: str, scheme: str, depth: int) -> EmpiricalSpectrum:
        """Return the Jacobian spectra of the unnormalised networks of one depth, pooled."""
        rows = self.of(self.spectra, activation, "none", scheme)
        values = np.stack([np.asarray(row) for row in rows[rows.depth == depth].log_singular_values])
        errors = self.of(self.depths, activation, "none", scheme)
        error = float(errors[errors.depth == depth].relative_error.max())
        return EmpiricalSpectrum(by_network=values, relative_error=error, method="product")
