"""Laws of free products: density, distribution function, quantiles, moments, edges and atoms.

Model: λ is an eigenvalue of a product of free factors X_l >= 0 (large matrices in generic position), or of a chain of
them with compressions between spaces of different dimension. Computed: the density -Im M/π from the physical branch
of the spectral curve, each point by itself; the distribution function from Im E ln(z - λ), without integration; the
edges from critical points; the atoms exactly. The cost does not depend on the number of equal factors. Derivation:
docs/derivations/free_products.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtbn import _checks
from rmtbn.result import SpectralMeasure
from rmtbn.theory import free_chain
from rmtbn.theory.free_chain import Placed
from rmtbn.theory.free_factors import Factor
from rmtbn.theory.free_series import moments_of_log_series
from rmtbn.theory.spectral_bulk import BranchBulk, Bulk
from rmtbn.theory.spectral_curve import SpectralCurve

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FreeProductLaw(SpectralMeasure):
    """Law of λ of a free product.

    Parameters
    ----------
    curve
        Its spectral curve.
    bulk
        Its absolutely continuous part, if there is one.
    log_atoms
        Its atoms but for zero, ((ln λ, mass), ...), ascending.
    """

    curve: SpectralCurve
    bulk: Bulk | None
    log_atoms: tuple[tuple[float, float], ...]

    @property
    def accuracy(self) -> float:
        """Relative of the density away from the edges, absolute of the distribution function."""
        return 1e-10

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Zero first, if it is one."""
        zero = ((0.0, 1.0 - self.curve.rank),) if self.curve.rank < 1 else ()
        return (*zero, *((_exp(x), mass) for x, mass in self.log_atoms))

    @property
    def log_bulk(self) -> tuple[float, float] | None:
        """Edges of the bulk in ln λ, -inf where the density reaches λ = 0; None where the law is atoms only."""
        return None if self.bulk is None else (self.bulk.chart.low, self.bulk.chart.high)

    def log_pdf_log(self, log_lam: ArrayLike) -> Array:
        """Log density of log λ, ln(-Im M/π)."""
        x = _checks.array("log_lam", log_lam)
        inside, density, _ = self._inside(x)
        log_density = np.full(x.shape, -np.inf)
        with np.errstate(divide="ignore"):
            log_density[inside] = np.log(density)
        return log_density

    def cdf_log(self, log_lam: ArrayLike) -> Array:
        """P(log λ' <= log_lam): 1 - Im E ln(z - λ)/π inside the bulk, masses outside it."""
        x = _checks.array("log_lam", log_lam)
        inside, _, within = self._inside(x)
        total = np.full(x.shape, 1.0 - self.curve.rank)
        for place, mass in self.log_atoms:
            total += mass * (x >= place)
        if self.log_bulk is not None:
            total[x >= self.log_bulk[1]] += self.curve.rank - sum(mass for _, mass in self.log_atoms)
        total[inside] = within
        return np.asarray(np.clip(total, 0.0, 1.0))

    def log_ppf(self, p: ArrayLike) -> Array:
        """Quantiles of log λ: an atom where p falls into its jump, else by inversion in the bulk."""
        p = _checks.array("p", p, at_least=0.0, at_most=1.0)
        lowest = min([x for x, _ in self.log_atoms] + ([] if self.log_bulk is None else [self.log_bulk[0]]))
        quantile = np.full(p.shape, -np.inf if self.curve.rank < 1 else lowest)
        rest = p > max(0.0, 1.0 - self.curve.rank)
        for place, mass in self.log_atoms:
            top = float(self.cdf_log(place))
            quantile[rest & (p > top - mass)] = place
            rest &= (p <= top - mass) | (p > top)
        if self.bulk is not None:
            high = self.bulk.chart.high
            end = rest & (p >= 1.0 - sum(mass for place, mass in self.log_atoms if place > high))
            quantile[end] = high
            quantile[rest & ~end] = self.bulk.quantiles(p[rest & ~end])
        return quantile

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
        if self.curve.rank < 1:
            return math.inf * (-1) ** k
        of_atoms = sum(mass * place**k for place, mass in self.log_atoms)
        return of_atoms + (0.0 if self.bulk is None else self.bulk.mean(lambda w: w**k))

    def _inside(self, x: Array) -> tuple[NDArray[np.bool_], Array, Array]:
        """Which log λ are inside the bulk, and the density and the distribution function there."""
        if self.bulk is None:
            return np.zeros(x.shape, dtype=bool), np.empty(0), np.empty(0)
        inside = (x > self.bulk.chart.low) & (x < self.bulk.chart.high)
        return inside, *self.bulk.at(x[inside])


def free_product_law(factors: Sequence[Factor]) -> FreeProductLaw:
    """Compute the law of the free product of factors, all of one dimension, in any order.

    Raises
    ------
    InvalidArgumentError
        If there is no factor.

    Examples
    --------
    >>> from rmtbn.theory.free_factors import bernoulli, gaussian
    >>> law = free_product_law([gaussian(), bernoulli(0.5, value=2.0)])
    >>> law.atoms, law.moment(2)
    (((0.0, 0.5),), 3.0)
    """
    if not factors:
        raise _checks.fail("factors", "one or more", factors)
    curve, bulk, log_atoms = parts([Placed(factor=factor) for factor in factors], start=1.0)
    return FreeProductLaw(curve=curve, bulk=bulk, log_atoms=log_atoms)


def parts(
    chain: Sequence[Placed], *, start: float
) -> tuple[SpectralCurve, Bulk | None, tuple[tuple[float, float], ...]]:
    """Compute the curve, the bulk and the atoms of a chain of factors from a space of dimension `start`."""
    curve = free_chain.spectral_curve(chain, start=start)
    bulk = None if curve.is_one_point else BranchBulk.of(curve)
    return curve, bulk, free_chain.log_atoms(chain, start=start)


def _exp(x: float) -> float:
    return math.exp(x) if x < 709.78 else math.inf
