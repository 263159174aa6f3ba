"""Join the cells of a study into one file."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from rmtbn.sweep.compacted import MARK
from rmtbn.sweep.parquet import Header, UnreadableRecordError, rows, schema
from rmtbn.sweep.record import labelled
from rmtbn.sweep.store import Store

_OWN = pa.schema([("table", pa.string()), ("seed", pa.int64()), ("key", pa.string()),
                  ("rmtbn_cell", pa.string()), ("rmtbn_sha256", pa.string())])  # fmt: skip
# Rows and bytes of a row group, which is read at once: columns of this length compress well, and it fits any memory.
_ROWS, _BYTES = 2**17, 2**24


def compact(store: Store, study: str, version: int) -> int:
    """Join the cells of one version of a study into one file, and return how many it holds.

    The files of the single cells are deleted once the one file has been read back, cell by cell. Cells whose columns
    have other types than those of the others stay as they are. Others may read and write meanwhile.

    Parameters
    ----------
    store
        Where the cells are.
    study, version
        Which cells.
    """
    mine = sorted(about.key for about in store.headers() if (about.study, about.version) == (study, version))
    if not mine:
        return 0
    start = f"{prefix(study)}.v{version}."
    before = [name for name in store.compacted() if name.startswith(start)]
    together, others = unified((key, _schema(store, key)) for key in mine)
    kept = [key for key in mine if key not in others]
    content = merged((_rows(store, key) for key in kept), together)
    name = f"{start}{hashlib.sha256(content).hexdigest()[:12]}.parquet"
    store.blobs.put(name, content)
    written = store.compacted([name]).get(name)
    if written is None or [written.record(key).key for key in kept] != kept:
        raise UnreadableRecordError(f"{name} does not hold what was written")
    for key in kept:
        store.blobs.remove(f"{key}.parquet")
    for old in before:
        if old != name:
            store.blobs.remove(old)
    return len(kept)


def unified(schemas: Iterable[tuple[str, pa.Schema]]) -> tuple[pa.Schema, set[str]]:
    """Join the columns of cells, by key, and name the cells whose columns have other types than those before."""
    joined = _OWN
    others: set[str] = set()
    seen: dict[pa.Schema, bool] = {}
    for key, columns in schemas:
        if columns not in seen:
            try:
                joined, seen[columns] = pa.unify_schemas([joined, columns]), True
            except pa.ArrowTypeError:
                seen[columns] = False
        if not seen[columns]:
            others.add(key)
    return joined, others


def merged(cells: Iterable[tuple[Header, pa.Table]], schema: pa.Schema) -> bytes:
    """Write cells, headers and rows, into one file of a schema that holds them all."""
    sink = pa.BufferOutputStream()
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    options: Mapping[str, object] = {"compression": "zstd", "use_dictionary": texts, "write_page_checksum": True}
    with pq.ParquetWriter(sink, schema, **options) as writer:
        for batch in _batches(_with_header(about, rows) for about, rows in cells):
            together = pa.concat_tables([*batch, schema.empty_table()], promote_options="default")
            writer.write_table(together.select(schema.names).cast(schema), row_group_size=together.num_rows)
    return bytes(sink.getvalue())


def prefix(study: str) -> str:
    """Write the name of a study so that it can be that of a file."""
    return re.sub(r"[^\w.-]+", "-", study)


def _with_header(about: Header, rows: pa.Table) -> pa.Table:
    first = labelled(about.cell, pa.table({"rmtbn_cell": [about.text], "rmtbn_sha256": [about.digest]}), name=MARK)
    whole = pa.concat_tables([first, rows.replace_schema_metadata(None)], promote_options="default")
    return whole.append_column("key", pa.repeat(pa.scalar(about.key), whole.num_rows))


def _batches(tables: Iterable[pa.Table]) -> Iterator[list[pa.Table]]:
    """Cut tables into batches of so many rows and bytes, none of them cut itself."""
    batch: list[pa.Table] = []
    for table in tables:
        batch.append(table)
        if sum(t.num_rows for t in batch) >= _ROWS or sum(t.nbytes for t in batch) >= _BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _rows(store: Store, key: str) -> tuple[Header, pa.Table]:
    """Header and rows of a cell, wherever it is."""
    content = store.blobs.get(f"{key}.parquet")
    if content is not None:
        return rows(content)
    return next(file.rows(key) for file in store.compacted().values() if key in file)


def _schema(store: Store, key: str) -> pa.Schema:
    if store.blobs.has(f"{key}.parquet"):
        with store.blobs.open(f"{key}.parquet") as file:
            return schema(file)
    return _rows(store, key)[1].schema
