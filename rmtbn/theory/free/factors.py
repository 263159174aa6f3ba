"""Factors of free products: laws on λ >= 0 that know their S-transform.

The S-transform S(M) = (1 + M)/(M z) of the moment transform M(z) = E λ/(z - λ) multiplies under free products
(Voiculescu 1987). With T = 1/S:  Gaussian T = σ²(1 + c M), c the rows over the columns;  Bernoulli (a with
probability p, else 0) T = a(p + M)/(1 + M);  any law of given points T = ζ M/(1 + M), ζ the point where its own
transform is M.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtbn import _checks
from rmtbn.theory.free.factor_law import FactorLaw
from rmtbn.theory.free.terms import Drift, Term, Transform
from rmtbn.theory.free.weighted_points import WeightedPoints

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """A law on λ >= 0, as a factor of a free product.

    Parameters
    ----------
    log_mean
        ln E λ.
    rank
        1 - (mass at zero).
    powers
        T = mean·∏ (1 + M/c)^e: the pairs (c, e).
    law
        A law of mean 1 without closed form, if the factor is one.
    terms
        Elementary terms of ln T.
    atoms
        Its atoms but for zero, as ((ln λ, mass), ...).
    """

    log_mean: float = 0.0
    rank: float = 1.0
    powers: tuple[tuple[float, float], ...] = ()
    law: FactorLaw | None = None
    terms: tuple[Term, ...] = ()
    atoms: tuple[tuple[float, float], ...] = ()

    def centred(self) -> "Factor":
        """Return the factor divided by its mean."""
        return replace(self, log_mean=0.0, atoms=tuple((x - self.log_mean, mass) for x, mass in self.atoms))


def constant(value: float) -> Factor:
    """Make the law of one point."""
    log_value = math.log(_checks.real("value", value, above=0.0))
    return Factor(log_mean=log_value, atoms=((log_value, 1.0),))


def gaussian(variance: float = 1.0, *, ratio: float = 1.0) -> Factor:
    """Make the law of W Wᵀ for independent entries of variance σ²/columns: Marchenko–Pastur, ratio = rows/columns."""
    log_mean = math.log(_checks.real("variance", variance, above=0.0))
    columns = 1.0 / _checks.real("ratio", ratio, above=0.0)
    return Factor(log_mean=log_mean, rank=min(1.0, columns), powers=((columns, 1.0),))


def bernoulli(p: float, *, value: float = 1.0) -> Factor:
    """Make the law that is `value` with probability p and else 0: a free projection is p = rows/columns."""
    p = _checks.real("p", p, above=0.0, at_most=1.0)
    log_value = math.log(_checks.real("value", value, above=0.0))
    powers = ((p, 1.0), (1.0, -1.0)) if p < 1 else ()
    return Factor(log_mean=log_value + math.log(p), rank=p, powers=powers, atoms=((log_value, p),))


def points(values: ArrayLike, weights: ArrayLike | None = None) -> Factor:
    """Make the law with masses `weights` (equal if left out) at the points `values` >= 0: a sample, for example."""
    values = _checks.array("values", values, at_least=0.0).ravel()
    if values.size == 0 or not np.isfinite(values).all():
        raise _checks.fail("values", "one or more finite numbers", values)
    masses = (
        np.full(values.size, 1.0 / values.size) if weights is None else _checks.array("weights", weights, at_least=0.0)
    )
    if masses.shape != values.shape or abs(masses.sum() - 1) > 1e-9:
        raise _checks.fail("weights", "one number per value, of sum 1", weights)
    distinct, which = np.unique(values, return_inverse=True)
    masses = np.bincount(which, weights=masses / masses.sum()).astype(np.float64)
    kept = (distinct > 0) & (masses > 0)
    if not kept.any():
        raise _checks.fail("values", "not all zero", values)
    log_points, masses = np.log(distinct[kept]), masses[kept]
    if log_points.size == 1:
        return bernoulli(min(1.0, float(masses[0])), value=float(distinct[kept][0]))
    return of_law(WeightedPoints(log_points=log_points, weights=masses))


def of_law(law: FactorLaw) -> Factor:
    """Make a factor of a law given by its points, or by its density."""
    log_mean = law.log_moment(1)
    return Factor(log_mean=log_mean, rank=law.mass, law=law.scaled(-log_mean), atoms=law.atoms)


def from_s_transform(log_s: Callable[[Complex], Complex]) -> Factor:
    """Make the factor with a given S-transform and no mass at zero.

    Parameters
    ----------
    log_s
        M ↦ ln S(M) for complex arrays, real on (-1, ε), analytic there and in the open lower half-plane, and
        continuous: the branch of the logarithm is the one that is real at 0.
    """
    mean = -float(log_s(np.zeros(1, dtype=np.complex128))[0].real)
    return Factor(log_mean=_checks.real("log_s(0)", mean), terms=(Transform(log_s=log_s),))


def multiplicative_normal(c: float) -> Factor:
    """Make the free analogue of the lognormal law, S = e^{-c(1 + 2M)}: the law of a residual network of variance c."""
    c = _checks.real("c", c, above=0.0)
    return Factor(log_mean=c, terms=(Drift(a=2 * c),))
