"""The law of λ of one network, given what its layers are by chance: their ranks, or their lengths.

Model: J = D_L W_L ... D_1 W_1, all N × N. In the limit of infinite width every layer passes the same share p of its
directions and has the length q_l that the mean field says. In a network of finite width n_l, the number of units with
φ′ ≠ 0, is binomial, and q_l scatters by 1/√N: the law for the layers as they are is a free product too,

    ln z = ln((1 + M)/M) + Σ_l ln T_W(M) + Σ_l ln T_l(M),

T_l that of a projection of trace n_l/N (φ′ ∈ {0, 1}), or of φ′(h)², h ~ N(0, q_l). J has the rank of its narrowest
layer, so that zeros leave the free law by the order of 1/√N at depth. Derivation: docs/derivations/layer_ranks.md.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.activations import activation as find_activation
from rmtbn.theory.free import factors
from rmtbn.theory.free.chain import Placed
from rmtbn.theory.free.factors import Factor
from rmtbn.theory.free_probability import FreeProductLaw, parts
from rmtbn.theory.layer_groups import slope_factors
from rmtbn.theory.length import dphi_second_moment

WEIGHTS = ("gaussian", "orthogonal")


def law_given_ranks(shares: Sequence[float], *, weights: str, sigma_w: float) -> FreeProductLaw:
    """Compute the law of λ of a square network, φ′ ∈ {0, 1}, for given ranks of its layers.

    Parameters
    ----------
    shares
        n_l/N, the share of active units of each layer, 0 < n_l/N <= 1.
    weights
        "gaussian" (any independent entries) or "orthogonal".
    sigma_w
        Standard deviation of √N·W_ij, > 0.

    Returns
    -------
    FreeProductLaw
        With an atom of mass 1 - min_l n_l/N at zero.

    Raises
    ------
    InvalidArgumentError
        If an argument is out of its range.

    Examples
    --------
    >>> law = law_given_ranks([0.5, 0.4], weights="gaussian", sigma_w=1.0)
    >>> [(lam, round(mass, 12)) for lam, mass in law.atoms], round(law.moment(1), 12)
    ([(0.0, 0.6)], 0.2)
    """
    if len(shares) == 0:
        raise _checks.fail("shares", "one number per layer, one or more", shares)
    kept = Counter(_checks.real("shares", share, above=0.0, at_most=1.0) for share in shares)
    chain = [_weights(weights, sigma_w, count=len(shares))]
    chain += [Placed(factor=factors.bernoulli(share), count=count) for share, count in kept.items()]
    return _law(chain)


def law_given_lengths(
    activation: str | Activation, q: ArrayLike, *, weights: str = "gaussian", sigma_w: float
) -> FreeProductLaw:
    """Compute the law of λ of a square network for given lengths of its layers.

    Parameters
    ----------
    activation
        Name or record of φ.
    q
        Mean squares q_l of the pre-activations, >= 0, shape (depth,).
    weights
        "gaussian" (any independent entries) or "orthogonal".
    sigma_w
        Standard deviation of √N·W_ij, > 0.

    Raises
    ------
    InvalidArgumentError
        If an argument is out of its range.

    Examples
    --------
    >>> law = law_given_lengths("tanh", [0.5, 0.7], sigma_w=1.3)
    >>> law.atoms, round(law.moment(1), 6)
    ((), 0.895957)
    """
    record, lengths = find_activation(activation), _checks.array("q", q, at_least=0.0)
    if lengths.ndim != 1 or lengths.size == 0 or not np.isfinite(lengths).all():
        raise _checks.fail("q", "one finite number per layer, one or more", q)
    distinct, times = np.unique(lengths, return_counts=True)
    counts = times.astype(float)
    log_mean = float(counts @ np.log(dphi_second_moment(distinct, record)))
    chain = [
        _weights(weights, sigma_w, count=lengths.size),
        Placed(factor=Factor(log_mean=log_mean, atoms=((log_mean, 1.0),))),
    ]
    chain += [Placed(factor=factor, count=count) for factor, count in slope_factors(record, distinct, counts)]
    return _law(chain)


def zero_share(p: float, *, width: int, depth: int) -> float:
    """Compute E[1 - min_l n_l/N] for independent n_l ~ Bin(N, p), exactly, by Σ_k P(Bin >= k)^L.

    Parameters
    ----------
    p
        Probability that a unit is active, 0 <= p <= 1.
    width, depth
        N and L, >= 1.

    Examples
    --------
    >>> round(zero_share(0.5, width=100, depth=8), 4)  # the free law has 0.5
    0.571
    """
    p = _checks.real("p", p, at_least=0.0, at_most=1.0)
    n, layers = _checks.integer("width", width, at_least=1), _checks.integer("depth", depth, at_least=1)
    return float(1 - np.sum(stats.binom.sf(np.arange(n), n, p) ** layers) / n)


def _weights(weights: str, sigma_w: float, *, count: int) -> Placed:
    """W Wᵀ of `count` layers."""
    variance = _checks.real("sigma_w", sigma_w, above=0.0) ** 2
    haar = _checks.one_of("weights", weights, WEIGHTS) == "orthogonal"
    return Placed(factor=factors.constant(variance) if haar else factors.gaussian(variance), count=count)


def _law(chain: list[Placed]) -> FreeProductLaw:
    curve, bulk, log_atoms = parts(chain, start=1.0)
    return FreeProductLaw(curve=curve, bulk=bulk, log_atoms=log_atoms)
