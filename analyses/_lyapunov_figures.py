"""The figures of `rmtbn lyapunov`."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter

from rmtbn.plot.points import points

from ._lyapunov_records import Exponents
from ._lyapunov_theory import NAMES, Kind, expected_log_sigma, name, short_name

SHOWN = 24  # points of a spectrum, so that they can be told apart
LOWEST = -2.5  # exponents below are off the figures


def draw_spectra(exponents: Exponents, groups: list[tuple[str, list[Kind]]], canvas: Canvas) -> None:
    """Draw measured exponents with their laws, a panel for each activation."""
    for (title, kinds), ax in zip(groups, canvas.subplots(1, len(groups), squeeze=False).flat, strict=True):
        for kind in kinds:
            width = exponents.widths(kind)[-1]
            law = exponents.prediction(kind, width=width).spectrum
            _spectrum(exponents, kind, law=law, label=short_name(kind), ax=ax)
        ax.set(title=title, xlabel="share k/N", ylabel="exponent λ_k", xlim=(0, 1))
        ax.set_ylim(bottom=max(LOWEST, ax.get_ylim()[0]))
        ax.legend(loc="lower left", fontsize=8)


def _spectrum(exponents: Exponents, kind: Kind, *, law: np.ndarray, label: str, ax: Axes) -> None:
    width = exponents.widths(kind)[-1]
    found, dimension = exponents.profile(kind, width=width), exponents.exponents(kind, width=width).shape[1]
    kept = np.unique(np.linspace(0, found.value.size - 1, min(SHOWN, found.value.size)).round().astype(int))
    live = np.flatnonzero(np.isfinite(law) & (law > LOWEST))
    line = ((live + 1) / dimension, law[live])
    share = found.depth[kept] / dimension
    points(share, found.value[kept], se=found.se[kept], label=label, line=line, ax=ax)


def draw_batch(exponents: Exponents, pairs: list[tuple[Kind, Kind | None]], canvas: Canvas) -> None:
    """Draw exponents with batch normalisation and without, a panel for each pair of kinds."""
    for (kind, other), ax in zip(pairs, canvas.subplots(1, len(pairs), squeeze=False).flat, strict=True):
        predicted = exponents.prediction(kind, width=exponents.widths(kind)[-1])
        top = predicted.top
        _spectrum(exponents, kind, law=predicted.spectrum, label="batch norm", ax=ax)
        ax.axhline(top, color="C0", ls="--", label="½ ln λ_G")
        if other is not None:
            law = exponents.prediction(other, width=exponents.widths(other)[-1]).spectrum
            _spectrum(exponents, other, law=law, label="none", ax=ax)
        title = f"{NAMES.get(kind.activation, kind.activation)}, {kind.init}"
        ax.set(
            title=title,
            xlabel="share of the exponents",
            ylabel="exponent λ_k",
            xlim=(0, 1),
            ylim=(LOWEST, max(0.5, top + 0.1)),
        )
        ax.legend(loc="lower left", fontsize=8)


def draw_depth(exponents: Exponents, kinds: list[Kind], canvas: Canvas) -> None:
    """Draw ln σ_k/L against the depth, a panel for each kind."""
    for kind, ax in zip(kinds, canvas.subplots(1, len(kinds), squeeze=False).flat, strict=True):
        width, depths = exponents.widths(kind)[-1], exponents.depths(kind)
        known = int(np.isfinite(exponents.prediction(kind, width=width).spectrum).sum())
        live = min(exponents.profile(kind, width=width).value.size, known)
        last = live if kind.is_exact else max(1, round(0.9 * live))
        for k in sorted({1, max(1, live // 2), last} if live else set()):
            values = np.stack([exponents.log_sigma(kind, width=width, depth=d)[:, k - 1] / d for d in depths])
            values = values[:, np.isfinite(values).all(axis=0)]
            se = values.std(axis=1, ddof=1) / values.shape[1] ** 0.5
            line = _depth_line(exponents, kind, k=k, depths=depths)
            points(depths, values.mean(axis=1), se=se, label=f"k = {k}", line=line, ax=ax)
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        title = f"{NAMES.get(kind.activation, kind.activation)}, {kind.init}, N = {width}"
        ax.set(title=title, xlabel="depth L", ylabel="ln σ_k / L")
        ax.legend(fontsize=8)


def _depth_line(exponents: Exponents, kind: Kind, *, k: int, depths: list[int]) -> tuple[list[int], np.ndarray] | None:
    width = exponents.widths(kind)[-1]
    known = [expected_log_sigma(kind, width=width, depth=d) for d in depths]
    if known[0] is not None:
        return depths, np.array([log[k - 1] / d for log, d in zip(known, depths, strict=True) if log is not None])
    predicted = exponents.prediction(kind, width=width)
    value = predicted.top if k == 1 else float(predicted.spectrum[k - 1])
    return None if not np.isfinite(value) else (depths, np.full(len(depths), value))


def draw_widths(exponents: Exponents, canvas: Canvas) -> None:
    """Draw the largest exponent against 1/N, a panel for each norm."""
    kinds = [kind for kind in exponents.kinds if not (kind.activation == "linear" and kind.init == "orthogonal")]
    panels = [group for group in ([k for k in kinds if k.norm == n] for n in ("none", "batch")) if group]
    for group, ax in zip(panels, canvas.subplots(1, len(panels), squeeze=False).flat, strict=True):
        for kind in group:
            widths = exponents.widths(kind)
            found = [exponents.top(kind, width=width) for width in widths]
            theory = [exponents.prediction(kind, width=width).top for width in widths]
            inverse = [1 / width for width in widths]
            line = (inverse, theory)
            label = name(kind).replace(", batch norm", "")
            points(inverse, [s.value for s in found], se=[s.se for s in found], label=label, line=line, ax=ax)
        ax.set(title="batch norm" if group[0].norm == "batch" else "no norm", xlabel="1/N", ylabel="largest exponent")
        ax.set_xlim(left=0)
        ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16))
