"""The page of `rmtbn spectrum`: the singular values of a run, what theory says of them, and the two side by side."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from rmtbn import inits
from rmtbn.compare import SpectrumComparison, compare
from rmtbn.plot.spectrum_density import spectrum_density
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Figure, Page, Section, Table
from rmtbn.result import EmpiricalSpectrum, Scalar, SpectralMeasure
from rmtbn.sweep.run import Records
from rmtbn.theory.finite_width import log_singular_value_means, lyapunov_exponents, lyapunov_variances

from ._predictions import Network
from ._spectrum_route import MEANT, below, route_numbers, route_text

QUANTILES = np.array([0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99])
EXTREMES: Mapping[str, int] = {"largest": 0, "smallest": -1}  # of the singular values that are not 0
NAMES = {
    "relu": "ReLU",
    "leaky_relu": "leaky ReLU",
    "hard_tanh": "hard tanh",
    "gelu": "GELU",
    "silu": "SiLU",
    "selu": "SELU",
}
MEANING: Mapping[str, str] = {
    "agrees": "no difference stands out from that between networks",
    "agrees to order 1/N": "the difference is one that finite width explains",
    "rejected": "the difference is more than finite width explains",
    "undecided": "the networks are too few to tell",
}
COLUMNS = ("quantity", "measured", "predicted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extreme:
    """The largest or smallest ln σ, and what theory says of its mean over as many networks.

    Nothing is measured where the value is censored. The prediction is that for products of Gaussian matrices, None for
    other networks. Its error is the exact one of such a mean, √(L v_k / networks): a standard error measured on four
    networks is itself uncertain by 40 %. `newman` is exponent × depth alone, without the overlap of the frames of
    singular vectors, which no depth washes out
    (docs/derivations/lyapunov.md).
    """

    measured: Scalar | None
    predicted: Scalar | None
    newman: float | None


class Measured:
    """The pooled spectrum of a run, what theory says of it, and how the two compare."""

    def __init__(self, records: Records) -> None:
        table = records.table("spectrum")
        self.parameters: Mapping[str, Any] = records.records[0].cell.parameters
        activation, norm, self.depth, self.width = (
            self.parameters[n] for n in ("activation", "norm", "depth", "width")
        )
        self.spectrum = EmpiricalSpectrum(
            by_network=np.stack([np.asarray(row) for row in table.log_singular_values]),
            relative_error=float(table.relative_error.max()),
            method=str(table.route[0]),
            batch_stats=(self.parameters.get("batch_stats") or "batch") if norm == "batch" else None,
            log_floor=table.log_floor.to_numpy(dtype=np.float64) if np.isfinite(table.log_floor).any() else None,
            cdf_error=float(table.cdf_error.max()),
            reason=str(table.reason[0]),
        )
        sigmas = {name: self.parameters.get(name) for name in ("sigma_w", "sigma_b")}
        self.weights = inits.weight_law(self.parameters["init"], activation, fan_in=self.width, **sigmas)
        network = Network(activation=activation, norm=norm, law=self.weights, q0=float(table.q0.mean()))
        self.law: SpectralMeasure | None = None
        if self.spectrum.batch_stats != "running":  # a law of the batch is not one of fixed statistics
            self.law = network.jacobian_law(self.depth)
        self.comparison: SpectrumComparison | None = None if self.law is None else compare(self.law, self.spectrum)
        self.is_ginibre = (network.norm, network.activation, self.weights.distribution) == (
            "none",
            "linear",
            "gaussian",
        )

    def extreme(self, name: str) -> Extreme:
        """Return the "largest" or the "smallest" ln σ."""
        index = EXTREMES[name]
        nonzero = [row[np.isfinite(row)] for row in self.spectrum.by_network]
        measured = Scalar.over_networks([row[index] for row in nonzero if row.size], symbol="ln σ", label=name)
        known = None if name == "smallest" and self.spectrum.censored_fraction else measured
        if not self.is_ginibre:
            return Extreme(measured=known, predicted=None, newman=None)
        scale = self.depth * math.log(self.weights.sigma_w)
        mean = float(log_singular_value_means(self.width, depth=self.depth)[index]) + scale
        se = math.sqrt(self.depth * float(lyapunov_variances(self.width)[index]) / measured.networks)
        predicted = Scalar(value=mean, se=se, symbol="ln σ", label=name)
        newman = self.depth * float(lyapunov_exponents(self.width)[index]) + scale
        return Extreme(measured=known, predicted=predicted, newman=newman)


def numbers(measured: Measured) -> dict[str, Any]:
    """Return everything as plain numbers."""
    spectrum, found = measured.spectrum, measured.comparison
    return {
        "parameters": measured.parameters,
        "networks": spectrum.networks,
        "dimension": spectrum.dimension,
        "log_singular_values": spectrum.by_network.tolist(),
        "relative_error": spectrum.relative_error,
        **route_numbers(spectrum),
        "zeros": spectrum.zero_fraction,
        "log_sigma": {name: _extreme_numbers(measured.extreme(name)) for name in EXTREMES},
        "moments": [spectrum.moment(1), spectrum.moment(2)],
        "law": None if found is None else _law_numbers(found),
    }


def _extreme_numbers(extreme: Extreme) -> dict[str, float | None]:
    predicted = extreme.predicted
    return {
        "mean": None if extreme.measured is None else extreme.measured.value,
        "se": None if extreme.measured is None else extreme.measured.se,
        "predicted": None if predicted is None else predicted.value,
        "predicted_se": None if predicted is None else predicted.se,
        "newman": extreme.newman,
    }


def _law_numbers(found: SpectrumComparison) -> dict[str, Any]:
    return {
        "ks": found.ks,
        "ks_se": found.ks_se,
        "ks_pvalue": found.ks_pvalue,
        "wasserstein_log": found.wasserstein_log,
        "moments": [deviation.predicted for deviation in found.moments],
        "log_edge": found.edge.predicted,
        "zeros": found.zeros.predicted,
        "verdict": found.verdict,
    }


def page(measured: Measured, *, data: str, manifest: Mapping[str, str]) -> Page:
    """Write the page."""
    p, spectrum, weights = measured.parameters, measured.spectrum, measured.weights
    activation = NAMES.get(p["activation"], p["activation"])
    network = f"{activation} network, {p['init']}, depth {p['depth']}, width {p['width']}"
    normed = " with batch normalisation" if p["norm"] == "batch" else ""
    figure = Figure(
        draw=partial(density, measured),
        caption=f"Density of the squared singular values λ, per decade: {spectrum.networks} × {spectrum.dimension} "
        f"measured values as bars{'' if measured.law is None else ', the law for infinite width as a line'}. "
        f"{network[0].upper()}{network[1:]}{normed}; σ_w = {number(weights.sigma_w, digits=4)}, "
        f"σ_b = {number(weights.sigma_b, digits=4) if weights.sigma_b else 0}. {data}.",
        alt="Histogram of λ over decades, with the density of the law over it where there is one.",
    )
    table = Table(caption=_table_caption(measured), columns=COLUMNS, rows=rows(measured))
    return Page(
        title=f"Singular values of a {network}{normed}",
        summary=_summary(measured),
        sections=(
            Section(title="Spectrum of the Jacobian", blocks=(_reading(measured), figure, table, route_text(spectrum))),
        ),
        manifest=manifest,
    )


def _summary(measured: Measured) -> str:
    spectrum, found = measured.spectrum, measured.comparison
    size = f"{spectrum.networks} networks, {spectrum.dimension} singular values each. "
    if found is None:
        return size + "There is no law for this normalisation yet: measured only."
    distance = with_error(found.ks, found.ks_se)
    verdict = f"{found.verdict}, {MEANING[found.verdict]}"
    return size + f"Against the law for infinite width: {verdict} (Kolmogorov–Smirnov distance {distance})."


def _reading(measured: Measured) -> str:
    meant = MEANT[measured.spectrum.batch_stats]
    text = (
        f"J is the derivative of {meant}; λ = σ² is a squared singular value of J. A spectrum that spans many decades "
    )
    text += "means that a step in one direction changes the output vastly more than a step in another."
    if measured.law is None:
        return text
    ratio = number(measured.depth / measured.width, digits=2)
    return (
        f"{text} The law is exact for infinite width. At width N it is off by the order of L/N, here {ratio}, and a "
        "distance of that order does not contradict it."
    )


def density(measured: Measured, canvas: Canvas) -> None:
    """Draw the measured density and the law over it."""
    ax = canvas.subplots()
    spectrum_density(measured.spectrum, law=measured.law, ax=ax)
    ax.legend(loc="best")


def text(measured: Measured) -> str:
    """Return the table as lines of text."""
    table = (COLUMNS, *rows(measured))
    widths = [max(len(row[i]) for row in table) for i in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([*lines, route_text(measured.spectrum)])


def rows(measured: Measured) -> tuple[tuple[str, ...], ...]:
    """Return the rows of the table: quantity, measured, predicted."""
    spectrum, law, found = measured.spectrum, measured.law, measured.comparison
    listed: list[tuple[str, ...]] = [_extreme_row(measured, name) for name in EXTREMES]
    quantiles = (spectrum.log_ppf(QUANTILES) / 2, None if law is None else law.log_ppf(QUANTILES) / 2)
    for i, p in enumerate(QUANTILES):
        listed.append((f"{p:g} quantile of ln σ", *(_text(None if q is None else float(q[i])) for q in quantiles)))
        if spectrum.censored_fraction and quantiles[0][i] <= spectrum.log_lam_floor / 2:
            listed[-1] = (listed[-1][0], below(spectrum), listed[-1][2])
    if spectrum.censored_fraction:
        listed.append(("share of censored values", number(spectrum.censored_fraction), "—"))
    listed.append(("share of zeros", number(spectrum.zero_fraction), number(found.zeros.predicted) if found else "—"))
    for k, deviation in enumerate(found.moments if found else (), start=1):
        listed.append(
            (
                f"mean of λ{'²' if k == 2 else ''}",
                with_error(deviation.measured, deviation.se),
                number(deviation.predicted),
            )
        )
    if found:
        listed.append(("Kolmogorov–Smirnov distance", with_error(found.ks, found.ks_se), "0"))
        listed.append(("Wasserstein-1 distance in ln λ", number(found.wasserstein_log), "0"))
    return tuple(listed)


def _extreme_row(measured: Measured, name: str) -> tuple[str, ...]:
    extreme = measured.extreme(name)
    found, predicted = (
        None if scalar is None else with_error(scalar.value, scalar.se)
        for scalar in (extreme.measured, extreme.predicted)
    )
    return f"{name} ln σ", below(measured.spectrum) if found is None else found, predicted or "—"


def _table_caption(measured: Measured) -> str:
    text = f"Measured, with standard errors over {measured.spectrum.networks} networks, and predicted"
    if measured.is_ginibre:
        newman = " and ".join(_text(measured.extreme(name).newman) for name in EXTREMES)
        text += (
            ": the extremes by the theory of products of Gaussian matrices of this very width, with the error that a "
        )
        text += f"mean over as many networks has (Newman's exponents × depth alone give {newman}), the rest"
    if measured.law is not None:
        text += (
            " by the law for infinite width. Where L/N is not small, networks too rare to be met carry the means of "
        )
        text += "λ and λ²"
    return text + "."


def _text(value: float | None) -> str:
    return "—" if value is None else number(value, digits=5)
