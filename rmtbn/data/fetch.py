"""Data sets from their official addresses: downloaded with resumption, verified and unpacked; nothing is executed."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pooch
import requests
from tqdm import tqdm

from rmtbn import _checks
from rmtbn.data.archive import CIFAR10, Archive, FetchError, unpack

_CHUNK = 1 << 14  # bytes between two writes, and the most that a lost connection costs
_TIMEOUT = (10.0, 60.0)  # seconds to connect and between two bytes
_DELAY = 2.0  # seconds before progress is shown: STYLE, rule 21


def fetch(to: str | Path, *, archive: Archive = CIFAR10, address: str | None = None, shown: bool = False) -> Path:
    """Download an archive, unless it is there already, verify its SHA-256 and unpack it.

    An interrupted download goes on where it stopped. Nothing is unpacked before the checksum is right, and nothing but
    the regular files named in `archive`, under names that it gives: an entry such as `../x` leads nowhere. A second
    call verifies what is there and mends what was changed or lost; it needs no network while the archive is there.

    Parameters
    ----------
    to
        Folder that gets the archive and, in it, the folder of its files; made if it is not there.
    archive
        What to fetch.
    address
        Another address of the same file, for example a mirror; its content must be the same.
    shown
        Whether progress is shown on stderr, if that is a terminal.

    Returns
    -------
    Path
        The folder of the unpacked files, as `rmtbn.data.cifar.cifar10` reads it.

    Raises
    ------
    FetchError
        If the file cannot be reached, is truncated or altered, or lacks a file. It says how to place it by hand.
    InvalidArgumentError
        If `to` is a file, or `address` no http address.
    """
    to, url = Path(to), archive.address if address is None else address
    if to.exists() and not to.is_dir():
        raise _checks.fail("to", "a folder, or a path where one can be made", str(to))
    if not url.startswith(("http://", "https://")):
        raise _checks.fail("address", "one of http:// or https://", url)
    to.mkdir(parents=True, exist_ok=True)
    begun = _part(to, archive).exists()
    try:
        path = _retrieve(url, to, archive, shown=shown)
    except _AlteredError:
        if not begun:
            raise
        path = _retrieve(url, to, archive, shown=shown)  # the beginning was of another file: once more, from byte 0
    return unpack(path, to / archive.folder, archive)


class _AlteredError(FetchError):
    """What was downloaded is as long as it should be, and another file."""


def _retrieve(url: str, to: Path, archive: Archive, *, shown: bool) -> Path:
    """Let pooch find or download the file, verify it and put it in its place, which it does only if it is right."""

    def download(address: str, output: str, _: object) -> None:
        part = _part(to, archive)
        _complete(address, part, archive, shown=shown)
        part.replace(output)

    by_hand = (
        f"To place it by hand, bring {archive.address} from elsewhere to {to / archive.name} and call again, which "
        f"verifies and unpacks it; or unpack it anywhere and name the folder {archive.folder} instead."
    )
    try:
        with _quiet():
            found = pooch.retrieve(url, f"sha256:{archive.sha256}", archive.name, to, downloader=download)
    except requests.RequestException as error:
        raise FetchError(f"{url} could not be downloaded ({_reason(error)}). {by_hand}") from None
    except _TruncatedError as error:
        raise FetchError(f"{url} is truncated: it ends after {error} of {archive.size} bytes. {by_hand}") from None
    except ValueError:
        rule = f"its SHA-256 is not {archive.sha256}"
        raise _AlteredError(f"{url} is not the file it should be: {rule}. It was deleted. {by_hand}") from None
    return Path(found)


class _TruncatedError(Exception):
    """The server ends the file too early, and says that this is all of it."""


def _part(to: Path, archive: Archive) -> Path:
    """Path of a download that is not complete."""
    return to / f"{archive.name}.part"


def _complete(url: str, part: Path, archive: Archive, *, shown: bool) -> None:
    """Download what is missing; after a lost connection go on, as long as each try brings something."""
    while (before := _length(part)) < archive.size:
        try:
            _continue(url, part, archive, shown=shown)
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            if _length(part) <= before:
                raise
        else:
            break
    if _length(part) < archive.size:
        raise _TruncatedError(_length(part))


def _continue(url: str, part: Path, archive: Archive, *, shown: bool) -> None:
    """Ask for the bytes that are missing, or for all if the server knows no ranges, and append them."""
    start = _length(part)
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            return
        answer.raise_for_status()
        goes_on = answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        with part.open("ab" if goes_on else "wb") as file, _bar(archive, file.tell(), shown=shown) as bar:
            for chunk in answer.iter_content(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))


def _bar(archive: Archive, done: int, *, shown: bool) -> "tqdm[Any]":
    hidden = None if shown else True  # None: where stderr is no terminal
    return tqdm(
        total=archive.size, initial=done, desc=archive.name, unit="B", unit_scale=True, delay=_DELAY, disable=hidden
    )


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: requests.RequestException) -> str:
    """Say what happened, without the address that the message names anyway."""
    answer = error.response
    return f"{answer.status_code} {answer.reason}" if answer is not None else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pooch from writing on stderr what it does."""
    logger = pooch.get_logger()
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
