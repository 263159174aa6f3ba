"""Where finished cells stay: one file per cell, or one per study, in a folder, in memory or on a remote file system."""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, final

from rmtbn.sweep.blobs import Blobs, FolderBlobs, MemoryBlobs
from rmtbn.sweep.compacted import NAME as COMPACTED
from rmtbn.sweep.compacted import Compacted
from rmtbn.sweep.parquet import Header, UnreadableRecordError, decode, encode, header
from rmtbn.sweep.record import Record
from rmtbn.sweep.remote import RemoteBlobs

T = TypeVar("T", Record, Header)

_SUFFIX = ".parquet"
_NAME = re.compile(r"[0-9a-f]{64}" + re.escape(_SUFFIX))
FAILED, ASIDE = "_failed", "_set_aside"  # folders that readers of Parquet pass over


class SetAsideWarning(UserWarning):
    """A stored cell could not be trusted, and was set aside."""


class Store:
    """Finished cells by key. A reader sees a whole cell or none; what cannot be trusted counts as missing.

    A cell that is there stays as it is: of several writers of one cell, the first wins, and the results are the same.

    Parameters
    ----------
    blobs
        Where the files are.
    """

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self._opened: dict[str, Compacted] = {}

    def keys(self) -> list[str]:
        """Return the keys of all stored cells, sorted; no file of one cell is opened."""
        names = self.blobs.names()
        alone = (name.removesuffix(_SUFFIX) for name in names if _NAME.fullmatch(name))
        return sorted({*alone, *(key for file in self.compacted(names).values() for key in file)})

    def has(self, key: str) -> bool:
        """Say whether something is stored under `key`; `read` finds out whether it can be trusted."""
        return self.blobs.has(f"{key}{_SUFFIX}") or any(key in file for file in self._opened.values())

    def write(self, record: Record) -> bool:
        """Store a finished cell; say whether it was not there before."""
        return self.add(record.key, encode(record))

    def add(self, key: str, content: bytes) -> bool:
        """Store the file of a finished cell; say whether it was not there before."""
        return self.blobs.add(f"{key}{_SUFFIX}", content)

    def read(self, key: str) -> Record | None:
        """Return the cell stored under `key`, or None.

        Warns
        -----
        SetAsideWarning
            If what is stored is truncated, altered or foreign; it is then renamed and counts as missing.
        """
        content = self.blobs.get(f"{key}{_SUFFIX}")
        if content is None:
            return self._from_compacted(key)
        try:
            return _same(key, decode(content))
        except UnreadableRecordError as error:
            self._put_aside(f"{key}{_SUFFIX}", error)
            return None

    def load(self, keys: Iterable[str]) -> dict[str, Record]:
        """Return those of the named cells that are stored, by key, in the order of `keys`."""
        wanted = list(keys)
        places = {key: i for file in self.compacted().values() for i, key in enumerate(file)}
        found = {key: self.read(key) for key in sorted(wanted, key=lambda key: places.get(key, -1))}
        return {key: record for key in wanted if (record := found[key]) is not None}

    def headers(self) -> Iterator[Header]:
        """Describe all stored cells, from the ends of their files: their values are not looked at.

        Warns
        -----
        SetAsideWarning
            As `read`, for what is truncated or foreign.
        """
        names = self.blobs.names()
        for name in filter(_NAME.fullmatch, names):
            with self._trusting(name), self.blobs.open(name) as file:
                found = _same(name.removesuffix(_SUFFIX), header(file))
                yield found
        alone = set(names)
        for compacted in self.compacted(names).values():
            yield from (compacted.header(key) for key in compacted if f"{key}{_SUFFIX}" not in alone)

    def fail(self, record: Record) -> None:
        """Keep the record of a failure, which counts for nothing but itself."""
        self.blobs.put(f"{FAILED}/{record.key}{_SUFFIX}", encode(record))

    def forgive(self, key: str) -> None:
        """Forget the failure of a cell."""
        self.blobs.remove(f"{FAILED}/{key}{_SUFFIX}")

    def failed(self) -> list[str]:
        """Return the keys of the cells that failed, sorted."""
        return sorted(name.removesuffix(_SUFFIX) for name in self.blobs.names(FAILED) if _NAME.fullmatch(name))

    def failure(self, key: str) -> Record | None:
        """Return the record of a failure, or None."""
        name = f"{FAILED}/{key}{_SUFFIX}"
        content = self.blobs.get(name)
        if content is not None:
            with self._trusting(name):
                return decode(content)
        return None

    def aside(self) -> list[str]:
        """Return the names of the files that were set aside, sorted."""
        return sorted(self.blobs.names(ASIDE))

    def compacted(self, names: Iterable[str] | None = None) -> dict[str, Compacted]:
        """Open the files of many cells among the names given, or all; those that cannot be read are set aside."""
        found = [n for n in (self.blobs.names() if names is None else names) if COMPACTED.fullmatch(n)]
        for name in found:
            if name not in self._opened:
                with self._trusting(name):
                    self._opened[name] = Compacted(partial(self.blobs.open, name))
        return {name: self._opened[name] for name in found if name in self._opened}

    def _from_compacted(self, key: str) -> Record | None:
        for name, file in (*self._opened.items(), *self.compacted().items()):
            if key in file:
                with self._trusting(name):
                    return file.record(key)
        return None

    @contextmanager
    def _trusting(self, name: str) -> Iterator[None]:
        """Set a file aside that turns out not to be what it should be; one that has just gone is none."""
        try:
            yield
        except FileNotFoundError:
            self._opened.pop(name, None)
        except UnreadableRecordError as error:
            self._put_aside(name, error)

    def _put_aside(self, name: str, error: UnreadableRecordError) -> None:
        self._opened.pop(name, None)
        place = self.blobs.move(name, f"{ASIDE}/{name.rpartition('/')[2]}")
        warnings.warn(f"{place} was set aside: it is {error}", SetAsideWarning, stacklevel=3)


def _same(key: str, found: T) -> T:
    """Refuse the file of another cell."""
    if found.key != key:
        raise UnreadableRecordError(f"the record of another cell ({found.study}: {found.cell})")
    return found


@final
class MemoryStore(Store):
    """Cells held in memory, in the very bytes that a file would hold."""

    def __init__(self) -> None:
        super().__init__(MemoryBlobs())


@final
class FolderStore(Store):
    """Cells as ``<key>.parquet`` in a folder, which the first write creates. Other files there are left alone."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        super().__init__(FolderBlobs(self.path))


@final
class RemoteStore(Store):
    """Cells on any file system that fsspec knows, for example ``s3://bucket/study/cells``.

    Parameters
    ----------
    url
        The folder, as fsspec writes it.
    options
        What the file system is to be told, for example its credentials.
    """

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(RemoteBlobs(url, **(options or {})))


def open_store(place: str | Path) -> Store:
    """Return the store of a folder, or of a URL with ``://`` in it."""
    return RemoteStore(place) if isinstance(place, str) and "://" in place else FolderStore(place)
