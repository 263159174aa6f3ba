"""Jacobian spectra of many networks of one architecture in one pass: tangents of all of them in one call per layer.

The numbers are those of `rmtbn.measure.jacobian.spectrum` network by network; the twins in theory are the same laws.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.linalg import dense, heap, product_values
from rmtbn.linalg import product as products
from rmtbn.linalg.floating_range import rescaled
from rmtbn.linalg.push_forward import Step, push_forward
from rmtbn.measure import batch_statistics, network
from rmtbn.measure.ensemble import aligned
from rmtbn.measure.stacked_tangents import stacked_steps
from rmtbn.measure.tangents import in_double
from rmtbn.result import EmpiricalSpectrum

# Bytes for the factors of the networks in flight: an eighth of a machine of 8 GB.
_MEMORY = 2**30
# A product in flight holds U, T, the blocks before and after a push and the copies that LAPACK works on.
_COPIES = 10
# Steps between two looks at the size of assembled Jacobians: entries may grow or fade by e^9 in each.
_LOOK = {torch.float32: 8, torch.float64: 64}
# If they come closer to an end of the floating range than this power of it, there is a look after each step.
_NEAR = 0.8


def ensemble_spectrum(
    modules: Sequence[nn.Module],
    x: Float[Tensor, "examples ..."],
    *,
    method: str = "product",
    batch_stats: str | None = None,
    memory_budget: int = _MEMORY,
) -> EmpiricalSpectrum:
    """Measure all singular values of the Jacobians of x -> module(x) for many networks at once.

    Parameters
    ----------
    modules
        Networks of one architecture, dtype and device, left as found. A `Sequential` (nested ones too) is pushed layer
        by layer, anything else is one layer.
    x
        Inputs (B, ...features), the same for all networks.
    method
        "product": every value right at any depth. "dense": from the assembled Jacobians; what is below max(m, n) ε of
        the largest value of its network is censored.
    batch_stats
        "batch", "running", or None for the modules' own mode.
    memory_budget
        Bytes for the networks in flight; as many as fit are pushed together. A quarter more is for tangents on the way.

    Returns
    -------
    EmpiricalSpectrum
        One row of B·m values for each network, in their order.

    Raises
    ------
    InvalidArgumentError
        As `rmtbn.measure.jacobian.spectrum`, and if the modules are none or differ in their layers.
    """
    measure = _ROUTES[_checks.one_of("method", method, _ROUTES)]
    budget = _checks.integer("memory_budget", memory_budget, at_least=1)
    layers = aligned(modules)
    network.check_input(modules[0], x)
    statistics = batch_statistics.resolve(modules[0], batch_stats)
    with network.layer_by_layer(modules[0], statistics):
        network.check_output(modules[0], x)
        coupled = statistics == "batch" or network.couples(modules[0], x)
        single = method == "product" and in_double((same[0] for _, same in layers), x)
        start = x.double() if single else x
        chunks = []
        for a, b in _parts(len(modules), start, coupled=coupled, budget=budget):
            with network.layer_by_layer(modules[a], statistics) if a else nullcontext():
                chosen = [same[a:b] for _, same in layers]
                chain = stacked_steps(chosen, coupled=coupled, memory_budget=max(1, budget // 4))
                chunks.append(measure(chain, start, count=b - a, coupled=coupled, single=single))
    rows, errors, floors = zip(*chunks, strict=True)
    return EmpiricalSpectrum(
        by_network=np.concatenate(rows),
        relative_error=max(errors),
        method=method,
        batch_stats=statistics,
        log_floor=None if floors[0] is None else np.concatenate(floors),
    )


def _parts(networks: int, x: Tensor, *, coupled: bool, budget: int) -> Iterator[tuple[int, int]]:
    """Cut the networks into runs [a, b) whose factors fit the budget."""
    groups = 1 if coupled else len(x)
    each = _COPIES * x.element_size() * groups * (x.numel() // groups) ** 2
    size = max(1, budget // each)
    return ((a, min(a + size, networks)) for a in range(0, networks, size))


def _product(
    chain: list[Step], x: Tensor, *, count: int, coupled: bool, single: bool
) -> tuple[np.ndarray, float, np.ndarray | None]:
    """Log singular values (networks, outputs), their error and no floor, by re-factorised push-forward."""
    groups = 1 if coupled else len(x)
    batch = (count * groups,)
    product = products.identity(x.numel() // groups, batch=batch, dtype=x.dtype, device=x.device, single=single)
    product, point = push_forward(product, _repeated(x, count), chain, wanted=False)
    _check_finite(point)
    found = product_values.log_singular_values(product)
    rows = _padded(found.values.numpy(), product.u.shape[-2]).reshape(count, -1)
    return rows, float(found.relative_error.max()), None


def _dense(
    chain: list[Step], x: Tensor, *, count: int, coupled: bool, **_: object
) -> tuple[np.ndarray, float, np.ndarray | None]:
    """Do the same from the assembled Jacobians, with the log σ of each network below which values are noise."""
    groups = 1 if coupled else len(x)
    point, jacobian, log_scale, near = _assembled(chain, x, count=count, groups=groups, every=_LOOK.get(x.dtype, 1))
    if near:
        point, jacobian, log_scale = _assembled(chain, x, count=count, groups=groups, every=1)[:3]
    _check_finite(point, jacobian)
    values = dense.singular_values(jacobian)[0].log() + log_scale.cpu()[:, None]
    logs = _padded(values.numpy(), jacobian.shape[-2]).reshape(count, -1)
    share, largest = dense.unresolved_below(jacobian), logs.max(axis=1)
    floors = largest + math.log(share)
    known = np.where(logs > floors[:, None], logs, largest[:, None]).min(axis=1)[np.isfinite(largest)]
    error = share * float(np.exp(largest[np.isfinite(largest)] - known).max(initial=0.0))
    return logs, error, floors


def _assembled(
    chain: list[Step], x: Tensor, *, count: int, groups: int, every: int
) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Push points and unit vectors: points, Jacobians over exp(log), these logs, and whether to look more often.

    What leaves the floating range between two looks is lost: 0, inf, or with fewer digits.
    """
    n = x.numel() // groups
    point, jacobian = _repeated(x, count), torch.eye(n, dtype=x.dtype, device=x.device).expand(count * groups, n, n)
    heap.keep(16 * jacobian.nbytes)
    log_scale = torch.zeros(len(jacobian), dtype=torch.float64, device=x.device)
    near = torch.zeros_like(log_scale, dtype=torch.bool)
    limit = _NEAR * math.log(torch.finfo(x.dtype).max)
    for i, step in enumerate(chain, 1):
        for move in step:
            point, jacobian = move(point, jacobian)
        if i % every == 0 or i == len(chain):
            jacobian, log, scale = rescaled(jacobian, look=x.device.type == "cpu")
            log_scale, near = log_scale + log, near | (log.abs() > limit) | scale.isnan()
    return point, jacobian, log_scale, bool(near.any())


def _repeated(x: Tensor, count: int) -> Tensor:
    return x.expand(count, *x.shape).clone()  # jvp refuses memory that is shared


def _check_finite(*found: Tensor) -> None:
    """Refuse networks that leave the floating range."""
    ends = [float(end) for tensor in found for end in (tensor.amin(), tensor.amax())]  # a tenth of the time of isfinite
    if not all(map(math.isfinite, ends)):
        raise _checks.fail("modules", "finite at x", "inf or nan in an output or a Jacobian")


def _padded(values: Float[np.ndarray, "groups k"], outputs: int) -> Float[np.ndarray, "groups outputs"]:
    """Append the exact zeros of outputs beyond the inputs."""
    return np.pad(values, ((0, 0), (0, outputs - values.shape[1])), constant_values=-np.inf)


_ROUTES: Mapping[str, Callable[..., tuple[np.ndarray, float, np.ndarray | None]]] = MappingProxyType(
    {"product": _product, "dense": _dense}
)
