"""The explosion rate from Gegenbauer coefficients, for smooth φ.

φ(√n t) on the sphere has the orthogonal polynomials P_l of dimension n = B - 1 (P_l(1) = 1). With m_l its mass of
degree l, Σ m_l = E φ², and c₀ = -1/n,

    λ_G = Σ_l l(l+B-3) m_l (1 - P_l(c₀)) / [(B-3) Σ_l m_l (1 - P_l(c₀))],

for l(l+n-2) is the eigenvalue of the Laplacian (Yang et al. 2019, arXiv:1902.08129, section 5, in words). Each l counts
by l(l+B-3)/(B-3) >= (B-2)/(B-3), with equality for l = 1: affine φ explode least. For φ with kinks m_l falls as a power
of l, and a sum cut at any practical degree is 1 to 5 % short. Derivation: docs/derivations/batch_norm_mean_field.md.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.activations import activation as find_activation

Array = NDArray[np.float64]

DEGREES = 240  # m_l of tanh, whose poles are nearest, falls below 1e-20 of the whole before, for B = 4 … 1,000


def masses(phi: Activation, *, batch_size: int, degrees: int = DEGREES) -> tuple[Array, Array]:
    """Compute m_l and P_l(c₀) for l = 0 … degrees - 1, each of shape (degrees,).

    In the orthonormal polynomials of t multiplication by t is a Jacobi matrix T; the coefficients of φ(√n t) are the
    first column of φ(√n T), which is Gauss quadrature with as many nodes as degrees.
    """
    n, j = batch_size - 1, np.arange(1, degrees)
    order = n / 2 - 1
    beside = np.sqrt(j * (j + 2 * order - 1) / (4 * (j + order) * (j + order - 1)))
    nodes, vectors = linalg.eigh_tridiagonal(np.zeros(degrees), beside)
    t = np.asarray(nodes, dtype=np.float64)
    coefficients = vectors @ (phi.phi(math.sqrt(n) * t) * vectors[0])
    at_c0 = [1.0, -1 / n]
    for degree in range(1, degrees - 1):
        growth, rest = (2 * degree + n - 2) / (degree + n - 2), degree / (degree + n - 2)
        at_c0.append(-growth * at_c0[-1] / n - rest * at_c0[-2])
    return coefficients**2, np.array(at_c0)


def explosion_rate(activation: str | Activation, *, batch_size: int) -> float:
    """Compute λ_G by the sum over degrees.

    Parameters
    ----------
    activation
        Name or record of a φ without kinks.
    batch_size
        B >= 4.

    Raises
    ------
    InvalidArgumentError
        If φ has kinks, for which the sum converges too slowly to be used, or B < 4.
    """
    phi, size = find_activation(activation), _checks.integer("batch_size", batch_size, at_least=4)
    if phi.kinks:
        raise _checks.fail("activation", "one without kinks", phi.name)
    mass, at_c0 = masses(phi, batch_size=size)
    degree, share = np.arange(mass.size), mass * (1 - at_c0)
    return float(np.sum(degree * (degree + size - 3) * share) / ((size - 3) * np.sum(share)))
