"""Singular values of the input-output Jacobian of a network, by pushing tangents forward layer by layer.

The Jacobian is that of the batch map x -> module(x): B·m outputs by B·n inputs. Without batch statistics the samples do
not couple and it is block diagonal; with them (batch normalisation in train mode) it is full, and its law is another.
The twin in theory is the law of a described network, for example `rmtbn.theory.fuss_catalan`.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.linalg import product as products
from rmtbn.linalg.push_forward import TangentMap, push_forward
from rmtbn.measure import batch_statistics, network
from rmtbn.measure.tangents import push_tangents
from rmtbn.result import EmpiricalSpectrum

METHODS = ("auto", "product", "dense")

# Bytes that tangents in flight may take, beyond the factors themselves: a quarter of the memory of a small machine.
_MEMORY_BUDGET = 2**30


def spectrum(
    module: nn.Module,
    x: Tensor,
    *,
    method: str = "auto",
    batch_stats: str | None = None,
    memory_budget: int = _MEMORY_BUDGET,
) -> EmpiricalSpectrum:
    """Measure all singular values of the Jacobian of x -> module(x), exact zeros included.

    Parameters
    ----------
    module
        The network, left as it is found. A `Sequential` (nested ones too) is pushed child by child, anything else is
        one block. Only batch normalisation may couple the examples, or the module is taken to couple them all.
    x
        Inputs (B, ...features), floating point, of the module's dtype and device, in which all is computed.
    method
        "product": push an orthonormal basis and re-factorise as it goes, every value right at any depth. "dense":
        assemble the Jacobian and take `svdvals`; values below max(m, n) · eps of the largest are then rounding noise,
        and `relative_error` says so. "auto" is "product".
    batch_stats
        "batch" or "running" statistics in batch normalisation; None follows the module's mode.
    memory_budget
        Bytes that the tangents in flight may take.

    Returns
    -------
    EmpiricalSpectrum
        One network (one row) of B·m values: those of all the samples where they do not couple. Join networks with
        `EmpiricalSpectrum.pool`.

    Raises
    ------
    InvalidArgumentError
        If `x` is not finite and floating, the module is random, not finite at x or does not map batch to batch, a name
        is unknown, or one example meets batch statistics.
    """
    stop = len(network.layers(module))
    return _spectra(module, x, [stop], method=method, batch_stats=batch_stats, memory_budget=memory_budget)[0]


def prefix_spectra(
    module: nn.Module,
    x: Tensor,
    *,
    after: Sequence[int | str],
    method: str = "auto",
    batch_stats: str | None = None,
    memory_budget: int = _MEMORY_BUDGET,
) -> dict[int | str, EmpiricalSpectrum]:
    """Measure the singular values of the Jacobians from the input to the outputs of chosen children, in one pass.

    Parameters
    ----------
    module
        A `Sequential`, nested or not.
    after
        Children by their place in the flattened order (0 is the first) or by their dotted name.
    x, method, batch_stats, memory_budget
        As in `spectrum`.

    Returns
    -------
    dict
        `after` -> EmpiricalSpectrum; each as `spectrum` gives it for the children up to and with that one.

    Raises
    ------
    InvalidArgumentError
        As `spectrum`, and if `after` is empty or names a child that is not there.
    """
    names = [name for name, _ in network.layers(module)]
    if not after:
        raise _checks.fail("after", "one or more children", after)
    ends = {key: _end(key, names) for key in after}
    stops = sorted(set(ends.values()))
    found = _spectra(module, x, stops, method=method, batch_stats=batch_stats, memory_budget=memory_budget)
    return {key: found[stops.index(end)] for key, end in ends.items()}


def _end(key: int | str, names: list[str]) -> int:
    """Count the children up to and with the one named."""
    if isinstance(key, str):
        return names.index(_checks.one_of("after", key, names)) + 1
    return _checks.integer("after", key, at_least=0, at_most=len(names) - 1) + 1


def _spectra(
    module: nn.Module, x: Tensor, stops: list[int], *, method: str, batch_stats: str | None, memory_budget: int
) -> list[EmpiricalSpectrum]:
    """Measure the spectra after the first `stops` children (ascending)."""
    method = {"auto": "product"}.get(_checks.one_of("method", method, METHODS), method)
    budget = _checks.integer("memory_budget", memory_budget, at_least=1)
    network.check_input(module, x)
    statistics = batch_statistics.resolve(module, batch_stats)
    with batch_statistics.fixed(module, statistics):
        network.check_output(module, x)
        coupled = statistics == "batch" or network.couples(module, x)
        layers = [layer for _, layer in network.layers(module)]
        segments = [_steps(layers[a:b], budget) for a, b in zip([0, *stops], stops, strict=False)]
        measure = _dense if method == "dense" else _product
        chunks = [measure(segments, part, coupled) for part in _parts(x, coupled, budget)]
    return [
        EmpiricalSpectrum(
            by_network=np.concatenate([chunk[i][0].ravel() for chunk in chunks])[None],
            relative_error=max(chunk[i][1] for chunk in chunks),
            method=method,
            batch_stats=statistics,
        )
        for i in range(len(stops))
    ]


def _product(segments: list[list[list[TangentMap]]], x: Tensor, coupled: bool) -> list[tuple[np.ndarray, float]]:
    """Log singular values (groups, outputs) and their error after each segment, by re-factorised push-forward."""
    groups = 1 if coupled else x.shape[0]
    product = products.identity(x.numel() // groups, batch=(groups,), dtype=x.dtype, device=x.device)
    found = []
    for steps in segments:
        product, x = push_forward(product, x, steps)
        result = products.log_singular_values(product)
        found.append((_padded(result.values, product.u.shape[-2]), float(result.relative_error.max())))
    return found


def _dense(segments: list[list[list[TangentMap]]], x: Tensor, coupled: bool) -> list[tuple[np.ndarray, float]]:
    """Do the same from the assembled Jacobian: right for values well above max(m, n) · eps of the largest."""
    groups = 1 if coupled else x.shape[0]
    n = x.numel() // groups
    jacobian = torch.eye(n, dtype=x.dtype, device=x.device).expand(groups, n, n)
    found = []
    for steps in segments:
        for move in (move for step in steps for move in step):
            x, jacobian = move(x, jacobian)
        values = torch.linalg.svdvals(jacobian).double().cpu()
        floor = max(jacobian.shape[-2:]) * torch.finfo(x.dtype).eps
        error = floor * float((values[:, 0] / values[:, -1]).nan_to_num(nan=1.0).max())
        found.append((_padded(values.log(), jacobian.shape[-2]), error))
    return found


def _padded(values: Float[Tensor, "groups k"], outputs: int) -> np.ndarray:
    """Append the exact zeros of outputs beyond the inputs."""
    return np.pad(values.numpy(), ((0, 0), (0, outputs - values.shape[1])), constant_values=-np.inf)


def _parts(x: Tensor, coupled: bool, budget: int) -> Iterator[Tensor]:
    """Cut the batch so that the factors of one part stay within the budget; coupled samples stay together."""
    each = 8 * x.element_size() * x[0].numel() ** 2
    return iter([x] if coupled else torch.split(x, max(1, budget // each)))


def _steps(layers: list[nn.Module], budget: int) -> list[list[TangentMap]]:
    """Group the layers: one with a weight matrix, and what follows until the next."""
    steps: list[list[TangentMap]] = []
    for layer in layers:
        if not steps or any(parameter.ndim > 1 for parameter in layer.parameters()):
            steps.append([])
        steps[-1].append(partial(_push_layer, layer, budget))
    return steps


def _push_layer(
    layer: nn.Module, memory_budget: int, point: Tensor, u: Float[Tensor, "groups m r"]
) -> tuple[Tensor, Float[Tensor, "groups k r"]]:
    """Apply a layer to a point, and its differential there to the columns of u."""
    tangents = u.movedim(-1, 0).reshape(-1, *point.shape)
    pushed = push_tangents(layer, point, tangents, memory_budget=memory_budget)
    return layer(point), pushed.reshape(tangents.shape[0], u.shape[0], -1).movedim(0, -1)
