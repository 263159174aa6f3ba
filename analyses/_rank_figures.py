"""The figures of `rmtbn rank`."""

import math
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter

from rmtbn.plot.depth_profile import depth_profile
from rmtbn.plot.points import points
from rmtbn.result import DepthProfile
from rmtbn.theory import rank

from ._rank_records import NAMES, Kind, Ranked, isometry_decay, predicted_gap, predicted_rank

WEIGHTS = {"gaussian": "Gaussian", "orthogonal": "orthogonal"}
TOLD = 15.0  # isometry gaps above it are not drawn: float64 has lost the smallest singular values of some networks


def draw_depth(ranked: Ranked, canvas: Canvas) -> None:
    """Draw soft rank against depth, a panel for each activation."""
    panels = canvas.subplots(1, 2, sharey=True)
    for activation, ax in zip(("linear", "relu"), panels, strict=True):
        for kind in ranked.kinds("depth", activation=activation):
            found = ranked.found[kind]
            theory = predicted_rank(kind, found)
            line = None if theory is None else _line(theory, found.soft_rank())
            depth_profile(found.soft_rank(), theory=line, label=NAMES[kind.norm], ax=ax)
        ax.axhline(1, color="C5", lw=1)
        ax.set(title=NAMES[activation][0].upper() + NAMES[activation][1:], xlabel="depth", ylabel="soft rank")
        _early(ax)
        place = (
            {"loc": "lower left", "bbox_to_anchor": (0.0, 0.15)} if activation == "linear" else {"loc": "upper right"}
        )
        ax.legend(fontsize=8, **place)


def _early(ax: Axes) -> None:
    """Give depth a logarithmic axis from 1 on, and a place for 0."""
    ax.set_xscale("symlog", base=2, linthresh=1)
    ax.set_xlim(left=-0.2)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def _line(values: np.ndarray, like: DepthProfile) -> DepthProfile:
    return replace(like, depth=np.arange(float(len(values))), value=values, se=np.zeros(len(values)), networks=0)


def draw_recursion(ranked: Ranked, canvas: Canvas) -> None:
    """Draw E (tr K)²/E tr K² and the mean soft rank against depth, with the exact recursion."""
    ax = canvas.subplots()
    (kind,) = ranked.kinds("recursion")
    found = ranked.found[kind]
    ratio, error, _ = found.ratio_of_means()
    theory = predicted_rank(kind, found)
    assert theory is not None
    line = (np.arange(len(theory)), theory)
    points(found.blocks, ratio, se=error, label="E (tr K)²/E tr K²", line=line, ax=ax)
    mean = found.soft_rank()
    points(found.blocks, mean.value, se=mean.se, label="mean of (tr K)²/tr K²", ax=ax)
    ax.axhline(1, color="C5", lw=1)
    ax.set(xlabel="depth", ylabel="soft rank")
    ax.legend()


def draw_gap(ranked: Ranked, canvas: Canvas) -> None:
    """Draw the root mean square orthogonality gap against depth, and the isometry gap."""
    left, right = canvas.subplots(1, 2)
    for kind in ranked.kinds("depth", activation="linear"):
        found = ranked.found[kind]
        squares = found.squared_gap()
        root = replace(squares, value=np.log(squares.value) / 2, se=squares.se / squares.value / 2, symbol="g",
                       label="orthogonality gap", is_log=True)  # fmt: skip
        theory = predicted_gap(kind, found)
        line = None if theory is None else _line(np.log(theory), root)
        depth_profile(root, theory=line, label=NAMES[kind.norm], ax=left)
    least = rank.centred_gap(batch_size=ranked.kinds("depth")[0].examples)
    left.axhline(math.log10(least), color="C5", ls="--", lw=1.2, label="1/√(n(n − 1))")
    left.set(title="Orthogonality gap g, linear", xlabel="depth", ylabel="g, root mean square")
    _early(left)
    left.legend(fontsize=8)
    _isometry(ranked, right)


def _isometry(ranked: Ranked, ax: Axes) -> None:
    widest = max(kind.width for kind in ranked.kinds("isometry"))
    for kind in (kind for kind in ranked.kinds("isometry") if kind.width == widest):
        found = ranked.found[kind]
        shown = (found.isometry < TOLD).all(axis=0)
        profile = found.log_isometry()
        drawn = replace(profile, depth=profile.depth[shown], value=profile.value[shown], se=profile.se[shown])
        decay, line = isometry_decay(kind), None
        if decay is not None:  # through the middle of the depth: the rate is what is predicted
            middle = int(np.argmin(np.abs(found.blocks - kind.depth / 2)))
            depth = found.blocks[middle:]
            line = replace(drawn, depth=depth, value=profile.value[middle] + decay * (depth - depth[0]),
                           se=np.zeros(len(depth)), networks=0)  # fmt: skip
        depth_profile(drawn, theory=line, label=f"{NAMES[kind.norm]}, {WEIGHTS[kind.weights]}", ax=ax)
    ax.set(title=f"Isometry gap, linear, n = d = {widest}", xlabel="depth", ylabel="isometry gap")
    ax.legend(fontsize=8)


def draw_batches(ranked: Ranked, canvas: Canvas) -> None:
    """Draw the stationary soft rank against the number of examples, and against the width at n = d."""
    left, right = canvas.subplots(1, 2)
    kinds = ranked.kinds("batches")
    found = [ranked.soft_rank(kind) for kind in kinds]
    examples, width = np.array([kind.examples for kind in kinds]), kinds[0].width
    grid = np.geomspace(examples[0], examples[-1], 80)
    line = (grid, [1 / (1 / n + (n - 1) * (n + 2) ** 2 / (4 * n * (n + 1) * width)) for n in grid])
    points(examples, [one.value for one in found], se=[one.se for one in found], label="linear", line=line, ax=left)
    left.axhline(math.sqrt(width), color="C5", ls="--", lw=1.2, label="√d")
    left.axvline(2 * math.sqrt(width), color="C5", ls=":", lw=1.2, label="n = 2√d")
    left.set(title=f"Uncentred norm, d = {width}", xlabel="examples n", ylabel="soft rank of late layers")
    widths = sorted({kind.width for kind in ranked.kinds("widths")})
    for kind in ranked.kinds("widths"):
        if kind.width == widths[0]:
            _against_width(ranked, kind, right)
    right.plot(widths, np.sqrt(widths), "--", color="C5", lw=1.2, label="√d")
    right.set(title="As many examples as units, n = d", xlabel="width d", ylabel="soft rank of late layers")
    right.set_yscale("log", base=2)
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    right.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    left.legend(fontsize=8)
    right.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _against_width(ranked: Ranked, like: Kind, ax: Axes) -> None:
    kinds = ranked.kinds("widths", activation=like.activation, norm=like.norm)
    found = [ranked.soft_rank(kind) for kind in kinds]
    x = [kind.width for kind in kinds]
    points(x, [one.value for one in found], se=[one.se for one in found], label=like.name, ax=ax)
