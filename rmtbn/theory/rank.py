"""How effective rank and orthogonality of a batch change with depth: linear networks, ReLU, and batch normalisation.

For the outputs H of a layer, n rows (examples) of d units, K = H Hᵀ:

- soft rank (tr K)²/tr K² (Daneshmand et al. 2020, arXiv:2003.01652), `log_participation` in `rmtbn.measure.rank`;
- orthogonality gap g = ‖K/tr K - I/n‖_F (Daneshmand et al. 2021, arXiv:2106.03970); g² + 1/n is 1 over the soft rank;
- isometry gap ln[(tr K/n)/(det K)^{1/n}] (Meterez et al. 2023, arXiv:2310.02012).

Without normalisation the rank falls to 1. With batch normalisation that does not subtract the mean (those papers'), and
linear φ, the gap falls to a floor of order √(n/4d); so the soft rank stays near n up to n of about √d. torch's
normalisation subtracts the mean: its rows sum to 0, and the gap ends at 1/√(n(n-1)). Derivation:
docs/derivations/batch_norm_rank.md.
"""

import math

import numpy as np
from numpy.typing import NDArray

from rmtbn import _checks

Array = NDArray[np.float64]

# Limit of (1 - c_l) l² for ReLU at He's scale, where 1 - c′ = (1 - c) - (2√2/3π)(1 - c)^{3/2} + …
RELU_COLLAPSE = 4.5 * math.pi**2


def linear_soft_rank(initial: float, *, width: int, depth: int) -> Array:
    """Compute E (tr K)²/E tr K² after 0 … L layers of an unnormalised linear network of Gaussian weights.

    With weights of variance 1/d the two means obey

        (E tr K², E (tr K)²) ← [[1 + 1/d, 1/d], [2/d, 1]] (E tr K², E (tr K)²),

    of eigenvalues 1 + 2/d, where the rank is 1, and 1 - 1/d. Exact at any width; any other variance cancels.

    A ratio of means, which rare networks of large norm carry: the soft rank of a typical network falls three times more
    slowly.

    Parameters
    ----------
    initial
        Soft rank of the input, >= 1.
    width
        Units d of every layer.
    depth
        Number of layers L, >= 0.

    Returns
    -------
    Array
        Shape (depth + 1,); what exceeds 1 keeps its digits.

    Examples
    --------
    >>> linear_soft_rank(5.0, width=20, depth=400)[[0, 40, 400]].round(4)
    array([5.    , 1.0049, 1.    ])
    """
    initial = _checks.real("initial", initial, at_least=1.0)
    d, layers = _checks.integer("width", width, at_least=1), _layers(depth)
    with np.errstate(divide="ignore"):
        left = np.exp(layers * np.where(layers > 0, np.log((d - 1) / (d + 2)), 0.0))
    growing, falling = (2 + initial) / 3, (1 - initial) / 3
    return np.asarray(1 + (initial - 1) * left / (growing + falling * left))


def relu_soft_rank(correlation: float, *, examples: int, depth: int) -> Array:
    """Compute the soft rank n/(1 + (n-1)c²) of n inputs of equal lengths and correlations in a wide ReLU network.

    At He's scale 1 - c falls as 9π²/(2 l²) with the layer l, so that the rank falls to 1.

    Parameters
    ----------
    correlation
        c of any two inputs, in [-1/(n-1), 1].
    examples
        n, >= 2.
    depth
        Number of layers L, >= 0.

    Returns
    -------
    Array
        Shape (depth + 1,).
    """
    n, layers = _checks.integer("examples", examples, at_least=2), _layers(depth)
    lost = [1 - _checks.real("correlation", correlation, at_least=-1 / (n - 1), at_most=1.0)]
    for _ in layers[1:]:
        angle = 2 * math.asin(math.sqrt(lost[-1] / 2))
        lost.append((1 - angle / math.pi) * lost[-1] + (angle - math.sin(angle)) / math.pi)  # 1 - J₁(c)
    return np.asarray(n / (1 + (n - 1) * (1 - np.array(lost)) ** 2))


def orthogonality_gap(initial: float, *, examples: int, width: int, depth: int) -> Array:
    """Compute the root mean square orthogonality gap after 0 … L layers of a linear network with uncentred BN.

    To first order in the gap one layer takes K/n - I/n by n/(n+2), and d features add their own noise:

        g_l² = f² + (g_0² - f²) (n/(n+2))^{2l},    f² = (n-1)(n+2)²/(4n(n+1)d).

    Parameters
    ----------
    initial
        Gap g_0 of the input with rows normalised over the batch, >= 0.
    examples, width
        n >= 2, and d; the floor f holds for n up to about 2√d, where the soft rank is half of n.
    depth
        Number of layers L, >= 0.

    Returns
    -------
    Array
        Shape (depth + 1,).
    """
    n, layers = _checks.integer("examples", examples, at_least=2), _layers(depth)
    start, floor = _checks.real("initial", initial, at_least=0.0), orthogonality_floor(examples=n, width=width)
    return np.asarray(np.sqrt(floor**2 + (start**2 - floor**2) * (n / (n + 2)) ** (2 * layers)))


def orthogonality_floor(*, examples: int, width: int) -> float:
    """Compute the stationary root mean square gap √((n-1)(n+2)²/(4n(n+1)d)) with uncentred BN and linear φ."""
    n, d = _checks.integer("examples", examples, at_least=2), _checks.integer("width", width, at_least=1)
    return math.sqrt((n - 1) * (n + 2) ** 2 / (4 * n * (n + 1) * d))


def stationary_soft_rank(*, examples: int, width: int) -> float:
    """Compute the stationary soft rank 1/(1/n + f²) with uncentred BN and linear φ; n/(1 + n²/4d) for large n.

    For n above 2√d the gap is no longer small and this is too low: the rank then stays near its largest value, √d.

    Examples
    --------
    >>> round(stationary_soft_rank(examples=16, width=1024), 2)
    14.96
    """
    return 1 / (1 / examples + orthogonality_floor(examples=examples, width=width) ** 2)


def centred_gap(*, batch_size: int) -> float:
    """Compute the least orthogonality gap of rows that sum to 0, 1/√(B(B-1)), at K = I - 11ᵀ/B."""
    size = _checks.integer("batch_size", batch_size, at_least=2)
    return 1 / math.sqrt(size * (size - 1))


def isometry_gap(initial: float, *, width: int, depth: int) -> Array:
    """Compute the isometry gap after 0 … L layers with uncentred BN, linear φ, Haar weights and n = d examples.

    It shrinks by d/(d+2) per layer, to first order in the gap: gaps near 1, of Gaussian inputs, shrink half as fast.

    Parameters
    ----------
    initial
        Gap of the input with columns normalised over the batch, >= 0; below 0.03 for a rate right to a tenth.
    width
        d, >= 1.
    depth
        Number of layers L, >= 0.

    Returns
    -------
    Array
        Shape (depth + 1,).
    """
    d = _checks.integer("width", width, at_least=1)
    return np.asarray(_checks.real("initial", initial, at_least=0.0) * (d / (d + 2)) ** _layers(depth))


def _layers(depth: int) -> Array:
    return np.arange(_checks.integer("depth", depth, at_least=0) + 1, dtype=np.float64)
