"""The two ends of the spectrum of a symmetric map, by Lanczos' recursion with full re-orthogonalisation.

`scipy.sparse.linalg.eigsh` (ARPACK) is the oracle of the tests; here one Krylov space serves both ends, on the device
of the operator, and the residual is part of the result. The recursion and the bound: docs/derivations/block_lanczos.md.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rmtbn import _checks
from rmtbn.linalg.lanczos import orthonormal_rows
from rmtbn.linalg.operator import Operator

_NOISE = 8.0  # a rest of this many eps √n times the largest image is rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumEnds:
    """The smallest and the largest eigenvalue of a symmetric map A.

    Parameters
    ----------
    smallest, largest
        Ritz values: no less than the smallest eigenvalue of A, no more than the largest.
    smallest_bound, largest_bound
        Norms of the residuals ‖Av - θv‖, ‖v‖ = 1: an eigenvalue of A lies within this of each. That it is the last one
        holds with probability 1 over the start, once the bound is below the gap.
    products
        Number of vectors that A was applied to.
    """

    smallest: float
    largest: float
    smallest_bound: float
    largest_bound: float
    products: int


def spectrum_ends(
    operator: Operator, *, tolerance: float = 1e-6, limit: int | None = None, generator: torch.Generator
) -> SpectrumEnds:
    """Compute both ends of the spectrum of a symmetric map.

    Parameters
    ----------
    operator
        A, symmetric; only `apply` is used.
    tolerance
        Residuals asked for: of the largest relative to its own size, however small it is beside the smallest, and of
        the smallest relative to the larger of the two. Rounding limits them to a few eps of the larger.
    limit
        Dimension of the Krylov space at which to stop, >= 1, whatever the residuals; None: that of A. Where the largest
        eigenvalue is 0, all eigenvalues are found before its residual is small beside it.
    generator
        For the start (on the CPU).

    Returns
    -------
    SpectrumEnds

    Raises
    ------
    InvalidArgumentError
        For a map whose dimensions differ, and numbers out of range.
    """
    if operator.inputs != operator.outputs:
        raise _checks.fail("operator", "of equal dimensions", (operator.inputs, operator.outputs))
    tolerance = _checks.real("tolerance", tolerance, above=0.0)
    most = operator.inputs if limit is None else min(_checks.integer("limit", limit, at_least=1), operator.inputs)
    basis = orthonormal_rows(1, operator.inputs, like=operator, generator=generator)
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        image = operator.apply(basis[-1:])[0]
        diagonal.append(float(basis[-1] @ image))
        rest = _orthogonal(image, basis)
        beside.append(float(torch.linalg.vector_norm(rest)))
        values, last = _ritz(diagonal, beside[:-1])
        size = float(values.abs().max())
        rounding = _NOISE * torch.finfo(operator.dtype).eps * operator.inputs**0.5 * size
        residuals = beside[-1] * last.abs()
        found = residuals[0] <= tolerance * size and residuals[-1] <= max(tolerance * float(values[-1].abs()), rounding)
        if found or beside[-1] <= rounding or len(basis) == most:
            break
        basis = torch.cat([basis, (rest / beside[-1])[None]])
    return SpectrumEnds(
        smallest=float(values[0]),
        largest=float(values[-1]),
        smallest_bound=float(residuals[0]),
        largest_bound=float(residuals[-1]),
        products=len(diagonal),
    )


def _orthogonal(vector: Float[Tensor, " n"], basis: Float[Tensor, "k n"]) -> Float[Tensor, " n"]:
    """Return what of a vector is orthogonal to a basis; twice, for what rounding left."""
    for _ in range(2):
        vector = vector - (basis @ vector) @ basis
    return vector


def _ritz(diagonal: list[float], beside: list[float]) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Return the eigenvalues of the tridiagonal matrix, ascending, and the last entries of its eigenvectors."""
    middle = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    side = torch.diag(torch.tensor(beside, dtype=torch.float64), diagonal=1)
    values, vectors = torch.linalg.eigh(middle + side + side.mT)
    return values, vectors[-1]
