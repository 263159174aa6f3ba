"""Weight matrices of trained networks: safetensors files, torch state_dicts, numpy archives.

A matrix is taken as torch stores it, (outputs, inputs): it acts on what the one before it returns.
"""

import fnmatch
import itertools
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from rmtbn import _checks

ORDERS = ("natural", "file")
_DIGITS = re.compile(r"(\d+)")
_SHOWN = 8  # names that an error lists


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the floating-point tensors of a weight file, by name, in the order of the file.

    Parameters
    ----------
    path
        `.safetensors` (needs the package safetensors), `.npz`, `.npy` (one tensor, named after the file), or a file of
        `torch.save` with a state_dict or mappings of them, whose names are then joined by dots. Nothing in a file is
        executed.

    Returns
    -------
    dict
        Name to tensor, on the CPU, of the dtype it was stored in; what is not floating point is left out.

    Raises
    ------
    InvalidArgumentError
        If the file is missing, of an unknown kind, broken, or holds more than tensors; it names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise _checks.fail("file", "an existing file of weights", str(path))
    kinds = ", ".join(_READERS)
    if path.suffix.lower() not in _READERS:
        raise _checks.fail("file", f"of a known kind ({kinds})", str(path))
    tensors = dict(_READERS[path.suffix.lower()](path))
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def choose_weights(
    tensors: Mapping[str, Tensor], *, patterns: Sequence[str] = (), order: str = "natural"
) -> dict[str, Tensor]:
    """Choose the weights (tensors of two or more dimensions) of a file and put them in order.

    Parameters
    ----------
    tensors
        Name to tensor.
    patterns
        Which names to take, with the wildcards * and ? of file names; those of the first pattern come first. None:
        all weights.
    order
        Among the names of one pattern: "natural" (numbers by their size: layer 2 comes before layer 10), or "file".

    Raises
    ------
    InvalidArgumentError
        If a pattern matches no weight, nothing is left, or a weight is empty, all 0 or not finite; it names it.

    Examples
    --------
    >>> found = {name: torch.ones(2, 2) for name in ("fc10.weight", "fc2.weight", "embedding")}
    >>> list(choose_weights(found, patterns=["fc*"]))
    ['fc2.weight', 'fc10.weight']
    """
    _checks.one_of("order", order, ORDERS)
    weights = [name for name, tensor in tensors.items() if tensor.ndim >= 2]
    if not weights:
        raise _checks.fail("file", "one with weight matrices", f"{len(tensors)} tensors of fewer than two dimensions")
    chosen: dict[str, Tensor] = {}
    for pattern in patterns or ("*",):
        names = [name for name in weights if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            raise _checks.fail("tensors", f"a pattern that matches one of {_listed(weights)}", pattern)
        for name in sorted(names, key=natural_key) if order == "natural" else names:
            chosen.setdefault(name, tensors[name])
    for name, tensor in chosen.items():
        _check(name, tensor)
    return chosen


def check_chain(shapes: Mapping[str, Sequence[int]]) -> None:
    """Refuse matrices (outputs, inputs) of which one does not take what the one before it returns.

    Parameters
    ----------
    shapes
        Name to shape, first to be applied first.

    Raises
    ------
    InvalidArgumentError
        Naming a kernel that is no matrix, or the two matrices that do not fit.
    """
    for name, shape in shapes.items():
        if len(shape) != 2:
            rule = "matrices for a product (of a convolution only its own singular values are computed)"
            raise _checks.fail("tensors", rule, f"{name} of shape {tuple(shape)}")
    for (first, (outputs, _)), (second, (_, inputs)) in itertools.pairwise(shapes.items()):
        if outputs != inputs:
            rule = "matrices of which each takes what the one before it returns"
            found = f"{first} with {outputs} outputs before {second} with {inputs} inputs"
            raise _checks.fail("tensors", rule, found)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a sort key by which the numbers in a name count by their size."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _DIGITS.split(name) if part]


def _check(name: str, tensor: Tensor) -> None:
    if tensor.numel() == 0:
        raise _checks.fail("tensors", "weights that are not empty", f"{name} of shape {tuple(tensor.shape)}")
    if not bool(torch.isfinite(tensor.double()).all()):
        raise _checks.fail("tensors", "weights with finite entries", f"NaN or infinity in {name}")
    if not bool(tensor.double().any()):
        raise _checks.fail("tensors", "weights that are not all 0; choose others", f"{name} is 0")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        from safetensors import SafetensorError  # noqa: PLC0415 - an extra, needed for these files alone
        from safetensors.torch import load_file  # noqa: PLC0415
    except ImportError:
        remedy = "read with the package safetensors (pip install safetensors)"
        raise _checks.fail("file", remedy, str(path)) from None
    try:
        found: Mapping[str, Tensor] = load_file(path)
    except (SafetensorError, ValueError, OSError):
        raise _checks.fail("file", "a whole safetensors file", str(path)) from None
    return found


def _torch(path: Path) -> Mapping[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        rule = "a state_dict, tensors and no other objects (torch.save(model.state_dict(), ...))"
        raise _checks.fail("file", rule, str(path)) from None
    except (RuntimeError, LookupError, ValueError, TypeError, EOFError, OSError, AttributeError):
        raise _checks.fail("file", "a whole file of torch.save", str(path)) from None
    return {".".join(keys) or path.stem: tensor for keys, tensor in _leaves(content, ())}


def _leaves(content: object, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Tensors of nested mappings, with the keys that lead to them."""
    if isinstance(content, Tensor):
        yield keys, content.detach()
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _leaves(value, (*keys, str(key)))


def _numpy(path: Path) -> Mapping[str, Tensor]:
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            arrays = {path.stem: content} if isinstance(content, np.ndarray) else dict(content)
        return {
            name: torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))
            for name, array in arrays.items()
            if array.dtype.kind == "f"
        }
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile):
        raise _checks.fail("file", "a numpy file with arrays of numbers", str(path)) from None


_READERS: Mapping[str, Callable[[Path], Mapping[str, Tensor]]] = MappingProxyType(
    {
        ".safetensors": _safetensors,
        **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt"), _torch),
        **dict.fromkeys((".npz", ".npy"), _numpy),
    }
)
