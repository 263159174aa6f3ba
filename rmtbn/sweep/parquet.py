"""The file of a record: one Parquet table, queryable as it is, that carries its origin and a digest of itself."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import IOBase
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rmtbn.sweep.grid import Cell, canonical, key
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
    return restored(*rows(content))


def rows(content: bytes) -> tuple["Header", pa.Table]:
    """Return the header and the rows of a record, as yet unchecked.

    Raises
    ------
    UnreadableRecordError
        If the bytes are not a whole file of this package.
    """
    with readable():
        reader = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        return _header(reader.schema_arrow.metadata or {}), reader.read(use_threads=False)


def header(file: IOBase | pa.NativeFile) -> "Header":
    """Return the header of a record from the end of its file, without its rows.

    Raises
    ------
    UnreadableRecordError
        If the file is truncated, or not one of this package.
    """
    with readable():
        return _header(pq.read_metadata(file).metadata or {})


def schema(file: IOBase | pa.NativeFile) -> pa.Schema:
    """Return the columns of a record, without its rows."""
    with readable():
        return pq.read_schema(file).remove_metadata()


@contextmanager
def readable() -> Iterator[None]:
    """Turn what a damaged file makes the reader raise into `UnreadableRecordError`."""
    try:
        yield
    except (UnreadableRecordError, FileNotFoundError):
        raise
    except (pa.ArrowException, ArithmeticError, LookupError, MemoryError, OSError, TypeError, ValueError) as error:
        raise UnreadableRecordError(f"not a whole Parquet file: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the file of a record says about it, beside its rows.

    Parameters
    ----------
    text, digest
        The description, as JSON, and the SHA-256 of it and of all values.
    study, version, cell, provenance
        As in `Record`.
    layout
        Name, number of rows and columns of each table, in the order of the rows.
    """

    text: str
    digest: str
    study: str
    version: int
    cell: Cell
    layout: tuple[tuple[str, int, tuple[str, ...]], ...]
    provenance: Mapping[str, str | float]

    @property
    def key(self) -> str:
        """Content hash of study, version, parameters and seed."""
        return key(self.study, self.version, self.cell)


def parsed(text: str, digest: str) -> Header:
    """Read the description of a record."""
    about: dict[str, Any] = json.loads(text)
    if about["format"] != FORMAT:
        raise UnreadableRecordError(f"a file of format {about['format']}, where format {FORMAT} is read")
    return Header(
        text=text,
        digest=digest,
        study=about["study"],
        version=about["version"],
        cell=Cell(parameters=dict(about["parameters"]), seed=about["seed"]),
        layout=tuple((name, count, tuple(columns)) for name, count, columns in about["tables"]),
        provenance=dict(about["provenance"]),
    )


def _header(metadata: Mapping[bytes, bytes]) -> Header:
    text = metadata.get(b"rmtbn.cell")
    if text is None:
        raise UnreadableRecordError("not a file of this package")
    return parsed(text.decode(), metadata.get(b"rmtbn.sha256", b"").decode())


def restored(about: Header, rows: pa.Table) -> Record:
    """Make the record of a header and its rows.

    Raises
    ------
    UnreadableRecordError
        If they are not those that were written.
    """
    with readable():
        tables = dict(_slices(about.layout, rows))
        if _digest(about.text.encode(), tables) != about.digest:
            raise UnreadableRecordError("a file whose content was altered")
    return Record(study=about.study, version=about.version, cell=about.cell, tables=tables, provenance=about.provenance)


def _slices(layout: tuple[tuple[str, int, tuple[str, ...]], ...], rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    start = 0
    for name, count, columns in layout:
        yield name, rows.select(list(columns)).slice(start, count).replace_schema_metadata(None)
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
