"""The page of `rmtbn phase`: the plane, the rates of correlations, the map of trainability."""

import functools
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from rmtbn._checks import InvalidArgumentError
from rmtbn.plot.plane import plane
from rmtbn.plot.points import points
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Claim, Figure, Page, Section, Table
from rmtbn.theory import mean_field

from ._formulae import formula_blocks
from ._phase_records import LINE, TRAINING_BIAS, Phase, Rate

WEIGHTS, BIASES = np.linspace(0.2, 4.0, 26), np.linspace(0.0, 0.4, 11)  # σ_w², σ_b² of the theory maps
ALLOWED = 4.0  # standard errors; and 8/width of the rate for finite width
MOST = 0.75  # of the plane that a line must explain to count as separating it


@functools.lru_cache(maxsize=4)
def theory(activation: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compute log₂ χ₁ at q* and log₁₀ ξ_c over the plane, rows σ_b², columns σ_w²."""
    found = [[mean_field.fixed_point(activation, sigma_w=w**0.5, sigma_b=b**0.5) for w in WEIGHTS] for b in BIASES]
    chi = [[math.log2(point.chi1) for point in row] for row in found]
    xi = [[math.log10(max(point.xi_c, 1e-3)) for point in row] for row in found]
    return pd.DataFrame(chi, BIASES, WEIGHTS), pd.DataFrame(xi, BIASES, WEIGHTS)


def critical_line(activation: str) -> tuple[list[float], list[float]]:
    """Return σ_w² and σ_b² of the points where χ₁ = 1, as far as there are any in the plane."""
    line = []
    for bias in np.linspace(0.0, BIASES[-1] ** 0.5, 41) ** 2:  # denser where the line is flat
        try:
            line.append((mean_field.critical_point(activation, sigma_b=bias**0.5).sigma_w ** 2, float(bias)))
        except InvalidArgumentError:  # a homogeneous φ is critical without bias only
            continue
    return [w for w, _ in line], [b for _, b in line]


def page(phase: Phase, *, manifest: dict[str, str]) -> Page:
    """Write the page."""
    rates = phase.rates()
    line, alone, area = np.mean([phase.agreement(seed) for seed in _seeds(phase)], axis=0)
    return Page(
        title="Order, chaos and what can be trained",
        summary=f"The line {number(LINE, digits=1)} ξ_c explains {number(100 * line)} % of the trainability map of "
        f"{phase.activation} networks (the best depth alone {number(100 * alone)} %; ROC area {number(area)}).",
        sections=(
            Section(title="The plane of σ_w² and σ_b²", blocks=tuple(_plane_blocks(phase))),
            Section(title="How fast correlations settle", blocks=tuple(_rate_blocks(phase, rates))),
            Section(title="What can be trained", blocks=tuple(_training_blocks(phase))),
            Section(title="Maps", blocks=tuple(formula_blocks((phase.activation,)))),
            Section(title="Claims", blocks=(_rate_claim(rates, width=phase.width), _training_claim(phase))),
        ),
        manifest=manifest,
    )


def numbers(phase: Phase) -> dict[str, Any]:
    """Return rates, accuracies and agreement."""
    accuracy = phase.accuracy()
    return {
        "rates": [
            {"sigma_w2": r.sigma_w2, "sigma_b2": r.sigma_b2, "xi_c": r.xi_c, "layers": r.layers,
             "measured": r.measured, "se": r.se, "predicted": r.predicted}
            for r in phase.rates()
        ],
        "accuracy": {str(depth): dict(zip(map(str, accuracy), row, strict=True))
                     for depth, row in zip(accuracy.index, accuracy.to_numpy().tolist(), strict=True)},
        "agreement": {str(seed): dict(zip(("line", "depth_alone", "roc_area"), phase.agreement(seed), strict=True))
                      for seed in _seeds(phase)},
    }  # fmt: skip


def _seeds(phase: Phase) -> list[int]:
    return sorted(int(seed) for seed in phase.training.seed.unique())


def _plane_blocks(phase: Phase) -> Iterator[Block]:
    yield (
        "χ₁ is the growth of squared gradients per layer at the fixed point of the lengths: below 1 inputs become "
        "alike and gradients vanish (order), above 1 inputs part and gradients explode (chaos). ξ_c is the depth over "
        "which the correlation of two inputs forgets where it started; it diverges where χ₁ = 1."
    )
    yield Figure(
        draw=partial(_planes, phase),
        size=(11.0, 4.6),
        caption=f"Theory for {phase.activation}: χ₁ (as a power of two) and ξ_c (as a power of ten of layers, up to "
        "1000), over the plane; the line is critical, χ₁ = 1. Without bias and below it lengths vanish, φ is linear "
        "and correlations are kept: ξ_c is infinite there.",
        alt="Two maps of the plane: χ₁ rises with σ_w² and falls with σ_b², and is 1 on a line where ξ_c diverges.",
    )


def _planes(phase: Phase, canvas: Canvas) -> None:
    chi, xi = theory(phase.activation)
    left, right = canvas.subplots(1, 2)
    plane(chi, label="log₂ χ₁", limits=(-1.0, 1.0), diverging=True, ax=left)
    plane(xi, label="log₁₀ ξ_c", limits=(0.0, 3.0), ax=right)
    for ax in (left, right):
        ax.plot(*critical_line(phase.activation), color=rcParams["text.color"], label="χ₁ = 1")
        ax.set(xlabel="σ_w²", ylabel="σ_b²", xlim=(WEIGHTS[0], WEIGHTS[-1]), ylim=(BIASES[0], BIASES[-1]))
        _legend(ax)


def _rate_blocks(phase: Phase, rates: list[Rate]) -> Iterator[Block]:
    yield (
        f"Pairs of inputs start at correlation {number(phase.start)} and at the fixed point of the lengths. Their "
        "correlation is followed while it can be told from its limit c*; the slope of ln |c − c*| is compared with "
        "that of the mean-field recursion over the same layers. Its inverse tends to ξ_c."
    )
    yield Figure(
        draw=partial(_draw_rates, rates),
        caption=f"Layers over which |c − c*| falls by e: measured in {phase.networks} networks of width {phase.width} "
        "(one standard error) against ξ_c. The line is equality.",
        alt="Measured decay lengths lie near the line of equality with ξ_c.",
    )
    yield Table(
        caption="Decay of |c − c*| per layer.",
        columns=("σ_w²", "σ_b²", "ξ_c", "layers", "measured", "recursion"),
        rows=tuple(_rate_row(rate) for rate in rates),
    )


def _rate_row(rate: Rate) -> tuple[str, ...]:
    place = number(rate.sigma_w2), number(rate.sigma_b2), number(rate.xi_c), str(rate.layers)
    return *place, with_error(rate.measured, rate.se), number(rate.predicted)


def _draw_rates(rates: list[Rate], canvas: Canvas) -> None:
    ax = canvas.subplots()
    xi = np.array([r.xi_c for r in rates])
    length = np.array([-1 / r.measured for r in rates])
    error = np.array([r.se / r.measured**2 for r in rates])
    finite = xi[np.isfinite(xi)]
    ends = np.array([finite.min(), finite.max()]) if finite.size else np.array([1.0, 10.0])
    points(xi, length, se=error, label="measured", line=(ends, ends), ax=ax)
    ax.set(xlabel="ξ_c", ylabel="measured decay length", xscale="log", yscale="log")
    ax.legend()


def _training_blocks(phase: Phase) -> Iterator[Block]:
    accuracy = phase.accuracy()
    yield (
        f"Networks of {phase.units} units are trained by {phase.steps} steps of SGD on the digits, σ_b² = "
        f"{number(TRAINING_BIAS)}, and their accuracy is measured on digits that they have not seen. The line is "
        f"{number(LINE, digits=1)} ξ_c, from the theory of untrained networks."
    )
    yield Figure(
        draw=partial(_draw_training, phase),
        size=(8.4, 4.8),
        caption=f"Accuracy after {phase.steps} steps over σ_w² and depth, mean over {len(_seeds(phase))} seeds; line: "
        f"{number(LINE, digits=1)} ξ_c (Schoenholz et al. 2017, figure 5).",
        alt=f"Accuracy is highest near the critical σ_w² and at small depth: at depth {accuracy.index[-1]} it is "
        f"{number(accuracy.iloc[-1].max())} at most, at depth {accuracy.index[0]} {number(accuracy.iloc[0].min())} at "
        "least.",
    )


def _draw_training(phase: Phase, canvas: Canvas) -> None:
    ax = canvas.subplots()
    accuracy = phase.accuracy()
    logs = accuracy.set_axis(np.log2(accuracy.index.to_numpy(dtype=np.float64)), axis=0)
    plane(logs, label="accuracy", limits=(0.1, 1.0), ax=ax)
    low, high = ax.get_ylim()
    weights = np.linspace(*ax.get_xlim(), 121)
    limit = phase.limit(weights[weights > 0])
    ax.plot(weights[weights > 0], np.log2(np.minimum(limit, 2.0**60)), color="C1", lw=2.0, label="6 ξ_c")
    ax.set(xlabel="σ_w²", ylabel="depth", ylim=(low, high))
    ax.set_yticks(logs.index.to_list(), [str(depth) for depth in accuracy.index])
    _legend(ax)


def _legend(ax: Axes) -> None:
    """Put the legend over the axes: on them every corner has a colour."""
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0))


def _rate_claim(rates: list[Rate], *, width: int) -> Claim:
    scores = [abs(r.measured - r.predicted) / (r.se + 8 / width * abs(r.predicted) / ALLOWED) for r in rates]
    worst = max(scores, default=math.inf)
    spread = [r.predicted for r in rates]
    decisive = len(rates) >= 3 and max(spread) - min(spread) > 10 * max(r.se for r in rates)
    return Claim(
        statement="The correlation of two inputs tends to c* at the rate that the mean field gives.",
        source="Schoenholz et al. 2017, arXiv:1611.01232, section 3",
        predicted="; ".join(number(r.predicted) for r in rates),
        measured="; ".join(with_error(r.measured, r.se) for r in rates),
        verdict="contradicted" if worst > ALLOWED and rates else ("supported" if decisive else "inconclusive"),
        evidence=f"Largest deviation {number(worst, digits=2)} standard errors (widened by 2/N of the rate) among "
        f"{len(rates)} points; supported if all are within 4 and the rates differ by more than ten errors.",
    )


def _training_claim(phase: Phase) -> Claim:
    found = {seed: phase.agreement(seed) for seed in _seeds(phase)}
    line, alone, area = (np.array(column) for column in zip(*found.values(), strict=True))
    if (line > alone).all() and line.min() >= MOST:
        verdict = "supported"
    elif (line < alone).all():
        verdict = "contradicted"
    else:
        verdict = "inconclusive"
    return Claim(
        statement=f"Networks deeper than {number(LINE, digits=1)} ξ_c are not trained, shallower ones are.",
        source="Schoenholz et al. 2017, arXiv:1611.01232, section 5",
        predicted=f"the line separates at least {number(100 * MOST, digits=2)} % of the map, more than any depth does",
        measured=f"{', '.join(number(100 * v) for v in line)} % (depth alone: "
        f"{', '.join(number(100 * v) for v in alone)} %)",
        verdict=verdict,
        evidence="Share of the plane of σ_w² and ln(depth) where trained (accuracy nearer to the best than to chance) "
        f"and depth ≤ 6 ξ_c agree, per seed; depth alone is the best horizontal line, fitted to these data. Area under "
        f"the ROC curve of depth/ξ_c: {', '.join(number(v) for v in area)}. Supported if the line is better for every "
        "seed, contradicted if worse for every seed.",
    )
