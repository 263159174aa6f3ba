"""Named bytes that appear whole or not at all: in memory, or in a folder."""

import abc
import os
import secrets
from contextlib import suppress
from io import BytesIO, IOBase
from pathlib import Path
from typing import final

import pyarrow as pa


class Blobs(abc.ABC):
    """Named bytes. A name is a file name, with a folder before it if it has one: ``_failed/abc.parquet``.

    A reader sees the whole of a blob or none of it, whatever writers do and whenever they die.
    """

    @abc.abstractmethod
    def names(self, folder: str = "") -> list[str]:
        """Return the names (without the folder) of the blobs of a folder; none is opened."""

    @abc.abstractmethod
    def has(self, name: str) -> bool:
        """Say whether there is a blob of this name."""

    @abc.abstractmethod
    def get(self, name: str) -> bytes | None:
        """Return the content, or None."""

    @abc.abstractmethod
    def open(self, name: str) -> IOBase | pa.NativeFile:
        """Open a blob for reading in parts."""

    @abc.abstractmethod
    def put(self, name: str, content: bytes) -> None:
        """Store the content; what had this name before is replaced."""

    @abc.abstractmethod
    def add(self, name: str, content: bytes) -> bool:
        """Store the content unless there is a blob of this name; say whether it was stored."""

    @abc.abstractmethod
    def move(self, name: str, to: str) -> str:
        """Give a blob another name, and return where it is now; nothing if it is gone."""

    @abc.abstractmethod
    def remove(self, name: str) -> None:
        """Forget a blob; nothing if it is gone."""


@final
class MemoryBlobs(Blobs):
    """Blobs of this process."""

    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}

    def names(self, folder: str = "") -> list[str]:
        """Return the names in a folder."""
        parts = [name.rpartition("/") for name in tuple(self._contents)]
        return [name for place, _, name in parts if place == folder]

    def has(self, name: str) -> bool:
        """Say whether there is such a blob."""
        return name in self._contents

    def get(self, name: str) -> bytes | None:
        """Return the content, or None."""
        return self._contents.get(name)

    def open(self, name: str) -> IOBase:
        """Open a blob."""
        return BytesIO(self._contents[name])

    def put(self, name: str, content: bytes) -> None:
        """Store the content."""
        self._contents[name] = content

    def add(self, name: str, content: bytes) -> bool:
        """Store the content unless the name is taken."""
        return self._contents.setdefault(name, content) is content

    def move(self, name: str, to: str) -> str:
        """Rename a blob."""
        if name in self._contents:
            self._contents[to] = self._contents.pop(name)
        return to

    def remove(self, name: str) -> None:
        """Forget a blob."""
        self._contents.pop(name, None)


@final
class FolderBlobs(Blobs):
    """Files of a folder, which the first write creates. Other files there are left alone.

    A file is written under a temporary name, forced to the disk and renamed, so that it is whole or not there, after a
    crash of the machine as well. Temporary files of a killed writer stay and do no harm: their names start with a dot.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the files in a folder."""
        try:
            with os.scandir(self._path / folder) as entries:
                return [entry.name for entry in entries]
        except FileNotFoundError:
            return []

    def has(self, name: str) -> bool:
        """Say whether there is such a file."""
        return (self._path / name).is_file()

    def get(self, name: str) -> bytes | None:
        """Read a file."""
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            return None

    def open(self, name: str) -> pa.NativeFile:
        """Open a file."""
        return pa.OSFile(os.fspath(self._path / name))  # half the time of Python's, for the ends of many small files

    def put(self, name: str, content: bytes) -> None:
        """Write a file and let it take the place of another."""
        temporary = self._temporary(name, content)
        try:
            temporary.replace(self._path / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync((self._path / name).parent)

    def add(self, name: str, content: bytes) -> bool:
        """Write a file unless there is one: of several writers at once, one succeeds."""
        temporary = self._temporary(name, content)
        try:
            (self._path / name).hardlink_to(temporary)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links: the last writer wins
            temporary.replace(self._path / name)
        finally:
            temporary.unlink(missing_ok=True)
        _sync((self._path / name).parent)
        return True

    def move(self, name: str, to: str) -> str:
        """Rename a file, into a folder that is made if need be."""
        target = self._path / to
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another process was faster
            (self._path / name).replace(target)
        return str(target)

    def remove(self, name: str) -> None:
        """Delete a file."""
        (self._path / name).unlink(missing_ok=True)

    def _temporary(self, name: str, content: bytes) -> Path:
        target = self._path / name
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        try:
            try:
                file = temporary.open("xb")
            except FileNotFoundError:
                target.parent.mkdir(parents=True, exist_ok=True)
                file = temporary.open("xb")
            with file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary


def _sync(folder: Path) -> None:
    """Force the names in a folder to the disk, where the system knows how."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
