"""The page of `rmtbn laws --law`: one family of laws, its numbers, and networks laid over it if they were asked for."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from rmtbn.compare import SpectrumComparison, compare
from rmtbn.plot.law_density import law_density
from rmtbn.plot.spectrum_density import spectrum_density
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Figure, Page, Section, Table
from rmtbn.result import EmpiricalSpectrum, SpectralMeasure

from ._laws_figures import NAMES
from ._laws_networks import Kind
from ._laws_records import has_zeros
from ._laws_registry import Entry, Options

MOMENTS = 8
QUANTILES = np.array([0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999])
TAILS = (0.0, 0.01, 0.1)  # shares of the non-zero part left out at both ends of a condition number
NONE = "—"
_SYMBOLS = {"depth": "L =", "sigma_w": "σ_w =", "sigma_b": "σ_b =", "q0": "q⁰ =", "ratio": "c =",
            "p": "p =", "r": "r =", "c": "c =", "s": "s ="}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What was asked for.

    Parameters
    ----------
    name, entry, options
        The entry of the registry, and the options it was given.
    laws
        Name in the legend → law.
    networks
        Name → spectra of networks of finite width; empty if none were asked for.
    """

    name: str
    entry: Entry
    options: Options
    laws: Mapping[str, SpectralMeasure]
    networks: Mapping[str, EmpiricalSpectrum]

    def comparison(self, name: str) -> SpectrumComparison:
        """Compare the networks of one name with its law."""
        return compare(self.laws[name], self.networks[name])


def numbers(family: Family) -> dict[str, Any]:
    """Return everything as plain numbers."""
    return {
        "law": family.name,
        "options": dict(family.options),
        "equation": family.entry.equation,
        "source": family.entry.source,
        "laws": {name: law_numbers(law) for name, law in family.laws.items()},
        "networks": {name: comparison_numbers(family.comparison(name)) for name in family.networks},
    }


def law_numbers(law: SpectralMeasure) -> dict[str, Any]:
    """Return moments, edges, atoms, quantiles and condition numbers of a law."""
    return {
        "moments": [law.moment(k) for k in range(1, MOMENTS + 1)],
        "log_edges": None if law.log_bulk is None else list(law.log_bulk),
        "support": list(law.support),
        "atoms": [list(atom) for atom in law.atoms],
        "log_mean": law.log_moment(1),
        "log_variance": log_variance(law),
        "log_quantiles": dict(zip(map(str, QUANTILES.tolist()), law.log_ppf(QUANTILES).tolist(), strict=True)),
        "log_condition_numbers": {str(tail): law.log_condition_number(tail) for tail in TAILS},
        "accuracy": law.accuracy,
    }


def log_variance(law: SpectralMeasure) -> float:
    """Variance of ln λ; NaN where there is an atom at 0."""
    mean = law.log_moment(1)
    return law.log_moment(2) - mean**2 if math.isfinite(mean) else math.nan


def comparison_numbers(found: SpectrumComparison) -> dict[str, Any]:
    """Return a comparison as plain numbers."""
    return {
        "networks": found.networks,
        "dimension": found.dimension,
        "ks": found.ks,
        "ks_se": found.ks_se,
        "ks_pvalue": found.ks_pvalue,
        "wasserstein_log": found.wasserstein_log,
        "verdict": found.verdict,
        "zeros": [found.zeros.measured, found.zeros.se, found.zeros.predicted],
        "moments": [[m.measured, m.se, m.predicted] for m in found.moments],
        "log_edge": [found.edge.measured, found.edge.se, found.edge.predicted],
    }


def page(family: Family, *, manifest: Mapping[str, str]) -> Page:
    """Write the page."""
    sections = [Section(title="The law", blocks=(*_intro(family), *_tables(family)))]
    if family.networks:
        sections.append(Section(title="Networks of finite width over it", blocks=tuple(_overlay(family))))
    return Page(title=family.entry.title, summary=_summary(family), sections=tuple(sections), manifest=manifest)


