"""The state of every random generator of a run: torch's on each device, Python's, numpy's, and those with a name."""

import random
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch

Generator: TypeAlias = torch.Generator | np.random.Generator

_ARRAY = "uint array"  # marks an array in the state of a generator of numpy


def state(generators: Mapping[str, Generator]) -> dict[str, Any]:
    """Return the states of the global generators and of those named, as tensors and plain values."""
    return {
        "devices": {"cpu": torch.get_rng_state(), **{f"cuda:{i}": torch.cuda.get_rng_state(i) for i in _cuda()}},
        "python": random.getstate(),
        "numpy": _encoded(np.random.get_state(legacy=False)),  # noqa: NPY002 - a user's data may draw from it
        "named": {name: named_state(generator) for name, generator in generators.items()},
    }


def kind(generator: Generator) -> str:
    """Say what a generator is: states can only go to one of the same kind.

    Examples
    --------
    >>> kind(np.random.default_rng(1)), kind(torch.Generator())
    ('numpy PCG64', 'torch cpu')
    """
    if isinstance(generator, torch.Generator):
        return f"torch {generator.device}"
    return f"numpy {type(generator.bit_generator).__name__}"


def named_state(generator: Generator) -> dict[str, Any]:
    """Return kind and state of a generator."""
    if isinstance(generator, torch.Generator):
        return {"kind": kind(generator), "state": generator.get_state()}
    return {"kind": kind(generator), "state": _encoded(generator.bit_generator.state)}


def restore_named(generator: Generator, saved: Mapping[str, Any]) -> None:
    """Put a generator into a state that `named_state` returned."""
    if isinstance(generator, torch.Generator):
        generator.set_state(saved["state"])
    else:
        generator.bit_generator.state = _decoded(saved["state"])


def restore_global(saved: Mapping[str, Any]) -> None:
    """Put torch's generators, Python's and numpy's into a state that `state` returned."""
    for device, value in saved["devices"].items():
        if device == "cpu":
            torch.set_rng_state(value)
        else:
            torch.cuda.set_rng_state(value, device)
    random.setstate(saved["python"])
    np.random.set_state(_decoded(saved["numpy"]))  # noqa: NPY002


def missing_devices(saved: Mapping[str, Any]) -> list[str]:
    """Return the devices of a saved state that are not there."""
    there = {"cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))}
    return [device for device in saved["devices"] if device not in there]


def _cuda() -> range:
    """Devices whose generators can have been used."""
    used: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return range(torch.cuda.device_count() if used else 0)


def _encoded(value: Any) -> Any:
    """Write arrays and numbers of numpy as plain values."""
    if isinstance(value, Mapping):
        return {key: _encoded(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return [_ARRAY, value.dtype.name, value.tolist()]
    return value.item() if isinstance(value, np.generic) else value


def _decoded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _decoded(item) for key, item in value.items()}
    if isinstance(value, list) and value[:1] == [_ARRAY]:
        return np.array(value[2], dtype=value[1])
    return value
