"""Many cells in one file: each comes back as it was, and nothing is lost on the way."""

import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from sweep_cells import DRAW, LARGE, cells

from rmtbn.sweep.compaction import compact
from rmtbn.sweep.grid import Cell, Study, grid
from rmtbn.sweep.record import record
from rmtbn.sweep.run import run
from rmtbn.sweep.status import summary
from rmtbn.sweep.store import FolderStore, MemoryStore, RemoteStore, SetAsideWarning
from rmtbn.sweep.tables import table


@pytest.fixture(params=["folder", "memory", "fsspec memory", "fsspec local"])
def store(request, tmp_path):
    makers = {
        "folder": lambda: FolderStore(tmp_path / "cells"),
        "memory": MemoryStore,
        "fsspec memory": lambda: RemoteStore(f"memory://{tmp_path}/cells"),
        "fsspec local": lambda: RemoteStore(f"local://{tmp_path}/cells"),
    }
    return makers[request.param]()


def files(store):
    """Names of the files of cells."""
    return [name for name in store.blobs.names() if name.endswith(".parquet")]


def test_compaction_changes_no_cell(store):
    """Records before = records after, to the last bit, provenance too; one file is left."""
    wanted = [*cells(20), *grid({"size": (1, 7)}, seeds=(1, 2))]
    run(DRAW, wanted, store=store)
    before = store.load(store.keys())
    assert compact(store, "draw", 1) == 24
    assert len(files(store)) == 1
    assert store.keys() == sorted(before)
    assert all(store.has(key) for key in before)
    after = store.load(before)
    for key, one in before.items():
        assert (after[key].cell, after[key].provenance) == (one.cell, one.provenance)
        assert after[key].tables["draws"].equals(one.tables["draws"])
    assert sorted(about.key for about in store.headers()) == store.keys()


def test_a_reader_that_was_there_before_finds_the_cells_after(tmp_path):
    """Two stores of one folder: one compacts, the other goes on reading."""
    reader, writer = FolderStore(tmp_path), FolderStore(tmp_path)
    run(DRAW, cells(5), store=writer)
    keys = reader.keys()
    compact(writer, "draw", 1)
    assert len(reader.load(keys)) == 5
    run(DRAW, cells(8), store=writer)
    compact(writer, "draw", 1)
    assert len(reader.load(reader.keys())) == 8
    assert len(run(DRAW, cells(8), store=reader).records) == 8


def test_compacted_cells_are_not_computed_again(store):
    """New cells stand beside the file, and join it the next time; the old file goes."""
    run(DRAW, cells(4), store=store)
    compact(store, "draw", 1)
    first = files(store)
    run(DRAW, cells(6), store=store)
    assert len(files(store)) == 3
    assert compact(store, "draw", 1) == 6
    assert len(files(store)) == 1
    assert files(store) != first
    assert compact(store, "draw", 1) == 6
    assert len(files(store)) == 1


def test_studies_and_versions_have_a_file_each(store):
    run(DRAW, cells(2), store=store)
    run(Study(name="draw", version=2, compute=DRAW.compute), cells(2), store=store)
    run(LARGE, grid({"size": (3,)}, seeds=(1,)), store=store)
    for name, version in (("draw", 1), ("draw", 2), ("large", 1)):
        compact(store, name, version)
    assert sorted(name.rpartition(".parquet")[0][:-13] for name in files(store)) == ["draw.v1", "draw.v2", "large.v1"]
    assert len(store.load(store.keys())) == 5


def test_the_file_is_one_table_for_other_tools(tmp_path):
    """table, parameters, seed, columns and key, a row per row; texts are plain strings."""
    store = FolderStore(tmp_path)
    run(DRAW, cells(3), store=store)
    compact(store, "draw", 1)
    rows = pq.read_table(tmp_path / files(store)[0])
    draws = rows.to_pandas().query("table == 'draws'")
    assert len(draws) == 9
    assert draws["key"].nunique() == 3
    assert not any("dictionary" in str(field.type) for field in rows.schema)
    expected = table(store, "draws")
    assert sorted(draws["draw"]) == sorted(expected["draw"])


