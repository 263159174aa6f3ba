"""Where finished cells stay: a folder with one file per cell, or memory, behind one interface."""

import abc
import os
import re
import secrets
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import final

from rmtbn.sweep.parquet import UnreadableRecordError, decode, encode
from rmtbn.sweep.record import Record

_SUFFIX = ".parquet"
_NAME = re.compile(r"[0-9a-f]{64}" + re.escape(_SUFFIX))


class SetAsideWarning(UserWarning):
    """A stored cell could not be trusted, and was set aside."""


class Store(abc.ABC):
    """Finished cells by key. A reader sees a whole cell or none; what cannot be trusted counts as missing.

    Another kind of store is another five small methods on bytes; all else is here.
    """

    @abc.abstractmethod
    def keys(self) -> list[str]:
        """Keys of all stored cells, sorted; none is opened."""

    @abc.abstractmethod
    def has(self, key: str) -> bool:
        """Say whether something is stored under `key`; `read` finds out whether it can be trusted."""

    @abc.abstractmethod
    def _put(self, key: str, content: bytes) -> None:
        """Store `content` under `key`, in one step for every reader."""

    @abc.abstractmethod
    def _get(self, key: str) -> bytes | None:
        """Return what is stored under `key`, or None."""

    @abc.abstractmethod
    def _set_aside(self, key: str) -> str:
        """Move what is stored under `key` out of the way and return the name it now has."""

    @final
    def write(self, record: Record) -> None:
        """Store a finished cell; one that is there already is replaced."""
        self._put(record.key, encode(record))

    @final
    def read(self, key: str) -> Record | None:
        """Return the cell stored under `key`, or None.

        Warns
        -----
        SetAsideWarning
            If what is stored is truncated, altered or foreign; it is then renamed and counts as missing.
        """
        content = self._get(key)
        if content is None:
            return None
        try:
            record = decode(content)
            if record.key != key:
                raise UnreadableRecordError(f"the record of another cell ({record.study}: {record.cell})")  # noqa: TRY301
        except UnreadableRecordError as error:
            place = self._set_aside(key)
            warnings.warn(f"{place} was set aside: it is {error}", SetAsideWarning, stacklevel=2)
            return None
        return record

    @final
    def load(self, keys: Iterable[str]) -> dict[str, Record]:
        """Return those of the named cells that are stored, by key, in the order of `keys`."""
        found = ((key, self.read(key)) for key in keys)
        return {key: record for key, record in found if record is not None}


@final
class MemoryStore(Store):
    """Cells held in memory, in the very bytes that a file would hold."""

    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}

    def keys(self) -> list[str]:
        """Keys of all stored cells, sorted."""
        return sorted(key for key in self._contents if not key.endswith(".bad"))

    def has(self, key: str) -> bool:
        """Say whether something is stored under `key`."""
        return key in self._contents

    def _put(self, key: str, content: bytes) -> None:
        self._contents[key] = content

    def _get(self, key: str) -> bytes | None:
        return self._contents.get(key)

    def _set_aside(self, key: str) -> str:
        self._contents[f"{key}.bad"] = self._contents.pop(key)
        return f"{key}.bad"


@final
class FolderStore(Store):
    """Cells as ``<key>.parquet`` in a folder, which the first write creates. Other files there are left alone.

    A cell is written under a temporary name, forced to the disk and renamed, so that it is whole or not there, after a
    crash as well, and writers in many processes do not meet. Temporary files of a killed writer stay and do no harm.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def keys(self) -> list[str]:
        """Keys of all stored cells, sorted."""
        if not self.path.is_dir():
            return []
        with os.scandir(self.path) as entries:
            return sorted(entry.name.removesuffix(_SUFFIX) for entry in entries if _NAME.fullmatch(entry.name))

    def has(self, key: str) -> bool:
        """Say whether there is a file for `key`."""
        return self._file(key).is_file()

    def _file(self, key: str) -> Path:
        return self.path / f"{key}{_SUFFIX}"

    def _put(self, key: str, content: bytes) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f".{key}.{secrets.token_hex(8)}.tmp"
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._file(key))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(self.path)

    def _get(self, key: str) -> bytes | None:
        try:
            return self._file(key).read_bytes()
        except FileNotFoundError:
            return None

    def _set_aside(self, key: str) -> str:
        file = self._file(key)
        bad = file.with_name(file.name + ".bad")
        return str(file.replace(bad))


def _sync(folder: Path) -> None:
    """Force the names in a folder to the disk, where the system knows how."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
