"""The routes to the singular values of a Jacobian: by products, by a dense SVD, and without ever assembling it.

Each takes layers and inputs inside `network.layer_by_layer` and returns what it found, what it could not tell, and how
wrong it may be.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rmtbn.linalg import dense, heap, lanczos, product_values, slq
from rmtbn.linalg import product as products
from rmtbn.linalg.push_forward import push_forward
from rmtbn.measure import assembly
from rmtbn.measure.assembly import Assembled
from rmtbn.measure.jacobian_operator import layered, rank_bounds
from rmtbn.measure.layer_maps import steps
from rmtbn.measure.tangents import in_double

_PRECISION = 1e-6  # asked of each value by the route "lanczos", relative to the value; eps sets a limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Log singular values of some groups in one row, and what is known of them.

    Parameters
    ----------
    values
        Shape (groups · outputs,), -inf for exact zeros; what is at or below `log_floor` is not to be trusted.
    relative_error
        Of the values that are known.
    log_floor
        Log σ up to which values are censored; None where every value is known.
    cdf_error
        Error of the share of values above a point, from random probes and from what lies just above the floor; 0 where
        values were computed one by one.
    note
        What the user should know, if anything.
    """

    values: Float[np.ndarray, " all"]
    relative_error: float
    log_floor: float | None = None
    cdf_error: float = 0.0
    note: str = ""


