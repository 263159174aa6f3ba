"""Checkpoints: everything that training needs to go on as if it had not been interrupted, in one file.

A file is replaced atomically, so that a process killed at any moment leaves the last whole one; it is read without
executing anything; and it is loaded wholly or not at all, after all of it was found to fit.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rmtbn.train import module_state, random_state, sealed_file
from rmtbn.train.random_state import Generator
from rmtbn.train.sealed_file import CheckpointError

__all__ = ["CheckpointError", "Stateful", "load", "read", "save"]

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_KEYS = {"tensors", "extra", "layers", "training", "parts", "random", "progress", "config"}
_SHOWN = 4  # differences that a message lists


@runtime_checkable
class Stateful(Protocol):
    """An optimiser, a schedule, a sampler, a gradient scaler: what gives its state as a dictionary and takes it."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take a state."""


def save(
    path: str | Path,
    module: nn.Module,
    *,
    parts: Mapping[str, Stateful] = _EMPTY,
    generators: Mapping[str, Generator] = _EMPTY,
    progress: Mapping[str, Any] = _EMPTY,
    config: Mapping[str, Any] = _EMPTY,
) -> None:
    """Write a checkpoint in place of the one before it, atomically; gradients are not kept, so save between steps.

    Parameters
    ----------
    path
        The file; its folder is made if it is not there. One process at a time writes to it.
    module
        The network: parameters, all buffers (those that are not persistent too), extra state, and the mode of each
        layer. The wrappers of `torch.compile` and of data parallelism are looked through.
    parts
        Optimiser, schedule, gradient scaler, sampler and so on, by name.
    generators
        Generators of torch or numpy, by name. The global ones (torch's of the CPU and of every CUDA device in use,
        Python's, numpy's) are kept without being named.
    progress
        Where training is: epoch, position of the sampler, best loss. Tensors and plain values.
    config
        What the run is, to be compared by `load`. Tensors and plain values.

    Raises
    ------
    InvalidArgumentError
        If something is neither a tensor nor a plain value.
    """
    inner = module_state.inner(module)
    content = {
        "tensors": {name: tensor.detach() for name, tensor in module_state.tensors(inner).items()},
        "extra": module_state.extra(inner),
        "layers": module_state.layers(inner),
        "training": module_state.training(inner),
        "parts": {name: _part(part, inner) for name, part in parts.items()},
        "random": random_state.state(generators),
        "progress": dict(progress),
        "config": dict(config),
    }
    sealed_file.write(Path(path), content)


def read(path: str | Path) -> dict[str, Any]:
    """Return what a checkpoint holds, on the CPU, without loading it into anything.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict
        `tensors` (parameters and buffers by name), `extra`, `layers`, `training`, `parts`, `random`, `progress`,
        `config`.

    Raises
    ------
    CheckpointError
        If the file is missing, truncated, altered, of another kind or version.
    """
    content = sealed_file.read(Path(path))
    if set(content) != _KEYS:
        raise CheckpointError(
            f"{path} is no checkpoint of training: it holds {', '.join(sorted(content)) or 'nothing'}"
        )
    return content


def load(
    path: str | Path,
    module: nn.Module,
    *,
    parts: Mapping[str, Stateful] = _EMPTY,
    generators: Mapping[str, Generator] = _EMPTY,
    config: Mapping[str, Any] | None = None,
    global_generators: bool = True,
) -> dict[str, Any]:
    """Put everything into the state that was saved, in place; or raise, and nothing has changed.

    Parameters
    ----------
    path
        The file.
    module, parts, generators
        As they were given to `save`, of the same architecture, kinds and names, in whatever state.
    config
        If given, it must be that of the file.
    global_generators
        Whether the global generators are put back too; without it a checkpoint of a machine with more GPUs can be
        loaded, and training goes on with other draws.

    Returns
    -------
    dict
        The `progress` that was saved.

    Raises
    ------
    CheckpointError
        If the file cannot be used as it is, or something differs; the message names what.
    """
    content, inner = read(path), module_state.inner(module)
    found = list(_differences(content, inner, parts, generators))
    if config is not None:
        found += _compared("config", content["config"], dict(config))
    if global_generators and (gone := random_state.missing_devices(content["random"])):
        found.append(f"generators of {', '.join(gone)} are in it, not here (global_generators=False goes without)")
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise CheckpointError(f"{path} does not fit: {'; '.join(found[:_SHOWN])}{more}")
    with ExitStack() as undo:
        try:
            _restore(content, inner, parts, generators, undo)
            if global_generators:
                undo.callback(random_state.restore_global, random_state.state({}))
                random_state.restore_global(content["random"])
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise CheckpointError(f"{path} does not fit: {error}") from error
        undo.pop_all()
    return dict(content["progress"])


def _restore(
    content: dict[str, Any],
    module: nn.Module,
    parts: Mapping[str, Stateful],
    generators: Mapping[str, Generator],
    undo: ExitStack,
) -> None:
    """Write one thing after the other, and note first how each is undone."""
    before = {name: tensor.detach().clone() for name, tensor in module_state.tensors(module).items()}
    extra, modes = copy.deepcopy(module_state.extra(module)), module_state.training(module)
    undo.callback(module_state.write, module, values=before, extra_state=extra, modes=modes)
    module_state.write(module, values=content["tensors"], extra_state=content["extra"], modes=content["training"])
    for name, part in parts.items():
        undo.callback(part.load_state_dict, copy.deepcopy(part.state_dict()))
        part.load_state_dict(content["parts"][name]["state"])
    for name, generator in generators.items():
        undo.callback(random_state.restore_named, generator, random_state.named_state(generator))
        random_state.restore_named(generator, content["random"]["named"][name])


def _differences(
    content: dict[str, Any], module: nn.Module, parts: Mapping[str, Stateful], generators: Mapping[str, Generator]
) -> Iterator[str]:
    """Say all that keeps a checkpoint from being loaded."""
    yield from _compared("layer", content["layers"], module_state.layers(module))
    yield from _compared("tensor", *map(_described, (content["tensors"], module_state.tensors(module))))
    saved_extra, extra = (dict.fromkeys(found, "state") for found in (content["extra"], module_state.extra(module)))
    yield from _compared("extra state", saved_extra, extra)
    saved = {name: {key: part[key] for key in ("kind", "of")} for name, part in content["parts"].items()}
    current = {name: {key: _part(part, module)[key] for key in ("kind", "of")} for name, part in parts.items()}
    yield from _compared("part", saved, current)
    kinds = {name: one["kind"] for name, one in content["random"]["named"].items()}
    yield from _compared("generator", kinds, {name: random_state.kind(one) for name, one in generators.items()})


def _described(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for name, t in tensors.items()}


def _compared(what: str, saved: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    for name in [*saved, *(name for name in here if name not in saved)]:
        if name not in here:
            yield f"{what} {name!r} is in the file alone"
        elif name not in saved:
            yield f"{what} {name!r} is not in the file"
        elif not _equal(saved[name], here[name]):
            yield f"{what} {name!r} is {saved[name]} in the file and {here[name]} here"


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b.cpu())
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return type(a) is type(b) and bool(a == b)


def _part(part: Stateful, module: nn.Module) -> dict[str, Any]:
    """State of a part, its class, and what it is of: an optimiser of the parameters of each group, by their names."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    of: list[Any]
    if isinstance(part, torch.optim.Optimizer):
        of = [[names.get(id(p), "another") for p in group["params"]] for group in part.param_groups]
    else:
        of = sorted(str(key) for key in part.state_dict())
    return {"kind": type(part).__name__, "of": of, "state": part.state_dict()}
