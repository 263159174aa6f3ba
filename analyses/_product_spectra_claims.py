"""The records of `rmtbn product-spectra`, and the claims that they judge."""

from collections.abc import Mapping

import numpy as np
from scipy import optimize

from rmtbn.compare import SpectrumComparison, compare
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Claim
from rmtbn.result import EmpiricalSpectrum, Scalar
from rmtbn.sweep.run import Records
from rmtbn.theory.fuss_catalan import FussCatalan

from . import _paper_claims as judged

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
    growth, before, kept = (over_draws(values) for values in (late, early, late - KEEPS * early))
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
    slower = [over_draws(found.log_steps(more) - found.log_steps(less)) for less, more in pairs]
    smaller = [over_draws(found.log_rate(less) - found.log_rate(more)) for less, more in pairs]
    return judged.claim(
        30,
        predicted="with every larger condition number a smaller usable rate, and more steps",
        measured=f"rates smaller by the factors {', '.join(map(judged.geometric, smaller))}; steps more by "
        f"{', '.join(map(judged.geometric, slower))}",
        verdict=judged.together(*(judged.above(one, 0.0) for one in (*slower, *smaller))),
        evidence="Gradient descent on ‖Jx − b‖²/2, b isotropic, which the singular values decide exactly: the usable "
        f"rate is 2/λ_max, and at half of it steps are counted until {LEFT:.0%} of the loss is left. {_counted(found)}",
    )


def over_draws(values: np.ndarray) -> Scalar:
    """Average a logarithm over the draws, those where it is infinite left out."""
    finite = values[np.isfinite(values)]
    return Scalar.over_networks(finite, symbol="ln", label="difference of logarithms")
