"""The law of λ of a linear residual network of any depth: products of I + aG.

Model: J = ∏ (I + a G_l), G_l square with independent entries of mean 0 and variance 1/N. One factor has the law of
Dozier & Silverstein (2007, J. Multivariate Anal. 98, 678), whose S-transform is elementary: with ε = a² and
R = √((1 + ε)² + 4εM)

    1/S = (R + 1 + ε)(R + 1 - ε)/4,

so z = (1 + M)/M ((R + 1 + ε)(R + 1 - ε)/4)^L; m_1 = (1 + ε)^L and m_2/m_1² = 1 + L(2ε + ε²)/(1 + ε)². For L → ∞ at
fixed c = Lε it is `rmtbn.theory.residual`. A branch that is not one Gaussian matrix, such as W₂ φ(W₁ x), has another
law at finite depth, with m_2/m_1² = 1 + L(2ε + (κ - 1)ε²)/(1 + ε)², κ = m_2/m_1² of its own Jacobian (2 for one
Gaussian matrix). Derivation: docs/derivations/residual_network.md.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from rmtbn import _checks
from rmtbn.theory.free.chain import Placed
from rmtbn.theory.free.factors import Factor
from rmtbn.theory.free.terms import Place, Term, Transform, log_one_minus
from rmtbn.theory.free_probability import FreeProductLaw, parts

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

DEEPEST = 1_000_000
_STEEP = 1e8  # slope that stands for infinity


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResidualNetworkLaw(FreeProductLaw):
    """Law of λ of a linear residual network, with the network it describes.

    Parameters
    ----------
    depth, alpha
        L and a.
    """

    depth: int
    alpha: float


def residual_network_law(*, depth: int, alpha: float) -> ResidualNetworkLaw:
    """Compute the law of λ for J = ∏ (I + a G_l), l = 1 ... L.

    Parameters
    ----------
    depth
        Number of blocks L, 1 to 1,000,000.
    alpha
        a > 0, the standard deviation of √N times the entries of a branch's matrix: ασ_w.

    Returns
    -------
    ResidualNetworkLaw
        From a = 1 on its bulk reaches down to λ = 0.

    Raises
    ------
    InvalidArgumentError
        If an argument is out of its range.

    Examples
    --------
    >>> law = residual_network_law(depth=1, alpha=1.0)
    >>> round(law.support[1], 10), round(law.moment(2), 10)
    (6.75, 7.0)
    """
    depth = _checks.integer("depth", depth, at_least=1, at_most=DEEPEST)
    alpha = _checks.real("alpha", alpha, above=0.0)
    block = Factor(log_mean=math.log1p(alpha**2), terms=(ResidualBlock(variance=alpha**2),))
    curve, bulk, log_atoms = parts([Placed(factor=block, count=depth)], start=1.0)
    return ResidualNetworkLaw(curve=curve, bulk=bulk, log_atoms=log_atoms, depth=depth, alpha=alpha)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualBlock(Term):
    """ln T of one block I + aG, on a curve without mass at zero.

    With n = 1 + M and ε = a²: R² = (1 - ε)² + 4εn, δ = R - 1 - ε, and y = R + 1 - ε is 4εn/(R + ε - 1) for ε > 1.

    Parameters
    ----------
    variance
        ε.
    count
        How many blocks.
    """

    variance: float
    count: float = 1.0

    def value(self, place: Place) -> tuple[Complex, Complex]:
        """Compute ln((1 + δ/(2 + 2ε)) y/2) and its slope in u, dn/du = M n.

        On the real axis of z under the bulk the slope rises without bound to where R = 0; beyond, there is no spectrum.
        """
        n, root, delta, log_half = self._curve(place)
        eps = self.variance
        steepness = eps * n / root * (2 / (root + 1 + eps) + np.exp(-log_half))
        beyond = (place.u.imag == 0) & ((1 - eps) ** 2 + 4 * eps * n.real < 0)
        slope: Complex = np.where(beyond, _STEEP + 0j, steepness * place.m)
        return self.count * (_log1p(delta / (2 + 2 * eps)) + log_half), np.asarray(
            self.count * slope, dtype=np.complex128
        )

    def potential(self, place: Place) -> Complex:
        """Compute δ²/(4ε) + δ/2 - ln(y/2)."""
        _, _, delta, log_half = self._curve(place)
        return np.asarray(self.count * (delta**2 / (4 * self.variance) + delta / 2 - log_half))

    def placed(self, *, dimension: float, count: float) -> "ResidualBlock":
        """Multiply the count."""
        if dimension != 1:
            raise _checks.fail("dimension", "1: blocks of a residual network are square", dimension)
        return ResidualBlock(variance=self.variance, count=self.count * count)

    def series(self, order: int) -> Array:
        """Cauchy's integral, as for any S-transform."""
        eps = self.variance

        def log_s(m: Complex) -> Complex:
            root = np.sqrt((1 + eps) ** 2 + 4 * eps * m)
            return np.asarray(math.log(4) - np.log(root + 1 + eps) - np.log(root + 1 - eps))

        return Transform(log_s=log_s, count=self.count).series(order)

    def _curve(self, place: Place) -> tuple[Complex, Complex, Complex, Complex]:
        """Compute n = 1/(1 - s), R, δ = R - 1 - ε = 4εM/(R + 1 + ε) and ln(y/2), continuous on the strip."""
        eps = self.variance
        log_n = -log_one_minus(1.0, place.u)
        n = np.exp(log_n)
        root = np.sqrt((1 - eps) ** 2 + 4 * eps * n)
        delta = 4 * eps * place.m / (root + 1 + eps)
        if eps < 0.5:
            return n, root, delta, _log1p(delta / 2)
        if eps <= 1:
            return n, root, delta, np.log((root + (1 - eps)) / 2)
        return n, root, delta, math.log(2 * eps) + log_n - np.log(root + (eps - 1))


def _log1p(x: Complex) -> Complex:
    """Compute ln(1 + x), relatively accurate for small x, which numpy's is not for complex numbers."""
    return np.asarray(np.log1p(x.real * (2 + x.real) + x.imag**2) / 2 + 1j * np.arctan2(x.imag, 1 + x.real))
