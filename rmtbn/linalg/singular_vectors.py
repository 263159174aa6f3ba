"""Leading singular vectors of a long product, with the error of each."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rmtbn import _checks
from rmtbn.linalg.graded_vectors import leading_vectors
from rmtbn.linalg.product import Product, orthonormalised, with_unit_rows
from rmtbn.linalg.product_values import LogSingularValues, log_singular_values


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SingularVectors:
    """Leading singular triples of products J, shape (..., m, n): J right_k = exp(log_value_k) left_k.

    Parameters
    ----------
    log_values
        Natural logarithms, descending, shape (..., k), float64.
    left, right
        Orthonormal columns, shapes (..., m, k) and (..., n, k), in the dtype of the product, on the CPU; the largest
        entry of each right one is positive.
    error
        Estimated angle between each vector and the true one, in radians, shape (..., k), at most 1: the relative error
        of the singular values over the relative gap min_j |σ_k - σ_j| / (σ_k + σ_j).
    """

    log_values: Float[Tensor, "*batch k"]
    left: Float[Tensor, "*batch m k"]
    right: Float[Tensor, "*batch n k"]
    error: Float[Tensor, "*batch k"]


def singular_vectors(product: Product, count: int) -> SingularVectors:
    """Compute the leading singular vectors of a product, whatever the span of its singular values.

    With J = U diag(d) T, the right ones are those of diag(d) T, the left ones U times those of diag(d) T.

    Parameters
    ----------
    product
        The product, shape (..., m, n).
    count
        How many, at least 1 and at most the rank of every product of the batch.

    Returns
    -------
    SingularVectors

    Raises
    ------
    InvalidArgumentError
        If `count` is out of these bounds.

    References
    ----------
    Eisenstat, Ipsen, SIAM J. Numer. Anal. 32 (1995) 1972: relative perturbation of singular vectors.
    """
    product = with_unit_rows(orthonormalised(product))
    batch, (m, r), n = product.log_d.shape[:-1], product.u.shape[-2:], product.t.shape[-1]
    log_d = product.log_d.reshape(-1, r).cpu().numpy()
    rank = int((log_d > -np.inf).sum(axis=1).min())
    count = _checks.integer("count", count, at_least=1, at_most=rank)
    t, u = (x.reshape(-1, *x.shape[-2:]).double().cpu().numpy() for x in (product.t, product.u))
    found = [_one(*parts, count) for parts in zip(log_d, t, u, strict=True)]
    values, left, right = (torch.from_numpy(np.stack(part)) for part in zip(*found, strict=True))
    return SingularVectors(
        log_values=values.reshape(*batch, count),
        left=left.reshape(*batch, m, count).to(product.u.dtype),
        right=right.reshape(*batch, n, count).to(product.u.dtype),
        error=_angles(log_singular_values(product), count),
    )


def _one(log_d: np.ndarray, t: np.ndarray, u: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Leading triples of one product, signs fixed."""
    live = log_d > -np.inf
    values, inner, right = leading_vectors(log_d[live], t[live], count)
    signs = np.sign(right[np.abs(right).argmax(axis=0), np.arange(count)])
    return values, u[:, live] @ inner * signs, right * signs


def _angles(spectrum: LogSingularValues, count: int) -> Float[Tensor, "*batch k"]:
    """Relative error over relative gap, (σ_k - σ_j) / (σ_k + σ_j) = tanh of half the difference of the logs."""
    logs = torch.nn.functional.pad(spectrum.values, (1, 1), value=-torch.inf)
    logs[..., 0] = torch.inf
    gaps = torch.tanh(0.5 * (logs[..., :-1] - logs[..., 1:]).nan_to_num(nan=torch.inf))[..., : count + 1]
    nearest = torch.minimum(gaps[..., :-1], gaps[..., 1:])
    return (spectrum.relative_error[..., None] / nearest).clamp_max(1.0)
