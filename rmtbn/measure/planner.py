"""Which way to the singular values of a Jacobian: priced in time and memory before anything is computed.

Prices are modelled from the dimensions and the layers alone, so that the same question takes the same route on every
machine; only the seconds in the report are from a rate measured on it, once. Where the constants come from is said at
each.
"""

import functools
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from rmtbn import _checks

ROUTES = ("product", "dense", "slq", "lanczos")
FLOOR = 1e-6  # λ over the largest, down to which the matrix-free routes go if nothing is asked

# In units of the flops of a matrix product, measured on one core: the singular values of a square matrix take as long
# as 4 products of such matrices (8 n³; dimension 512 and 1,024), a re-factorised push-forward 1.5 to 2.5 times a plain
# one (128 and 256, depth 50).
_SVD, _PRODUCT = 8.0, 2.5
# Krylov vectors per value above the floor: 0.9 to 1.1 for networks of 50 layers and width 256 to 2,048.
_KRYLOV = 1.1
_PROBE = 512  # dimension of the product that is timed


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What is to be measured.

    Parameters
    ----------
    groups
        Jacobians to measure: examples that do not couple, or 1.
    inputs, outputs, widest
        Numbers per group: at the input, the output and the widest point between the layers.
    layers
        Layers with weights, at least 1.
    push
        Flops of one tangent of one group through the network.
    copied
        Numbers in the weights of live units that the matrix-free routes hold beside the network's own.
    """

    groups: int
    inputs: int
    outputs: int
    widest: int
    layers: int
    push: float
    copied: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Floating-point operations, and bytes beyond the network's own, of one route."""

    flops: float
    memory: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The route to take, the reason in words, and the prices of all routes."""

    route: str
    reason: str
    prices: Mapping[str, Price]


def size_of(layers: Sequence[nn.Module], shapes: Sequence[torch.Size], *, coupled: bool) -> Size:
    """Read the size off the layers and the shapes of what goes into the first and comes out of each."""
    groups = 1 if coupled else shapes[0][0]
    numbers = [shape.numel() // groups for shape in shapes[: len(layers) + 1]]
    push, weighted = 0.0, 0
    for layer, number in zip(layers, numbers[1:], strict=True):
        matrices = [p for p in layer.parameters() if p.ndim > 1]
        push += 4.0 * number
        push += sum(2.0 * p.numel() * max(1.0, number / p.shape[0]) for p in matrices)
        weighted += bool(matrices)
    return Size(
        groups=groups,
        inputs=numbers[0],
        outputs=numbers[-1],
        widest=max(numbers),
        layers=max(1, weighted),
        push=push,
        copied=0.0 if coupled and shapes[0][0] > 1 else _copied(layers),
    )


def _copied(layers: Sequence[nn.Module]) -> float:
    """Count half of the weights before a ReLU and half of those behind one: a quarter in between."""
    beside = zip(layers, [*layers[1:], None], [None, *layers], strict=False)
    shares = [(layer, 0.5 ** ((type(after) is nn.ReLU) + (type(before) is nn.ReLU))) for layer, after, before in beside]
    return sum(layer.weight.numel() * share for layer, share in shares if type(layer) is nn.Linear and share < 1)


def share_above(floor: float, layers: int) -> float:
    """Model the share of values with λ > floor · λ_max: that of a product of Gaussian matrices, at infinite width.

    The Fuss–Catalan law is λ = sin^{L+1}((L+1)φ) / (sin φ sin^L(Lφ)), 0 < φ < π/(L+1), falling in φ, with density
    sin φ sin((L+1)φ) / (π sin(Lφ)) in ln λ (docs/derivations/block_lanczos.md, section 4).
    """
    phi = np.linspace(0.0, math.pi / (layers + 1), 2001)[1:-1]
    inner, outer = np.sin(layers * phi), np.sin((layers + 1) * phi)
    log_lam = (layers + 1) * np.log(outer) - np.log(np.sin(phi)) - layers * np.log(inner)
    density = np.sin(phi) * outer / (math.pi * inner)
    mass = np.cumsum((density[1:] + density[:-1]) / 2 * -np.diff(log_lam))
    return float(np.interp(-math.log(floor), log_lam[0] - log_lam[1:], mass))


def prices(size: Size, *, floor: float | None, dtype: torch.dtype) -> dict[str, Price]:
    """Price the routes: flops of all groups, memory of one, which is 1.3 times what was measured at N = 1,280."""
    n, m = size.inputs, size.outputs
    small, large = min(n, m), max(n, m)
    item = torch.finfo(dtype).bits // 8
    flight = 2.0 * item * n * size.widest
    plain = n * size.push
    wide = 10.0 if item == 4 else 8.0  # the product may go on in float64, beside what there was in float32
    share = share_above(FLOOR if floor is None else floor, size.layers)
    vectors = min(small, _KRYLOV * share * small + 16)
    krylov = 2 * vectors * size.push + 6.0 * vectors**2 * (n + m) + 20.0 * vectors**3
    basis = 2.0 * item * vectors * (n + m) + 2.0 * item * max(16, small // 48) * size.widest
    copied = 1.3 * item * size.copied
    return {
        "product": Price(
            flops=size.groups * _PRODUCT * plain,
            memory=2.0 * wide * n * size.widest + 6.0 * wide * n * m + 16.0 * small**2,
        ),
        "dense": Price(flops=size.groups * (plain + _SVD * small**2 * large), memory=flight + 2.0 * item * n * m),
        "slq": Price(flops=size.groups * krylov, memory=basis + copied),
        "lanczos": Price(flops=size.groups * 1.5 * krylov, memory=1.5 * basis + copied),
    }


def resolvable(route: str, size: Size, dtype: torch.dtype) -> float:
    """Return the smallest λ over the largest that a route can tell from 0: (n ε)², but for the product."""
    return 0.0 if route == "product" else (max(size.inputs, size.outputs) * torch.finfo(dtype).eps) ** 2


def plan(
    size: Size,
    *,
    method: str,
    floor: float | None,
    memory_budget: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Plan:
    """Choose a route.

    Of those that fit in memory and resolve what is asked the cheapest; if none resolves it, the one that resolves most;
    if none fits, or the one that was named does not, nothing.

    Parameters
    ----------
    size
        Of the problem.
    method
        One of `ROUTES`, or "auto".
    floor
        Smallest λ over the largest to resolve; None: all values.
    memory_budget
        Bytes.
    dtype, device
        Of the computation.

    Raises
    ------
    InvalidArgumentError
        With the bytes that would be needed, where the memory does not suffice.
    """
    found = prices(size, floor=floor, dtype=dtype)
    fits = [route for route in found if found[route].memory <= memory_budget]
    if method == "auto":
        exact = [route for route in fits if route != "lanczos" and resolvable(route, size, dtype) <= (floor or 0.0)]
        able = sorted(exact, key=lambda route: found[route].flops) or [r for r in ("dense", "slq") if r in fits]
        route, why = (able or [""])[0], _why(bool(exact), floor)
    else:
        route, why = (method if method in fits else ""), "as asked"
    if not route:
        wanted = ("product", "dense", "slq") if method == "auto" else (method,)
        needed, name = min((found[route].memory, route) for route in wanted)
        rule = f"at least {_bytes(needed)}, which the route {name!r} takes for {_dimensions(size)}"
        raise _checks.fail("memory_budget", rule, _bytes(memory_budget))
    price = found[route]
    seconds = price.flops / measured_rate(dtype, device)
    reason = (
        f"{why}; {_dimensions(size)}: about {_seconds(seconds)} and {_bytes(price.memory)}{_others(found, route, fits)}"
    )
    return Plan(route=route, reason=reason, prices=found)


def _why(exact: bool, floor: float | None) -> str:
    if not exact:
        return "what gives every value does not fit in memory: the next best"
    wanted = "all values right" if floor is None else f"λ above {floor:g} of the largest"
    return f"the cheapest that gives {wanted}"


def _others(found: Mapping[str, Price], chosen: str, fits: Sequence[str]) -> str:
    rest = [
        f"{route} {found[route].flops / found[chosen].flops:.2g} times that"
        if route in fits
        else f"{route} {_bytes(found[route].memory)}, too much"
        for route in found
        if route != chosen
    ]
    return f" ({', '.join(rest)})"


def _dimensions(size: Size) -> str:
    many = f"{size.groups} × " if size.groups > 1 else ""
    return f"{many}{size.outputs} × {size.inputs}, {size.layers} layers"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1g} s" if seconds < 120 else f"{seconds / 60:.2g} min"


def _bytes(number: float) -> str:
    exponent = min(4, max(0, int(math.log(max(number, 1.0), 1000))))
    return f"{number / 1000**exponent:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[exponent]}"


@functools.cache
def measured_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Time a matrix product, the best of 3: flops per second. Measured once per process."""
    matrix = torch.ones(_PROBE, _PROBE, dtype=dtype, device=device)
    best = math.inf
    for _ in range(3):
        start = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 2.0 * _PROBE**3 / best


def default_memory(device: torch.device) -> int:
    """Return the bytes to plan with where nothing is said: half of the machine's, or what is free on the GPU."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError, AttributeError):  # a system that does not say
        return 2**32
