"""The density of squared singular values by block stochastic Lanczos quadrature, resolved down to a floor.

Block Lanczos on JᵀJ from a random orthonormal block gives nodes θ² and masses whose mean over the block is the spectral
law in expectation (Gauss–Radau quadrature with its fixed node at 0: what no node has found lies below them). Nodes that
have converged are eigenvalues and count 1/n each, exactly; only the rest is stochastic. That makes the edge and, for
graded spectra, all that is above the floor as good as computed. Derivation: docs/derivations/block_lanczos.md.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from rmtbn import _checks
from rmtbn.linalg import dense
from rmtbn.linalg.lanczos import Bidiagonal, bidiagonalisations, copied, orthonormal_rows
from rmtbn.linalg.operator import Operator

# A node is an eigenvalue where the residual ‖J v - θ u‖ is below this share of θ. Over products of 2, 10 and 50
# Gaussian matrices and a ReLU network of width 1024 the Wasserstein distance was least at 0.1 or within a tenth of it.
CONVERGED = 0.1
_PROBES = 8  # vectors that estimate the residuals
# One 48th of the dimension per step runs near the full rate of a matrix product from dimension 2,048 on, and overshoots
# the floor by 2 % of the dimension at most; below 16 columns the rate falls.
_SHARE, _NARROWEST, _WIDEST = 48, 16, 256
_TAIL = 1.0 / 3.0  # of the tolerance, left to what the last nodes do not reach; as much again comes from the probes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Density:
    """A spectral law of JᵀJ seen through nodes.

    Parameters
    ----------
    log_nodes
        ln θ of the nodes (θ is a singular value), descending.
    mass
        Share of the n eigenvalues of JᵀJ at each node; what is missing from 1 lies below the last one.
    converged
        Which nodes are singular values, each counted once.
    standard_error
        Of the mass at and above each node, over the probes of the block.
    resolved
        ln σ above which the law is resolved: that of the floor, or of the last node if the limit came first.
    missed
        Share of values between the last node and `resolved`, estimated; they are counted below it.
    inputs
        n.
    products
        Number of vectors that J and Jᵀ were applied to, both counted.
    """

    log_nodes: Float[np.ndarray, " nodes"]
    mass: Float[np.ndarray, " nodes"]
    converged: Bool[np.ndarray, " nodes"]
    standard_error: Float[np.ndarray, " nodes"]
    resolved: float
    missed: float
    inputs: int
    products: int

    def log_singular_values(self) -> Float[np.ndarray, " n"]:
        """Return n values that stand for the law: its quantiles at (i - 1/2)/n, descending, -inf below the nodes."""
        survival = np.cumsum(self.mass)
        index = np.searchsorted(survival, (np.arange(self.inputs) + 0.5) / self.inputs - 1e-12)
        return np.append(self.log_nodes, -np.inf)[index]


def density(
    operator: Operator,
    *,
    floor: float,
    tolerance: float = 0.02,
    block: int | None = None,
    limit: int | None = None,
    generator: torch.Generator,
) -> Density:
    """Estimate the spectral law of JᵀJ above a floor.

    The Krylov space grows until its nodes reach the floor, or come so near that what lies between (the density at the
    last nodes, continued) adds less than a third of the tolerance to the Wasserstein-1 distance in ln λ above it.

    Parameters
    ----------
    operator
        J; the work is that of a few blocks of its inputs, so transpose it where it has fewer outputs.
    floor
        Smallest λ of interest over the largest, 0 < floor < 1; (n ε)² is what a float of that dtype resolves at best.
    tolerance
        Wasserstein-1 distance in ln λ above the floor, as a share of all n values, to be content with.
    block
        Vectors per step, which are the probes too; None: n/48, between 16 and 256.
    limit
        Dimension of the Krylov space at which to stop, whatever was resolved; None: n.
    generator
        For the probes (on the CPU).

    Returns
    -------
    Density

    Raises
    ------
    InvalidArgumentError
        If a number is out of its range.

    References
    ----------
    Golub, Meurant, Matrices, Moments and Quadrature (2010), chapters 6 and 11; Ubaru, Chen, Saad, SIAM J. Matrix Anal.
    Appl. 38 (2017) 1075; Chen, Hallman, arXiv:2205.01736 (what has converged is taken out of the variance).
    """
    n = operator.inputs
    floor = _checks.real("floor", floor, above=0.0, below=1.0)
    tolerance = _checks.real("tolerance", tolerance, above=0.0)
    chosen = min(n, _WIDEST, max(_NARROWEST, n // _SHARE)) if block is None else block
    width = _checks.integer("block", chosen, at_least=1, at_most=n)
    limit = n if limit is None else _checks.integer("limit", limit, at_least=1)
    lowest = math.log(max(floor, (n * torch.finfo(operator.dtype).eps) ** 2)) / 2
    start = orthonormal_rows(width, n, like=operator, generator=generator)
    found, missed = _grown(bidiagonalisations(operator, start), lowest, tolerance, limit, n)
    return _density(found, _residual(operator, found, generator), lowest, missed, n)


def _grown(
    states: Iterable[Bidiagonal], lowest: float, tolerance: float, limit: int, n: int
) -> tuple[Bidiagonal, float]:
    """Take steps until the nodes reach `lowest` (ln θ over the largest) or nearly so, or the limit.

    The share of values that is missed above the floor is returned too, if the density goes on as at the last nodes; NaN
    where the limit came first.
    """
    for found in states:
        values = dense.singular_values(found.matrix)[0]
        logs = values[values > 0].log().numpy()
        if found.last == 0:
            return found, 0.0
        gap = max(0.0, 2 * (logs[-1] - logs[0] - lowest))
        rate = np.count_nonzero(logs < logs[-1] + 0.5) / n  # nodes in the last nat of ln λ
        if rate * gap**2 / 2 < _TAIL * tolerance:
            return found, rate * gap
        if len(found.left) + found.last > limit:
            return found, math.nan
    raise AssertionError("a bidiagonalisation ends with invariant spaces")


def _residual(operator: Operator, found: Bidiagonal, generator: torch.Generator) -> float:
    """Root mean square over random unit vectors v of the newest block of ‖(1 - U Uᵀ) J v‖."""
    if not found.last:
        return 0.0
    weights = torch.randn(_PROBES, found.last, dtype=operator.dtype, generator=generator).to(operator.device)
    image = operator.apply(weights @ found.right[-found.last :])
    rest = image - (image @ found.left.mT) @ found.left
    return float(rest.square().sum() / (_PROBES * found.last)) ** 0.5


def _density(found: Bidiagonal, residual: float, lowest: float, missed: float, n: int) -> Density:
    """Read nodes, masses and errors off B."""
    _, values, right = dense.decomposition(found.matrix)
    values, right = values[values > 0], right[values > 0]
    by_probe = right[:, : found.start].square().double().cpu().numpy().T  # (probes, nodes); the rest is below
    theta = values.double().cpu().numpy()
    coupling = torch.linalg.vector_norm(right[:, right.shape[1] - found.last :], dim=1).double().cpu().numpy()
    copies = copied(values, found.start).cpu().numpy()  # eigenvalues of unknown multiplicity
    converged = (coupling * residual < CONVERGED * theta) & ~copies
    mass, error = _masses(by_probe, converged, n)
    logs = np.log(theta)
    return Density(
        log_nodes=logs,
        mass=mass,
        converged=converged,
        standard_error=error,
        resolved=_resolved(logs, lowest, missed),
        missed=0.0 if math.isnan(missed) else missed,
        inputs=n,
        products=len(found.left) + len(found.right) - found.last + (_PROBES if found.last else 0),
    )


def _resolved(logs: np.ndarray, lowest: float, missed: float) -> float:
    """Return the floor where the nodes reach it, and what is just below the last node if the limit came first."""
    if not len(logs):
        return -math.inf
    last = math.nextafter(float(logs[-1]), -math.inf)
    return max(last, float(logs[0]) + lowest) if math.isnan(missed) else float(logs[0]) + lowest


def _masses(by_probe: np.ndarray, converged: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Masses of the nodes and the standard errors of their running sums.

    What has converged weighs 1/n; on its complement, of dimension n - c, each probe is a random direction, and its
    masses there are a ratio estimate of the law of the rest.
    """
    probes = len(by_probe)
    left = (n - converged.sum()) / n
    rest = 1.0 - by_probe[:, converged].sum(axis=1)  # of each probe, what is below the nodes included
    loose = np.where(converged, 0.0, by_probe)
    share = loose.mean(axis=0) / max(rest.mean(), np.finfo(float).tiny)
    mass = np.where(converged, 1.0 / n, left * share)
    scatter = np.cumsum(loose, axis=1) - np.cumsum(share) * rest[:, None]
    finite = math.sqrt(max(0.0, 1.0 - probes / n) / probes) / max(rest.mean(), np.finfo(float).tiny)
    spread = scatter.std(axis=0, ddof=1) if probes > 1 else np.full(len(mass), np.inf)
    return mass, left * finite * spread
