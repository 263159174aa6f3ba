"""The singular values of one kind of network, and the law over them: `rmtbn spectrum`."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure as Canvas

from rmtbn import _checks, inits, rng
from rmtbn.activations import ACTIVATIONS
from rmtbn.compare import SpectrumComparison, compare
from rmtbn.measure.jacobian import spectrum as measure_spectrum
from rmtbn.nets.mlp import mlp
from rmtbn.nets.norms import NORMS
from rmtbn.plot.spectrum_density import spectrum_density
from rmtbn.plot.theme import STYLES, style
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Figure, Page, Section, Table
from rmtbn.report.render import write
from rmtbn.result import EmpiricalSpectrum, Scalar, SpectralMeasure
from rmtbn.sweep.grid import Cell, Study, grid
from rmtbn.sweep.run import Records, run
from rmtbn.theory.finite_width import lyapunov_exponents

from ._options import Common, common, echo_json, load
from ._predictions import Network

GRID: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "quick": {"depth": 8, "width": 32, "networks": 2},
        "default": {"depth": 50, "width": 128, "networks": 4},
        "paper": {"depth": 50, "width": 1000, "networks": 10},
    }
)
QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)


def cell(
    *,
    seed: int,
    depth: int,
    width: int,
    activation: str,
    init: str,
    norm: str,
    data: str,
    batch_size: int,
    device: str,
    dtype: str,
    sigma_w: float | None = None,
    sigma_b: float | None = None,
) -> dict[str, pd.DataFrame]:
    """Measure the Jacobian of one network, at one input or, under batch normalisation, over a batch of `batch_size`."""
    examples = load(data).take(batch_size if norm == "batch" else 1, generator=rng.torch_generator(seed, "examples"))
    images = examples.embedded(width, generator=rng.torch_generator(seed, "embedding"))
    network = inits.initialise(
        mlp(depth=depth, width=width, activation=activation, norm=norm),
        init,
        generator=rng.torch_generator(seed, "weights", width, init, norm, activation),  # as in `rmtbn schemes`
        activation=activation,
        sigma_w=sigma_w,
        sigma_b=sigma_b,
    )
    kind = {"device": torch.device(device), "dtype": getattr(torch, dtype)}
    found = measure_spectrum(network.to(**kind), images.to(**kind).inputs)
    return {
        "spectrum": pd.DataFrame(
            {
                "log_singular_values": [list(found.by_network[0])],
                "relative_error": [found.relative_error],
                "route": [found.method],
                "q0": [float(images.inputs.square().mean())],
            }
        )
    }


STUDY = Study(name="spectrum", version=1, compute=cell)


class Measured:
    """The pooled spectrum of a run, what theory says of it, and how the two compare."""

    def __init__(self, records: Records) -> None:
        table = records.table("spectrum")
        first = {str(name): value for name, value in table.iloc[0].items()}
        self.parameters = dict(records.records[0].cell.parameters)
        self.spectrum = EmpiricalSpectrum(
            by_network=np.stack([np.asarray(row) for row in table.log_singular_values]),
            relative_error=float(table.relative_error.max()),
            method=str(first["route"]),
            batch_stats="batch" if first["norm"] == "batch" else None,
        )
        sigmas = {name: self.parameters.get(name) for name in ("sigma_w", "sigma_b")}
        self.weights = inits.weight_law(first["init"], first["activation"], fan_in=first["width"], **sigmas)
        self.depth, self.width = int(first["depth"]), int(first["width"])
        network = Network(
            activation=first["activation"], norm=first["norm"], law=self.weights, q0=float(table.q0.mean())
        )
        self.law: SpectralMeasure | None = network.jacobian_law(self.depth)
        self.comparison: SpectrumComparison | None = None if self.law is None else compare(self.law, self.spectrum)
        newman = network.norm == "none" and network.activation == "linear" and self.weights.distribution != "orthogonal"
        self.exponents = lyapunov_exponents(self.width) + math.log(self.weights.sigma_w) if newman else None

    def extreme(self, index: int) -> tuple[Scalar, float | None]:
        """Return the largest (0) or smallest (-1) log σ over the networks, and Newman's exponent × depth for it."""
        label = "largest" if index == 0 else "smallest"
        measured = Scalar.over_networks(self.spectrum.by_network[:, index], symbol="ln σ", label=label)
        return measured, None if self.exponents is None else float(self.exponents[index]) * self.depth


def numbers(measured: Measured) -> dict[str, Any]:
    """Return everything as plain numbers."""
    spectrum, found = measured.spectrum, measured.comparison
    extremes = {}
    for name, index in (("largest", 0), ("smallest", -1)):
        scalar, predicted = measured.extreme(index)
        extremes[name] = {"mean": scalar.value, "se": scalar.se, "predicted": predicted}
    return {
        "parameters": measured.parameters,
        "networks": spectrum.networks,
        "dimension": spectrum.dimension,
        "log_singular_values": spectrum.by_network.tolist(),
        "relative_error": spectrum.relative_error,
        "zeros": spectrum.zero_fraction,
        "log_sigma": extremes,
        "moments": [spectrum.moment(1), spectrum.moment(2)],
        "law": None
        if found is None
        else {
            "ks": found.ks,
            "ks_se": found.ks_se,
            "ks_pvalue": found.ks_pvalue,
            "wasserstein_log": found.wasserstein_log,
            "moments": [deviation.predicted for deviation in found.moments],
            "log_edge": found.edge.predicted,
            "zeros": found.zeros.predicted,
            "verdict": found.verdict,
        },
    }