def by_product(
    segments: Sequence[Sequence[nn.Module]], points: Sequence[Tensor], *, coupled: bool, budget: int
) -> list[Found]:
    """Find log singular values after each segment of layers, by re-factorised push-forward.

    Parameters
    ----------
    segments
        Layers in the order of the forward pass, cut where a spectrum is wanted.
    points
        Inputs (B, ...features), and what comes out of the layers, as far as it is known.
    coupled
        Whether the examples form one group, or each its own.
    budget
        Bytes that the tangents in flight may take.
    """
    x = points[0]
    groups = 1 if coupled else x.shape[0]
    single = in_double(chain.from_iterable(segments), x)
    x = x.double() if single else x
    product = products.identity(x.numel() // groups, batch=(groups,), dtype=x.dtype, device=x.device, single=single)
    found = []
    for i, layers in enumerate(segments, 1):
        product, x = push_forward(product, x, steps(layers, budget), wanted=i < len(segments))
        result = product_values.log_singular_values(product)
        values = _padded(result.values.numpy(), product.u.shape[-2])
        found.append(Found(values=values.ravel(), relative_error=float(result.relative_error.max())))
    return found


def by_dense_svd(
    segments: Sequence[Sequence[nn.Module]], points: Sequence[Tensor], *, coupled: bool, budget: int
) -> list[Found]:
    """Find them from the assembled Jacobian; below max(m, n) ε of the largest, values are rounding noise.

    Parameters
    ----------
    segments, points, coupled, budget
        As in `by_product`.
    """
    jacobian, known = assembly.begun(points[0], coupled=coupled), points[1:]
    heap.keep(16 * points[0].nbytes * (points[0].numel() // len(jacobian.bound)))
    found = []
    for layers in segments:
        jacobian, known = assembly.pushed(jacobian, layers, known, budget=budget), known[len(layers) :]
        found.append(_resolved(jacobian))
    return found


def _resolved(jacobian: Assembled) -> Found:
    """Log singular values of an assembled Jacobian: zeros by the rank of the layers, noise below the floor."""
    matrix = jacobian.matrix()
    values, fell_back = dense.singular_values(matrix)
    outputs = jacobian.point.numel() // len(matrix)
    # what may have underflowed on the way is no zero
    lowest = torch.finfo(torch.float64).min if bool(jacobian.lost) else -math.inf
    log_scale = float(jacobian.log_scale)
    found = (values.log() + log_scale).clamp_min(lowest)
    logs = torch.nn.functional.pad(found, (0, outputs - values.shape[1]), value=lowest)
    logs[torch.arange(outputs) >= jacobian.bound.cpu()[:, None]] = -torch.inf
    share = dense.unresolved_below(matrix)
    floors = logs[:, 0].amax() + math.log(share)
    floors = floors.clamp_min(log_scale + math.log(torch.finfo(matrix.dtype).tiny))
    known = logs[logs > floors]
    error = share * float((logs[:, 0].amax() - known.min()).exp()) if len(known) else 0.0
    return Found(
        values=logs.numpy().ravel(),
        relative_error=error,
        log_floor=float(floors) if bool(logs[:, 0].isfinite().any()) else None,
        note="the SVD failed where it was and was done by QR iteration on the CPU" if fell_back else "",
    )


def by_quadrature(layers: Sequence[nn.Module], x: Tensor, *, floor: float, probes: torch.Generator) -> Found:
    """Find values that stand for the density of one group above the floor, by block Lanczos quadrature.

    Parameters
    ----------
    layers, x
        Of one group.
    floor
        λ over the largest.
    probes
        Draws the random vectors, on the CPU.
    """
    jacobian = layered(layers, x)
    wide = jacobian.inputs > jacobian.outputs
    law = slq.density(jacobian.transposed if wide else jacobian, floor=floor, generator=probes)
    if not len(law.log_nodes):
        return Found(values=np.full(jacobian.outputs, -np.inf), relative_error=0.0)
    values = _padded(law.log_singular_values()[None], jacobian.outputs)[0]
    return Found(
        values=_zeroed(values, layers, x),
        relative_error=slq.CONVERGED**2,
        log_floor=law.resolved,
        cdf_error=float(law.standard_error.max(initial=0.0)) + law.missed,
        note=f"{law.products} products with J or its transpose, {int(law.converged.sum())} values converged",
    )


def by_lanczos(layers: Sequence[nn.Module], x: Tensor, *, floor: float, probes: torch.Generator) -> Found:
    """Find the log singular values of one group above the floor, one by one with bounds, by block Lanczos.

    Parameters
    ----------
    layers, x, floor, probes
        As in `by_quadrature`.
    """
    jacobian = layered(layers, x)
    wide = jacobian.inputs > jacobian.outputs
    found = lanczos.above(jacobian.transposed if wide else jacobian, floor**0.5, tolerance=_PRECISION, generator=probes)
    known = found.values.double().cpu()
    if not len(known):
        return Found(values=np.full(jacobian.outputs, -np.inf), relative_error=0.0)
    lowest = float(known[0].log()) + 0.5 * math.log(floor)
    values = np.full(jacobian.outputs, lowest)
    values[: len(known)] = known.log().numpy()
    return Found(
        values=_zeroed(values, layers, x),
        relative_error=float((found.bounds.double().cpu() / known).max()),
        log_floor=lowest,
        note=f"{found.products} products with J or its transpose",
    )


def _zeroed(values: np.ndarray, layers: Sequence[nn.Module], x: Tensor) -> np.ndarray:
    """Let the values beyond the rank of the layers be zeros, and no others: those are small in ways not known."""
    bound = min(int(rank_bounds(layers, x, coupled=True)[0]), len(values))
    logs = np.maximum(values, np.finfo(np.float64).min)
    logs[bound:] = -np.inf
    return logs


def _padded(values: Float[np.ndarray, "groups k"], outputs: int) -> Float[np.ndarray, "groups outputs"]:
    """Append the exact zeros of outputs beyond the inputs."""
    return np.pad(values, ((0, 0), (0, outputs - values.shape[1])), constant_values=-np.inf)


ASSEMBLED: Mapping[str, Callable[..., list[Found]]] = MappingProxyType({"product": by_product, "dense": by_dense_svd})
KRYLOV: Mapping[str, Callable[..., Found]] = MappingProxyType({"slq": by_quadrature, "lanczos": by_lanczos})
