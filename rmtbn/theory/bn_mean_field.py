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

The batch Jacobian, B·N × B·N, has a law too: `batch_jacobian_law`, with its zeros and the share of its per-sample
blocks (docs/derivations/batch_norm_jacobian.md).
"""

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.activations import activation as find_activation
from rmtbn.theory.batch_norm import jacobian_law, shares, uncentred
from rmtbn.theory.batch_norm.affine import affine
from rmtbn.theory.batch_norm.fixed_point import FixedPoint, is_infinite, normalised
from rmtbn.theory.batch_norm.independent import independent
from rmtbn.theory.batch_norm.jacobian_law import BatchJacobianLaw
from rmtbn.theory.batch_norm.layer_law import layer_law
from rmtbn.theory.batch_norm.stabilised import stabilised

__all__ = [
    "BatchJacobianLaw",
    "FixedPoint",
    "batch_jacobian_law",
    "block_share",
    "fixed_point",
    "from_quadrature",
    "uncentred_fixed_point",
    "zero_share",
]

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
    All else is by quadrature on the sphere: to 1e-12 at ε = 0, to 1e-7 at ε > 0.

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
    >>> round(uncentred_fixed_point("linear", batch_size=6).explosion_rate, 12)
    1.25
    """
    return uncentred.uncentred(find_activation(activation), _checks.integer("batch_size", batch_size, at_least=3))


def batch_jacobian_law(
    activation: str | Activation,
    *,
    batch_size: float,
    depth: int,
    weights: str = "gaussian",
    gamma: float = 1.0,
    beta: float = 0.0,
) -> BatchJacobianLaw:
    """Compute the law of λ, the squared singular values of d(G x^L)/dx⁰ on 1^⊥, of dimension n = B - 1 per unit.

    The whole matrix has further zeros: see `zero_share`. For N → ∞ at fixed B; at B = N the KS distance of a network is
    some 0.06. The input has spread s = q*(1 - c*) over the batch, as have all later layers; an input of spread s₀
    multiplies λ by s/s₀.

    Parameters
    ----------
    activation
        Name or record of φ.
    batch_size
        B, an integer >= 4. Moments of order (B - 1)/2 and above are infinite.
    depth
        Number L of layers, 1 to 10,000.
    weights
        "gaussian" (any independent entries of variance 1/N) or "orthogonal" (Haar).
    gamma, beta
        Scale (not 0) and shift of batch normalisation.

    Returns
    -------
    BatchJacobianLaw
        For φ other than linear the law of one layer comes from a fixed sample; `accuracy` says how good it is.

    Raises
    ------
    InvalidArgumentError
        If an argument is out of its range.

    Examples
    --------
    >>> law = batch_jacobian_law("linear", batch_size=8, depth=3)
    >>> round(law.atoms[0][1] * 7, 9), round(law.moment(1), 9), round(law.moment(2) / law.moment(1) ** 2, 9)
    (1.0, 1.728, 6.833333333)
    """
    phi = affine(find_activation(activation), gamma=gamma, beta=beta)
    depth = _checks.integer("depth", depth, at_least=1, at_most=10_000)
    weights = _checks.one_of("weights", weights, jacobian_law.WEIGHTS)
    layer = layer_law(phi, batch_size=whole_batch(batch_size))
    return jacobian_law.batch_jacobian_law(layer, activation=phi.name, depth=depth, weights=weights)


def block_share(activation: str | Activation, *, batch_size: int, depth: int) -> float:
    """Compute the share of ‖J‖_F² of the batch Jacobian in its per-sample diagonal blocks.

    It is 1/B + (x₁ - 1/B)(λ_L/λ_G)^{L-1}, x₁ = E[φ′²P_ii²]/E[φ′²P_ii]: in a deep network the blocks miss (B-1)/B of it.
    For linear φ 1/B + (1 - 2/B) ρ^L, ρ = (n²-2)/((n+2)(n-1)), n = B - 1.

    Parameters
    ----------
    activation
        Name or record of φ.
    batch_size
        B >= 4.
    depth
        Number of layers L, >= 1.
    """
    depth = _checks.integer("depth", depth, at_least=1)
    return shares.block_share(find_activation(activation), whole_batch(batch_size), depth=depth)


def zero_share(activation: str | Activation, *, batch_size: int, eps: float = 0.0) -> float:
    """Compute the share of zeros of the whole batch Jacobian, B·N × B·N, at any depth.

    Linear: 2/B as ε → 0; ReLU: ½ + P₁/B, P₁ the probability that exactly one of the B values of a feature is negative.
    At ε > 0 the direction of scale is no zero: one layer passes it with the singular value ε/(v + ε)^{3/2}, v the
    variance of the feature (1e-5 at v = 1 and torch's ε). Then linear has 1/B and ReLU ½.

    Parameters
    ----------
    activation
        Name or record of φ.
    batch_size
        B >= 4.
    eps
        ε >= 0; only whether it is 0 matters.

    Examples
    --------
    >>> zero_share("linear", batch_size=8), zero_share("linear", batch_size=8, eps=1e-5)
    (0.25, 0.125)
    """
    eps = _checks.real("eps", eps, at_least=0.0)
    return shares.zero_share(find_activation(activation), whole_batch(batch_size), eps=eps)
