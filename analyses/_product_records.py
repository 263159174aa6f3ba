"""The records of `rmtbn product`: the factors against the laws of one random matrix, the product against its law."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rmtbn.compare import SpectrumComparison, compare
from rmtbn.result import EmpiricalSpectrum, Scalar, SpectralMeasure, tabulated
from rmtbn.sweep.run import Records
from rmtbn.theory.finite_width import log_det_law
from rmtbn.theory.fuss_catalan import FussCatalan
from rmtbn.theory.jacobian import jacobian_law
from rmtbn.theory.marchenko_pastur import MarchenkoPastur
from rmtbn.theory.tracy_widom import top_lam_law

Array = NDArray[np.float64]

# A random matrix passes them all but once in about 10⁵: outputs × KS distance of one matrix (σ_w² fitted) was at most
# 2.2, 2.9, 3.2, 3.6 among hundreds of Gaussian and uniform ones of 8, 32, 128, 512 rows; and Tracy and Widom's law for
# real entries has a mass of 10⁻⁶ beyond 6.
KS_LIMIT = (2.0, 0.4)  # a + b ln n, n the smaller dimension
EDGE_LIMIT = 6.0
SPREAD = 0.02  # of ln σ: singular values that agree to 2 % are those of an orthogonal matrix


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """One factor: its singular values in every product, and its distance from what a random matrix has.

    Parameters
    ----------
    name, size, outputs, inputs
        Of the matrix; channels of a convolution.
    positions
        Of the images of a convolution; 1 for a matrix.
    spectrum
        Singular values, one row per product, `outputs` × `positions` of them each.
    sigma_w2
        Fitted σ_w² = ‖W‖²/outputs, the mean of λ, over the products.
    ks
        Kolmogorov–Smirnov distance from Marchenko–Pastur's law at that σ_w².
    excess
        By how many units of Tracy and Widom's law the largest λ, of all products, lies beyond where that of a random
        matrix is.
    outliers
        Singular values beyond `EDGE_LIMIT` of these units, per product.
    to_random, to_orthogonal
        Wasserstein-1 distances in ln λ from the two laws.
    """

    name: str
    size: str
    outputs: int
    inputs: int
    positions: int
    spectrum: EmpiricalSpectrum
    sigma_w2: float
    ks: float
    excess: float
    outliers: float
    to_random: float
    to_orthogonal: float

    @property
    def law(self) -> MarchenkoPastur:
        """Marchenko–Pastur's law at the fitted σ_w²."""
        return MarchenkoPastur(ratio=self.outputs / self.inputs, log_scale=math.log(self.sigma_w2))

    @property
    def frobenius(self) -> float:
        """‖W‖, of a kernel too, over the products (root of the mean square)."""
        return math.sqrt(self.sigma_w2 * self.outputs)

    def log_sigma(self, name: str) -> Scalar:
        """Average the "largest" or the "smallest" ln σ over the products; the zeros of a tall matrix do not count."""
        place = {"largest": 0, "smallest": self.count - 1}[name]
        with np.errstate(invalid="ignore"):  # the smallest may be 0
            return Scalar.over_networks(self.spectrum.by_network[:, place], symbol="ln σ", label=name)

    @property
    def count(self) -> int:
        """Number of singular values but for the zeros that the shape enforces."""
        return min(self.outputs, self.inputs) * self.positions

    @property
    def kind(self) -> str:
        """Return "orthogonal", "random" (a matrix of independent entries passes), or "neither"."""
        values = self.spectrum.by_network[:, : self.count]
        if np.isfinite(values).all() and values.max() - values.min() < SPREAD and values.shape[1] > 1:
            return "orthogonal"
        return "random" if self.ks <= self.ks_limit and self.excess <= EDGE_LIMIT else "neither"

    @property
    def ks_limit(self) -> float:
        """The KS distance that a random matrix of this size does not pass."""
        first, second = KS_LIMIT
        return (first + second * math.log(min(self.outputs, self.inputs))) / self.outputs


