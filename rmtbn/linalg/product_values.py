"""All log singular values of a long product, each with high relative accuracy.

The statements and their proofs are in docs/derivations/graded_products.md.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rmtbn.linalg import graded
from rmtbn.linalg.product import SAFETY, Product, with_unit_rows

# Of the error, what the last step may add.
_SHARE = 0.01
# Or so much, relatively, if that is more: in double, and where values are asked to single precision.
_ACCURACY, _ACCURACY_OF_SINGLE = 1e-13, 1e-4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogSingularValues:
    """All log singular values of a product.

    Parameters
    ----------
    values
        Natural logarithms, descending, shape (..., min(m, n)), float64, -inf for exact zeros; on the CPU.
    relative_error
        Estimated relative error of the singular values, the smallest non-zero one included, shape (...).
    """

    values: Float[Tensor, "*batch k"]
    relative_error: Float[Tensor, "*batch"]


def log_singular_values(product: Product) -> LogSingularValues:
    """Compute all log singular values of a product.

    Those of diag(exp(log_d)) T, in float64 on the CPU (`rmtbn.linalg.graded`).

    Parameters
    ----------
    product
        The product, shape (..., m, n).

    Returns
    -------
    LogSingularValues
        min(m, n) values per batch entry.
    """
    product = with_unit_rows(product)
    batch, r = product.log_d.shape[:-1], product.log_d.shape[-1]
    log_d = product.log_d.reshape(-1, r).cpu().numpy()
    t = product.t.reshape(-1, r, product.t.shape[-1]).double().cpu().numpy()
    values = torch.full((len(log_d), min(product.u.shape[-2], t.shape[-1])), -torch.inf, dtype=torch.float64)
    condition = torch.ones(len(log_d), dtype=torch.float64)
    accuracy = _ACCURACY_OF_SINGLE if product.single else _ACCURACY
    share = (_SHARE * product.error.cpu()).clamp(1e-13, 1e-3).reshape(-1)
    allowed = share.clamp_min(accuracy).tolist()
    for i, live in enumerate(log_d > -float("inf")):
        if live.any():
            found, condition[i] = graded.log_singular_values(log_d[i][live], t[i][live], accuracy=allowed[i])
            values[i, : found.size] = torch.from_numpy(found)
    largest = product.log_d.nan_to_num(neginf=0.0).abs().amax(dim=-1).cpu()
    of_t = SAFETY * torch.finfo(product.t.dtype).eps * condition.reshape(batch) / r  # T is rounded anew in each push
    pushes = math.sqrt(max(product.pushes, 1))  # each adds to the logs of the scales
    rounding = torch.finfo(torch.float64).eps * (condition.reshape(batch) + pushes * largest)
    beyond_share = accuracy * (share < accuracy).double().reshape(batch)
    error = product.error.cpu() + pushes * of_t + rounding + beyond_share
    return LogSingularValues(values=values.reshape(*batch, -1), relative_error=error)
