"""Downloads from a server on this machine that drops connections, truncates, alters, knows ranges or does not."""

import gzip
import hashlib
import io
import tarfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pooch
import pytest

from rmtbn._checks import InvalidArgumentError
from rmtbn.data import fetch as fetching
from rmtbn.data.archive import CIFAR10, Archive, FetchError, unpack
from rmtbn.data.cifar import RECORD, cifar10
from rmtbn.data.fetch import fetch

FOLDER = CIFAR10.folder
RANDOM = np.random.default_rng(1)
FILES = {
    name: b"".join(bytes([i]) + RANDOM.bytes(RECORD - 1) for i in range(4 + len(name) % 3)) for name in CIFAR10.files
}


def tar(entries):
    """A gzipped tar file of entries (name, content), or of ready tar headers."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as out:
        for name, content in entries:
            header = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            header.size = len(content)
            out.addfile(header, io.BytesIO(content))
    return file.getvalue()


CONTENT = tar([(f"{FOLDER}/{name}", content) for name, content in {**FILES, "readme.html": b"<p>"}.items()])


def described(content):
    """The archive that `content` is, with its address to be filled in."""
    checksum = hashlib.sha256(content).hexdigest()
    return replace(CIFAR10, sha256=checksum, size=len(content), address="http://example.invalid/cifar.tar.gz")


ARCHIVE = described(CONTENT)


class Server:
    """Serves `content`; drops the connection after each number of bytes in `drops`; remembers the ranges asked for."""

    def __init__(self, content=CONTENT, *, drops=(), ranges=True, status=None):
        self.content, self.drops, self.ranges, self.status = content, list(drops), ranges, status
        self.asked, self.sent = [], 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/cifar.tar.gz"

    def answer(self, request):
        asked = request.headers.get("Range")
        self.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else 0
        beyond = start >= len(self.content)
        request.send_response(self.status or (416 if beyond else 206 if start else 200))
        body = b"" if beyond or self.status else self.content[start:]
        if start and not beyond:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        body = body[: self.drops.pop(0)] if self.drops else body
        self.sent += len(body)
        request.wfile.write(body)

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


def tree(folder):
    """Content of all files below a folder by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


WHOLE = {ARCHIVE.name: CONTENT, **{f"{FOLDER}/{name}": content for name, content in FILES.items()}}


def test_the_official_archive_is_pinned():
    """Krizhevsky's page over https, 64 digits of SHA-256, the six files of records."""
    assert CIFAR10.address == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert CIFAR10.name == "cifar-10-binary.tar.gz"
    assert len(bytes.fromhex(CIFAR10.sha256)) == 32
    assert len(CIFAR10.files) == 6


