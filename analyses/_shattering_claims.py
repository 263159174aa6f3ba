"""What Balduzzi et al. 2017 (arXiv:1702.08591) say of gradients, judged on the records of `rmtbn shattering`."""

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from rmtbn.report.number import number, with_error
from rmtbn.report.page import Claim
from rmtbn.result import Scalar

from . import _paper_claims as judged
from ._shattering_records import NAMES, Gradients

PAPER = "Balduzzi et al. 2017, arXiv:1702.08591"
FLOOR = 0.02  # a formula is judged at the largest depth where it says more than this: below, too little is left
MARGIN = 1.2  # a correlation within this factor of a formula agrees with it
LAG = 2  # points along the line
ALIKE, UNLIKE = 0.7, 0.2  # autocorrelation at that lag, as of brown noise and as of white
CONSTANT = 0.99
ROUNDING = 1e-6  # relative, of networks in float32
RULE = (
    f"A correlation agrees with a formula if their ratio is between 1/{MARGIN} and {MARGIN}. It is judged at the "
    f"largest depth measured where the formula is above {FLOOR}."
)
# Kind -> statement, where it is made.
FORMULAE: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "plain": ("In a plain network, the correlation of gradients at two inputs is 2^−L.", "Theorem 1"),
        "plain_batch": (
            "With batch norm in front of φ, the correlation in a plain network is 2^−L.",
            "Theorem 1, which is stated without normalisation",
        ),
        "residual": ("In a residual network, the correlation is (3/4)^L.", "Theorem 2"),
        "residual_batch": (
            "With batch norm in its branches, the correlation in a residual network falls as 1.13/√L.",
            "Theorem 3",
        ),
    }
)


def claims(found: Gradients) -> tuple[Claim, ...]:
    """Judge all of them."""
    formulae = (_formula(found, kind) for kind in FORMULAE)
    return (*formulae, _law(found), *_lines(found))


def judged_depth(found: Gradients, kind: str) -> int:
    """Return the largest depth where the formula of Balduzzi et al. is above `FLOOR`."""
    return max(depth for depth in found.depths if found.formula(kind, depth) > FLOOR)


def _formula(found: Gradients, kind: str) -> Claim:
    statement, where = FORMULAE[kind]
    depth = judged_depth(found, kind)
    ratio = _over(found.correlation(kind, depth), found.formula(kind, depth))
    return Claim(
        statement=statement,
        source=f"{PAPER}, {where}",
        predicted=f"{number(found.formula(kind, depth))} at depth {depth}",
        measured=written(found.correlation(kind, depth)),
        verdict=judged.between(ratio, 1 / MARGIN, MARGIN),
        evidence=f"Ratio {written(ratio)}; the law that follows the inputs says {number(found.law(kind, depth))}. "
        f"{_counted(found)}",
    )


def _law(found: Gradients) -> Claim:
    depths = {kind: judged_depth(found, kind) for kind in FORMULAE}
    ratios = {k: _over(found.correlation(k, depth), found.law(k, depth)) for k, depth in depths.items()}
    return Claim(
        statement="The correlations are those of the law that follows how alike two inputs are from layer to layer.",
        source="docs/derivations/shattering.md",
        predicted=f"ratio of measured to law between {number(1 / MARGIN)} and {MARGIN}",
        measured=", ".join(f"{written(r)} ({NAMES[k]}, depth {depths[k]})" for k, r in ratios.items()),
        verdict=judged.together(*(judged.between(ratio, 1 / MARGIN, MARGIN) for ratio in ratios.values())),
        evidence=f"Without norm ∏ J₀(c_l) and ∏ (1 + J₀(c_l))/2; with it, the batch mean being taken out. "
        f"{_counted(found)}",
    )


def _lines(found: Gradients) -> Iterator[Claim]:
    yield _whitened(found, "plain", "plain networks")
    yield _whitened(found, "plain_batch", "plain networks with batch norm")
    last = found.depths[-1]
    resisting = found.at_lag("residual_batch", LAG, depth=last)
    yield Claim(
        statement="Along a line, gradients of a deep residual network with batch norm are far from white noise.",
        source=f"{PAPER}, Figure 1",
        predicted=f"autocorrelation at lag {LAG} above {UNLIKE} at depth {last}",
        measured=written(resisting),
        verdict=judged.above(resisting, UNLIKE),
        evidence=f"{_noises(found)} {_counted(found)}",
    )
    linear = found.correlation("looks_linear", last)
    yield Claim(
        statement="Looks-linear initialisation does away with shattering.",
        source=f"{PAPER}, section 4",
        predicted=f"correlation at two inputs above {CONSTANT} at depth {last}",
        measured=written(linear),
        verdict=judged.above(linear, CONSTANT),
        evidence=f"It is 1 if the network is linear. {_counted(found)}",
    )


def _whitened(found: Gradients, kind: str, networks: str) -> Claim:
    depths = found.depths[0], found.depths[-1]
    first, last = (found.at_lag(kind, LAG, depth=depth) for depth in depths)
    return Claim(
        statement=f"Along a line, gradients of {networks} are like brown noise at depth {depths[0]} and like white "
        f"noise at depth {depths[1]}.",
        source=f"{PAPER}, Figure 1",
        predicted=f"autocorrelation at lag {LAG} above {ALIKE}, then below {UNLIKE}",
        measured=f"{written(first)}, then {written(last)}",
        verdict=judged.together(judged.above(first, ALIKE), judged.below(last, UNLIKE)),
        evidence=f"{_noises(found)} {_counted(found)}",
    )


def _noises(found: Gradients) -> str:
    brown, white = (number(found.at_lag(noise, LAG).value, digits=2) for noise in ("brown", "white"))
    return f"At lag {LAG}, brown noise has {brown} and white noise {white}."


def _counted(found: Gradients) -> str:
    return (
        f"{found.networks} networks of each kind, width {found.width}, {found.examples} inputs, {found.points} points."
    )


def _over(measured: Scalar, formula: float) -> Scalar:
    return Scalar(
        value=measured.value / formula,
        se=measured.se / formula,
        symbol="ratio",
        label="measured over predicted",
        networks=measured.networks,
    )


def written(one: Scalar) -> str:
    """Write a mean with its error; the error of rounding is none."""
    known = ROUNDING * abs(one.value) < one.se < math.inf
    return with_error(one.value, one.se) if known else number(one.value)
