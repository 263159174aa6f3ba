"""The page of `rmtbn product-spectra`: spectra over the law, the edge, the hard edge, and what conditioning costs."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas
from scipy import optimize

from rmtbn.compare import SpectrumComparison, compare
from rmtbn.plot.points import points
from rmtbn.plot.spectrum_density import spectrum_density
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Claim, Figure, Page, Section, Table
from rmtbn.result import EmpiricalSpectrum, Scalar
from rmtbn.sweep.run import Records
from rmtbn.theory.fuss_catalan import FussCatalan

from . import _paper_claims as judged

LN10 = np.log(10)
# Appendix K as remembered, not read: median condition numbers at N = 1000 by number of factors.
REMEMBERED: Mapping[int, str] = {1: "4 × 10³", 2: "8 × 10⁵", 3: "2 × 10⁸", 5: "2 × 10¹¹"}
EDGE = 4.0  # claim 28: units of fluctuation within which the largest λ is at the edge (Tracy and Widom: -1.21 ± 1.27)
NEAR_EDGE = 1e-6  # relative distance at which the density is still a square root
NEAR_ZERO = (0.005, 0.05)  # ranks, as shares of N, from which the exponent at 0 is read
EXPONENT = 0.1  # relative error allowed to it; one factor more or less changes it by at least 1/9
STEEPER = 0.2  # claim 29: least growth of ln κ per factor
KEEPS = 0.5  # share of the growth per factor kept from few factors to many: a power of M would keep 0.36
LEFT = 0.1  # claim 30: descent until this share of the loss is left
ATTEMPTS = 1e18  # steps of gradient descent that are looked at


class Spectra:
    """The records: spectra, comparisons and condition numbers by number of factors."""

    def __init__(self, records: Records) -> None:
        rows = records.table("products")
        self.width, self.draws = int(rows.width.iloc[0]), rows.seed.nunique()
        self.factors = tuple(sorted({int(count) for count in rows.factors}))
        self.spectra = {
            count: EmpiricalSpectrum(
                by_network=np.array(rows.log_singular_values[rows.factors == count].tolist()),
                relative_error=float(rows.relative_error[rows.factors == count].max()),
                method="product",
            )
            for count in self.factors
        }

    def comparison(self, count: int, *, law: int | None = None) -> SpectrumComparison:
        """Compare the products of `count` factors with the law of as many, or of `law`."""
        return compare(FussCatalan(depth=law or count), self.spectra[count])

    def edge_gap(self, count: int) -> Scalar:
        """Average (λ_max - edge)/(γ N^(-2/3)), which Tracy and Widom's law expects at -1.21 with a spread of 1.27.

        γ is that of the law's end: its density there is √(edge - λ)/(π γ^(3/2)).
        """
        law = FussCatalan(depth=count)
        edge = law.support[1]
        density = float(law.pdf(edge * (1 - NEAR_EDGE)))
        unit = (np.pi * density / np.sqrt(edge * NEAR_EDGE)) ** (-2 / 3) * self.width ** (-2 / 3)
        gap = (np.exp(2 * self.spectra[count].by_network[:, 0]) - edge) / unit
        return Scalar.over_networks(gap, symbol="(λ_max − edge)/γN^(−2/3)", label="gap to the edge")

    def exponent(self, count: int) -> Scalar:
        """Average the exponent -M/(M+1) of the density at 0, from the slope of rank against ln λ at the smallest."""
        low, high = (max(int(share * self.width), 1) for share in NEAR_ZERO)
        ranks = np.log(np.arange(low, high + 1) - 0.5)
        smallest = 2 * self.spectra[count].by_network[:, ::-1][:, low - 1 : high]
        slopes = [np.polyfit(one, ranks, 1)[0] for one in smallest]
        return Scalar.over_networks(np.array(slopes) - 1, symbol="exponent", label="exponent of the density at 0")

    def log_condition(self, count: int) -> np.ndarray:
        """Return ln(σ_max/σ_min) of every draw."""
        values = self.spectra[count].by_network
        return np.asarray(values[:, 0] - values[:, -1])

    def log_rate(self, count: int) -> np.ndarray:
        """Return ln of the largest usable rate 2/λ_max of gradient descent on ‖Jx - b‖²/2, of every draw."""
        return np.asarray(np.log(2) - 2 * self.spectra[count].by_network[:, 0])

    def log_steps(self, count: int) -> np.ndarray:
        """Return ln of the steps at half that rate until `LEFT` of the loss is left, b isotropic, of every draw."""
        return np.array([_log_steps(2 * row) for row in self.spectra[count].by_network])


def _log_steps(log_lam: np.ndarray) -> float:
    """Solve mean (1 - λ/λ_max)^(2t) = `LEFT` for ln t."""
    decay = np.log1p(-np.exp(log_lam[1:] - log_lam[0]))  # the largest is gone after one step

    def excess(log_steps: float) -> float:
        return float(np.exp(2 * np.exp(log_steps) * decay).sum() / log_lam.size) - LEFT

    return float(optimize.brentq(excess, -5.0, np.log(ATTEMPTS))) if excess(np.log(ATTEMPTS)) < 0 else np.inf


def claims(records: Records) -> Mapping[int, Claim]:
    """Judge claims 27 to 30."""
    found = Spectra(records)
    return {27: _law(found), 28: _edges(found), 29: _conditioning(found), 30: _descent(found)}


def _counted(found: Spectra) -> str:
    return f"{found.draws} draws, N = {found.width}, M = {', '.join(str(count) for count in found.factors)}."


def _law(found: Spectra) -> Claim:
    right = {count: found.comparison(count) for count in found.factors}
    wrong = {count: found.comparison(count, law=count + 1) for count in found.factors}
    if any(one.verdict == "rejected" for one in right.values()):
        verdict = "contradicted"
    else:
        told_apart = all(one.verdict == "rejected" for one in wrong.values())
        decided = all(one.verdict != "undecided" for one in right.values())
        verdict = "supported" if told_apart and decided else "inconclusive"
    return judged.claim(
        27,
        predicted="Kolmogorov–Smirnov distance 0 up to the order of 1/N for each M, and the law of M + 1 rejected",
        measured=", ".join(f"{number(one.ks, digits=2)} (M = {count})" for count, one in right.items()),
        verdict=verdict,
        evidence="In the theorem x is the squared singular value. Distances to the law of M + 1: "
        f"{', '.join(number(one.ks, digits=2) for one in wrong.values())}. Draws are the unit of the errors. "
        f"{_counted(found)}",
    )


def _edges(found: Spectra) -> Claim:
    gaps = {count: found.edge_gap(count) for count in found.factors}
    exponents = {count: found.exponent(count) for count in found.factors}
    bounds = {count: sorted(((1 + sign * EXPONENT) / (count + 1) - 1) for sign in (-1, 1)) for count in exponents}
    return judged.claim(
        28,
        predicted=f"λ_max within {EDGE:g} γ N^(-2/3) of the edge (Tracy and Widom: −1.21); exponents "
        f"{', '.join(number(-count / (count + 1)) for count in exponents)}",
        measured=f"gaps {', '.join(with_error(one.value, one.se) for one in gaps.values())}; exponents "
        f"{', '.join(with_error(one.value, one.se) for one in exponents.values())}",
        verdict=judged.together(
            *(judged.between(one, -EDGE, EDGE) for one in gaps.values()),
            *(judged.between(one, *bounds[count]) for count, one in exponents.items()),
        ),
        evidence=f"The exponent is read from the ranks {NEAR_ZERO[0]:.1%} to {NEAR_ZERO[1]:.0%} from below, as the "
        f"slope of ln rank against ln λ, less 1; that slope may be off by {EXPONENT:.0%}. {_counted(found)}",
    )


def _conditioning(found: Spectra) -> Claim:
    first, few, many = found.factors[0], found.factors[2], found.factors[-1]
    at = {count: found.log_condition(count) for count in (first, few, many)}
    early, late = (at[few] - at[first]) / (few - first), (at[many] - at[few]) / (many - few)
    growth, before, kept = (_over_draws(values) for values in (late, early, late - KEEPS * early))
    return judged.claim(
        29,
        predicted=f"ln κ grows by more than {STEEPER} per factor from M = {few} to {many}, and by at least {KEEPS} of "
        f"what it grows by from M = {first} to {few} (a power of M: 0.36)",
        measured=f"{with_error(growth.value, growth.se)} per factor, {with_error(before.value, before.se)} before",
        verdict=judged.together(judged.above(growth, STEEPER), judged.above(kept, 0.0)),
        evidence=f"κ = σ_max/σ_min of every draw, all values right to their last. {_counted(found)}",
    )


def _descent(found: Spectra) -> Claim:
    pairs = list(zip(found.factors, found.factors[1:], strict=False))
    slower = [_over_draws(found.log_steps(more) - found.log_steps(less)) for less, more in pairs]
    smaller = [_over_draws(found.log_rate(less) - found.log_rate(more)) for less, more in pairs]
    return judged.claim(
        30,
        predicted="with every larger condition number a smaller usable rate, and more steps",
        measured=f"rates smaller by the factors {', '.join(map(judged.geometric, smaller))}; steps more by "
        f"{', '.join(map(judged.geometric, slower))}",
        verdict=judged.together(*(judged.above(one, 0.0) for one in (*slower, *smaller))),
        evidence="Gradient descent on ‖Jx − b‖²/2, b isotropic, which the singular values decide exactly: the usable "
        f"rate is 2/λ_max, and at half of it steps are counted until {LEFT:.0%} of the loss is left. {_counted(found)}",
    )


def _over_draws(values: np.ndarray) -> Scalar:
    finite = values[np.isfinite(values)]
    return Scalar.over_networks(finite, symbol="ln", label="difference of logarithms")


def page(records: Records) -> Page:
    """Write the page."""
    found = Spectra(records)
    most = found.factors[-1]
    farthest = max(found.comparison(count).ks for count in found.factors)
    condition = float(np.median(found.log_condition(most)))
    return Page(
        title="Products of Gaussian matrices",
        summary=f"The squared singular values of products of up to {most} matrices follow Theorem 1 within a "
        f"Kolmogorov–Smirnov distance of {number(farthest, digits=2)} at N = {found.width}. The median condition "
        f"number of {most} factors is {_power(condition)}.",
        sections=(
            Section(title="The density of Theorem 1", blocks=tuple(_densities(found))),
            Section(title="What conditioning costs", blocks=tuple(_costs(found))),
            Section(title="Claims", blocks=(judged.RULE, *claims(records).values())),
        ),
        manifest=records.manifest(),
    )


def _power(log_value: float) -> str:
    return number(float(np.exp(log_value)), digits=2)


def _densities(found: Spectra) -> Iterator[Block]:
    yield (
        "x in Theorem 1 is the squared singular value λ. Its density at 0 goes as λ^(−M/(M+1)), and it ends at the "
        "edge (M+1)^(M+1)/M^M; its mean is 1 and its variance M at every M."
    )
    yield Figure(
        draw=partial(_draw_laws, found),
        caption="Figure 8: the density of Theorem 1 for products of M matrices.",
        alt="Densities of λ for several M: the more factors, the higher near 0 and the farther the edge.",
    )
    yield Figure(
        draw=partial(_draw_histograms, found),
        size=(10.0, 5.6),
        caption=f"Figure 9: λ of {found.draws} products of M Gaussian matrices of N = {found.width} as bars, per "
        "decade of λ, and the law as a line.",
        alt="Histograms of λ over decades for several M, each with the law over it.",
    )
    yield Table(
        caption="Distance from the law, its standard error over draws, and the same for the law of one factor more; "
        "gap of the largest λ to the edge, in the unit in which Tracy and Widom's law has mean −1.21 and spread 1.27; "
        "exponent of the density at 0, measured and predicted.",
        columns=("M", "KS", "KS, law of M + 1", "gap to the edge", "exponent", "predicted"),
        rows=tuple(_row(found, count) for count in found.factors),
    )


def _row(found: Spectra, count: int) -> tuple[str, ...]:
    right, wrong, gap, exponent = (
        found.comparison(count), found.comparison(count, law=count + 1), found.edge_gap(count), found.exponent(count)
    )  # fmt: skip
    return (
        str(count),
        with_error(right.ks, right.ks_se),
        number(wrong.ks, digits=2),
        with_error(gap.value, gap.se),
        with_error(exponent.value, exponent.se),
        number(-count / (count + 1)),
    )


def _costs(found: Spectra) -> Iterator[Block]:
    yield (
        "On ‖Jx − b‖²/2 gradient descent multiplies the error along each singular direction by 1 − αλ per step. The "
        "largest λ limits the rate α to 2/λ_max, and the small ones decide how long it takes."
    )
    yield Figure(
        draw=partial(_draw_condition, found),
        caption=f"Appendix K: condition number of products of M matrices, N = {found.width}, mean of the logarithm "
        f"over {found.draws} draws with one standard error.",
        alt="Condition number against the number of factors, a straight line on a logarithmic axis.",
    )
    yield Table(
        caption="Medians over draws. The condition numbers in the last column are remembered from the paper, not "
        "checked against it.",
        columns=("M", "condition number", "usable rate", f"steps to {LEFT:.0%}", "condition number, remembered"),
        rows=tuple(
            (
                str(count),
                _power(float(np.median(found.log_condition(count)))),
                _power(float(np.median(found.log_rate(count)))),
                _power(float(np.median(found.log_steps(count)))),
                REMEMBERED.get(count, "—") if found.width == 1000 else "—",
            )
            for count in found.factors
        ),
    )


def _draw_laws(found: Spectra, canvas: Canvas) -> None:
    ax = canvas.subplots()
    for count in found.factors:
        law = FussCatalan(depth=count)
        lam = np.linspace(0.0, 1.0, 801)[1:-1] ** 4 * law.support[1]
        ax.plot(lam, law.pdf(lam), label=f"M = {count}")
    ax.set(xlabel="λ", ylabel="density", yscale="log", ylim=(1e-4, 1e2))
    ax.legend()


def _draw_histograms(found: Spectra, canvas: Canvas) -> None:
    panels = canvas.subplots(2, (len(found.factors) + 1) // 2, squeeze=False).ravel()
    for ax, count in zip(panels, found.factors, strict=False):
        spectrum_density(found.spectra[count], law=FussCatalan(depth=count), ax=ax)
        ax.set_title(f"M = {count}")
    for ax in panels[len(found.factors) :]:
        ax.set_visible(False)
    panels[0].legend(loc="best")


def _draw_condition(found: Spectra, canvas: Canvas) -> None:
    ax = canvas.subplots()
    at = [_over_draws(found.log_condition(count) / LN10) for count in found.factors]
    value, se = np.array([(one.value, one.se) for one in at]).T
    points(np.array(found.factors), value, se=se, label="measured", ax=ax)
    ax.set(xlabel="number of factors M", ylabel="log₁₀ of the condition number σ_max/σ_min")


def numbers(records: Records) -> dict[str, Any]:
    """Return distances, gaps, exponents and logarithms of condition numbers by number of factors."""
    found = Spectra(records)
    return {
        str(count): {
            "ks": found.comparison(count).ks,
            "ks_se": found.comparison(count).ks_se,
            "edge_gap": found.edge_gap(count).value,
            "exponent": found.exponent(count).value,
            "median_log_condition": float(np.median(found.log_condition(count))),
            "median_log_rate": float(np.median(found.log_rate(count))),
            "median_log_steps": float(np.median(found.log_steps(count))),
        }
        for count in found.factors
    }