class Products:
    """Factors and products of a run, and the law of the product.

    Parameters
    ----------
    records
        Of the study.
    law
        "gaussian", "uniform" or "orthogonal": of what the factors are held against.
    sigma_w
        σ_w of every factor; None: fitted factor by factor.
    """

    def __init__(self, records: Records, *, law: str, sigma_w: float | None) -> None:
        table = records.table("layers")
        self.layers = tuple(_layer(rows) for _, rows in table.groupby("layer", sort=True))
        self.law_name, self.sigma_w = law, sigma_w
        self.networks = len(records.records)
        self.names = tuple(str(record.cell.parameters.get("file", "")) for record in records.records)
        self.is_drawn = sigma_w is not None
        self._product = records.table("product") if "product" in records.records[0].tables else None

    @property
    def widths(self) -> tuple[int, ...]:
        """(n_0, …, n_L)."""
        return (self.layers[0].inputs, *(layer.outputs for layer in self.layers))

    @property
    def depth(self) -> int:
        """L."""
        return len(self.layers)

    @cached_property
    def spectrum(self) -> EmpiricalSpectrum | None:
        """Singular values of the products, zeros included; None if they were not multiplied."""
        if self._product is None:
            return None
        return _spectrum(
            self._product, outputs=self.widths[-1], error=float(self._product.relative_error.max()), method="product"
        )

    @cached_property
    def law(self) -> SpectralMeasure:
        """The law of λ of the product of factors of these sizes and σ_w, for infinite width."""
        logs = [math.log(layer.sigma_w2) / 2 for layer in self.layers]
        scale = math.fsum(logs) if self.sigma_w is None else self.depth * math.log(self.sigma_w)
        return product_law(self.widths, weights=self.law_name, log_sigma=scale)

    @cached_property
    def comparison(self) -> SpectrumComparison | None:
        """The products against their law, with the smallest width as N."""
        return None if self.spectrum is None else compare(self.law, self.spectrum, width=min(self.widths))

    @property
    def log_det(self) -> tuple[Scalar, Scalar] | None:
        """ln|det J|, measured and exact at this width, for square Gaussian factors that were drawn; None for others."""
        if self.spectrum is None or self.sigma_w is None or self.law_name != "gaussian" or len(set(self.widths)) > 1:
            return None
        exact = log_det_law(self.widths[0], depth=self.depth)
        mean = exact.mean + self.depth * self.widths[0] * math.log(self.sigma_w)
        measured = Scalar.over_networks(self.spectrum.by_network.sum(axis=1), symbol="ln|det J|", label="measured")
        se = math.sqrt(exact.variance / self.networks)
        return measured, Scalar(value=mean, se=se, symbol="ln|det J|", label="exact")


def product_law(widths: Sequence[int], *, weights: str, log_sigma: float) -> SpectralMeasure:
    """Return the law of λ of a product of random factors, the mean over the output dimension n_L.

    Parameters
    ----------
    widths
        (n_0, …, n_L).
    weights
        "gaussian", "uniform" (which has the same law) or "orthogonal".
    log_sigma
        Σ ln σ_w over the factors.
    """
    depth = len(widths) - 1
    kind = "orthogonal" if weights == "orthogonal" else "gaussian"
    if kind == "gaussian" and depth == 1:
        return MarchenkoPastur(ratio=widths[1] / widths[0], log_scale=2 * log_sigma)
    if kind == "gaussian" and len(set(widths)) == 1:
        return FussCatalan(depth=depth, log_scale=2 * log_sigma)
    sigma_w = math.exp(log_sigma / depth)
    return tabulated(jacobian_law("linear", depth=depth, weights=kind, sigma_w=sigma_w, widths=widths))