def _summary(family: Family) -> str:
    last, law = list(family.laws.items())[-1]
    zero = sum(mass for lam, mass in law.atoms if lam == 0)
    text = f"At {last} λ reaches up to {number(law.support[1], digits=6)}, its mean is {number(law.moment(1))}, its "
    text += f"second moment {number(law.moment(2), digits=4)}"
    text += f", and a share of {number(zero)} of the values is 0." if zero else "."
    if family.networks:
        found = family.comparison(list(family.networks)[-1])
        distance = with_error(found.ks, found.ks_se)
        text += f" {found.networks} networks of {found.dimension} values each are at KS distance {distance} from it."
    return text


def _intro(family: Family) -> Iterator[Block]:
    entry = family.entry
    options = {_SYMBOLS.get(name, name): value for name, value in family.options.items() if value is not None}
    said = ", ".join(f"{name} {_plain(value)}" for name, value in options.items())
    atoms = " Markers are atoms, their masses on the right axis." if any(x.atoms for x in family.laws.values()) else ""
    yield (
        "λ is a squared singular value of a matrix or of a Jacobian J, an eigenvalue of J Jᵀ. The law says what share "
        f"of them lies where, in the limit of infinite width. Definition: {entry.equation} ({entry.source})."
    )
    yield Figure(
        draw=partial(_draw_laws, family.laws),
        caption=f"Density of λ: {said}.{atoms}",
        alt="One curve per law; " + "; ".join(_described(name, law) for name, law in family.laws.items()) + ".",
    )


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _described(name: str, law: SpectralMeasure) -> str:
    low, high = law.support
    return f"{name} from {number(low)} to {number(high)}"


def _draw_laws(laws: Mapping[str, SpectralMeasure], canvas: Canvas) -> None:
    ax = canvas.subplots()
    law_density(laws, ax=ax)
    ax.legend(loc="best")


def _tables(family: Family) -> Iterator[Block]:
    names = tuple(family.laws)
    laws = tuple(family.laws.values())
    columns = ("quantity", *names)
    yield Table(
        caption="Edges of the density, and atoms as mass at λ.",
        columns=columns,
        rows=(
            ("lower edge", *(_edge(law, 0) for law in laws)),
            ("upper edge", *(_edge(law, 1) for law in laws)),
            ("atoms", *(_atoms(law) for law in laws)),
            ("mean of ln λ", *(_mean(law.log_moment(1)) for law in laws)),
            ("variance of ln λ", *(_finite(log_variance(law)) for law in laws)),
            *((_condition_name(tail), *(_power(law.log_condition_number(tail)) for law in laws)) for tail in TAILS),
        ),
    )
    yield Table(
        caption="Moments E λᵏ.",
        columns=("k", *names),
        rows=tuple((str(k), *(number(law.moment(k), digits=8) for law in laws)) for k in range(1, MOMENTS + 1)),
    )
    yield Table(
        caption="Quantiles of λ: the share p of all values lies below.",
        columns=("p", *names),
        rows=tuple((f"{p:g}", *(_power(float(law.log_ppf(p))) for law in laws)) for p in QUANTILES),
    )


def _condition_name(tail: float) -> str:
    if tail == 0:
        return "condition number of J"
    return f"condition number without the {tail:.0%} at either end"


def _edge(law: SpectralMeasure, side: int) -> str:
    return NONE if law.log_bulk is None else _power(law.log_bulk[side], digits=8)


def _atoms(law: SpectralMeasure) -> str:
    return "; ".join(f"{number(mass, digits=6)} at {number(lam, digits=6)}" for lam, mass in law.atoms) or "none"


def _finite(value: float) -> str:
    return number(value, digits=6) if math.isfinite(value) else NONE


