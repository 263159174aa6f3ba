"""Many layers of different length q as few factors: Gauss quadrature over the layers.

A layer enters a free product through ln T(M; q), smooth in x = ln(√q + 1/2). The sum over layers is an integral over
their distribution in x; its Gauss rule, exact for polynomials of degree 2n - 1, makes it n factors to positive real
powers: layers of lengths between those that occur, each counted so many times.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.theory.free.branch import ConvergenceError
from rmtbn.theory.free.factors import Factor
from rmtbn.theory.slope_law import slope_factor

Array = NDArray[np.float64]

SIZES = (6, 8, 12, 16, 24, 32, 48, 64)  # numbers of factors that are tried
LENGTHS = 256  # different ones at most where each keeps its own factor
ACCURACY = 1e-11  # of the mean of ln ζ over the layers
_OFFSET = 0.5  # next to q = 0, where ln T is a power series in √q, x is linear in √q
_PROBES = np.array([-8.0, -2.0, 0.0, 2.0, 5.0, 8.0])  # ln |t| on the negative axis, where two rules are compared


def slope_factors(activation: Activation, q: Array, counts: Array) -> list[tuple[Factor, float]]:
    """Make the factors of φ′(h)², of mean 1, with their powers, for layers of different lengths.

    Parameters
    ----------
    activation
        Record of φ.
    q, counts
        Different lengths, >= 0, and how many layers have each; shape (lengths,).

    Raises
    ------
    InvalidArgumentError
        If φ′ vanishes on an interval, varies elsewhere, and there are more than 256 lengths.
    """

    def centred(length: float) -> Factor:
        return slope_factor(activation, length).centred()

    if activation.slopes is None and q.size > SIZES[0]:
        if min(centred(float(length)).rank for length in (q.min(), q.max())) == 1:
            return few_factors(q, counts, factor=centred)
        if q.size > LENGTHS:  # a mass at zero that changes with the layer is that of layers that occur
            raise _checks.fail("q0", f"such that layers have {LENGTHS} lengths at most (φ′ = 0 on intervals)", q.size)
    return [(centred(float(x)), float(n)) for x, n in zip(q, counts, strict=True)]


def few_factors(q: Array, counts: Array, *, factor: Callable[[float], Factor]) -> list[tuple[Factor, float]]:
    """Replace layers by few factors with real powers.

    Parameters
    ----------
    q, counts
        Different lengths, >= 0, and how many layers have each; shape (lengths,).
    factor
        q ↦ the factor of one layer, of mean 1, without atoms and with no mass at zero.

    Returns
    -------
    list
        Pairs of a factor and its power.

    Raises
    ------
    ConvergenceError
        If 64 factors do not suffice.
    """
    last = np.full(_PROBES.shape, np.inf)
    for size in SIZES:
        lengths, powers = _gauss(q, counts, size=size)
        factors = [factor(float(length)) for length in lengths]
        mean = powers @ np.stack([_probe(one) for one in factors]) / powers.sum()
        if q.size <= size or np.abs(mean - last).max() < ACCURACY:
            return list(zip(factors, powers.tolist(), strict=True))
        last = mean
    raise ConvergenceError(f"{q.size} lengths from {q.min():.3g} to {q.max():.3g} are not resolved by {size} factors")


def _gauss(q: Array, counts: Array, *, size: int) -> tuple[Array, Array]:
    """Compute nodes and weights of the Gauss rule by Lanczos' method (Gautschi 2004, section 2.2.3)."""
    if q.size <= size:
        return q, counts
    x = np.log(np.sqrt(q) + _OFFSET)
    total = float(counts.sum())
    basis, diagonal, beside = np.empty((size, q.size)), np.empty(size), np.empty(size)
    vector = np.sqrt(counts / total)
    for k in range(size):
        basis[k] = vector
        image = x * vector
        diagonal[k] = vector @ image
        for _ in range(2):  # twice is enough to keep the basis orthogonal
            image = image - basis[: k + 1].T @ (basis[: k + 1] @ image)
        beside[k] = np.linalg.norm(image)
        vector = image / beside[k]
    nodes, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1))
    return (np.exp(nodes) - _OFFSET) ** 2, total * vectors[0] ** 2


def _probe(factor: Factor) -> Array:
    """Ln |ζ| where t is real and negative."""
    if factor.law is None:  # d = 1, and t = 1/ζ
        return -_PROBES
    return factor.law.real_preimage(_PROBES - 1j * np.pi).real