def _layer(rows: pd.DataFrame) -> Layer:
    """Lay one factor of all products against the laws of one random matrix."""
    ((outputs, inputs),) = set(zip(rows.outputs, rows.inputs, strict=True))
    positions = int(rows.positions.iloc[0])
    spectrum = _spectrum(rows, outputs=outputs * positions, error=1e-13, method="dense")
    sigma_w2 = spectrum.moment(1)
    law = MarchenkoPastur(ratio=outputs / inputs, log_scale=math.log(sigma_w2))
    edge = top_lam_law(outputs, inputs)
    beyond = (np.exp(2 * spectrum.by_network) / sigma_w2 - edge.centre) / edge.scale
    values = 2 * spectrum.by_network[np.isfinite(spectrum.by_network)]
    all_equal = math.log(sigma_w2) + max(0.0, math.log(outputs / inputs))  # ln λ of an orthogonal matrix
    found = compare(law, spectrum)
    return Layer(
        name=str(rows.name.iloc[0]),
        size=str(rows["size"].iloc[0]),
        outputs=outputs,
        inputs=inputs,
        positions=positions,
        spectrum=spectrum,
        sigma_w2=sigma_w2,
        ks=found.ks,
        excess=float(beyond.max()),
        outliers=float(np.sum(beyond > EDGE_LIMIT)) / spectrum.networks,
        to_random=found.wasserstein_log,
        to_orthogonal=float(np.abs(values - all_equal).mean()),
    )


def _spectrum(rows: pd.DataFrame, *, outputs: int, error: float, method: str) -> EmpiricalSpectrum:
    values = np.stack([np.asarray(row, dtype=np.float64) for row in rows.log_singular_values])
    padded = np.pad(values, ((0, 0), (0, outputs - values.shape[1])), constant_values=-np.inf)
    return EmpiricalSpectrum(by_network=padded, relative_error=error, method=method)


def numbers(products: Products) -> dict[str, Any]:
    """Return everything as plain numbers."""
    spectrum, found = products.spectrum, products.comparison
    return {
        "networks": products.networks,
        "files": [name for name in products.names if name],
        "widths": list(products.widths) if spectrum is not None else None,
        "law": products.law_name,
        "layers": [_layer_numbers(layer) for layer in products.layers],
        "log_singular_values": None if spectrum is None else spectrum.by_network.tolist(),
        "relative_error": None if spectrum is None else spectrum.relative_error,
        "comparison": None if found is None else _comparison_numbers(found),
        "log_det": None if products.log_det is None else _log_det_numbers(*products.log_det),
    }


def _layer_numbers(layer: Layer) -> Mapping[str, Any]:
    largest, smallest = layer.log_sigma("largest").value, layer.log_sigma("smallest").value
    return {
        "name": layer.name,
        "shape": [int(n) for n in layer.size.split(" × ")],
        "sigma_max": math.exp(largest),
        "sigma_min": math.exp(smallest),
        "frobenius": layer.frobenius,
        "log_condition": largest - smallest,
        "sigma_w2": layer.sigma_w2,
        "ks": layer.ks,
        "ks_limit": layer.ks_limit,
        "excess": layer.excess,
        "outliers": layer.outliers,
        "wasserstein_log": {"marchenko_pastur": layer.to_random, "orthogonal": layer.to_orthogonal},
        "kind": layer.kind,
        "log_singular_values": layer.spectrum.by_network.tolist(),
    }


def _comparison_numbers(found: SpectrumComparison) -> Mapping[str, Any]:
    return {
        "ks": found.ks,
        "ks_se": found.ks_se,
        "ks_pvalue": found.ks_pvalue,
        "wasserstein_log": found.wasserstein_log,
        "moments": [[m.measured, m.predicted] for m in found.moments],
        "log_edge": [found.edge.measured, found.edge.predicted],
        "zeros": [found.zeros.measured, found.zeros.predicted],
        "verdict": found.verdict,
    }


def _log_det_numbers(measured: Scalar, exact: Scalar) -> Mapping[str, float]:
    return {"measured": measured.value, "se": measured.se, "exact": exact.value, "exact_se": exact.se}
