"""Law of the squared singular values of the input–output Jacobian of a wide deep network at initialisation.

Model: J = D_L W_L ... D_1 W_1; W_l is n_l × n_{l-1} with independent entries of variance σ_w²/n_{l-1}, or Haar with
the same mean square; D_l = diag φ′(h_l), h_l ~ N(0, q_l). In a wide network the factors are free, so the law of λ,
the eigenvalues of J Jᵀ, is a free product (Pennington, Schoenholz & Ganguli 2017, arXiv:1711.04735; 2018,
arXiv:1802.09979). Its mean is ∏ χ_l with χ_l = σ_w² E φ′(h_l)²; for equal square layers its variance over its squared
mean is L(E φ′⁴/(E φ′²)² - 1 + g), g = 1 for Gaussian and 0 for orthogonal weights. Derivation:
docs/derivations/jacobian_law.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.activations import activation as find_activation
from rmtbn.theory import mean_field
from rmtbn.theory.free import factors
from rmtbn.theory.free.chain import Placed
from rmtbn.theory.free.factors import Factor
from rmtbn.theory.free_probability import FreeProductLaw, parts
from rmtbn.theory.layer_groups import slope_factors

Array = NDArray[np.float64]

WEIGHTS = ("gaussian", "orthogonal")
SAME_LENGTH = 1e-14


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JacobianLaw(FreeProductLaw):
    """Law of λ of a deep network, with the network it describes.

    Parameters
    ----------
    activation, depth, weights
        φ by name, L, and "gaussian" or "orthogonal".
    sigma_w, sigma_b
        σ_w and σ_b.
    q
        Variances of the pre-activations, shape (depth,).
    """

    activation: str
    depth: int
    weights: str
    sigma_w: float
    sigma_b: float
    q: Array


def jacobian_law(
    activation: str | Activation,
    *,
    depth: int,
    weights: str = "gaussian",
    sigma_w: float | None = None,
    sigma_b: float = 0.0,
    widths: Sequence[int] | None = None,
    q0: float | None = None,
) -> JacobianLaw:
    """Compute the law of λ, the squared singular values of the Jacobian of a network at initialisation.

    Parameters
    ----------
    activation
        Name or record of φ.
    depth
        Number L of weight layers, 1 to 10,000; φ follows every one of them.
    weights
        "gaussian" stands for any independent entries, which have the same limit; "orthogonal" is Haar.
    sigma_w
        Standard deviation of √n_{l-1}·W_ij; None for the value that is critical at that `sigma_b`: then every χ_l is 1.
    sigma_b
        Standard deviation of the biases.
    widths
        n_0 ... n_L, of which only the ratios matter; None for equal widths. λ has dimension n_L, zeros included.
    q0
        Mean square of the input, which sets q_l along the depth; None for q_l = q*, the fixed point, in every layer.

    Returns
    -------
    JacobianLaw

    Raises
    ------
    InvalidArgumentError
        If an argument is out of its range, or there is no critical or no finite fixed point.
    ConvergenceError
        If an edge is not found.

    Examples
    --------
    >>> law = jacobian_law("relu", depth=8)
    >>> law.atoms, round(law.moment(2), 12), round(law.log_bulk[1], 7)
    (((0.0, 0.5),), 17.0, 3.7738863)
    """
    record = find_activation(activation)
    depth = _checks.integer("depth", depth, at_least=1)
    weights = _checks.one_of("weights", weights, WEIGHTS)
    sizes = _sizes(widths, depth)
    sigma, q, critical = _lengths(record, depth=depth, sigma_w=sigma_w, sigma_b=sigma_b, q0=q0)
    chain: list[Placed] = []
    for (rows, columns), lengths in _by_shape(q, sizes).items():
        log_chi = 0.0 if critical else math.log(sigma**2) + _mean_log_slope(record, lengths)
        chain.append(_weight_factor(weights, rows, columns, log_chi=log_chi, count=lengths.size))
        distinct, counts = np.unique(lengths, return_counts=True)
        slopes = slope_factors(record, distinct, counts.astype(float))
        chain += [Placed(factor=f, dimension=rows, count=n) for f, n in slopes]
    curve, bulk, log_atoms = parts(chain, start=sizes[0])
    return JacobianLaw(
        curve=curve,
        bulk=bulk,
        log_atoms=log_atoms,
        activation=record.name,
        depth=depth,
        weights=weights,
        sigma_w=sigma,
        sigma_b=float(sigma_b),
        q=q,
    )


def _by_shape(q: Array, sizes: list[float]) -> dict[tuple[float, float], Array]:
    """Lengths of the layers of each shape (rows, columns)."""
    shapes = list(pairwise(sizes))
    return {(b, a): q[[shape == (a, b) for shape in shapes]] for a, b in dict.fromkeys(shapes)}


def _mean_log_slope(record: Activation, q: Array) -> float:
    """Mean over layers of ln E φ′²."""
    distinct, counts = np.unique(q, return_counts=True)
    return float(np.average(np.log(mean_field.dphi_second_moment(distinct, record)), weights=counts))


def _sizes(widths: Sequence[int] | None, depth: int) -> list[float]:
    """Widths n_0 ... n_L over n_L."""
    if widths is None:
        return [1.0] * (depth + 1)
    sizes = [_checks.integer("widths", n, at_least=1) for n in widths]
    if len(sizes) != depth + 1:
        raise _checks.fail("widths", f"depth + 1 = {depth + 1} numbers n_0 ... n_L", f"{len(sizes)} of them")
    return [n / sizes[-1] for n in sizes]


def _lengths(
    record: Activation, *, depth: int, sigma_w: float | None, sigma_b: float, q0: float | None
) -> tuple[float, Array, bool]:
    """σ_w, the lengths q_l, and whether every χ_l is 1 because σ_w was asked to be critical."""
    point = mean_field.critical_point(record, sigma_b=sigma_b) if sigma_w is None else None
    sigma = point.sigma_w if point else _checks.real("sigma_w", sigma_w, above=0.0)
    scale_free = record.slopes is not None and set(record.kinks) <= {0.0}  # the law of φ′ does not depend on q
    if q0 is not None:
        q = _input_lengths(record, q0, depth=depth, sigma_w=sigma, sigma_b=sigma_b)
        return sigma, np.ones(depth) if scale_free else _settled(q), point is not None and scale_free
    if scale_free:
        return sigma, np.ones(depth), point is not None
    fixed = point.q if point else mean_field.fixed_point(record, sigma_w=sigma, sigma_b=sigma_b).q
    if not math.isfinite(fixed):
        raise _checks.fail("q0", f"given where lengths diverge ({record.name!r} at sigma_w = {sigma})", None)
    return sigma, np.full(depth, fixed), point is not None


def _input_lengths(record: Activation, q0: float, *, depth: int, sigma_w: float, sigma_b: float) -> Array:
    """Compute the lengths q_l that an input of mean square q0 has."""
    start = _checks.real("q0", q0, at_least=0.0)
    nothing = start == 0 and _checks.real("sigma_b", sigma_b, at_least=0.0) == 0
    if nothing and record.phi(np.zeros(1))[0] == 0:
        return np.zeros(depth)
    q = mean_field.lengths(start, record, depth=depth, sigma_w=sigma_w, sigma_b=sigma_b)
    if not np.isfinite(q).all():
        raise _checks.fail("depth", f"at most {int(np.isfinite(q).sum())} here, where lengths leave the range", depth)
    return q


def _settled(q: Array) -> Array:
    """Let lengths that differ from the next by rounding only be equal to it, so that equal layers are counted."""
    for layer in range(q.size - 2, -1, -1):
        if abs(q[layer] - q[layer + 1]) <= SAME_LENGTH * q[layer + 1]:
            q[layer] = q[layer + 1]
    return q


def _weight_factor(weights: str, rows: float, columns: float, *, log_chi: float, count: int) -> Placed:
    """W Wᵀ as a factor whose mean is χ: its own mean, σ_w², with the mean of φ′² moved to it.

    A Haar matrix with fewer rows than columns is a compression; with more it is an embedding, its columns longer than
    1.
    """
    if weights == "gaussian":
        return Placed(factor=replace(factors.gaussian(), log_mean=log_chi), dimension=rows, count=count)
    if rows >= columns:
        stretch = log_chi + math.log(rows / columns)
        return Placed(factor=Factor(log_mean=log_chi, atoms=((stretch, 1.0),)), dimension=rows, count=count)
    projection = factors.bernoulli(rows / columns)
    kept = replace(projection, log_mean=log_chi, atoms=((log_chi, rows / columns),))
    return Placed(factor=kept, dimension=columns, count=count)
