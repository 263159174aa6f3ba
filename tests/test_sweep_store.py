"""The folder and its twin in memory."""

import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rmtbn.sweep.grid import Cell, Study
from rmtbn.sweep.parquet import encode
from rmtbn.sweep.record import record
from rmtbn.sweep.store import FolderStore, MemoryStore, RemoteStore, SetAsideWarning

STUDY = Study(name="toy", version=1, compute=dict)


def made(seed: int, *, value: float = 0.5):
    cell = Cell(parameters={"depth": 2}, seed=seed)
    return record(STUDY, cell, frames={"t": pd.DataFrame({"value": [value]})}, provenance={"wall_seconds": 0.0})


@pytest.fixture(params=["folder", "memory", "fsspec memory", "fsspec local"])
def store(request, tmp_path):
    makers = {
        "folder": lambda: FolderStore(tmp_path / "cells"),
        "memory": MemoryStore,
        "fsspec memory": lambda: RemoteStore(f"memory://{tmp_path}/cells"),
        "fsspec local": lambda: RemoteStore(f"local://{tmp_path}/cells"),
    }
    return makers[request.param]()


def test_empty_store_holds_nothing(store):
    assert store.keys() == []
    assert not store.has(made(1).key)
    assert store.read(made(1).key) is None


def test_what_is_written_can_be_read(store):
    """read(key(r)) = r; keys are sorted."""
    for seed in (1, 2, 3):
        store.write(made(seed, value=seed))
    keys = [made(seed).key for seed in (1, 2, 3)]
    assert store.keys() == sorted(keys)
    assert all(store.has(key) for key in keys)
    assert store.read(keys[1]).tables["t"]["value"].to_pylist() == [2.0]


def test_load_keeps_the_order_asked_for_and_leaves_out_what_is_missing(store):
    for seed in (1, 2, 3):
        store.write(made(seed))
    keys = [made(seed).key for seed in (3, 9, 1)]
    assert list(store.load(keys)) == [keys[0], keys[2]]


def test_first_writer_wins(store):
    """A cell that is there stays as it is, and the second writer is told so."""
    assert store.write(made(1, value=1.0))
    assert not store.write(made(1, value=2.0))
    assert len(store.keys()) == 1
    assert store.read(made(1).key).tables["t"]["value"].to_pylist() == [1.0]


def foreign() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"value": [1.0]}), sink)
    return bytes(sink.getvalue())


BAD = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "altered": lambda content: content[:40] + bytes([content[40] ^ 255]) + content[41:],
    "text": lambda _: b"not a table",
    "foreign table": lambda _: foreign(),
    "another cell": lambda _: encode(made(2)),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_trusted_is_named_set_aside_and_missing(store, kind):
    """A bad file is moved to _set_aside, read as None, and the cell can be written anew."""
    key = made(1).key
    store.add(key, BAD[kind](encode(made(1))))
    with pytest.warns(SetAsideWarning, match=rf"_set_aside/{key}\.parquet was set aside: it is"):
        assert store.read(key) is None
    assert store.aside() == [f"{key}.parquet"]
    assert not store.has(key)
    assert store.keys() == []
    store.write(made(1))
    assert store.read(key).key == key


def test_bad_file_keeps_its_content(tmp_path):
    store = FolderStore(tmp_path)
    key = made(1).key
    (tmp_path / f"{key}.parquet").write_bytes(b"half a ce")
    with pytest.warns(SetAsideWarning, match="set aside"):
        store.load([key])
    assert [file.name for file in tmp_path.rglob("*.*")] == [f"{key}.parquet"]
    assert (tmp_path / "_set_aside" / f"{key}.parquet").read_bytes() == b"half a ce"


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    store = FolderStore(tmp_path)
    for name in ("notes.txt", "table.parquet", f".{made(1).key}.00.tmp"):
        (tmp_path / name).write_text("mine")
    store.write(made(1))
    assert store.keys() == [made(1).key]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_reader_never_sees_half_a_cell(tmp_path, monkeypatch):
    """A crash before the file has its name leaves no cell and no temporary file."""
    store = FolderStore(tmp_path)
    store.write(made(1))

    def crash(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "hardlink_to", crash)
    with pytest.raises(KeyboardInterrupt):
        store.write(made(2))
    monkeypatch.undo()
    assert store.read(made(2).key) is None
    assert [file.name for file in tmp_path.iterdir()] == [f"{made(1).key}.parquet"]


def test_many_writers_and_readers_of_one_cell_do_not_meet(tmp_path):
    """8 threads write the same cell 25 times each while others read: every read is whole, one file is left."""
    key = made(0).key

    def work(number: int) -> bool:
        store = FolderStore(tmp_path)  # each with its own, as separate processes have
        if number % 2:
            return store.read(key) is not None
        store.write(made(0, value=float(number)))
        return True

    FolderStore(tmp_path).write(made(0))
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(400)))
    assert [file.name for file in tmp_path.iterdir()] == [f"{key}.parquet"]


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_killed_writer_leaves_only_whole_cells(tmp_path):
    """SIGKILL at a random moment while writing: every key in the folder reads without a warning."""
    script = textwrap.dedent("""
        import sys
        sys.path.insert(0, sys.argv[2])
        from test_sweep_store import FolderStore, made
        store = FolderStore(sys.argv[1])
        for seed in range(100000):
            store.write(made(seed))
            if seed == 20:
                print("started", flush=True)
    """)
    command = [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "started\n"
        writer.send_signal(signal.SIGKILL)
    store = FolderStore(tmp_path)
    assert len(store.keys()) >= 21
    assert set(store.load(store.keys())) == set(store.keys())
