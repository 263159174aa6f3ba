"""The page of `rmtbn divergence`."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from rmtbn.plot.decades import LN10, set_decades
from rmtbn.plot.plane import plane
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Claim, Figure, Page, Section, Table
from rmtbn.result import Scalar
from rmtbn.sweep.run import Records

from . import _paper_claims as judged
from ._image_networks import NAMES, early_layers

THRESHOLD = 1e3  # a loss above it has diverged (section 3.2)
TIMES = 10.0  # and one above so many times the first, where that is larger
LEAST = 0.1  # decades; so that those of networks can be averaged as logarithms
HIGHEST = 1e6  # loss in the figure
WHEN: Mapping[str, bool] = {"before": False, "after": True}
DECADES: Mapping[str, str] = {"log_variance": "variance", "log_mean": "size of the mean"}


class Runs:
    """The records: losses of the runs, and channels while the update is applied."""

    def __init__(self, records: Records) -> None:
        self.runs = records.table("runs")
        self.channels = records.table("channels")
        self.depth, self.examples = int(self.runs.depth.iloc[0]), int(self.runs.examples.iloc[0])
        self.batches = int(self.runs.batches.iloc[0])
        self.plain, normed = (self.runs[(self.runs.kind == "none") == plain] for plain in (True, False))
        self.networks, self.normed = self.plain.seed.nunique(), normed.seed.nunique()
        began = self.plain[self.plain.batch == 0].groupby("seed").loss.first()
        self.above = int((began > THRESHOLD).sum())
        self.layers = tuple(int(layer) for layer in sorted(set(self.channels.layer)))

    @property
    def rule(self) -> str:
        """What counts as divergence."""
        return (
            f"Divergence: a mini-batch of loss above {number(THRESHOLD)} or not finite; for one that begins above "
            f"{number(THRESHOLD / TIMES)}, above {number(TIMES)} times its first loss."
        )

    @property
    def ends(self) -> str:
        """The first and the last of the layers that are looked at."""
        first, *_, last = early_layers(self.depth)
        return f"layer {first} to layer {last}"

    def latest(self) -> Scalar:
        """Average the most updates before the divergence, over rates from the smallest that diverges."""
        updates = self.plain[self.plain.batch == 0].pivot(index="seed", columns="rate", values="updates")
        values = []
        for _, row in updates.iterrows():
            diverged = row.dropna()
            if len(diverged):
                tried = row[(row.index >= diverged.index.min()) & (row.index <= diverged.index.max())]
                values.append(float(tried.fillna(self.batches).max()))
        return Scalar.over_networks(values or [np.nan], symbol="updates", label="updates before the divergence")

    def moments(self) -> pd.DataFrame:
        """Return ln mean variance and ln root mean squared mean by seed, part and layer; inf where not finite."""
        rows = self.channels
        with np.errstate(divide="ignore", invalid="ignore"):
            squares = rows.assign(square=2 * np.log(np.abs(rows["mean"])))
        grouped = squares.groupby(["seed", "part", "layer"])
        return pd.DataFrame(
            {"log_variance": grouped.log_variance.apply(_log_mean), "log_mean": grouped.square.apply(_log_mean) / 2}
        )

    def span(self, column: str, *, whole: bool) -> Scalar:
        """Average ln of the decades from the first layer to the last, after the whole update or before it."""
        return self._over_networks(np.log(self._spans(column, -1 if whole else 0)), column)

    def more(self, column: str) -> Scalar:
        """Average ln of the decades after the update over those before it."""
        return self._over_networks(np.log(self._spans(column, -1)) - np.log(self._spans(column, 0)), column)

    def level(self, column: str, layer: int, *, whole: bool) -> Scalar:
        """Average a moment of one layer as a logarithm, after the update or before it."""
        ends = self._ends(-1 if whole else 0)
        return self._over_networks(ends[column].xs(layer, level="layer"), column)

    def _spans(self, column: str, part: int) -> "pd.Series[float]":
        ends = self._ends(part)[column].unstack("layer")
        if ends.empty:
            return pd.Series([np.nan])
        return ((ends[self.layers[-1]] - ends[self.layers[0]]) / LN10).clip(lower=LEAST)

    def _ends(self, part: int) -> pd.DataFrame:
        """Return the moments after the first or last part at which all are finite, by seed and layer."""
        moments = self.moments()
        finite = moments.map(np.isfinite).all(axis=1).groupby(["seed", "part"]).all()
        ends = finite[finite].reset_index().groupby("seed").part.agg("last" if part else "first")
        by_part = moments.reset_index("layer")
        return by_part[by_part.index.isin(list(ends.items()))].set_index("layer", append=True).droplevel("part")

    def _over_networks(self, values: Any, column: str) -> Scalar:
        return Scalar.over_networks(np.asarray(values), symbol=column, label=DECADES[column])


def _log_mean(logs: "pd.Series[float]") -> float:
    """Return the logarithm of a mean; inf if one of its terms is not finite but 0."""
    values = logs.to_numpy()
    if np.isnan(values).any() or (values == np.inf).any():
        return np.inf
    return float(np.logaddexp.reduce(values) - np.log(values.size))


def mean(one: Scalar) -> str:
    """Write a mean with its error, or without where there is none."""
    return with_error(one.value, one.se) if one.networks > 1 and one.se > 0 else number(one.value, digits=2)


def page(records: Records, claims: Mapping[int, Claim]) -> Page:
    """Write the page."""
    found = Runs(records)
    latest, span = found.latest(), found.span("log_variance", whole=True)
    return Page(
        title="When and where does a step that is too large blow up?",
        summary=f"Without normalisation, a rate that is too large makes the loss diverge after {mean(latest)} updates. "
        f"At the end of such an update the variance of channels grows by {judged.geometric(span)} decades from "
        f"{found.ends}.",
        sections=(
            Section(title="The first mini-batches", blocks=tuple(_first(found))),
            Section(title="Channels during the update", blocks=tuple(_second(found))),
            Section(title="Claims", blocks=(judged.RULE, *claims.values())),
        ),
        manifest=records.manifest(),
    )


def _first(found: Runs) -> Iterator[Block]:
    yield (
        f"Networks are trained from their initialisation by SGD with momentum 0.9 for up to {found.batches} "
        f"mini-batches, at rising rates; the ladder ends at the rate whose first update makes the loss infinite. "
        f"{found.rule} {found.above} of {found.networks} networks without norm begin above {number(THRESHOLD)}, before "
        "any update."
    )
    yield Figure(
        draw=partial(_draw_runs, found),
        caption=f"Loss of each mini-batch before the update on it, {found.networks} networks without norm and "
        f"{found.normed} with at each rate; lines that leave the panel go on to losses that are larger or not finite. "
        f"{found.depth} layers in Glorot's initialisation, mini-batches of {found.examples} images.",
        alt="Loss against the mini-batch: at small rates it falls, at larger ones it leaves the panel after the first "
        "update. With batch norm it stays low at a far larger rate.",
    )
    yield Table(
        caption="Runs that diverged, and the updates that had been made by then.",
        columns=("network", "rate", "diverged", "updates before", "largest loss of the others"),
        rows=tuple(_row(found, kind, rate) for kind, rate in _ladder(found)),
    )


def _ladder(found: Runs) -> list[tuple[str, float]]:
    """Kinds and rates in rising order, those without norm first."""
    pairs = set(zip(found.runs.kind, found.runs.rate, strict=True))
    return sorted(pairs, key=lambda pair: (pair[0] != "none", pair[1]))


def _row(found: Runs, kind: str, rate: float) -> tuple[str, ...]:
    rows = found.runs[(found.runs.kind == kind) & (found.runs.rate == rate)]
    updates = rows[rows.batch == 0].updates
    seen = sorted({int(u) for u in updates.dropna()})
    others = rows[rows.updates.isna()].loss
    return (
        NAMES[kind],
        f"{rate:g}",
        f"{int(updates.notna().sum())} of {len(updates)}",
        f"{seen[0]} to {seen[-1]}" if len(seen) > 1 else str(seen[0]) if seen else "—",
        number(float(others.max())) if len(others) else "—",
    )


def _second(found: Runs) -> Iterator[Block]:
    if found.channels.empty:
        yield "No run diverged at any rate, so there is no update to look at."
        return
    first = found.channels[found.channels.seed == found.channels.seed.min()]
    yield (
        "The update after which the loss had diverged is applied in parts, on the mini-batch on which that was seen; "
        "of each network that of the smallest rate of a whole decade that diverges."
    )
    yield Figure(
        draw=partial(_draw_channels, found.layers, first),
        size=(10.0, 5.6),
        caption="Figure 4: size of the mean (top) and variance (bottom) of each channel while the update is applied, "
        f"in the first network, at a rate of {first.rate.iloc[0]:g}. One scale of colours for each row of "
        "panels; what is blank is not finite.",
        alt="Heat maps of part of the update against channel for three layers. The deeper the layer, the brighter the "
        "map becomes as the update is applied.",
    )
    yield Table(
        caption="Mean variance of the channels, and root of their mean squared mean, before and after the update. "
        "Geometric means over networks. Where numbers leave the floating range, after the last part before that.",
        columns=("layer", *(f"{name}, {when}" for name in DECADES.values() for when in WHEN)),
        rows=tuple(
            (str(layer), *(_level(found, column, layer, whole=whole) for column in DECADES for whole in WHEN.values()))
            for layer in found.layers
        ),
    )


def _level(found: Runs, column: str, layer: int, *, whole: bool) -> str:
    return number(float(np.exp(found.level(column, layer, whole=whole).value)), digits=2)


def _draw_runs(found: Runs, canvas: Canvas) -> None:
    ax = canvas.subplots()
    for place, (kind, rate) in enumerate(_ladder(found)):
        rows = found.runs[(found.runs.kind == kind) & (found.runs.rate == rate)]
        plain = {"color": f"C{place % 8}", "marker": "osD^vPXp"[place % 8], "linestyle": "-"}
        style: dict[str, Any] = plain if kind == "none" else {"color": "C5", "marker": "*", "linestyle": "--"}
        ax.plot([], [], label=f"{rate:g}, {NAMES[kind]}", lw=1, **style)
        for _, run in rows.groupby("seed"):
            ax.plot(run.batch + 1, np.log10(run.loss.clip(upper=10 * HIGHEST)), alpha=0.8, lw=1, **style)
    ax.set(xlabel="mini-batch", ylabel="loss before the update", ylim=(None, np.log10(HIGHEST)))
    ax.axhline(np.log10(THRESHOLD), color="C5", ls="--", lw=1)
    ax.legend(title="rate", loc="center left", bbox_to_anchor=(1.0, 0.5))
    set_decades(ax.yaxis)


def _draw_channels(layers: tuple[int, ...], rows: pd.DataFrame, canvas: Canvas) -> None:
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = {"log₁₀ |mean|": np.log10(np.abs(rows["mean"])), "log₁₀ variance": rows.log_variance / LN10}
    axes = canvas.subplots(2, len(layers), sharey=True)
    for (label, values), line in zip(shown.items(), axes, strict=True):
        finite = values[np.isfinite(values)]
        limits = (float(finite.quantile(0.02)), float(finite.max()))
        for layer, ax in zip(layers, line, strict=True):
            at = rows.assign(value=values, percent=100 * rows.part)[rows.layer == layer]
            grid = at.pivot(index="percent", columns="channel", values="value").replace([np.inf, -np.inf], np.nan)
            plane(grid, label=label, limits=limits, colorbar=layer == layers[-1], ax=ax)
            ax.set(title=f"layer {layer}", xlabel="channel")
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        line[0].set_ylabel("part of the update, %")


def numbers(records: Records) -> dict[str, Any]:
    """Return updates before the divergence, by network and rate, and the decades between layers."""
    found = Runs(records)
    updates = found.plain[found.plain.batch == 0].pivot(index="seed", columns="rate", values="updates")
    return {
        "updates": {str(seed): {f"{rate:g}": row[rate] for rate in row.index} for seed, row in updates.iterrows()},
        "log_decades": {
            column: {when: found.span(column, whole=whole).value for when, whole in WHEN.items()} for column in DECADES
        },
    }
