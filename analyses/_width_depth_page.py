"""The page of `rmtbn width-depth`: statistics of ln ‖Jv‖² against L/N, with the laws that are known."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from rmtbn import inits
from rmtbn.plot.points import points
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Claim, Figure, Page, Section, Table
from rmtbn.sweep.run import Records
from rmtbn.theory.finite_width import log_norm_law
from rmtbn.theory.width_expansion import beta, width_expansion

from . import _paper_claims as judged
from ._width_depth_claims import fluctuations

NAMES = {"linear": "linear", "relu": "ReLU", "tanh": "tanh", "none": "no norm", "batch": "batch norm"}
HOMOGENEOUS = ("linear", "relu")
SCHEME = {"tanh": "critical"}
ALLOWED = 4.0  # standard errors
RULE = (
    "A law is supported if mean and variance are within 4 standard errors of it at every width and depth and the "
    "variance of the alternative is not, at the largest; contradicted if it is not; inconclusive if both are. The "
    "error is that of the sample or that of the law, whichever is larger."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Mean and variance over networks of ln ‖Jv‖² at one width and depth, with their standard errors."""

    width: int
    depth: int
    networks: int
    mean: float
    mean_se: float
    variance: float
    variance_se: float


class Growth:
    """The records, by kind of network."""

    def __init__(self, records: Records) -> None:
        self.rows = records.table("growth")
        self.kinds = tuple(dict.fromkeys(zip(self.rows.activation, self.rows.norm, strict=True)))
        self.batch = int(self.rows.batch.iloc[0])

    def statistics(self, activation: str, norm: str) -> list[Statistics]:
        """Average over the networks of one kind; networks that died are left out, as the law leaves them out."""
        chosen = self.rows[(self.rows.activation == activation) & (self.rows.norm == norm)]
        return [
            _statistics(chosen[(chosen.width == width) & (chosen.depth == depth)].log_norm, width=width, depth=depth)
            for width, depth in sorted(set(zip(chosen.width.tolist(), chosen.depth.tolist(), strict=True)))
        ]


def _statistics(values: "pd.Series[float]", *, width: int, depth: int) -> Statistics:
    alive = values[np.isfinite(values)]
    count, variance = len(alive), float(alive.var())
    excess = float(((alive - alive.mean()) ** 4).mean()) / variance**2 - 1 if count > 3 else np.inf
    return Statistics(
        width=width,
        depth=depth,
        networks=count,
        mean=float(alive.mean()),
        mean_se=(variance / count) ** 0.5,
        variance=variance,
        variance_se=variance * (max(excess, 2.0) / count) ** 0.5,
    )


def law(activation: str, *, width: int, depth: int) -> tuple[float, float]:
    """Predict mean and variance without normalisation: exactly for linear and ReLU, to first order in 1/N for tanh."""
    chain = (width,) * (depth + 1)
    if activation in HOMOGENEOUS:
        exact = log_norm_law(activation, widths=chain)
        return exact.mean, exact.variance
    weights = inits.weight_law(SCHEME[activation], activation, fan_in=width)
    found = width_expansion(
        activation, widths=chain, sigma_w=weights.sigma_w, sigma_b=weights.sigma_b, cosine=width**-0.5
    )
    return float(found.log_norm_mean[-1]), float(found.log_norm_variance[-1])


def page(growth: Growth, *, manifest: dict[str, str]) -> Page:
    """Write the page."""
    claims = tuple(_claim(growth, activation) for activation, norm in growth.kinds if norm == "none")
    return Page(
        title="How much networks differ: depth over width",
        summary=f"The logarithm of ‖Jv‖² at initialisation, over networks of one kind. {_slopes(growth)}",
        sections=(
            Section(title="Variance and mean against L/N", blocks=tuple(_figures(growth))),
            Section(title="Claims", blocks=(RULE, *claims, judged.RULE, fluctuations(growth.rows))),
            Section(title="Numbers", blocks=tuple(_tables(growth))),
        ),
        manifest=manifest,
    )


def numbers(growth: Growth) -> dict[str, Any]:
    """Return the statistics and laws of every kind, width and depth."""
    return {
        f"{activation}, {norm}": [
            {
                "width": s.width,
                "depth": s.depth,
                "networks": s.networks,
                "mean": s.mean,
                "mean_se": s.mean_se,
                "variance": s.variance,
                "variance_se": s.variance_se,
                **(_named(law(activation, width=s.width, depth=s.depth)) if norm == "none" else {}),
            }
            for s in growth.statistics(activation, norm)
        ]
        for activation, norm in growth.kinds
    }


def _named(predicted: tuple[float, float]) -> dict[str, float]:
    return {"predicted_mean": predicted[0], "predicted_variance": predicted[1]}


def _slopes(growth: Growth) -> str:
    """Variance per L/N of each kind, by least squares through the origin."""
    said = []
    for activation, norm in growth.kinds:
        found = growth.statistics(activation, norm)
        rows = np.array([(s.depth / s.width, s.variance, s.variance_se) for s in found])
        weight = rows[:, 0] / rows[:, 2] ** 2
        slope = float(np.sum(weight * rows[:, 1]) / np.sum(weight * rows[:, 0]))
        said.append(f"{NAMES[activation]}, {NAMES[norm]}: {number(slope)}")
    return f"Its variance per L/N is {'; '.join(said)}."


