"""Blobs on any file system that fsspec knows: an object store, a cluster's file system, a server."""

import secrets
from contextlib import suppress
from io import IOBase
from typing import Any, final

import fsspec

from rmtbn.sweep.blobs import Blobs


@final
class RemoteBlobs(Blobs):
    """Blobs under a URL such as ``s3://bucket/study``.

    A blob is written under a temporary name and renamed by the file system: at once where it can rename, by a copy that
    appears whole where it stores objects. Of two writers of one name the last wins.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._files, self._root = fsspec.core.url_to_fs(url, **options)
        self._made: set[str] = set()

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the files in a folder."""
        self._files.invalidate_cache()
        try:
            found = self._files.ls(self._at(folder) if folder else self._root, detail=False)
        except FileNotFoundError:
            return []
        return [str(path).rstrip("/").rpartition("/")[2] for path in found]

    def has(self, name: str) -> bool:
        """Say whether there is such a file."""
        self._files.invalidate_cache()
        return bool(self._files.isfile(self._at(name)))

    def get(self, name: str) -> bytes | None:
        """Read a file."""
        try:
            content: bytes = self._files.cat_file(self._at(name))
        except FileNotFoundError:
            return None
        return content

    def open(self, name: str) -> IOBase:
        """Open a file."""
        file: IOBase = self._files.open(self._at(name), "rb")
        return file

    def put(self, name: str, content: bytes) -> None:
        """Write a file and let it take the place of another."""
        folder, _, last = self._at(name).rpartition("/")
        temporary = f"{folder}/.{last}.{secrets.token_hex(8)}.tmp"
        if folder not in self._made:
            self._files.makedirs(folder, exist_ok=True)
            self._made.add(folder)
        self._files.pipe_file(temporary, content)
        self._files.mv(temporary, self._at(name))

    def add(self, name: str, content: bytes) -> bool:
        """Write a file unless there is one when it is looked for."""
        if self.has(name):
            return False
        self.put(name, content)
        return True

    def move(self, name: str, to: str) -> str:
        """Rename a file."""
        content = self.get(name)
        if content is not None:
            self.put(to, content)
            self.remove(name)
        return self._at(to)

    def remove(self, name: str) -> None:
        """Delete a file."""
        with suppress(FileNotFoundError):
            self._files.rm_file(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"
