"""Second moments, correlations and gradients of wide residual networks at initialisation, x^l = x^{l-1} + α f^l.

Model: f is m layers, each φ (after batch normalisation, or none) and then a weight matrix with independent entries of
variance σ_w²/N and biases of variance σ_b²; or it begins with the weight matrix (m weight matrices, m - 1 times φ), as
in Yang & Schoenholz 2017, arXiv:1712.08969. The last matrix has mean 0 and is independent of x, so second moments add,

    q^l = q^{l-1} + α² q_f(q^{l-1}),        ‖∂ℓ/∂x^{l-1}‖² = ‖∂ℓ/∂x^l‖² (1 + α² χ_f(q^{l-1})),

where q_f is the branch's length map and χ_f the product of its χ₁. Without norm and at He's scale the branch of a
rectifier has q_f = q and χ_f = 1, so that both grow as (1 + α²)^l: 2^l for α = 1, at most e for α = 1/√L, not at all
for α = 0 (SkipInit: De & Smith 2020, arXiv:2002.10444; Fixup: Zhang et al. 2019, arXiv:1901.09321, whose last matrix
starts at 0).

With batch normalisation the branch has the same length whatever q is, so q grows by a constant per layer (l + 1: De &
Smith, section 2), and since normalisation divides gradients by the spread of x over the batch, which grows as l,
gradients grow as the power (L/l)^λ of depth, λ = λ_G^m the explosion rate of the branch without the skip connection.
Derivation: docs/derivations/residual_moments.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.activations import activation as find_activation
from rmtbn.theory import bn_mean_field, moment_rules
from rmtbn.theory.length import variances

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualMoments:
    """Two inputs of equal length in a residual network; arrays of shape (depth + 1,), the input of block 1 first.

    Parameters
    ----------
    log_q
        Logarithm of the mean square of x^l.
    decorrelation
        1 - c of the two inputs' x^l.
    log_gradient
        Logarithm of ‖∂ℓ/∂x^l‖²/‖∂ℓ/∂x^L‖²; 0 at the end.
    branch_share
        Share of the branch in the mean square of x^l, in [0, 1]; 0 at the input.
    """

    log_q: Array
    decorrelation: Array
    log_gradient: Array
    branch_share: Array


def block_scale(scheme: str, *, depth: int) -> float:
    """Return the factor α of the branch at initialisation.

    Parameters
    ----------
    scheme
        "none": 1. "depth": 1/√L. "skipinit" and "fixup": 0 (a learnable α, or a last matrix, that starts at 0).
    depth
        Number of blocks L, >= 1.
    """
    return BLOCK_SCALES[_checks.one_of("scheme", scheme, BLOCK_SCALES)](_checks.integer("depth", depth, at_least=1))


def fixup_factor(*, depth: int, branch_layers: int) -> float:
    """Return Fixup's factor L^{-1/(2m-2)} of the matrices of a branch but the last (arXiv:1901.09321, section 3).

    Parameters
    ----------
    depth
        Number of blocks L, >= 1.
    branch_layers
        Matrices m in a branch, >= 2.
    """
    depth = _checks.integer("depth", depth, at_least=1)
    return float(depth ** (-1 / (2 * _checks.integer("branch_layers", branch_layers, at_least=2) - 2)))


def residual_moments(
    activation: str | Activation,
    *,
    depth: int,
    sigma_w: float,
    sigma_b: float = 0.0,
    alpha: float = 1.0,
    branch_layers: int = 1,
    linear_first: bool = False,
    q0: float = 1.0,
    c0: float = 0.0,
) -> ResidualMoments:
    """Propagate two inputs through an unnormalised residual network of any depth.

    Parameters
    ----------
    activation
        Name or record of φ.
    depth
        Number of blocks L, >= 1.
    sigma_w, sigma_b
        Standard deviations of √N·W_ij and of the biases, >= 0.
    alpha
        Factor of the branch, for example `block_scale("depth", depth=L)`.
    branch_layers
        Weight matrices m in a branch, >= 1.
    linear_first
        Whether the branch begins with the weight matrix rather than with φ.
    q0, c0
        Mean square (> 0) and correlation of the inputs of the first block.

    Returns
    -------
    ResidualMoments
        All finite for a σ_b of 0 or more at any depth.

    Raises
    ------
    InvalidArgumentError
        If an argument is out of range.
    """
    record, depth = find_activation(activation), _checks.integer("depth", depth, at_least=1)
    layers = _checks.integer("branch_layers", branch_layers, at_least=1)
    with np.errstate(divide="ignore"):
        log_scale = np.log(np.square(_checks.real("alpha", alpha)))
    branch = _branch(record, depth * layers, sigmas=(sigma_w, sigma_b), layers=layers, linear_first=linear_first)
    log_q = np.log([_checks.real("q0", q0, above=0.0)])
    d = np.array([1 - _checks.real("c0", c0, at_least=-1.0, at_most=1.0)])
    rows = [(log_q[0], d[0], 0.0, 0.0)]
    for _ in range(depth):
        log_added, branch_d, log_chi = branch(log_q, d)
        after = np.logaddexp(log_q, log_scale + log_added)
        share = np.exp(log_scale + log_added - after)
        log_q, d = after, (1 - share) * d + share * branch_d
        rows.append((log_q[0], d[0], np.logaddexp(0.0, log_scale + log_chi)[0], share[0]))
    return _result(*np.array(rows).T)


def batch_norm_residual_moments(
    activation: str | Activation,
    *,
    depth: int,
    batch_size: float,
    sigma_w: float,
    alpha: float = 1.0,
    branch_layers: int = 1,
    q0: float = 1.0,
    c0: float = 0.0,
) -> ResidualMoments:
    """Propagate a batch through a residual network whose branches begin with batch normalisation.

    With the fixed point q*, c* of a branch and b = α²σ_w² q*: q^l = q⁰ + l b, the spread over the batch
    s_l = q⁰(1 - c⁰) + l b (1 - c*), and squared gradients grow by 1 + λ_G^m b (1 - c*)/s_{l-1} over block l, that is as
    (L/l)^{λ_G^m} in depth.

    Parameters
    ----------
    activation
        Name or record of φ.
    depth
        Number of blocks L, >= 1.
    batch_size
        B >= 4; math.inf allowed.
    sigma_w
        Standard deviation of √N·W_ij, > 0 (there are no biases).
    alpha
        Factor of the branch.
    branch_layers
        Layers m of normalisation, φ and weights in a branch, >= 1.
    q0, c0
        Mean square (> 0) and correlation (below 1) of the inputs of the first block over the batch.
    """
    depth, layers = (_checks.integer(k, v, at_least=1) for k, v in (("depth", depth), ("branch_layers", branch_layers)))
    point = bn_mean_field.fixed_point(activation, batch_size=batch_size)
    added = (_checks.real("alpha", alpha) * _checks.real("sigma_w", sigma_w, above=0.0)) ** 2 * point.q
    start, blocks = _checks.real("q0", q0, above=0.0), np.arange(depth + 1)
    q = start + added * blocks
    spread = start * (1 - _checks.real("c0", c0, at_least=-1.0, below=1.0)) + added * (1 - point.c) * blocks
    rate = point.explosion_rate**layers * added * (1 - point.c)
    steps = np.concatenate([[0.0], np.log1p(rate / spread[:-1])])
    return _result(np.log(q), spread / q, steps, np.where(blocks > 0, added / q, 0.0))


def _result(log_q: Array, d: Array, log_growth: Array, share: Array) -> ResidualMoments:
    """Add up the growth of gradients from the end."""
    gradient = np.append(np.cumsum(log_growth[:0:-1])[::-1], 0.0)
    return ResidualMoments(log_q=log_q, decorrelation=d, log_gradient=gradient, branch_share=share)


def _branch(
    record: Activation, evaluations: int, *, sigmas: tuple[float, float], layers: int, linear_first: bool
) -> Callable[[Array, Array], tuple[Array, Array, Array]]:
    """Return the branch as a function of log q and d: its log length, 1 - c and log χ."""
    with np.errstate(divide="ignore"):
        log_weight, log_bias = (np.log(v) for v in variances(*sigmas))
    gain, slope = moment_rules.log_gain(record, evaluations), moment_rules.log_slope(record, evaluations)
    lost = moment_rules.lost_share(record, evaluations)

    def weighed(log_q: Array, d: Array) -> tuple[Array, Array]:
        after = np.logaddexp(log_weight + log_q, log_bias)
        return after, np.exp(log_weight + log_q - after) * d

    def branch(log_q: Array, d: Array) -> tuple[Array, Array, Array]:
        log_chi = np.full_like(log_q, layers * log_weight)
        if linear_first:
            log_q, d = weighed(log_q, d)
        for _ in range(layers - linear_first):
            log_chi = log_chi + slope(log_q)
            log_q, d = weighed(log_q + gain(log_q), lost(log_q, d))
        return log_q, d, log_chi

    return branch


BLOCK_SCALES: Mapping[str, Callable[[int], float]] = MappingProxyType(
    {"none": lambda _: 1.0, "depth": lambda depth: depth**-0.5, "skipinit": lambda _: 0.0, "fixup": lambda _: 0.0}
)
