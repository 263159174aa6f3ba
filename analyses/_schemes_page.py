"""The page of `rmtbn schemes`: figures, tables and claims from its records."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from rmtbn import inits
from rmtbn.compare import compare
from rmtbn.plot.depth_profile import depth_profile
from rmtbn.plot.heat_map import heat_map
from rmtbn.plot.spectrum_density import spectrum_density
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Figure, Page, Section, Table
from rmtbn.result import DepthProfile

from . import _schemes_claims
from ._failure import failures
from ._predictions import Network
from ._schemes_records import Schemes

# The uniform schemes have the variances of the normal ones and lie on them in every figure; the tables have all.
SHOWN = ("he_normal", "glorot_normal", "torch_default", "orthogonal", "critical", "gaussian")
PANELS = (("relu", "none"), ("relu", "batch"), ("tanh", "none"), ("tanh", "batch"))
NAMES = {"relu": "ReLU", "tanh": "tanh", "none": "no normalisation", "batch": "batch normalisation"}
DENSITIES = (("relu", "he_normal"), ("relu", "orthogonal"), ("tanh", "critical"), ("tanh", "orthogonal"))


def numbers(schemes: Schemes) -> dict[str, Any]:
    """Return the numbers of the page: per activation, norm and scheme, the failures and what decides them."""
    return {
        activation: {
            norm: {
                scheme: {
                    "failures": [
                        {"criterion": f.criterion, "depth": f.depth, "how": f.how}
                        for f in failures(schemes.summary(activation, norm, scheme))
                    ],
                    "by_depth": schemes.summary(activation, norm, scheme).to_dict(orient="list"),
                }
                for scheme in inits.INITS
            }
            for norm in ("none", "batch")
        }
        for activation in ("relu", "tanh")
    }


def page(schemes: Schemes, *, data: str, manifest: dict[str, str]) -> Page:
    """Write the page."""
    claims = _schemes_claims.claims(schemes)
    verdicts = [claim.verdict for claim in claims]
    return Page(
        title="How initialisation schemes fail with depth",
        summary=_summary(schemes),
        sections=(
            Section(title="Depth of failure", blocks=tuple(_failure_blocks(schemes, data))),
            Section(title="Signals, gradients and correlations", blocks=tuple(_profile_figures(schemes, data))),
            Section(title="Singular values of the Jacobian", blocks=tuple(_spectrum_blocks(schemes, data))),
            Section(
                title="Claims",
                blocks=(
                    f"{verdicts.count('supported')} supported, {verdicts.count('contradicted')} contradicted, "
                    f"{verdicts.count('inconclusive')} inconclusive. " + _schemes_claims.RULE,
                    *claims,
                ),
            ),
        ),
        manifest=manifest,
    )


def _first_failure(schemes: Schemes, activation: str, norm: str, scheme: str) -> str:
    found = failures(schemes.summary(activation, norm, scheme))
    return "none" if not found else "; ".join(f"{failure.depth}: {failure.how}" for failure in found)


def _summary(schemes: Schemes) -> str:
    deepest = int(schemes.depths.depth.max())
    he = failures(schemes.summary("relu", "none", "he_normal"))
    bn = failures(schemes.summary("relu", "batch", "he_normal"))
    found = {"He without normalisation": he, "He with batch normalisation": bn}
    said = "; ".join(
        f"{name}: {', '.join(f'{f.how} at depth {f.depth}' for f in fails) or 'nothing fails'}"
        for name, fails in found.items()
    )
    return f"ReLU networks up to depth {deepest} on real images. {said}."


def _failure_blocks(schemes: Schemes, data: str) -> Iterator[Block]:
    yield (
        "A scheme has failed at the first depth at which the gradient norm at layer 1 or the mean square of the "
        "pre-activations leaves [10⁻³, 10³] of its value at depth 1, the condition number of the input-output Jacobian "
        "passes 10⁶ (zeros left out), or the mean correlation of two inputs passes 0.99. Depths are powers of two."
    )
    yield Table(
        caption=f"Depth at which each criterion fails first, means over {schemes.networks} networks. {data}.",
        columns=("scheme", *(f"{NAMES[activation]}, {NAMES[norm]}" for activation, norm in PANELS)),
        rows=tuple((s, *(_first_failure(schemes, a, n, s) for a, n in PANELS)) for s in inits.INITS),
    )
    yield Figure(
        draw=partial(_heat_maps, schemes),
        size=(11.0, 7.6),
        caption="Gradient norm at layer 1 against its value at depth 1, in powers of ten (log₁₀), by scheme and depth; "
        f"width {schemes.width}, {schemes.examples} examples, {schemes.networks} networks.",
        alt="Four heat maps of schemes against depth. Without normalisation some schemes vanish and some explode; with "
        "batch normalisation all explode at one rate.",
    )


def _heat_maps(schemes: Schemes, canvas: Canvas) -> None:
    for (activation, norm), ax in zip(PANELS, canvas.subplots(2, 2).flat, strict=True):
        rows = {s: schemes.summary(activation, norm, s).set_index("depth").log_gradient for s in inits.INITS}
        growth = pd.DataFrame(rows).T
        growth = (growth.sub(growth[1], axis=0)) / (2 * np.log(10))
        heat_map(growth, label="log₁₀ of gradient norm", limit=9.0, write=_whole, ax=ax)
        ax.set_title(f"{NAMES[activation]}, {NAMES[norm]}")


def _whole(value: float) -> str:
    return f"{round(value):d}"


def _profile_figures(schemes: Schemes, data: str) -> Iterator[Figure]:
    shown = (
        ("log_gradient", "‖g‖²", "squared gradient norm at layer 1", lambda net, depth: net.gradient_growth(depth)),
        ("log_q", "q", "mean square of pre-activations", lambda net, depth: net.lengths(depth)),
        ("correlation", "c", "correlation of two inputs", lambda net, depth: net.correlations(depth)),
        ("log_condition", "κ", "condition number", None),
    )
    for column, symbol, label, theory in shown:
        lines = "lines are mean-field theory" if theory else "no prediction at finite width"
        yield Figure(
            draw=partial(_profiles, schemes, (column, symbol, label), theory),
            size=(10.0, 7.0),
            caption=f"{label[0].upper()}{label[1:]} against depth, {lines}; points are means over {schemes.networks} "
            f"networks of width {schemes.width} with standard errors. {data}.",
            alt=f"Four panels, ReLU and tanh without and with normalisation: {label} against depth for six schemes.",
        )


def _profiles(
    schemes: Schemes,
    quantity: tuple[str, str, str],
    theory: Callable[[Network, int], DepthProfile] | None,
    canvas: Canvas,
) -> None:
    column, symbol, label = quantity
    deepest = int(schemes.depths.depth.max())
    panels = canvas.subplots(2, 2, sharex=True, sharey=column == "correlation")
    for (activation, norm), ax in zip(PANELS, panels.flat, strict=True):
        for scheme in SHOWN:
            key = (activation, norm, scheme)
            predicted = theory(schemes.network(*key), deepest) if theory else None
            measured = schemes.profile(key, column, symbol=symbol, label=label)
            depth_profile(measured, theory=predicted, label=scheme, log_depth=True, ax=ax)
        ax.set_title(f"{NAMES[activation]}, {NAMES[norm]}")
    canvas.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)


def _spectrum_blocks(schemes: Schemes, data: str) -> Iterator[Block]:
    depths = _density_depths(schemes)
    yield Figure(
        draw=partial(_densities, schemes, depths),
        size=(11.0, 10.0),
        caption="Density of the squared singular values λ of the input-output Jacobian at one image, without "
        f"normalisation: histogram of {schemes.networks} networks of width {schemes.width}, and the law for infinite "
        f"width. {data}.",
        alt="Twelve histograms with the analytic density over each; the spread over decades grows with depth.",
    )
    yield Table(
        caption="Distance between the measured spectrum and its law for infinite width: Kolmogorov–Smirnov, with its "
        "standard error over networks, and Wasserstein-1 in ln λ. The finite-size bias is of order L/N.",
        columns=("activation", "scheme", "depth", "KS", "p-value", "W₁ in ln λ", "verdict"),
        rows=tuple(_distance_row(schemes, *key, depth) for key in DENSITIES for depth in depths),
    )


def _density_depths(schemes: Schemes) -> list[int]:
    known = sorted(schemes.depths.depth.unique())
    return [int(depth) for depth in known if depth in (1, 8, 64, known[-1])][:3]


def _densities(schemes: Schemes, depths: list[int], canvas: Canvas) -> None:
    panels = canvas.subplots(len(DENSITIES), len(depths), squeeze=False)
    for (activation, scheme), row in zip(DENSITIES, panels, strict=True):
        for depth, ax in zip(depths, row, strict=True):
            law = schemes.network(activation, "none", scheme).jacobian_law(depth)
            spectrum_density(schemes.spectrum(activation, scheme, depth), law=law, ax=ax)
            ax.set_title(f"{NAMES[activation]}, {scheme}, depth {depth}")


def _distance_row(schemes: Schemes, activation: str, scheme: str, depth: int) -> tuple[str, ...]:
    law = schemes.network(activation, "none", scheme).jacobian_law(depth)
    if law is None:
        raise AssertionError("unnormalised networks have a law")
    found = compare(law, schemes.spectrum(activation, scheme, depth))
    pvalue = "—" if found.ks_pvalue is None else number(found.ks_pvalue, digits=2)
    ks = with_error(found.ks, found.ks_se)
    return activation, scheme, str(depth), ks, pvalue, number(found.wasserstein_log), found.verdict
