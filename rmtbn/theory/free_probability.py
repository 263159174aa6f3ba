"""Laws of free products: density, distribution function, quantiles, moments, edges and atoms.

Model: λ is an eigenvalue of a product of free factors X_l >= 0 (large matrices in generic position), or of a chain of
them with compressions between spaces of different dimension. Computed: the density -Im M/π from the physical branch
of the spectral curve, each point by itself; the distribution function from Im E ln(z - λ), without integration; the
edges from critical points; the atoms exactly. The cost does not depend on the number of equal factors. Derivation:
docs/derivations/free_products.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtbn import _checks
from rmtbn.result import SpectralMeasure
from rmtbn.theory.free import branch_bulk
from rmtbn.theory.free import chain as chains
from rmtbn.theory.free.addition import FreeSum, free_sum
from rmtbn.theory.free.branch import Chart, follow
from rmtbn.theory.free.bulk import Bulk
from rmtbn.theory.free.chain import Placed
from rmtbn.theory.free.curve import SpectralCurve
from rmtbn.theory.free.edges import anchors
from rmtbn.theory.free.factor_bulk import FactorBulk
from rmtbn.theory.free.factors import Factor, bernoulli
from rmtbn.theory.free.latex import defining_equation
from rmtbn.theory.free.panel_law import PanelLaw
from rmtbn.theory.free.series import moments_of_log_series
from rmtbn.theory.free.transforms import (
    cauchy_transform,
    chi,
    inverse,
    moment_transform,
    psi,
    r_transform,
    s_transform,
)

__all__ = [
    "FreeProductLaw",
    "FreeSum",
    "cauchy_transform",
    "chi",
    "compression_law",
    "free_product_law",
    "free_sum",
    "moment_transform",
    "parts",
    "psi",
    "r_transform",
    "s_transform",
]

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FreeProductLaw(SpectralMeasure):
    """Law of λ of a free product.

    Parameters
    ----------
    curve
        Its spectral curve.
    bulk
        The intervals on which it has a density, ascending.
    log_atoms
        Its atoms but for zero, ((ln λ, mass), ...), ascending.
    """

    curve: SpectralCurve = field(repr=False)
    bulk: tuple[Bulk, ...] = field(repr=False)
    log_atoms: tuple[tuple[float, float], ...]

    @property
    def accuracy(self) -> float:
        """1e-10: relative of the density farther than 1e-6 from an edge, absolute of the distribution function.

        Where it comes from: against Fuss–Catalan in closed form the error is below it for L <= 1,000, and between
        quantiles the density integrates to the change of F to 1e-12. What is checked at run time: a point at which
        Newton's method does not converge raises `ConvergenceError`; where a mean is taken, cells of the rule are halved
        until the density gives the change of F to 1e-12 or, next to a singularity, until halving changes nothing, and
        what then misses the whole mass by 1e-6 raises too (`rmtbn.theory.free.cells`). At a given ln λ the rounding of
        ln z, a sum over L layers, adds L·1e-15.
        """
        return 1e-10

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Zero first, if it is one."""
        zero = ((0.0, self._zero_mass),) if self._zero_mass > 0 else ()
        return (*zero, *((_exp(x), mass) for x, mass in self.log_atoms))

    @property
    def log_bulk(self) -> tuple[float, float] | None:
        """Outer edges of the bulk in ln λ, -inf where the density reaches λ = 0; None where the law is atoms only."""
        return (self.bulk[0].chart.low, self.bulk[-1].chart.high) if self.bulk else None

    def log_pdf_log(self, log_lam: ArrayLike) -> Array:
        """Log density of log λ, ln(-Im M/π)."""
        x = _checks.array("log_lam", log_lam)
        density = np.zeros(x.shape)
        for part in self.bulk:
            inside = (x > part.chart.low) & (x < part.chart.high)
            density[inside] = part.density(x[inside])
        return np.log(density, where=density > 0, out=np.full(x.shape, -np.inf))

    def cdf_log(self, log_lam: ArrayLike) -> Array:
        """P(log λ' <= log_lam): 1 - Im E ln(z - λ)/π inside the bulk, masses outside it."""
        x = _checks.array("log_lam", log_lam)
        total = np.full(x.shape, self._zero_mass)
        for _, high, mass, _ in self._pieces:
            total += mass * (x >= high)
        for part in self.bulk:
            inside = (x > part.chart.low) & (x < part.chart.high)
            total[inside] = part.at(x[inside])[1]
        return np.asarray(np.clip(total, 0.0, 1.0))

    def log_ppf(self, p: ArrayLike) -> Array:
        """Quantiles of log λ: an atom where p falls into its jump, else by inversion in the bulk.

        Where much of the mass lies within the rounding of ln λ (GELU, d near 1 at large q), they are right to that
        rounding in ln λ, and `cdf` of them differs from p by that mass.
        """
        p = _checks.probabilities(p)
        quantile = np.full(p.shape, -np.inf if self._zero_mass > 0 else self._pieces[0][0])
        below = self._zero_mass
        for _, high, mass, part in self._pieces:
            quantile[p > max(below, 0.0)] = high
            inside = (p > below) & (p < below + mass)
            if part is not None and inside.any():
                quantile[inside] = part.quantiles(p[inside])
                self._put_on_atoms(quantile, p, part)
            below += mass
        return quantile

    def _put_on_atoms(self, quantile: Array, p: Array, part: Bulk) -> None:
        """Let the quantiles in the jump of an atom inside an interval be that atom."""
        for x, mass in self.log_atoms:
            if part.chart.low < x < part.chart.high:
                top = float(part.at(np.array([x]))[1][0])
                quantile[(p > top - mass) & (p <= top)] = x

    def moment(self, k: int) -> float:
        """E λ^k from the power series of ln(M z), to rounding; inf beyond the floating range."""
        k = _checks.integer("k", k, at_least=0)
        if k == 0:
            return 1.0
        relative = moments_of_log_series([0.0, *self.curve.series(k)], order=k)[-1]
        return _exp(k * self.curve.log_mean + math.log(relative))

    def log_moment(self, k: int = 1) -> float:
        """E (ln λ)^k, by the midpoint rule in the bulk; -inf or inf where there is an atom at 0."""
        k = _checks.integer("k", k, at_least=1)
        if self._zero_mass > 0:
            return math.inf * (-1) ** k
        return sum(mass * x**k for x, mass in self.log_atoms) + sum(part.mean(lambda w: w**k) for part in self.bulk)

    def latex(self) -> str:
        r"""Write the defining equation z(M), M(z) = E λ/(z - λ), in LaTeX; ζ is a point at which E d/(ζ - d) is given.

        Examples
        --------
        >>> from rmtbn.theory.free.factors import gaussian
        >>> print(free_product_law([gaussian()] * 3).latex())
        z = \frac{\left(M + 1\right)^{4}}{M}
        """
        return defining_equation(self.curve)

    def log_ratio(self, w: Complex) -> Complex:
        """Compute u = ln M/(p + M) at w = ln z, 0 < Im w <= π, p = 1 - (mass at zero)."""
        if self.curve.is_one_point:
            return np.asarray(self.curve.origin - w)
        if self.curve.is_one_factor:
            return self.curve.factors[0].law.log_ratio(w - self.curve.log_mean)[0]
        chart = Chart(low=self.bulk[0].chart.low, high=self.bulk[-1].chart.high)
        return follow(self.curve, w, chart=chart, anchors=anchors(self.curve)).u

    def log_inverse(self, u: Complex) -> Complex:
        """Compute w = ln z at u, -π <= Im u < 0: the curve itself, with every factor at its own point."""
        v = [inverse(factor.law, self.curve.target(factor, u)[0]) for factor in self.curve.factors]
        return self.curve.residual(u, np.array(v, dtype=np.complex128).reshape(len(v), u.size)).log_z

    @property
    def _zero_mass(self) -> float:
        return 1.0 - self.curve.rank

    @property
    def _pieces(self) -> list[tuple[float, float, float, Bulk | None]]:
        """Intervals and the atoms outside them as (low, high, mass, interval), ascending."""
        parts = [(part.chart.low, part.chart.high, part.mass, part) for part in self.bulk]
        outside = [(x, x, mass, None) for x, mass in self.log_atoms if not any(a < x < b for a, b, _, _ in parts)]
        return sorted([*parts, *outside], key=lambda piece: piece[:2])


