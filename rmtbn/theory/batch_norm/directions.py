"""The law of ℓ, the eigenvalues on 1^⊥ of G D P D G for a random direction u of one normalised feature.

P = G - uuᵀ/B and D = diag φ′(u) depend on the direction only, and not on the variance σ² of the feature; so the
squared singular values of one layer are ℓ/σ² with independent factors. One ℓ is always 0, for P cuts the direction of
scale; φ′ = 0 adds zeros. For linear φ all others are 1. For any other φ the law of ℓ is sampled on a scrambled Sobol
sequence, and the weights of the draws are tilted so that E ℓ and the share of zeros are exact. Derivation:
docs/derivations/batch_norm_jacobian.md.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, special
from scipy.stats import qmc

from rmtbn import rng
from rmtbn.activations import Activation
from rmtbn.theory.batch_norm import signs
from rmtbn.theory.batch_norm.sphere import coordinate

Array = NDArray[np.float64]

VALUES = 2**19  # eigenvalues in a sample, where that takes no more than WORK
WORK = 2**32  # directions times B³, about 5 s of one core
FEWEST = 2**5  # directions
ERROR = 0.4  # times (eigenvalues)^-1/2 is the error of the distribution function: 0.2 to 0.35 over seeds, B = 4 … 128
STRUCTURAL = 1e-24  # of the largest ℓ: below it an ℓ is a zero that rounding hides
_CHUNK = 2**22  # numbers in one block of matrices


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DirectionLaw:
    """A weighted sample of ℓ > 0.

    Parameters
    ----------
    log_points, weights
        ln ℓ, and masses of sum 1 - (mass at 0).
    accuracy
        Of its distribution function; 0 where it is the law itself and no sample.
    """

    log_points: Array
    weights: Array
    accuracy: float

    def moment(self, k: int) -> float:
        """E ℓ^k for k >= 1."""
        return float(np.sum(self.weights * np.exp(k * self.log_points)))


def direction_law(phi: Activation, *, batch_size: int, mean: float) -> DirectionLaw:
    """Compute the law of ℓ for a batch of B >= 4 examples; `mean` is E ℓ, known by quadrature."""
    n = batch_size - 1
    if phi.slopes is not None and len(set(phi.slopes)) == 1:
        point = np.array([2 * math.log(abs(phi.slopes[0]))])
        return DirectionLaw(log_points=point, weights=np.array([(n - 1) / n]), accuracy=0.0)
    values = _eigenvalues(phi, batch_size)
    nonzero = values > STRUCTURAL * values.max()
    rank = mean_rank(phi, batch_size, cut=2) / n
    tilted = _tilted(values.sum(axis=1) / n, nonzero.sum(axis=1) / n, (mean, rank))
    weights = np.broadcast_to(tilted[:, None] / n, values.shape)[nonzero]
    return DirectionLaw(log_points=np.log(values[nonzero]), weights=weights, accuracy=ERROR / math.sqrt(values.size))


def mean_rank(phi: Activation, batch_size: int, *, cut: int) -> float:
    """Compute E min(k, B - cut), k the number of φ′(u_i) that are not 0: the rank of D P D, P of rank B - cut.

    Exact where φ′ is never 0 on an interval, and for ReLU; else the rare k > B - cut are counted in the sample.
    """
    if phi.slopes is None or all(phi.slopes):
        return batch_size - cut
    u, weights = coordinate(batch_size - 1, phi.kinks)
    mean = batch_size * float(weights @ (phi.dphi(u) != 0))
    if phi.kinks == (0.0,):
        return mean - (cut - 1) * signs.one_negative(batch_size)
    alive = np.sum(phi.dphi(directions(batch_size)) != 0, axis=1)
    return min(float(batch_size - cut), mean - float(np.mean(np.maximum(alive - (batch_size - cut), 0))))


def directions(batch_size: int) -> Array:
    """Lay u over the sphere |u|² = B in 1^⊥, shape (draws, B), always the same."""
    draws = max(FEWEST, min(VALUES / batch_size, WORK / batch_size**3))
    sobol = qmc.Sobol(batch_size - 1, scramble=True, seed=rng.generator(0, "directions of batch norm", batch_size))
    normal = special.ndtri(sobol.random_base2(round(math.log2(draws))))
    return np.asarray(_contrasts(batch_size, normal) * np.sqrt(batch_size / np.sum(normal**2, axis=1))[:, None])


def _contrasts(batch_size: int, coordinates: Array) -> Array:
    """Map coordinates of 1^⊥ to the batch, isometrically."""
    return np.asarray(coordinates @ linalg.helmert(batch_size))


def _eigenvalues(phi: Activation, batch_size: int) -> Array:
    """Compute ℓ for every direction, shape (draws, n - 1), as squared singular values of D P seen from 1^⊥."""
    u, frame = directions(batch_size), linalg.helmert(batch_size)
    rows = max(1, _CHUNK // batch_size**2)
    return np.concatenate([_of_chunk(phi, u[i : i + rows], frame) for i in range(0, len(u), rows)])


def _of_chunk(phi: Activation, u: Array, frame: Array) -> Array:
    matrix = frame * phi.dphi(u)[:, None, :]
    matrix = matrix - matrix.mean(axis=2, keepdims=True) - (matrix @ u[:, :, None]) * (u[:, None, :] / u.shape[1])
    return np.asarray(np.linalg.svd(matrix, compute_uv=False)[:, :-1] ** 2)


def _tilted(means: Array, ranks: Array, targets: tuple[float, float]) -> Array:
    """Weights of the draws, of sum 1 and linear in both statistics, that give them their exact means."""
    statistics = np.stack([means, ranks], axis=1)
    centred = statistics - statistics.mean(axis=0)
    gap = np.asarray(targets) - statistics.mean(axis=0)
    slope = np.linalg.lstsq(centred.T @ centred, gap, rcond=1e-9)[0]
    return np.asarray(1 / len(means) + centred @ slope)
