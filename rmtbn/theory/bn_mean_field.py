"""Mean field of wide batch-normalised networks: the batch covariance, its stability, and the explosion of gradients.

Model (Yang et al. 2019, arXiv:1902.08129): h = W x without bias, u = BN(h) over a batch of B examples (biased
variance), x = φ(u), N → ∞, W_ij of variance σ_w²/N. For ε = 0 the vector of one feature over the batch, u/√B, is
uniform on the unit sphere orthogonal to (1, …, 1), of dimension n = B - 1; so one layer lands on the fixed point from
any covariance of that form, and σ_w does not matter. With s = q*(1 - c*), D = diag φ′(u), G = I - 11ᵀ/B and P = G -
uuᵀ/B, the squared gradient norm grows per layer, towards the input, by

    λ_G = B/(s (B - 3)(B - 1)) · E tr[P D G D],        → E φ′(z)² / Var φ(z) for B → ∞.

Three routes give λ_G and agree to 1e-8: quadrature on the sphere (`from_quadrature`, any φ), a sum over Gegenbauer
polynomials (`batch_norm.gegenbauer.explosion_rate`, smooth φ) and closed forms (`batch_norm.rectifier`, φ of two
slopes). Derivation: docs/derivations/batch_norm_mean_field.md.

Where it holds: linear φ needs B² ≪ 4N, beyond which there is no constant rate; ReLU is within 0.5 % at B = N … 2N.
At B = 3 the rate diverges: E 1/σ² is infinite. At B = 2 every feature is ±1, and no gradient passes but for ε. For B
<= 5 the one-layer estimate of λ_G from a network has infinite variance. The first and the last layer differ.
"""

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.activations import activation as find_activation
from rmtbn.theory.batch_norm import uncentred
from rmtbn.theory.batch_norm.affine import affine
from rmtbn.theory.batch_norm.fixed_point import FixedPoint, is_infinite, normalised
from rmtbn.theory.batch_norm.independent import independent
from rmtbn.theory.batch_norm.stabilised import stabilised

__all__ = ["FixedPoint", "fixed_point", "from_quadrature", "uncentred_fixed_point"]

LEAST_BATCH = "an integer >= 4 (at 3 the rate diverges, at 2 no gradient passes) or infinity"


def fixed_point(
    activation: str | Activation,
    *,
    batch_size: float,
    gamma: float = 1.0,
    beta: float = 0.0,
    eps: float = 0.0,
    sigma_w: float = 1.0,
) -> FixedPoint:
    """Find the fixed point for a batch of `batch_size` examples, and the eigenvalues of a layer there.

    Linear, ReLU and leaky ReLU have q*, c* and λ_G in closed form at ε = β = 0: λ_G = (B-2)/(B-3) for linear and (B - 2
    + J₀ + J₁)/((B-3)(1 - J₁)) for ReLU, J₀ = (π - arccos c₀)/π, J₁ = (√(1-c₀²) + (π - arccos c₀) c₀)/π, c₀ = -1/(B-1).
    All else is by quadrature on the sphere: to 1e-12 at ε = 0; to 1e-8 at ε > 0, or 1e-6 where φ has kinks off 0.

    Parameters
    ----------
    activation
        Name or record of φ.
    batch_size
        B, an integer >= 4, or `math.inf` for the limit.
    gamma, beta
        Scale (not 0) and shift of batch normalisation, the same for all features: φ(γ u + β).
    eps
        ε >= 0 under the root; torch's default is 1e-5. Of several fixed points at ε > 0 the one of largest spread.
    sigma_w
        Standard deviation of √N·W_ij, > 0; it matters only with ε > 0.

    Returns
    -------
    FixedPoint

    Raises
    ------
    InvalidArgumentError
        For B < 4 or an argument out of range, or where ε is so large that the spread over the batch dies out.

    Examples
    --------
    >>> round(fixed_point("relu", batch_size=float("inf")).explosion_rate, 6)  # π/(π - 1)
    1.466942
    >>> [fixed_point("gelu", batch_size=b).stable for b in (16, 64)]
    [True, False]
    """
    phi = affine(find_activation(activation), gamma=gamma, beta=beta)
    eps = _checks.real("eps", eps, at_least=0.0)
    sigma_w = _checks.real("sigma_w", sigma_w, above=0.0)
    if is_infinite(batch_size):
        return independent(phi, eps=eps, sigma_w=sigma_w)
    size = whole_batch(batch_size)
    return stabilised(phi, size, eps=eps, sigma_w=sigma_w) if eps > 0 else normalised(phi, size)


def from_quadrature(activation: str | Activation, *, batch_size: int) -> FixedPoint:
    """Find the fixed point at ε = 0 by quadrature alone, for any φ and B >= 4 (the general route of `fixed_point`)."""
    return normalised(find_activation(activation), whole_batch(batch_size), closed=False)


def whole_batch(batch_size: float) -> int:
    """Return B as an int >= 4."""
    whole = int(batch_size) if isinstance(batch_size, float) and batch_size.is_integer() else batch_size
    try:
        return _checks.integer("batch_size", whole, at_least=4)
    except _checks.InvalidArgumentError:
        raise _checks.fail("batch_size", LEAST_BATCH, batch_size) from None


def uncentred_fixed_point(activation: str | Activation, *, batch_size: int) -> uncentred.UncentredFixedPoint:
    """Find the fixed point of normalisation by the root mean square over the batch, without subtracting the mean.

    For odd φ a feature u/√B is uniform on the whole sphere of dimension B, c* = 0, and

        λ = (B E φ′² - E u²φ′²)/(q* (B - 2));     linear: (B - 1)/(B - 2).

    For other φ the batch covariance keeps a direction (1, …, 1) of its own size, and no such closed law is known here.

    Parameters
    ----------
    activation
        Name or record of an odd φ.
    batch_size
        B >= 3; at 2 the rate diverges.

    Raises
    ------
    InvalidArgumentError
        For a φ that is not odd, or B < 3.

    Examples
    --------
    >>> uncentred_fixed_point("linear", batch_size=6).explosion_rate
    1.25
    """
    return uncentred.uncentred(find_activation(activation), _checks.integer("batch_size", batch_size, at_least=3))
