"""The page of `rmtbn product-spectra`: spectra over the law, and what conditioning costs."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from rmtbn.plot.points import points
from rmtbn.plot.spectrum_density import spectrum_density
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Figure, Page, Section, Table
from rmtbn.sweep.run import Records
from rmtbn.theory.fuss_catalan import FussCatalan

from . import _paper_claims as judged
from ._product_spectra_claims import LEFT, Spectra, claims, over_draws

LN10 = np.log(10)
# Appendix K as remembered, not read: median condition numbers at N = 1000 by number of factors.
REMEMBERED: Mapping[int, str] = {1: "4 × 10³", 2: "8 × 10⁵", 3: "2 × 10⁸", 5: "2 × 10¹¹"}


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
    at = [over_draws(found.log_condition(count) / LN10) for count in found.factors]
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
