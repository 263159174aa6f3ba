"""The figures of `rmtbn bn-explosion`."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter

from rmtbn.plot.depth_profile import depth_profile
from rmtbn.plot.points import points
from rmtbn.result import DepthProfile

from ._bn_explosion_records import (
    FINITE_WIDTH,
    NAMES,
    Explosions,
    Kind,
    is_stable,
    largest_eigenvalue,
    local_rates,
    log_gradients,
    point,
    rate,
)

STABILITY = ("linear", "relu", "tanh", "erf", "gelu", "silu")
BIN = 5  # layers averaged in the figure of deep networks
SMOOTH = np.unique(np.geomspace(4, 1024, 25).round().astype(int))  # batches at which lines are drawn
SHOWN = 16  # points of a profile, so that they can be told apart


def draw_rates(explosions: Explosions, canvas: Canvas) -> None:
    """Draw the rate less 1 against the batch, and its deviation from theory."""
    left, right = canvas.subplots(1, 2)
    for i, activation in enumerate(explosions.activations()):
        kinds = explosions.kinds("rates", norm="batch", activation=activation)
        batches = np.array([kind.batch for kind in kinds])
        found = [explosions.found[kind].gradient_rate() for kind in kinds]
        value, error = np.array([one.value for one in found]), np.array([one.se for one in found])
        theory = np.array([rate(kind) for kind in kinds])
        line = (SMOOTH, [point(activation, int(b)).explosion_rate - 1 for b in SMOOTH])
        name = NAMES.get(activation, activation)
        points(batches, value - 1, se=error, label=name, line=line, ax=left)
        shifted = batches * 1.06 ** (i - 2.5)  # side by side
        points(shifted, 100 * (value / theory - 1), se=100 * error / theory, label=name, ax=right)
    left.set(yscale="log", ylabel="growth per layer less 1, λ_G − 1", title="Squared gradient norm")
    right.axhline(0, color="C5", lw=1)
    width = explosions.kinds("rates", norm="batch")[0].width
    right.axhspan(-100 * FINITE_WIDTH / width, 100 * FINITE_WIDTH / width, color="C5", alpha=0.15, lw=0)
    right.set(ylim=(-6, 6), ylabel="measured over predicted, less 1 (%)", title="Deviation from theory")
    for ax in (left, right):
        _batches(ax)
    left.legend(ncols=2, fontsize=8)


def _batches(ax: Axes) -> None:
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.set_xlabel("batch size B")


def draw_depth(explosions: Explosions, kinds: list[Kind], canvas: Canvas) -> None:
    """Draw the gradient norm against the distance from the output."""
    ax = canvas.subplots()
    for kind in kinds:
        norm = "" if kind.norm == "batch" else ", no norm"
        measured = _from_the_end(explosions.found[kind].profile())
        theory = _profile(log_gradients(kind)[::-1] / 2, measured)
        depth_profile(_thinned(measured), theory=theory, label=f"{kind.name}{norm}", ax=ax)
    ax.axhline(3.0, color="C5", ls=":", lw=1.2)
    ax.set(xlabel="layers back from the output", ylabel="gradient norm over that at the output")
    ax.legend(ncols=2, fontsize=8)


def _from_the_end(profile: DepthProfile) -> DepthProfile:
    """Turn ln ‖g‖² at layers into ln ‖g‖ at distances from the last."""
    return DepthProfile(
        depth=profile.depth[-1] - profile.depth[::-1], value=profile.value[::-1] / 2, se=profile.se[::-1] / 2,
        symbol="‖g‖", label="gradient norm", is_log=True, networks=profile.networks,
    )  # fmt: skip


def _profile(values: np.ndarray, like: DepthProfile) -> DepthProfile:
    zeros = np.zeros(len(values))
    return DepthProfile(depth=like.depth, value=values, se=zeros, symbol=like.symbol, label=like.label, is_log=True)


def _thinned(profile: DepthProfile) -> DepthProfile:
    kept = np.unique(np.linspace(0, len(profile.depth) - 1, min(SHOWN, len(profile.depth))).round().astype(int))
    return DepthProfile(
        depth=profile.depth[kept], value=profile.value[kept], se=profile.se[kept], symbol=profile.symbol,
        label=profile.label, is_log=profile.is_log, networks=profile.networks,
    )  # fmt: skip


def draw_stability(explosions: Explosions, canvas: Canvas) -> None:
    """Draw the largest eigenvalue against the batch, and the rate of deep networks layer by layer."""
    left, right = canvas.subplots(1, 2)
    for i, activation in enumerate(STABILITY):
        values = [largest_eigenvalue(activation, int(b)) for b in SMOOTH]
        dashes = ("-", "--", "-", ":", "-", "-.")[i]
        left.plot(SMOOTH, values, dashes, label=NAMES.get(activation, activation))
    left.axhline(1, color="C5", lw=1)
    _batches(left)
    left.set(ylabel="largest factor per layer", title="Deviations from the fixed point")
    left.legend(fontsize=8, ncols=2)
    kinds = explosions.kinds("deep", norm="batch")
    right.set_prop_cycle(color=[to_hex(f"C{STABILITY.index(kind.activation)}") for kind in kinds])  # as on the left
    for kind in kinds:
        layer, value, error = local_rates(explosions.found[kind], bin_size=min(BIN, max(1, kind.depth // 6)))
        label = kind.name + ("" if is_stable(kind) else " (unstable)")
        points(layer, value, se=error, label=label, line=([1, kind.depth], [rate(kind)] * 2), ax=right)
    right.set(xlabel="layer, from the input", ylabel="growth of ‖g‖² per layer", title="Rate along deep networks")
    low, high = right.get_ylim()
    right.set_ylim(low - 0.35 * (high - low), high)
    right.legend(fontsize=8, ncols=2, loc="lower left")


def draw_skips(explosions: Explosions, canvas: Canvas) -> None:
    """Draw gradients against depth with and without skips and norm: logarithmic, and both axes logarithmic."""
    left, right = canvas.subplots(1, 2)
    names = {"plain": "plain", "residual": "residual", "none": "no norm", "batch": "batch norm"}
    for kind in explosions.kinds("skips"):
        measured = explosions.found[kind].profile()
        theory = _profile(log_gradients(kind), measured)
        label = f"{names[kind.block]}, {names[kind.norm]}"
        depth_profile(_thinned(measured), theory=theory, label=label, ax=left)
        if kind.norm == "batch":
            depth_profile(_octaves(measured), theory=theory, label=label, log_depth=True, ax=right)
    left.set(xlabel="layer or block l, from the input", ylabel="‖g_l‖² over that at the end", title="Four networks")
    right.set(xlabel="layer or block l (logarithmic)", ylabel="‖g_l‖² over that at the end", title="With batch norm")
    for ax in (left, right):
        ax.legend(fontsize=8)


def _octaves(profile: DepthProfile) -> DepthProfile:
    kept = np.unique(np.geomspace(1, len(profile.depth), 13).round().astype(int)) - 1
    return DepthProfile(
        depth=profile.depth[kept], value=profile.value[kept], se=profile.se[kept], symbol=profile.symbol,
        label=profile.label, is_log=profile.is_log, networks=profile.networks,
    )  # fmt: skip


def draw_widths(explosions: Explosions, canvas: Canvas) -> None:
    """Draw the deviation of both rates from theory against 1/N, with the margin that the claims allow."""
    panels = canvas.subplots(1, 2, sharey=True)
    reach = [0.0, max(1 / kind.width for kind in explosions.kinds("widths"))]
    for ax, name, title in zip(panels, ("gradient_rate", "jacobian_rate"), ("Gradients", "‖J‖²"), strict=True):
        for i, activation in enumerate(dict.fromkeys(kind.activation for kind in explosions.kinds("widths"))):
            kinds = explosions.kinds("widths", activation=activation)
            found = [getattr(explosions.found[kind], name)() for kind in kinds]
            theory = [rate(kind) for kind in kinds]
            value = [100 * (one.value / known - 1) for one, known in zip(found, theory, strict=True)]
            error = [100 * one.se / known for one, known in zip(found, theory, strict=True)]
            label = NAMES.get(activation, activation)
            places = [1.03 ** (i - 1) / kind.width for kind in kinds]  # side by side
            points(places, value, se=error, label=label, ax=ax)
        edge = [100 * FINITE_WIDTH * x for x in reach]
        ax.fill_between(reach, [-y for y in edge], edge, color="C5", alpha=0.15, lw=0)
        ax.axhline(0, color="C5", lw=1)
        ax.set(xlabel="1/N", title=title, xlim=(0, 1.06 * reach[1]))
        widths = sorted({kind.width for kind in explosions.kinds("widths")})
        ax.set_xticks([1 / width for width in widths], [f"1/{width}" for width in widths])
        ax.set_ylim(-1.2 * edge[1], 1.2 * edge[1])
    panels[0].set_ylabel("measured over predicted, less 1 (%)")
    panels[0].legend(fontsize=8)
