"""The page of `rmtbn moments`: profiles over depth with the recursions, and their deviation against width."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from rmtbn.plot.depth_profile import depth_profile
from rmtbn.plot.points import points
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Claim, Figure, Page, Section, Table
from rmtbn.result import DepthProfile

from ._formulae import formula_blocks
from ._moments_records import QUANTITIES, Kind, Moments, deviations

NAMES = {"relu": "ReLU", "gelu": "GELU", "selu": "SELU", "hard_tanh": "hard-tanh", "none": "", "batch": ", batch norm"}
ALLOWED = 4.0  # standard errors
SLOPE = 0.25  # by which the slope in ln N may differ from -1
FEWEST = 3  # widths that a slope needs
DEVIATIONS = {"log_q": "ln q", "correlation": "c"}


def page(moments: Moments, *, manifest: dict[str, str]) -> Page:
    """Write the page."""
    claims = tuple(_claims(moments))
    verdicts = [claim.verdict for claim in claims]
    return Page(
        title="Signals, correlations and gradients, layer by layer",
        summary=f"Ensembles of networks of {moments.depth} layers against the recursions of infinite width, "
        f"{len(moments.kinds)} kinds: {verdicts.count('supported')} of {len(claims)} claims supported.",
        sections=(
            Section(title="Profiles", blocks=tuple(_profile_blocks(moments))),
            Section(title="Deviation against width", blocks=tuple(_width_blocks(moments))),
            Section(title="Claims", blocks=claims),
            Section(title="Maps", blocks=tuple(formula_blocks(_activations(moments)))),
        ),
        manifest=manifest,
    )


def numbers(moments: Moments) -> dict[str, Any]:
    """Return, per kind, width and quantity, measured and predicted profiles."""
    return {
        title(kind): {
            column: {
                "predicted": moments.prediction(kind, column).value.tolist(),
                **{
                    str(width): {"measured": found.value.tolist(), "se": found.se.tolist()}
                    for width in moments.widths
                    for found in [moments.profile(kind, column, width=width)]
                },
            }
            for column in QUANTITIES
        }
        for kind in moments.kinds
    }


def title(kind: Kind) -> str:
    """Name a kind of network."""
    name = NAMES.get(kind.activation, kind.activation)
    block = {"plain": "", "residual": "residual ", "scaled": "scaled residual "}[kind.block]
    sigmas = f"σ_w² = {number(kind.sigma_w2)}, σ_b² = {number(kind.sigma_b2) if kind.sigma_b2 else '0'}"
    return f"{block}{name}{NAMES[kind.norm]}, {sigmas}"


def _activations(moments: Moments) -> list[str]:
    return list(dict.fromkeys(kind.activation for kind in moments.kinds if kind.norm == "none"))


def _groups(moments: Moments) -> list[tuple[str, list[Kind]]]:
    """Kinds that share a panel: one panel for each block, activation and norm."""
    found: dict[str, list[Kind]] = {}
    for kind in moments.kinds:
        found.setdefault(title(kind).split(", σ")[0], []).append(kind)
    return list(found.items())


def _profile_blocks(moments: Moments) -> Iterator[Block]:
    width = moments.widths[-1]
    networks = len(moments.by_network(moments.kinds[0], "log_q", width=width))
    yield (
        "Points are means over networks with one standard error, lines the recursions of infinite width with nothing "
        "fitted. Inputs have mean square 1 and correlation "
        f"{number(moments.start['none'])} (0 with batch normalisation); gradients are those of a random linear "
        "function of the output, against the last layer. Scaled residual networks have branches times 1/√L."
    )
    groups = _groups(moments)
    for column, (symbol, label, _) in QUANTITIES.items():
        yield Figure(
            draw=partial(_draw_profiles, moments, groups, column),
            size=(11.0, 3.3 * math.ceil(len(groups) / 3)),
            caption=f"{label[0].upper()}{label[1:]}, {symbol}, at every layer: {networks} networks of width {width} of "
            "each kind, with the recursion.",
            alt=f"{label[0].upper()}{label[1:]} against depth, a panel for each activation, points on their lines.",
        )


def _draw_profiles(moments: Moments, groups: Sequence[tuple[str, list[Kind]]], column: str, canvas: Canvas) -> None:
    rows = math.ceil(len(groups) / 3)
    panels = canvas.subplots(rows, min(3, len(groups)), squeeze=False).flat
    for (name, kinds), ax in zip(groups, panels, strict=False):
        for kind in kinds:
            measured = moments.profile(kind, column, width=moments.widths[-1])
            label = title(kind).split(", ", 1)[1].removeprefix("batch norm, ")
            depth_profile(_thinned(measured), theory=moments.prediction(kind, column), label=label, ax=ax)
        ax.set_title(name)
        ax.legend(fontsize=7.5)
    for ax in list(panels):
        ax.set_visible(False)


def _thinned(profile: DepthProfile) -> DepthProfile:
    """Keep about a dozen layers, so that points can be told apart."""
    kept = slice(None, None, max(1, len(profile.depth) // 12))
    return DepthProfile(
        depth=profile.depth[kept], value=profile.value[kept], se=profile.se[kept], symbol=profile.symbol,
        label=profile.label, is_log=profile.is_log, networks=profile.networks,
    )  # fmt: skip


def _width_blocks(moments: Moments) -> Iterator[Block]:
    if not moments.plain_kinds:
        yield "The first order in 1/N is known for plain networks without normalisation only; there are none here."
        return
    yield (
        "The means of ln q and of the correlation c over networks differ from the recursions by the order of 1/N. The "
        "lines are that order from theory (docs/derivations/width_expansion.md, correlation_expansion.md), with "
        "nothing fitted."
    )
    yield Figure(
        draw=partial(_draw_widths, moments),
        size=(11.0, 4.8),
        caption="Mean of ln q (left) and of c (right) less the recursion's, over the layers beyond a fifth of the "
        "depth, against 1/N, with one standard error; first kind of each activation.",
        alt="Deviations against 1/N: points near straight lines through the origin.",
    )
    for column, name in DEVIATIONS.items():
        yield Table(
            caption=f"Deviation of {name} from the recursion, measured and to first order in 1/N.",
            columns=("kind", "width", "measured", "first order"),
            rows=tuple(
                (title(row.kind), str(row.width), with_error(row.measured, row.se), number(row.predicted))
                for row in deviations(moments, column)
            ),
        )


def _draw_widths(moments: Moments, canvas: Canvas) -> None:
    first = {kind.activation: kind for kind in reversed(moments.plain_kinds)}
    for (column, name), ax in zip(DEVIATIONS.items(), canvas.subplots(1, 2), strict=True):
        found = deviations(moments, column)
        for activation, kind in reversed(first.items()):
            rows = [row for row in found if row.kind == kind]
            inverse, measured, se, predicted = zip(
                *((1 / row.width, row.measured, row.se, row.predicted) for row in rows), strict=True
            )
            points(inverse, measured, se=se, label=NAMES.get(activation, activation), line=(inverse, predicted), ax=ax)
        ax.set(xlabel="1/N", ylabel=f"deviation of {name}")
        ax.legend()


def _claims(moments: Moments) -> Iterator[Claim]:
    yield from (_profile_claim(moments, column) for column in QUANTITIES)
    if moments.plain_kinds and len(moments.widths) >= FEWEST:
        yield _slope_claim(moments)


_SOURCES = {
    "log_q": ("The mean square follows its recursion", "Poole et al. 2016, arXiv:1606.05340, eq. (3)"),
    "correlation": ("The correlation of two inputs follows its recursion", "Poole et al. 2016, eq. (5)"),
    "log_gradient": (
        "Squared gradients grow by χ₁ (by λ_G under batch normalisation) per layer",
        "Schoenholz et al. 2017, arXiv:1611.01232, eq. (6); Yang et al. 2019, arXiv:1902.08129",
    ),
}


def _profile_claim(moments: Moments, column: str) -> Claim:
    """Judge one quantity at every layer of every kind, at the largest width."""
    width, worst, moved = moments.widths[-1], {}, 0.0
    for kind in moments.kinds:
        found, predicted = moments.profile(kind, column, width=width), moments.prediction(kind, column)
        worst[kind] = float(_scores(found, predicted, width=width).max())
        moved = max(moved, float(np.ptp(predicted.value)))
    within = [kind for kind, score in worst.items() if score <= ALLOWED]
    outside = "; ".join(f"{title(kind)} ({number(worst[kind], digits=2)})" for kind in worst if kind not in within)
    statement, source = _SOURCES[column]
    share = len(within) / len(worst)
    return Claim(
        statement=f"{statement} in all kinds of network.",
        source=source,
        predicted=f"all {len(worst)} kinds within {number(ALLOWED, digits=1)} errors at every layer",
        measured=f"{len(within)} of {len(worst)}",
        verdict="supported" if share == 1 and moved > 0.1 else ("contradicted" if share < 0.5 else "inconclusive"),
        evidence=f"Width {width}. The error is the standard error and the allowance {number(_allowance(column))} "
        f"(l + 1)/N at layer l (from the end for gradients). Outside (largest deviation): {outside or 'none'}. "
        "Supported if every kind is within, contradicted if fewer than half are.",
    )


def _allowance(column: str) -> float:
    """Finite width moves a mean of ln q by at most 5/(2N) per ReLU layer, and by twice that under normalisation."""
    return 1.0 if column == "correlation" else 5.0


def _scores(found: DepthProfile, predicted: DepthProfile, *, width: int) -> np.ndarray:
    """Deviation in standard errors, the allowance for finite width counting as four."""
    layers = np.arange(1.0, len(found.value) + 1)
    way = layers[::-1] if found.symbol == "‖g‖²" else layers
    allowance = _allowance({"‖g‖²": "log_gradient", "c": "correlation"}.get(found.symbol, "log_q")) * (way + 1) / width
    return np.asarray(np.abs(found.value - predicted.value) / (found.se + allowance / ALLOWED))


def _slope_claim(moments: Moments) -> Claim:
    found, slopes = deviations(moments, "log_q"), []
    for kind in moments.plain_kinds:
        rows = np.array([(row.width, abs(row.measured), row.se) for row in found if row.kind == kind]).T
        if (rows[1] > ALLOWED * rows[2]).all():  # otherwise noise is fitted
            slopes.append(float(np.polyfit(np.log(rows[0]), np.log(rows[1]), 1, w=rows[1] / rows[2])[0]))
    far = [slope for slope in slopes if abs(slope + 1) > SLOPE]
    verdict = "inconclusive" if not slopes else ("supported" if not far else "contradicted")
    return Claim(
        statement="Lengths deviate from infinite width as 1/N.",
        source="docs/derivations/width_expansion.md",
        predicted="slope −1 of ln |deviation| in ln N",
        measured=", ".join(number(slope) for slope in slopes) or "too noisy to fit",
        verdict=verdict,
        evidence=f"Kinds whose deviation is above {number(ALLOWED, digits=1)} standard errors at every width "
        f"({len(slopes)} of {len(moments.plain_kinds)}); supported if each slope is within {SLOPE} of −1.",
    )