def _mean(value: float) -> str:
    """Write a mean of ln λ, -∞ where there is mass at 0 or too much near it."""
    return "−∞" if value == -math.inf else _finite(value)


def _power(log: float, *, digits: int = 5) -> str:
    """Write the exponential of a number that may leave the floating range."""
    if abs(log) < 700:
        return number(math.exp(log), digits=digits)
    if not math.isfinite(log):
        return "0" if log < 0 else "∞"
    decades = log / math.log(10)
    power = math.floor(decades)
    return f"{number(10 ** (decades - power), digits=3)} × 10^{power}"


def _overlay(family: Family) -> Iterator[Block]:
    first = next(iter(family.networks.values()))
    yield (
        f"{first.networks} networks were drawn and every singular value of their Jacobians was measured, however small "
        "(values that are exactly 0 have no place on the axis and are given as a share). The law is that of infinite "
        "width: networks of width N deviate from it by the order of L/N." + _zeros(family) + _stand_in(family)
    )
    yield Figure(
        draw=partial(_draw_overlay, family),
        size=(4.2 * max(2, len(family.networks)), 3.9),
        caption=f"Density of λ per decade: {first.networks} networks of {first.dimension} values each as bars, the law "
        "as a line.",
        alt="Histograms of the networks with the density of the law over them, one panel per law.",
    )
    yield Table(
        caption="Networks against the law. KS is the largest distance between the two distribution functions, with its "
        "standard error over networks; p the probability of such a distance if the law were right at this very width.",
        columns=("law", "KS", "p", "verdict", "zeros", "zeros, law", "E λ", "E λ, law", "E λ²", "E λ², law"),
        rows=tuple(_row(name, family.comparison(name)) for name in family.networks),
    )


def _zeros(family: Family) -> str:
    """Say why there are more zeros than in the law where units switch off."""
    kind = None if family.entry.kind is None else family.entry.kind(family.options, 1)
    if kind is None or not has_zeros(kind):
        return ""
    return (
        " Where units switch off, the narrowest of the layers decides how many values are 0: more than in the law, by "
        "the order of 1/√N."
    )


def _weights(kind: Kind) -> str:
    return "Gaussian" if kind.weights == "gaussian" else kind.weights


def _stand_in(family: Family) -> str:
    """Say which networks stand for a limit of infinite depth."""
    if family.entry.depth is None or family.entry.kind is None:
        return ""
    kind = family.entry.kind(family.options, 1)
    made = (
        f"linear blocks I + aG, G of independent Gaussian entries of variance 1/N and a² = c/{family.entry.depth}"
        if kind.weights == "residual"
        else f"{NAMES[kind.activation]} layers of {_weights(kind)} weights, with the parameter of the law"
    )
    order = "one over the root of their depth" if kind.activation == "tanh" else "one over their depth"
    root = ", times its logarithm at the upper edge. It is λ^(1/L) that is laid over it" if family.entry.is_root else ""
    return (
        f" It is also that of infinite depth: these networks have {family.entry.depth} {made}, and deviate from it by "
        f"the order of {order}{root}."
    )


def _row(name: str, found: SpectrumComparison) -> tuple[str, ...]:
    moments = [text for m in found.moments for text in (with_error(m.measured, m.se), number(m.predicted, digits=4))]
    return (
        name,
        with_error(found.ks, found.ks_se),
        NONE if found.ks_pvalue is None else number(found.ks_pvalue, digits=2),
        found.verdict,
        with_error(found.zeros.measured, found.zeros.se),
        number(found.zeros.predicted),
        *moments,
    )


def _draw_overlay(family: Family, canvas: Canvas) -> None:
    panels = np.atleast_1d(canvas.subplots(1, len(family.networks)))
    for ax, (name, spectrum) in zip(panels, family.networks.items(), strict=True):
        spectrum_density(spectrum, law=family.laws[name], ax=ax)
        ax.set_title(name)
        ax.legend(loc="best")
