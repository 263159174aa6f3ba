"""Archives of data sets: where they are, what they hold, and their files brought safely into a folder."""

import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path


class FetchError(RuntimeError):
    """An archive could not be had as it should be; the message says why, and what can be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A gzipped tar file at a fixed address with a fixed content.

    Parameters
    ----------
    address
        Where it is, an http or https URL that ends in its file name.
    sha256, size
        Its checksum, in hexadecimal digits, and its length in bytes.
    folder
        Of its files: in the archive, and after unpacking.
    files
        Names of the files that are unpacked; all others stay in the archive.
    """

    address: str
    sha256: str
    size: int
    folder: str
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        """File name of the archive."""
        return self.address.rpartition("/")[2]


# Krizhevsky 2009, www.cs.toronto.edu/~kriz/cifar.html, "CIFAR-10 binary version". The checksum is that of the file
# whose MD5, c32a1d4ab5d03f1284b67883e8d87530, stands on that page.
CIFAR10 = Archive(
    address="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    size=170_052_171,
    folder="cifar-10-batches-bin",
    files=(*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
)


def unpack(path: Path, folder: Path, archive: Archive) -> Path:
    """Bring the files of a verified archive into a folder: the whole folder at once, or those that differ.

    Raises
    ------
    FetchError
        If the file is no gzipped tar file, or holds no regular file of one of the names.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{archive.folder}.") as temporary:
        fresh = Path(temporary) / archive.folder
        fresh.mkdir()
        _extract(path, fresh, archive)
        if not folder.exists():
            fresh.rename(folder)
            return folder
        for name in archive.files:
            if not _same(fresh / name, folder / name):
                (fresh / name).replace(folder / name)
    return folder


def _extract(path: Path, to: Path, archive: Archive) -> None:
    """Copy the regular files that are wanted, one by one, to paths that are not taken from the archive."""
    missing = set(archive.files)
    try:
        with tarfile.open(path, "r|gz") as tar:
            for entry in tar:
                folder, _, name = entry.name.removeprefix("./").rpartition("/")
                wanted = entry.isreg() and folder == archive.folder and name in missing
                if wanted and (content := tar.extractfile(entry)) is not None:
                    with (to / name).open("wb") as file:
                        shutil.copyfileobj(content, file)
                    missing.discard(name)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise FetchError(f"{path} cannot be unpacked: {error}") from None
    if missing:
        raise FetchError(f"{path} holds no file {archive.folder}/{min(missing)}")


def _same(a: Path, b: Path) -> bool:
    return b.is_file() and a.stat().st_size == b.stat().st_size and a.read_bytes() == b.read_bytes()