def test_archives_are_downloaded_verified_and_unpacked(tmp_path):
    """The files that are wanted and the archive, bit for bit, and nothing else; `cifar10` reads the folder."""
    with Server() as server:
        found = fetch(tmp_path / "new", archive=ARCHIVE, address=server.url)
    assert found == tmp_path / "new" / FOLDER
    assert tree(tmp_path / "new") == WHOLE
    assert cifar10(found, split="test").targets.tolist() == list(range(len(FILES["test_batch.bin"]) // RECORD))


def test_a_second_call_needs_no_network_and_mends_what_was_changed(tmp_path):
    """Idempotent: the archive is verified, files that differ or are lost are written again, the others are not."""
    with Server() as server:
        folder = fetch(tmp_path, archive=ARCHIVE, address=server.url)
        (folder / "data_batch_1.bin").write_bytes(b"altered")
        (folder / "data_batch_2.bin").unlink()
        (folder / "mine.txt").write_text("stays")
        kept = (folder / "test_batch.bin").stat().st_mtime_ns
        assert fetch(tmp_path, archive=ARCHIVE, address=server.url) == folder
        assert len(server.asked) == 1
    assert tree(tmp_path) == {**WHOLE, f"{FOLDER}/mine.txt": b"stays"}
    assert (folder / "test_batch.bin").stat().st_mtime_ns == kept


def test_lost_connections_are_resumed_where_they_broke(tmp_path):
    """Each request asks for the bytes that are missing, but for the piece (16 KiB) in which the connection broke."""
    cuts = [32_768, 20_000]
    with Server(drops=cuts) as server:
        fetch(tmp_path, archive=ARCHIVE, address=server.url)
        assert server.asked == [None, "bytes=32768-", "bytes=49152-"]
        assert server.sent == len(CONTENT) + 20_000 - 16_384
    assert tree(tmp_path) == WHOLE


def test_a_later_call_goes_on_where_an_earlier_one_stopped(tmp_path):
    """A server that goes silent ends the call with an error; what it sent is kept and continued."""
    with Server(drops=[32_768, 0]) as server, pytest.raises(FetchError, match="could not be downloaded"):
        fetch(tmp_path, archive=ARCHIVE, address=server.url)
    assert tree(tmp_path) == {f"{ARCHIVE.name}.part": CONTENT[:32_768]}
    with Server() as server:
        fetch(tmp_path, archive=ARCHIVE, address=server.url)
        assert server.asked == ["bytes=32768-"]
    assert tree(tmp_path) == WHOLE


def test_servers_without_ranges_are_asked_from_the_beginning(tmp_path):
    """An answer 200 to a range is the whole file: it takes the place of what was there."""
    with Server(drops=[30_000], ranges=False) as server:
        fetch(tmp_path, archive=ARCHIVE, address=server.url)
        assert server.sent == 30_000 + len(CONTENT)
    assert tree(tmp_path) == WHOLE


def test_a_beginning_of_another_file_is_downloaded_again(tmp_path):
    """The end of the right file on the beginning of another is found by the checksum, and fetched anew, once."""
    (tmp_path / f"{ARCHIVE.name}.part").write_bytes(bytes(1000))
    with Server() as server:
        fetch(tmp_path, archive=ARCHIVE, address=server.url)
        assert server.asked == ["bytes=1000-", None]
    assert tree(tmp_path) == WHOLE


def test_beginnings_that_are_too_long_are_no_beginnings(tmp_path):
    """More bytes than the archive has."""
    (tmp_path / f"{ARCHIVE.name}.part").write_bytes(CONTENT + b"more")
    with Server() as server:
        fetch(tmp_path, archive=ARCHIVE, address=server.url)
    assert tree(tmp_path) == WHOLE


def test_altered_files_are_refused_and_deleted(tmp_path):
    """One bit is enough; nothing is unpacked and nothing is left."""
    altered = bytearray(CONTENT)
    altered[len(altered) // 2] ^= 1
    with (
        Server(bytes(altered)) as server,
        pytest.raises(FetchError, match=f"is not the file it should be: its SHA-256 is not {ARCHIVE.sha256}"),
    ):
        fetch(tmp_path, archive=ARCHIVE, address=server.url)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("surplus", [1, 10_000])
def test_longer_files_are_refused(tmp_path, surplus):
    """The right bytes and then more."""
    with Server(CONTENT + bytes(surplus)) as server, pytest.raises(FetchError, match="is not the file it should be"):
        fetch(tmp_path, archive=ARCHIVE, address=server.url)
    assert tree(tmp_path) == {}


def test_truncated_files_are_refused_by_their_length(tmp_path):
    """A server that says that less is all: the message has both lengths, on every call, and nothing is unpacked."""
    size = len(CONTENT)
    with Server(CONTENT[:40_000]) as server:
        for _ in range(2):
            with pytest.raises(FetchError, match=f"is truncated: it ends after 40000 of {size} bytes"):
                fetch(tmp_path, archive=ARCHIVE, address=server.url)
        assert server.asked == [None, "bytes=40000-"]
    assert tree(tmp_path) == {f"{ARCHIVE.name}.part": CONTENT[:40_000]}


def test_without_a_network_it_says_how_to_place_the_file(tmp_path):
    """The official address, the path where the archive goes, and the folder that can be named instead."""
    with Server() as server:
        url = server.url
    with pytest.raises(FetchError) as caught:
        fetch(tmp_path, archive=ARCHIVE, address=url)
    for part in (url, ARCHIVE.address, str(tmp_path / ARCHIVE.name), "by hand", FOLDER):
        assert part in str(caught.value)


def test_archives_placed_by_hand_are_verified_and_unpacked(tmp_path):
    """No request is made: the address is one where nothing answers."""
    (tmp_path / ARCHIVE.name).write_bytes(CONTENT)
    fetch(tmp_path, archive=ARCHIVE)
    assert tree(tmp_path) == WHOLE


def test_answers_of_failure_are_named(tmp_path):
    """404 is no archive."""
    with Server(status=404) as server, pytest.raises(FetchError, match=r"could not be downloaded \(404 Not Found\)"):
        fetch(tmp_path, archive=ARCHIVE, address=server.url)


def test_wrong_arguments_are_named(tmp_path):
    """A file where a folder should be, an address of another kind."""
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgumentError, match=r"`to` must be a folder, .*file"):
        fetch(tmp_path / "file", archive=ARCHIVE)
    with pytest.raises(InvalidArgumentError, match=r"`address` must be one of http.*; got 'ftp:"):
        fetch(tmp_path, archive=ARCHIVE, address="ftp://example.invalid/x")


def link(name, target, kind=tarfile.SYMTYPE):
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header, b""


HOSTILE = {
    "path upwards": (f"{FOLDER}/../../evil", b"x"),
    "absolute path": ("/evil", b"x"),
    "file of the parent": ("../data_batch_1.bin", b"x"),
    "folder through a link": link(FOLDER, "/"),
    "link as a file": link(f"{FOLDER}/other.bin", "/etc/passwd"),
    "pickled batch": (f"{FOLDER}/data_batch_1", b"cos\nsystem\n(S'touch evil'\ntR."),
}


@pytest.mark.parametrize("entry", HOSTILE.values(), ids=HOSTILE)
def test_entries_of_an_archive_lead_nowhere(tmp_path, entry):
    """Only the files that are wanted are written, to paths of our own: the rest of the archive is not looked at."""
    content = tar([entry, *((f"{FOLDER}/{name}", data) for name, data in FILES.items())])
    place = tmp_path / "deep" / "place"
    with Server(content) as server:
        fetch(place, archive=described(content), address=server.url)
    assert tree(tmp_path) == {f"deep/place/{name}": data for name, data in {**WHOLE, ARCHIVE.name: content}.items()}


def test_links_in_place_of_files_are_not_followed(tmp_path):
    """A link of the name of a wanted file is no file, so that one is missing."""
    (tmp_path / "secret").write_bytes(b"x")
    content = tar([link(f"{FOLDER}/{name}", str(tmp_path / "secret")) for name in FILES])
    (tmp_path / ARCHIVE.name).write_bytes(content)
    with pytest.raises(FetchError, match=f"holds no file {FOLDER}/data_batch_1.bin"):
        fetch(tmp_path, archive=described(content))
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize(
    "content",
    [b"no archive", gzip.compress(b"no archive" * 100, mtime=0), CONTENT[:-2000]],
    ids=["text", "no tar", "cut"],
)
def test_what_is_no_archive_is_not_unpacked(tmp_path, content):
    """The message names the file; no folder of half the files is left for `cifar10` to read."""
    path = tmp_path / "x.tar.gz"
    path.write_bytes(content)
    with pytest.raises(FetchError, match=r"x\.tar\.gz (cannot be unpacked|holds no file)"):
        unpack(path, tmp_path / FOLDER, ARCHIVE)
    assert tree(tmp_path) == {"x.tar.gz": content}


def test_nothing_is_printed(tmp_path, capfd):
    """Neither by pooch, whose logger is as before, nor by the bar, which a terminal alone is shown."""
    before = pooch.get_logger().level
    with Server() as server:
        fetch(tmp_path, archive=ARCHIVE, address=server.url, shown=True)
    assert capfd.readouterr() == ("", "")
    assert pooch.get_logger().level == before
    assert isinstance(fetching.CIFAR10, Archive)
