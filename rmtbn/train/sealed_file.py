"""Tensors and plain values in one file that is whole or not there, checked before it is used, and never executed.

A file is one line of JSON (format, version, length and SHA-256 of the rest), and the rest as `torch.save` writes it.
"""

import hashlib
import json
import os
import pickle
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from rmtbn import _checks

VERSION = 1
_FORMAT = "rmtbn checkpoint"
_LONGEST_HEADER = 1000  # bytes; it has fewer than 200
_ATOMS = (type(None), bool, int, float, complex, str, bytes, torch.Tensor, torch.dtype, torch.Size, torch.device)
_MAPPINGS = (dict, OrderedDict, Counter)


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; the message names the file and what is wrong or differs."""


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file in place of the one before it, which stays until the new one is on the disk.

    A killed writer leaves the file before it, and a temporary file whose name starts with a dot, which the next one
    uses again: so one process at a time writes to a path.

    Raises
    ------
    InvalidArgumentError
        If something is neither a tensor nor a plain value (None, bool, int, float, str, bytes, and lists, tuples and
        dictionaries of them): it could not be read without executing code.
    """
    _check_plain("", content)
    rest = BytesIO()
    torch.save(dict(content), rest)
    body = rest.getbuffer()
    header = {"format": _FORMAT, "version": VERSION, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    _replace(path, (json.dumps(header).encode() + b"\n", body))


def read(path: Path) -> dict[str, Any]:
    """Read a file whose length and checksum are right; its tensors come to the CPU.

    Raises
    ------
    CheckpointError
        If the file is missing, truncated, altered, of another kind or version, or holds more than plain values.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    header, body = _split(path, raw)
    if header["version"] != VERSION:
        raise CheckpointError(f"{path} is of version {header['version']}; this rmtbn reads version {VERSION}")
    if len(body) < header["bytes"]:
        raise CheckpointError(f"{path} is truncated: {len(body)} of {header['bytes']} bytes are there")
    if len(body) > header["bytes"] or hashlib.sha256(body).hexdigest() != header["sha256"]:
        raise CheckpointError(f"{path} was altered: its checksum is not that of its content")
    try:
        content: dict[str, Any] = torch.load(BytesIO(body), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path} holds more than tensors and plain values; nothing was executed") from None
    return content


def _split(path: Path, raw: bytes) -> tuple[dict[str, Any], memoryview]:
    """Tell the header from the rest."""
    beginning = json.dumps({"format": _FORMAT}).encode()[:-1]
    end = raw[:_LONGEST_HEADER].find(b"\n")
    if end < 0 and (raw.startswith(beginning) or beginning.startswith(raw)):
        raise CheckpointError(f"{path} is truncated: it ends within its first line")
    try:
        header = json.loads(raw[:end]) if raw.startswith(beginning) else {}
    except ValueError:
        header = {}
    kinds = {"format": str, "version": int, "bytes": int, "sha256": str}
    if {key: type(value) for key, value in header.items()} != kinds or header["format"] != _FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of rmtbn")
    return header, memoryview(raw)[end + 1 :]


def _check_plain(name: str, value: object) -> None:
    """Refuse what `torch.load(weights_only=True)` would refuse, before it is written."""
    if type(value) in _MAPPINGS and isinstance(value, Mapping):
        for key, item in value.items():
            _check_plain(name, key)
            _check_plain(f"{name}.{key}" if name else str(key), item)
    elif type(value) in (list, tuple) and isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_plain(f"{name}[{i}]", item)
    elif not (isinstance(value, torch.Tensor) or type(value) in _ATOMS):
        raise _checks.fail(name, "a tensor or a plain value, so that it can be read without executing code", value)


def _replace(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write under another name, force it to the disk, rename, and force the name to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    if os.name == "posix":
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