def _figures(growth: Growth) -> Iterator[Block]:
    yield (
        "Points are measured over networks. Lines are theory: the exact law for linear and ReLU networks, the first "
        "order in 1/N for tanh on its critical line, at the largest width. With batch normalisation no law is known, "
        "so its points have no line."
    )
    for field, title in (("variance", "Variance of ln ‖Jv‖²"), ("mean", "Mean of ln ‖Jv‖²")):
        yield Figure(
            draw=partial(_draw, growth, field, title),
            size=(10.0, 4.6),
            caption=f"{title} over networks against L/N, by width; {_counted(growth)} networks per point, one standard "
            f"error. Left without normalisation, right with (a batch of {growth.batch}). J is the Jacobian of the "
            "network, v a random direction.",
            alt=f"{title}: without normalisation the points of all widths lie on one curve per activation, near a "
            "straight line in L/N; with batch normalisation they have no line.",
        )


def _counted(growth: Growth) -> str:
    counts = {s.networks for kind in growth.kinds for s in growth.statistics(*kind)}
    return str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def _draw(growth: Growth, field: str, title: str, canvas: Canvas) -> None:
    panels = canvas.subplots(1, 2)
    for norm, ax in zip(("none", "batch"), panels, strict=True):
        for activation in [a for a, n in growth.kinds if n == norm]:
            found = growth.statistics(activation, norm)
            ratio = [s.depth / s.width for s in found]
            values, errors = [getattr(s, field) for s in found], [getattr(s, f"{field}_se") for s in found]
            line = _line(found, activation, field) if norm == "none" else None
            points(ratio, values, se=errors, label=NAMES[activation], line=line, ax=ax)
        ax.set_title(NAMES[norm])
        ax.set_xlabel("depth over width L/N")
        ax.legend()
    panels[0].set_ylabel(title)


def _line(found: list[Statistics], activation: str, field: str) -> tuple[list[float], list[float]]:
    width = max(s.width for s in found)
    depths = sorted({s.depth for s in found if s.width == width})
    place = 0 if field == "mean" else 1
    return [d / width for d in depths], [law(activation, width=width, depth=d)[place] for d in depths]


def _claim(growth: Growth, activation: str) -> Claim:
    found = growth.statistics(activation, "none")
    scores = [score for s in found for score in _scores(s, law(activation, width=s.width, depth=s.depth))]
    last = max(found, key=lambda s: (s.depth / s.width, s.width))
    predicted = law(activation, width=last.width, depth=last.depth)[1]
    other = "relu" if activation == "linear" else "linear"
    alternative = beta(other, widths=(last.width,) * (last.depth + 1))
    near = max(scores) <= ALLOWED
    denied = _variance_score(last, alternative) > ALLOWED
    return Claim(
        statement=f"ln ‖Jv‖² of {NAMES[activation]} networks has the mean and the variance that the law at finite "
        "width gives.",
        source="Hanin & Nica 2019, arXiv:1812.05994, Theorem 1" if activation == "relu" else _OWN[activation],
        predicted=f"variance {number(predicted)} at L/N = {number(last.depth / last.width)}",
        measured=with_error(last.variance, last.variance_se),
        verdict=("supported" if denied else "inconclusive") if near else "contradicted",
        evidence=f"Largest deviation {number(max(scores), digits=2)} standard errors among {len(scores)} means and "
        f"variances at widths {', '.join(str(w) for w in sorted({s.width for s in found}))}; the alternative is the "
        f"variance {number(alternative)} of {NAMES[other]} networks.",
    )


_OWN = {
    "linear": "Product of χ² variables, exact (docs/derivations/lyapunov.md)",
    "tanh": "First order in 1/N (docs/derivations/width_expansion.md)",
}


def _scores(s: Statistics, predicted: tuple[float, float]) -> tuple[float, float]:
    mean, variance = predicted
    return abs(s.mean - mean) / max(s.mean_se, (variance / s.networks) ** 0.5), _variance_score(s, variance)


def _variance_score(s: Statistics, variance: float) -> float:
    """Deviation in standard errors, those of the law if larger: a sample of low variance understates its own."""
    return abs(s.variance - variance) / max(s.variance_se, variance * (2 / (s.networks - 1)) ** 0.5)


def _tables(growth: Growth) -> Iterator[Block]:
    for activation, norm in growth.kinds:
        known = norm == "none"
        yield Table(
            caption=f"{NAMES[activation]}, {NAMES[norm]}: ln ‖Jv‖² over networks.",
            columns=("width", "depth", "mean", "variance", *(("mean, law", "variance, law") if known else ())),
            rows=tuple(
                (
                    str(s.width),
                    str(s.depth),
                    with_error(s.mean, s.mean_se),
                    with_error(s.variance, s.variance_se),
                    *((number(v) for v in law(activation, width=s.width, depth=s.depth)) if known else ()),
                )
                for s in growth.statistics(activation, norm)
            ),
        )
