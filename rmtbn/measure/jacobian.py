"""Singular values of the input-output Jacobian of a network, by the route that its size and the question call for.

The Jacobian is that of the batch map x -> module(x): B·m outputs by B·n inputs. Without batch statistics the samples do
not couple and it is block diagonal; with them (batch normalisation in train mode) it is full, and its law is another.
The twin in theory is the law of a described network, for example `rmtbn.theory.fuss_catalan`.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rmtbn import _checks, _modules, rng
from rmtbn.measure import batch_statistics, network, planner
from rmtbn.measure.jacobian_routes import ASSEMBLED, KRYLOV, Found
from rmtbn.result import EmpiricalSpectrum

METHODS = ("auto", *planner.ROUTES)

# Bytes that the factors of a part of the batch may take, if the budget is not less: samples that do not couple gain
# nothing from more, and workers of a sweep share the machine.
_PART = 2**30
# Bytes of what goes into the layers that are kept from the first forward pass for the second.
_POINTS = 2**26


def spectrum(
    module: nn.Module,
    x: Tensor,
    *,
    method: str = "auto",
    batch_stats: str | None = None,
    floor: float | None = None,
    memory_budget: int | None = None,
    seed: int = 0,
) -> EmpiricalSpectrum:
    """Measure the singular values of the Jacobian of x -> module(x), exact zeros included.

    Parameters
    ----------
    module
        The network, left as it is found. A `Sequential` (nested ones too) is pushed child by child, anything else is
        one block. Only batch normalisation may couple the examples, or the module is taken to couple them all.
    x
        Inputs (B, ...features), floating point, of the module's dtype and device, in which all is computed; but
        products of float32 networks, on the CPU, in float64, unless a layer goes through single precision inside.
        Elsewhere rounding of the points on the way, which chaotic networks amplify, is in no stated error.
    method
        "product": push an orthonormal basis and re-factorise as it goes, every value right at any depth.
        "dense": assemble the Jacobian and take its SVD; values below max(m, n) ε of the largest are censored.
        "slq": never assemble it; the density above `floor` by block stochastic Lanczos quadrature, the rest censored.
        "lanczos": never assemble it; each value above `floor` with an error bound, the rest censored.
        "auto": the cheapest that gives what is asked in the memory there is (`rmtbn.measure.planner`).
    batch_stats
        "batch" or "running" statistics in batch normalisation; None follows the module's mode.
    floor
        Smallest λ, over the largest, that must be told from 0, 0 < floor < 1. None: all values for "auto", 1e-6 for
        "slq" and "lanczos".
    memory_budget
        Bytes for the whole computation; None: half of the machine's memory, or what is free on the GPU.
    seed
        Of the random probes of the matrix-free routes.

    Returns
    -------
    EmpiricalSpectrum
        One network (one row) of B·m values: those of all the samples where they do not couple. Join networks with
        `EmpiricalSpectrum.pool`. `method` and `reason` say which route was taken and why, `log_floor` below what values
        are censored: known to lie under it, and no more. Zeros that follow from the layers (dead units, more outputs
        than inputs, the mean that batch statistics remove) are zeros whatever the route.

    Raises
    ------
    InvalidArgumentError
        If `x` is not finite and floating, the module is random, not finite at x or does not map batch to batch, a name
        is unknown, one example meets batch statistics, or the route does not fit in memory (with the figures).
    """
    stop = len(_modules.layers(module))
    return _spectra(
        module,
        x,
        [stop],
        method=method,
        batch_stats=batch_stats,
        memory_budget=memory_budget,
        floor=floor,
        seed=seed,
    )[0]


def prefix_spectra(
    module: nn.Module,
    x: Tensor,
    *,
    after: Sequence[int | str],
    method: str = "auto",
    batch_stats: str | None = None,
    memory_budget: int | None = None,
) -> dict[int | str, EmpiricalSpectrum]:
    """Measure the singular values of the Jacobians from the input to the outputs of chosen children, in one pass.

    Parameters
    ----------
    module
        A `Sequential`, nested or not.
    after
        Children by their place in the flattened order (0 is the first) or by their dotted name.
    x, method, batch_stats, memory_budget
        As in `spectrum`; the matrix-free routes serve the whole network only.

    Returns
    -------
    dict
        `after` -> EmpiricalSpectrum; each as `spectrum` gives it for the children up to and with that one.

    Raises
    ------
    InvalidArgumentError
        As `spectrum`, and if `after` is empty or names a child that is not there.
    """
    _checks.one_of("method", method, ("auto", *ASSEMBLED))
    names = [name for name, _ in _modules.layers(module)]
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
    module: nn.Module,
    x: Tensor,
    stops: list[int],
    *,
    method: str,
    batch_stats: str | None,
    memory_budget: int | None,
    floor: float | None = None,
    seed: int = 0,
) -> list[EmpiricalSpectrum]:
    """Measure the spectra after the first `stops` children (ascending)."""
    _checks.one_of("method", method, METHODS)
    floor = None if floor is None else _checks.real("floor", floor, above=0.0, below=1.0)
    network.check_input(module, x)
    memory = planner.default_memory(x.device) if memory_budget is None else memory_budget
    memory = _checks.integer("memory_budget", memory, at_least=1)
    statistics = batch_statistics.resolve(module, batch_stats)
    with network.layer_by_layer(module, statistics):
        # points are worth keeping that take less room than the Jacobians
        met = network.check_output(module, x, keep=min(_POINTS, x.nbytes * x[0].numel()))
        coupled = statistics == "batch" or network.couples(module, x)
        layers = [layer for _, layer in _modules.layers(module)][: stops[-1]]
        size = planner.size_of(layers, met.shapes, coupled=coupled)
        chosen = _plan(size, len(stops), x, method=method, floor=floor, memory_budget=memory)
        segments = [layers[a:b] for a, b in zip([0, *stops], stops, strict=False)]
        if chosen.route in ASSEMBLED:
            part = max(1, int(min(memory, _PART) // chosen.prices[chosen.route].memory))
            measure, budget = ASSEMBLED[chosen.route], max(1, min(memory, _PART) // 4)
            parts = [met.points] if coupled or part >= len(x) else [[inputs] for inputs in _parts(x, coupled, part)]
            chunks = [measure(segments, points, coupled=coupled, budget=budget) for points in parts]
        else:
            measure_one = KRYLOV[chosen.route]
            depth = planner.FLOOR if floor is None else floor
            groups = enumerate(_parts(x, coupled, 1))
            chunks = [[measure_one(layers, one, floor=depth, probes=_probes(seed, i))] for i, one in groups]
    return [_joined([chunk[i] for chunk in chunks], chosen.route, statistics, chosen.reason) for i in range(len(stops))]


def _probes(seed: int, group: int) -> torch.Generator:
    return rng.torch_generator(seed, "jacobian", "probes", group)


def _plan(
    size: planner.Size, stops: int, x: Tensor, *, method: str, floor: float | None, memory_budget: int
) -> planner.Plan:
    """Choose the route; only those that pass through every layer once give several spectra in one pass."""
    if stops > 1 and method == "auto":
        method = "product"
    return planner.plan(size, method=method, floor=floor, memory_budget=memory_budget, dtype=x.dtype, device=x.device)


def _joined(parts: Sequence[Found], route: str, statistics: str | None, reason: str) -> EmpiricalSpectrum:
    """Join the groups of one network into one row; the highest floor among them is that of the network."""
    floors = [part.log_floor for part in parts if part.log_floor is not None]
    notes = list(dict.fromkeys(part.note for part in parts if part.note))
    said = [notes[0] + (f" (the first of {len(notes)} such)" if len(notes) > 1 else "")] if notes else []
    return EmpiricalSpectrum(
        by_network=np.concatenate([part.values for part in parts])[None],
        relative_error=max(part.relative_error for part in parts),
        method=route,
        batch_stats=statistics,
        log_floor=np.array([max(floors)]) if floors else None,
        cdf_error=max(part.cdf_error for part in parts),
        reason="; ".join([reason, *said]),
    )


def _parts(x: Tensor, coupled: bool, examples: int) -> Iterator[Tensor]:
    """Cut the batch into parts of so many examples; coupled ones stay together."""
    return iter([x] if coupled else torch.split(x, examples))
