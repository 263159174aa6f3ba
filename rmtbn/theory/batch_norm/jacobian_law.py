"""The law of the squared singular values of the batch Jacobian on 1^⊥.

J = d(G x^L)/dx⁰ of L layers x = φ(BN(W x)) is a product of factors that are block diagonal over features, M = G D P/σ,
and of I ⊗ W. For N → ∞ at fixed B they are free, so that λ follows the free product of L copies of the law of Mᵀ M and,
for Gaussian weights, of L Marchenko–Pastur laws. Derivation: docs/derivations/batch_norm_jacobian.md.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtbn import _checks
from rmtbn.result import SpectralMeasure
from rmtbn.theory.batch_norm.layer_law import LayerLaw
from rmtbn.theory.free import chain as chains
from rmtbn.theory.free import factors
from rmtbn.theory.free.branch import Chart
from rmtbn.theory.free.branch_bulk import BranchBulk
from rmtbn.theory.free.bulk import Bulk
from rmtbn.theory.free.chain import Placed
from rmtbn.theory.free.curve import SpectralCurve
from rmtbn.theory.free.edges import anchors
from rmtbn.theory.free.factor_bulk import FactorBulk
from rmtbn.theory.free.panel_law import PanelLaw
from rmtbn.theory.free.series import log_inverse_series, moments_of_log_series
from rmtbn.theory.free_probability import FreeProductLaw

Array = NDArray[np.float64]

WEIGHTS = ("gaussian", "orthogonal")
ROUNDING = 1e-9  # of the law of a product, given that of its layers


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchJacobianLaw(SpectralMeasure):
    """Law of λ of the batch Jacobian of a deep batch-normalised network, restricted to 1^⊥.

    Parameters
    ----------
    activation, batch_size, depth, weights
        φ by name, B, L, and "gaussian" or "orthogonal".
    explosion_rate
        λ_G; E λ = λ_G^L.
    layer
        The law of one layer without its weights.
    product
        The law for N → ∞; its upper edge is where its density is negligible, for the law itself has none.
    """

    activation: str
    batch_size: int
    depth: int
    weights: str
    explosion_rate: float
    layer: LayerLaw
    product: FreeProductLaw

    @property
    def accuracy(self) -> float:
        """Relative of the density near the middle of the law, absolute of the distribution function.

        Measured on the law of one layer; the product's is as good or better.
        """
        return max(ROUNDING, self.layer.directions.accuracy)

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Zero only, of mass 1/n and more: every layer cuts the direction of scale of each feature."""
        return self.product.atoms

    @property
    def log_bulk(self) -> tuple[float, float]:
        """From -inf to inf."""
        return -math.inf, math.inf

    @property
    def whole_zero_share(self) -> float:
        """Share of zeros of the whole B·N × B·N matrix at ε → 0, (1, …, 1) included: (1 + n · mass at 0)/B."""
        return (1 + (self.batch_size - 1) * self.product.atoms[0][1]) / self.batch_size

    def log_pdf_log(self, log_lam: ArrayLike) -> Array:
        """Log density of log λ."""
        return self.product.log_pdf_log(log_lam)

    def cdf_log(self, log_lam: ArrayLike) -> Array:
        """P(log λ' <= log_lam), zeros included."""
        return self.product.cdf_log(log_lam)

    def log_ppf(self, p: ArrayLike) -> Array:
        """Quantiles of log λ; inf at p = 1."""
        p = _checks.probabilities(p)
        return np.where(p == 1, math.inf, self.product.log_ppf(p))

    def moment(self, k: int) -> float:
        """E λ^k, from those of one layer; inf for k >= (B - 1)/2.

        The first is λ_G^L; the second over its square 1 + L(v_D + v_W), v_D = m₂/m₁² - 1 of one layer, v_W = 1 for
        Gaussian and 0 for orthogonal weights.
        """
        k = _checks.integer("k", k, at_least=0)
        if k == 0:
            return 1.0
        log_size = k * self.depth * math.log(self.explosion_rate)
        if k >= (self.batch_size - 1) / 2 or log_size > 700:
            return math.inf
        relative = [self.layer.moment(j) / self.explosion_rate**j for j in range(1, k + 1)]
        own = np.array(log_inverse_series(relative), dtype=np.float64)
        powers = np.arange(1, k)
        outer = -((-1.0) ** powers) / powers  # ln(1 + M)
        growth = self.depth * own + (1 - self.depth * (self.weights == "orthogonal")) * outer
        return float(moments_of_log_series([0.0, *growth], order=k)[-1]) * math.exp(log_size)

    def log_moment(self, k: int = 1) -> float:
        """-inf or inf, because of the zeros."""
        return self.product.log_moment(k)


def batch_jacobian_law(layer: LayerLaw, *, activation: str, depth: int, weights: str) -> BatchJacobianLaw:
    """Multiply layers.

    Parameters
    ----------
    layer
        The law of one of them.
    activation
        Name of φ, for the record.
    depth
        Number L of layers.
    weights
        "gaussian" or "orthogonal".
    """
    chain = [Placed(factor=layer.factor, count=depth)]
    if weights == "gaussian":
        chain.append(Placed(factor=factors.gaussian(), count=depth))
    curve = chains.spectral_curve(chain)
    product = FreeProductLaw(curve=curve, bulk=(_bulk(curve, depth=depth),), log_atoms=())
    return BatchJacobianLaw(
        activation=activation,
        batch_size=layer.batch_size,
        depth=depth,
        weights=weights,
        explosion_rate=layer.explosion_rate,
        layer=layer,
        product=product,
    )


def _bulk(curve: SpectralCurve, *, depth: int) -> Bulk:
    """Return the density, on a half line that ends where it is negligible."""
    law = curve.factors[0].law
    if curve.is_one_factor and isinstance(law, PanelLaw):
        return FactorBulk(law=law, log_scale=curve.log_mean)
    end = curve.log_mean + law.span[1] + 2 * math.log1p(depth)
    return BranchBulk(
        curve=curve,
        interval=Chart(low=-math.inf, high=end),
        anchors=anchors(curve),
        start=1.0 - curve.rank,
        content=curve.rank,
    )
