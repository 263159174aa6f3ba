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
from torch.func import jvp, vmap

from rmtbn import _checks
from rmtbn.linalg import product as products
from rmtbn.linalg.push_forward import TangentMap, push_forward
from rmtbn.measure import batch_statistics
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
    stop = len(_children(module))
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
    names = [name for name, _ in _children(module)]
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


def _children(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """Flatten sequential containers into (dotted name, child); one with hooks or its own forward is a block."""
    plain = type(module).forward is nn.Sequential.forward and not (module._forward_hooks or module._forward_pre_hooks)
    if not plain or not list(module.children()):
        return [(prefix.removesuffix("."), module)]
    return [found for name, child in module.named_children() for found in _children(child, f"{prefix}{name}.")]


def _spectra(
    module: nn.Module, x: Tensor, stops: list[int], *, method: str, batch_stats: str | None, memory_budget: int
) -> list[EmpiricalSpectrum]:
    """Measure the spectra after the first `stops` children (ascending)."""
    method = {"auto": "product"}.get(_checks.one_of("method", method, METHODS), method)
    budget = _checks.integer("memory_budget", memory_budget, at_least=1)
    _check_input(x, module)
    statistics = batch_statistics.resolve(module, batch_stats)
    with batch_statistics.fixed(module, statistics):
        _check_output(module, x)
        coupled = statistics == "batch" or _couples(module, x)
        layers = [child for _, child in _children(module)]
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


def _product(segments: list[list[TangentMap]], x: Tensor, coupled: bool) -> list[tuple[np.ndarray, float]]:
    """Log singular values (groups, outputs) and their error after each segment, by re-factorised push-forward."""
    groups = 1 if coupled else x.shape[0]
    product = products.identity(x.numel() // groups, batch=(groups,), dtype=x.dtype, device=x.device)
    found = []
    for maps in segments:
        product, x = push_forward(product, x, maps)
        result = products.log_singular_values(product)
        found.append((_padded(result.values, product.u.shape[-2]), float(result.relative_error.max())))
    return found


def _dense(segments: list[list[TangentMap]], x: Tensor, coupled: bool) -> list[tuple[np.ndarray, float]]:
    """Do the same from the assembled Jacobian: right for values well above max(m, n) · eps of the largest."""
    groups = 1 if coupled else x.shape[0]
    n = x.numel() // groups
    jacobian = torch.eye(n, dtype=x.dtype, device=x.device).expand(groups, n, n)
    found = []
    for maps in segments:
        for step in maps:
            x, jacobian = step(x, jacobian)
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


def _steps(layers: list[nn.Module], budget: int) -> list[TangentMap]:
    """Group the layers into steps: a layer with a weight matrix, and what follows until the next."""
    steps: list[list[nn.Module]] = []
    for layer in layers:
        if not steps or any(parameter.ndim > 1 for parameter in layer.parameters()):
            steps.append([])
        steps[-1].append(layer)
    return [partial(_push_tangents, step, budget) for step in steps]


def _push_tangents(
    layers: list[nn.Module], budget: int, point: Tensor, u: Float[Tensor, "groups m r"]
) -> tuple[Tensor, Float[Tensor, "groups k r"]]:
    """Apply layers to a point, and their differential there to the columns of u, in chunks within the budget."""

    def forward(x: Tensor) -> Tensor:
        for layer in layers:
            x = layer(x)
        return x

    image = forward(point)
    tangents = u.movedim(-1, 0).reshape(-1, *point.shape)
    chunk = max(1, budget // (4 * point.element_size() * max(point.numel(), image.numel())))
    pushed = vmap(lambda v: jvp(forward, (point,), (v,))[1], chunk_size=chunk)(tangents)
    return image, pushed.reshape(tangents.shape[0], u.shape[0], -1).movedim(0, -1)


def _check_input(x: Tensor, module: nn.Module) -> None:
    _checks.instance("x", x, Tensor, "a tensor")
    if not x.is_floating_point():
        raise _checks.fail("x", "of a floating-point dtype", x.dtype)
    if x.ndim < 2 or x.numel() == 0:
        raise _checks.fail("x", "a non-empty batch (B, ...features)", tuple(x.shape))
    if not bool(torch.isfinite(x).all()):
        raise _checks.fail("x", "finite", "inf or nan")
    for parameter in module.parameters():
        if parameter.is_floating_point() and (parameter.dtype, parameter.device) != (x.dtype, x.device):
            rule = f"of the module's dtype and device ({parameter.dtype}, {parameter.device})"
            raise _checks.fail("x", rule, (x.dtype, x.device))


def _check_output(module: nn.Module, x: Tensor) -> None:
    """Refuse a module that does not map batch to batch, is not finite at x or gives another answer the second time."""
    try:
        output = module(x)
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            rule = "at least 2 examples where batch normalisation uses batch statistics"
            raise _checks.fail("x", rule, len(x)) from None
        raise
    if not isinstance(output, Tensor) or output.ndim < 2 or output.shape[0] != x.shape[0]:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output)
        raise _checks.fail("module", f"a map from a batch of {len(x)} to a tensor of as many rows", found)
    if not bool(torch.isfinite(output).all()):
        raise _checks.fail("module", "finite at x", "inf or nan in its output")
    if not torch.allclose(module(x), output, rtol=torch.finfo(x.dtype).eps ** 0.5):
        raise _checks.fail("module", "deterministic (put dropout in eval mode)", "another output for the same x")


def _couples(module: nn.Module, x: Tensor) -> bool:
    """Whether a tangent in the first example reaches the output of another."""
    if x.shape[0] == 1:
        return False
    tangent = torch.zeros_like(x)
    tangent[0] = torch.randn(x[0].shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0)).to(x.device)
    return bool((jvp(module, (x,), (tangent,))[1][1:] != 0).any())