def free_product_law(factors: Sequence[Factor]) -> FreeProductLaw:
    """Compute the law of the free product of factors, all of one dimension, in any order.

    Raises
    ------
    InvalidArgumentError
        If there is no factor.

    Examples
    --------
    >>> from rmtbn.theory.free.factors import bernoulli, gaussian
    >>> law = free_product_law([gaussian(), bernoulli(0.5, value=2.0)])
    >>> law.atoms, round(law.moment(2), 12)
    (((0.0, 0.5),), 3.0)
    """
    if not factors:
        raise _checks.fail("factors", "one or more", factors)
    curve, bulk, log_atoms = parts([Placed(factor=factor) for factor in factors], start=1.0)
    return FreeProductLaw(curve=curve, bulk=bulk, log_atoms=log_atoms)


def compression_law(factors: Sequence[Factor], *, trace: float) -> FreeProductLaw:
    """Compute the law of P X P in the range of P, for X a free product and P a free projection.

    Its free cumulants are κ_n(P X P) = t^{n-1} κ_n(X) (Nica & Speicher 1996, arXiv:funct-an/9604011).

    Parameters
    ----------
    factors
        Those of X, one or more, in any order.
    trace
        t, 0 < t <= 1: dimension of the range of P over that of X.

    Raises
    ------
    InvalidArgumentError
        If there is no factor, or the trace is out of its range.

    Examples
    --------
    >>> from rmtbn.theory.free.factors import gaussian
    >>> law = compression_law([gaussian(ratio=2.0)], trace=0.25)  # the rows that are kept are Gaussian, of ratio 1/2
    >>> law.atoms, round(law.moment(2), 12)
    ((), 1.5)
    """
    if not factors:
        raise _checks.fail("factors", "one or more", factors)
    t = _checks.real("trace", trace, above=0.0, at_most=1.0)
    projection = Placed(factor=replace(bernoulli(t), log_mean=0.0, atoms=((0.0, t),)), dimension=1 / t)
    chain = [*(Placed(factor=factor, dimension=1 / t) for factor in factors), projection]
    curve, bulk, log_atoms = parts(chain, start=1 / t)
    return FreeProductLaw(curve=curve, bulk=bulk, log_atoms=log_atoms)


def parts(
    chain: Sequence[Placed], *, start: float
) -> tuple[SpectralCurve, tuple[Bulk, ...], tuple[tuple[float, float], ...]]:
    """Compute the curve, the bulk and the atoms of a chain of factors from a space of dimension `start`."""
    curve = chains.spectral_curve(chain, start=start)
    log_atoms, lost = chains.log_atoms(chain, start=start)
    if curve.is_one_point:
        return curve, (), log_atoms
    if curve.is_one_factor:
        law = curve.factors[0].law
        if not isinstance(law, PanelLaw):
            return curve, (), log_atoms
        return curve, (FactorBulk(law=law, log_scale=curve.log_mean, log_atoms=log_atoms),), log_atoms
    return curve, branch_bulk.intervals(curve, log_atoms, cuts=lost), log_atoms


def _exp(x: float) -> float:
    return float(np.exp(x)) if x < 709.78 else math.inf  # as `ppf` has it, to the last bit