def page(measured: Measured, *, manifest: Mapping[str, str]) -> Page:
    """Write the page."""
    p, spectrum = measured.parameters, measured.spectrum
    described = f"{p['activation']} network, {p['init']}, norm {p['norm']}, depth {p['depth']}, width {p['width']}"
    verdict = measured.comparison.verdict if measured.comparison else "no law for this norm"
    figure = Figure(
        draw=partial(_density, measured),
        caption=f"Squared singular values λ of the input-output Jacobian: {described}; {spectrum.networks} networks.",
        alt="Histogram of λ over decades, with the density of the law over it where there is one.",
    )
    return Page(
        title=f"Jacobian spectrum: {described}",
        summary=f"{spectrum.networks} × {spectrum.dimension} singular values; law: {verdict}.",
        sections=(Section(title="Spectrum", blocks=(figure, *_tables(measured))),),
        manifest=manifest,
    )


def _density(measured: Measured, canvas: Canvas) -> None:
    ax = canvas.subplots()
    spectrum_density(measured.spectrum, law=measured.law, ax=ax)
    ax.legend(loc="center left")


def _tables(measured: Measured) -> tuple[Block, ...]:
    spectrum, law, found = measured.spectrum, measured.law, measured.comparison
    rows: list[tuple[str, ...]] = []
    for index in (0, -1):
        scalar, predicted = measured.extreme(index)
        rows.append((f"{scalar.label} ln σ", with_error(scalar.value, scalar.se), _text(predicted)))
    quantiles = (spectrum.log_ppf(QUANTILES) / 2, None if law is None else law.log_ppf(QUANTILES) / 2)
    for i, p in enumerate(QUANTILES):
        rows.append((f"{p:g} quantile of ln σ", *(_text(None if q is None else float(q[i])) for q in quantiles)))
    rows.append(("share of zeros", number(spectrum.zero_fraction), _text(found.zeros.predicted if found else None)))
    for k, deviation in enumerate(found.moments if found else (), start=1):
        rows.append((f"E λ^{k}", with_error(deviation.measured, deviation.se), number(deviation.predicted)))
    if found:
        rows.append(("Kolmogorov–Smirnov distance", with_error(found.ks, found.ks_se), "0"))
        rows.append(("Wasserstein-1 in ln λ", number(found.wasserstein_log), "0"))
    caption = "Measured over networks, with standard errors, and predicted: extremes by Newman's exponents × depth "
    caption += "(products of Gaussian matrices only), the rest by the law for infinite width."
    return (Table(caption=caption, columns=("quantity", "measured", "predicted"), rows=tuple(rows)),)


def _text(value: float | None) -> str:
    return "—" if value is None else number(value, digits=5)


def _cells(options: Common, network: Mapping[str, Any]) -> tuple[Cell, ...]:
    """Return one cell per network; sizes that were not given come from the preset."""
    given = {name: value for name, value in network.items() if value is not None}
    sizes: dict[str, Any] = {**GRID[options.preset], **given, "device": options.device, "dtype": options.dtype}
    networks = sizes.pop("networks")
    if sizes["norm"] == "batch" and sizes["batch_size"] == 1:
        raise _checks.fail("batch_size", "at least 2 for the norm 'batch'", 1)
    sigmas = {name: sizes.get(name) for name in ("sigma_w", "sigma_b")}
    inits.weight_law(sizes["init"], sizes["activation"], fan_in=sizes["width"], **sigmas)
    load(sizes["data"])
    axes = {name: (value,) for name, value in sizes.items()}
    return grid(axes, seeds=range(options.seed, options.seed + networks))


SIZE = click.IntRange(min=1)


@click.command(epilog="Example: rmtbn spectrum --depth 50 --width 128 --activation tanh --init critical --json")
@click.option("--depth", type=SIZE, help="Layers.  [default: by preset, 8, 50, 50]")
@click.option("--width", type=SIZE, help="Units.  [default: by preset, 32, 128, 1000]")
@click.option("--networks", type=SIZE, help="Networks, one seed each.  [default: by preset, 2, 4, 10]")
@click.option("--activation", type=click.Choice(list(ACTIVATIONS)), default="tanh", show_default=True, help="φ.")
@click.option("--init", type=click.Choice(list(inits.INITS)), default="critical", show_default=True, help="Scheme.")
@click.option("--sigma-w", type=float, help="Standard deviation of √N·W (init gaussian, orthogonal).")
@click.option("--sigma-b", type=float, help="Standard deviation of the biases (gaussian, orthogonal, critical).")
@click.option("--norm", type=click.Choice(list(NORMS)), default="none", show_default=True, help="Normalisation.")
@click.option("--batch-size", type=SIZE, default=8, show_default=True, help="Examples of the batch, for norm batch.")
@click.option("--data", default="gaussian", show_default=True, help="digits, gaussian, .npy file, CIFAR-10 folder.")
@click.option("--png", type=click.Path(path_type=Path, dir_okay=False), help="Write the figure here too.")
@common
def command(*, options: Common, png: Path | None, **network: Any) -> None:
    """Measure a network's singular values and lay the law over them."""
    records = run(STUDY, _cells(options, network), store=options.store("spectrum"), engine=options.engine_function())
    measured = Measured(records)
    if png is not None:
        with style("light"):
            canvas = Canvas(figsize=(7.2, 4.2), layout="constrained")
            _density(measured, canvas)
            canvas.savefig(png)
    if options.as_json:
        echo_json(numbers(measured))
        return
    path = options.out / "spectrum" / "index.html"
    write(page(measured, manifest=records.manifest()), path, styles=STYLES)
    click.echo(path)
