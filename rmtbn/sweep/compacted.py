"""The cells of a study in one file: a plain Parquet table of all their rows, from which each comes back as it was.

Each cell is a row of table ``rmtbn.cell`` that carries its description and digest, and then its own rows; a column
``key`` tells cells apart. A file is written once and named by its content: what a reader has seen of it stays true.
"""

import re
from collections.abc import Callable, Iterator
from io import IOBase
from typing import final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rmtbn.sweep.parquet import Header, parsed, readable, restored
from rmtbn.sweep.record import Record

MARK = "rmtbn.cell"
NAME = re.compile(r"(?P<study>[\w.-]+)\.v(?P<version>\d+)\.[0-9a-f]{12}\.parquet")


@final
class Compacted:
    """One file of many cells; a cell is read with the others of its row group, which is kept until the next.

    Parameters
    ----------
    opened
        Opens the file.
    """

    def __init__(self, opened: Callable[[], IOBase | pa.NativeFile]) -> None:
        self._opened = opened
        with readable(), opened() as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            groups = range(parquet.num_row_groups)
            self._places = {key: place for group in groups for key, place in _in_group(parquet, group)}
        self._loaded: tuple[int, pa.Table] | None = None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys of the cells, in the order of the file."""
        return iter(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def header(self, key: str) -> Header:
        """Return what the file says about a cell."""
        return self._header(self._rows(key))

    def record(self, key: str) -> Record:
        """Return a cell.

        Raises
        ------
        UnreadableRecordError
            If it is not as it was written.
        """
        rows = self._rows(key)
        return restored(self._header(rows), rows.slice(1))

    def rows(self, key: str) -> tuple[Header, pa.Table]:
        """Return the header and the rows of a cell, as its own file would have them."""
        rows = self._rows(key)
        about = self._header(rows)
        mine = {name for _, _, columns in about.layout for name in columns}
        return about, rows.slice(1).select(["table", *about.cell.parameters, "seed", *sorted(mine)])

    @staticmethod
    def _header(rows: pa.Table) -> Header:
        return parsed(rows["rmtbn_cell"][0].as_py(), rows["rmtbn_sha256"][0].as_py())

    def _rows(self, key: str) -> pa.Table:
        group, start, count = self._places[key]
        if self._loaded is None or self._loaded[0] != group:
            with readable(), self._opened() as file:
                parquet = pq.ParquetFile(file, page_checksum_verification=True)
                self._loaded = (group, parquet.read_row_group(group, use_threads=False))
        return self._loaded[1].slice(start, count)


def _in_group(file: pq.ParquetFile, group: int) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Key, row group, first row and number of rows of each cell."""
    found = file.read_row_group(group, columns=["table", "key"], use_threads=False)
    starts = pc.indices_nonzero(pc.equal(found["table"], MARK)).to_pylist()
    keys = found["key"].take(starts).to_pylist()
    ends = [*starts[1:], found.num_rows]
    yield from ((key, (group, a, b - a)) for key, a, b in zip(keys, starts, ends, strict=True))
