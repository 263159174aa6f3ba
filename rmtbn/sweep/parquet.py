"""The file of a record: one Parquet table, queryable as it is, that carries its origin and a digest of itself."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rmtbn.sweep.grid import Cell, canonical
from rmtbn.sweep.record import Record, labelled

FORMAT = 1


class UnreadableRecordError(ValueError):
    """The bytes are not a whole, unaltered record."""


def encode(record: Record) -> bytes:
    """Write a record as one Parquet file.

    The rows of all tables stand below each other with the name of their table, the parameters and the seed beside
    them, so that other tools can query a folder of cells as it is. A column that a table does not have is null there.
    """
    parts = [labelled(record.cell, table, name=name) for name, table in record.tables.items()]
    about = canonical(
        {
            "format": FORMAT,
            "study": record.study,
            "version": record.version,
            "parameters": [[name, value] for name, value in record.cell.parameters.items()],
            "seed": record.cell.seed,
            "tables": [[name, table.num_rows, table.column_names] for name, table in record.tables.items()],
            "provenance": [[name, value] for name, value in record.provenance.items()],
        }
    )
    metadata = {"rmtbn.cell": about, "rmtbn.sha256": _digest(about.encode(), record.tables)}
    rows = pa.concat_tables(parts, promote_options="default").replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    texts = [field.name for field in rows.schema if pa.types.is_string(field.type)]  # numbers seldom repeat
    pq.write_table(rows, sink, compression="zstd", use_dictionary=texts, write_page_checksum=True)
    return bytes(sink.getvalue())


def decode(content: bytes) -> Record:
    """Read back what `encode` wrote.

    Raises
    ------
    UnreadableRecordError
        If the bytes are truncated, altered, or were never a record.
    """
    try:
        reader = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        return _record(reader.schema_arrow.metadata or {}, reader.read(use_threads=False))
    except UnreadableRecordError:
        raise
    except (pa.ArrowException, ArithmeticError, LookupError, MemoryError, OSError, TypeError, ValueError) as error:
        raise UnreadableRecordError(f"not a whole Parquet file: {error}") from error


def _record(metadata: Mapping[bytes, bytes], rows: pa.Table) -> Record:
    text = metadata.get(b"rmtbn.cell")
    if text is None:
        raise UnreadableRecordError("not a file of this package")
    about: dict[str, Any] = json.loads(text)
    if about["format"] != FORMAT:
        raise UnreadableRecordError(f"a file of format {about['format']}, where format {FORMAT} is read")
    tables = dict(_slices(about["tables"], rows))
    if _digest(text, tables).encode() != metadata.get(b"rmtbn.sha256"):
        raise UnreadableRecordError("a file whose content was altered")
    cell = Cell(parameters=dict(about["parameters"]), seed=about["seed"])
    return Record(
        study=about["study"], version=about["version"], cell=cell, tables=tables, provenance=dict(about["provenance"])
    )


def _slices(layout: list[Any], rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    start = 0
    for name, count, columns in layout:
        yield name, rows.select(columns).slice(start, count).replace_schema_metadata(None)
        start += count


def _digest(about: bytes, tables: Mapping[str, pa.Table]) -> str:
    """SHA-256 of the description and of every value, which no checksum of the file format covers as a whole."""
    digest = hashlib.sha256(about)
    for table in tables.values():
        for name, column in zip(table.column_names, table.columns, strict=True):
            for part in (name.encode(), _kind(column).encode(), *_bytes(column)):
                digest.update(len(part).to_bytes(8, "little"))
                digest.update(part)
    return digest.hexdigest()


def _kind(column: pa.ChunkedArray) -> str:
    return "list" if pa.types.is_list(column.type) else str(column.type)


def _bytes(column: pa.ChunkedArray) -> Iterator[bytes]:
    """Values as bytes that depend neither on chunks nor on the version of Arrow."""
    if pa.types.is_list(column.type):
        lists = column.combine_chunks()
        yield lists.value_lengths().to_numpy(zero_copy_only=False).tobytes()
        yield lists.flatten().to_numpy(zero_copy_only=False).tobytes()
    elif pa.types.is_string(column.type):
        yield json.dumps(column.to_pylist()).encode()
    else:
        yield column.to_numpy().tobytes()
