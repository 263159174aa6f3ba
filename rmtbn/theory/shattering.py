"""Correlation of the gradients at two inputs of deep ReLU networks, over networks: how fast they shatter with depth.

Networks of L hidden layers or blocks, wide, He's scale, without biases, gradients with respect to the input:

- "plain": h ← W φ(h), φ once more at the end; "residual": x ← x + W φ(x);
- "plain_batch", "residual_batch": the same with batch normalisation in front of φ, its statistics held fixed.

Balduzzi et al. 2017 (arXiv:1702.08591) take units as active at both inputs with probability 1/4, at every layer: 2^-L,
(3/4)^L, and with batch normalisation, the variance of the stream being l + 1, Γ(L + 3/2)/(Γ(3/2)Γ(L + 2)) ≈ 1.13/√L.
But without normalisation the two inputs come closer at every layer, and with it the stream's variance grows by 1 - 1/π
per block, as the mean is taken out: `gradient_correlation` and `batch_gradient_correlation` count that. Proofs:
docs/derivations/shattering.md.
"""

import math

import numpy as np
from scipy.special import gammaln

from rmtbn import _checks

BLOCKS = ("plain", "residual", "plain_batch", "residual_batch")


def balduzzi_correlation(block: str, *, depth: int) -> float:
    """Return the correlation if units are active at both inputs with probability 1/4 at every layer.

    Parameters
    ----------
    block
        "plain", "residual", "plain_batch" or "residual_batch".
    depth
        L, number of hidden layers or of blocks, >= 0.

    Returns
    -------
    float
        Theorems 1 to 3 of arXiv:1702.08591: covariance over variance.

    Examples
    --------
    >>> balduzzi_correlation("plain", depth=3), balduzzi_correlation("residual", depth=2)
    (0.125, 0.5625)
    >>> round(balduzzi_correlation("residual_batch", depth=10_000) * 100, 2)  # 2/√π
    1.13
    """
    _checks.one_of("block", block, BLOCKS)
    depth = _checks.integer("depth", depth, at_least=0)
    if block == "residual_batch":
        return math.exp(gammaln(depth + 1.5) - gammaln(1.5) - gammaln(depth + 2))
    return float((0.75 if block == "residual" else 0.5) ** depth)


def gradient_correlation(block: str, *, depth: int, c: float = 0.0) -> float:
    """Return the correlation of the gradients at two inputs of a wide network without normalisation.

    Plain: ∏ J₀(c_l), c ← J₁(c); residual: ∏ (1 + J₀(c_l))/2, c ← (c + J₁(c))/2, with the arc-cosine kernels J₀ and J₁.

    Parameters
    ----------
    block
        "plain" or "residual".
    depth
        L, number of hidden layers or of blocks, >= 0.
    c
        Cosine of the two inputs, in [-1, 1].

    Raises
    ------
    InvalidArgumentError
        For an unknown block or numbers out of range.

    Examples
    --------
    >>> gradient_correlation("plain", depth=1), gradient_correlation("residual", depth=1)
    (0.5, 0.75)
    >>> round(gradient_correlation("plain", depth=10), 4)  # 2^-10 would be .001
    0.0337
    """
    skip = _checks.one_of("block", block, BLOCKS[:2]) == "residual"
    depth = _checks.integer("depth", depth, at_least=0)
    c, value = _checks.real("c", c, at_least=-1.0, at_most=1.0), 1.0
    for _ in range(depth):
        together, signal = _arc_cosines(c)
        value *= (1 + together) / 2 if skip else together
        c = (c + signal) / 2 if skip else signal
    return value


def batch_gradient_correlation(block: str, *, depth: int, batch_size: float = math.inf) -> float:
    """Return the correlation of the gradients at two inputs of one batch of independent inputs, of a wide network.

    Less the batch mean, two of B inputs have the correlation c₀ = -1/(B - 1) at every layer. Plain: J₀(c₀)^L; residual:
    ∏ (s_l + κJ₀(c₀))/(s_l + κ), s_l = 1 + l (1 - J₁(c₀)) the batch variance of the stream, 1 at the input, and
    κ = (B - 1)/(B - 3), s_l times the mean of 1/s over units, whose (unbiased) batch variances s are s_l χ²/(B - 1).

    Parameters
    ----------
    block
        "plain_batch" or "residual_batch".
    depth
        L, number of hidden layers or of blocks, >= 0.
    batch_size
        B > 3, `math.inf` allowed. Right to first order in 1/B.

    Raises
    ------
    InvalidArgumentError
        For an unknown block or numbers out of range.

    Examples
    --------
    >>> batch_gradient_correlation("plain_batch", depth=3), batch_gradient_correlation("residual_batch", depth=1)
    (0.125, 0.75)
    """
    skip = _checks.one_of("block", block, BLOCKS[2:]) == "residual_batch"
    depth = _checks.integer("depth", depth, at_least=0)
    if not batch_size > 3:
        raise _checks.fail("batch_size", "above 3", batch_size)
    together, signal = _arc_cosines(-1 / (batch_size - 1))
    if not skip:
        return together**depth
    variance = 1 + np.arange(depth) * (1 - signal)
    kappa = 1 + 2 / (batch_size - 3)
    return float(np.exp(np.log1p(kappa * (together - 1) / (variance + kappa)).sum()))


def _arc_cosines(c: float) -> tuple[float, float]:
    """J₀(c), J₁(c): 2E[φ′φ′] and 2E[φφ] of ReLU at unit Gaussians of correlation c (Cho & Saul 2009)."""
    c = min(1.0, max(-1.0, c))
    angle = math.acos(c)
    return (math.pi - angle) / math.pi, (math.sqrt(1 - c * c) + (math.pi - angle) * c) / math.pi