def odd(seed, value, **more):
    """A record of one value, of whatever type."""
    study = Study(name="odd", version=1, compute=dict)
    frame = pd.DataFrame({"value": [value], **more})
    return record(study, Cell(parameters={}, seed=seed), frames={"t": frame}, provenance={"wall_seconds": 0.0})


def test_cells_of_other_types_stay_as_they_are(store):
    """A column of integers where others have floats: its cell keeps its file, and all can be read."""
    for one in (odd(1, 0.5), odd(2, 1.5, note="a"), odd(3, 2)):
        store.write(one)
    assert compact(store, "odd", 1) in {1, 2}
    assert len(store.load(store.keys())) == 3
    assert sorted(table(store, "t")["value"]) == [0.5, 1.5, 2.0]


def test_cell_without_rows_survives(store):
    study = Study(name="empty", version=1, compute=dict)
    empty = pd.DataFrame({"value": pd.Series([], dtype=float)})
    one = record(study, Cell(parameters={"a": 1}, seed=1), frames={"t": empty}, provenance={"wall_seconds": 0.0})
    store.write(one)
    compact(store, "empty", 1)
    assert store.read(one.key).tables["t"].num_rows == 0


@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda _: b"", lambda c: c[:60] + b"\0" * 40 + c[100:]])
def test_damaged_file_is_set_aside_and_its_cells_are_computed_again(tmp_path, damage):
    """Truncated, empty or altered: named, and never trusted."""
    store = FolderStore(tmp_path)
    expected = run(DRAW, cells(4), store=store).table("draws")
    compact(store, "draw", 1)
    (name,) = files(store)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    again = FolderStore(tmp_path)
    with pytest.warns(SetAsideWarning, match=name):
        found = run(DRAW, cells(4), store=again).table("draws")
    assert again.aside() == [name]
    pd.testing.assert_frame_equal(found, expected)


def test_nothing_to_compact_writes_nothing(store):
    assert compact(store, "draw", 1) == 0
    assert files(store) == []


def test_folder_of_cells_is_read_by_pyarrow_and_pandas_in_one_call(tmp_path):
    """All files of one study have one schema of plain types; what is set aside or failed is passed over."""
    store = FolderStore(tmp_path)
    run(DRAW, cells(5), store=store)
    bad = store.keys()[0]
    (tmp_path / f"{bad}.parquet").write_bytes(b"half a ce")
    with pytest.warns(SetAsideWarning):
        store.read(bad)
    store.fail(odd(1, 0.5))
    schemas = {str(pq.read_schema(file).remove_metadata()) for file in tmp_path.glob("*.parquet")}
    assert len(schemas) == 1
    assert ds.dataset(tmp_path).to_table().num_rows == 4 * 3
    assert len(pd.read_parquet(tmp_path)) == 4 * 3


def test_tables_of_all_cells_come_in_one_call(store):
    """Rows of every cell with study, parameters and seed; integers and floats of one column become floats."""
    run(DRAW, cells(3), store=store)
    for one in (odd(1, 0.5), odd(3, 2)):
        store.write(one)
    assert list(table(store, "draws").columns) == ["study", "size", "seed", "draw"]
    assert len(table(store, "draws", study="draw")) == 9
    assert table(store, "t")["value"].dtype == float
    with pytest.raises(ValueError, match="`name` must be one of"):
        table(store, "draws", study="odd")


def test_summary_has_one_row_per_cell(store):
    """Key, study, version, parameters, seed and provenance, whether compacted or not."""
    run(DRAW, cells(4), store=store)
    compact(store, "draw", 1)
    run(DRAW, cells(6), store=store)
    found = summary(store)
    assert sorted(found["key"]) == store.keys()
    assert set(found["seed"]) == set(range(6))
    assert {"study", "version", "size", "wall_seconds", "commit", "rmtbn", "torch", "numpy", "device", "dtype",
            "peak_memory_mb"} <= set(found.columns)  # fmt: skip
