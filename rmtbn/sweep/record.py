"""A finished cell: what was computed, the tables that came out, and how they were made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from rmtbn import _checks
from rmtbn.sweep.grid import RESERVED, Cell, Study, key

LIST = pa.list_(pa.field("element", pa.float64()))  # the name that Parquet gives it
_TYPES = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "string": pa.string(), "list": LIST}
_KINDS = {"b": "bool", "i": "int", "u": "int", "f": "float"}
_ALLOWED = "strings, bools, 64-bit ints, floats or lists of floats, none missing"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """A finished cell.

    Parameters
    ----------
    study, version, cell
        What was computed.
    tables
        What came out: table name to an Arrow table of strings, bools, 64-bit ints and floats, and lists of floats.
    provenance
        How it was made: versions, device, wall time and the like.
    """

    study: str
    version: int
    cell: Cell
    tables: Mapping[str, pa.Table]
    provenance: Mapping[str, str | float]

    @property
    def key(self) -> str:
        """Content hash of study, version, parameters and seed."""
        return key(self.study, self.version, self.cell)


def record(study: Study, cell: Cell, *, frames: object, provenance: Mapping[str, str | float]) -> Record:
    """Make the record of what a study returned for a cell.

    Parameters
    ----------
    study, cell
        What was computed.
    frames
        What came out: a mapping from table name to DataFrame.
    provenance
        How it was made.

    Raises
    ------
    InvalidArgumentError
        If a column holds anything but strings, bools, ints, floats or lists of floats, has a missing value (NaN is a
        float like others), is named like a parameter, or has another type in another table of the same cell.
    """
    if not isinstance(frames, Mapping) or not frames:
        raise _checks.fail("tables", "a non-empty mapping from table name to DataFrame", frames)
    tables = {name: _table(name, frame, taken=(*RESERVED, *cell.parameters)) for name, frame in frames.items()}
    try:
        pa.unify_schemas([table.schema for table in tables.values()])
    except pa.ArrowTypeError as error:
        raise _checks.fail("tables", "of one type per column name, whatever the table", str(error)) from None
    return Record(study=study.name, version=study.version, cell=cell, tables=tables, provenance=dict(provenance))


def labelled(cell: Cell, table: pa.Table, *, name: str | None = None) -> pa.Table:
    """Put the parameters and the seed of a cell, and the name of the table if given, before the columns of a table."""
    labels = {**({} if name is None else {"table": name}), **cell.parameters, "seed": cell.seed}
    columns = {label: pa.repeat(pa.scalar(value), table.num_rows) for label, value in labels.items()}
    return pa.table({**columns, **dict(zip(table.column_names, table.columns, strict=True))})


def _table(name: str, frame: object, *, taken: tuple[str, ...]) -> pa.Table:
    if not isinstance(frame, pd.DataFrame):
        raise _checks.fail(f"tables[{name!r}]", "a pandas DataFrame", frame)
    clash = [column for column in frame.columns if not isinstance(column, str) or column in taken]
    if clash or not frame.columns.is_unique or not len(frame.columns):
        raise _checks.fail(f"tables[{name!r}]", f"with columns named once and not among {taken}", list(frame.columns))
    return pa.table({column: _column(f"{name}.{column}", frame[column]) for column in frame.columns})


def _column(name: str, series: "pd.Series[Any]") -> pa.Array:
    """Turn a column into Arrow; NaN stays NaN, and nothing may be missing."""
    if pd.api.types.is_extension_array_dtype(series.dtype) and series.isna().any():
        raise _checks.fail(name, _ALLOWED, series.dtype)
    values: Any = series.to_numpy()
    kind = _KINDS.get(values.dtype.kind)
    if kind is None:
        kind = "string" if all(isinstance(value, str) for value in values) else "list"
        values = list(values) if kind == "string" else [_floats(name, value) for value in values]
    try:
        return pa.array(values, type=_TYPES[kind])
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        raise _checks.fail(name, _ALLOWED, series.iloc[0]) from None


def _floats(name: str, value: object) -> NDArray[np.float64]:
    if isinstance(value, list | tuple | np.ndarray):
        try:
            numbers = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            numbers = np.empty((0, 0))
        if numbers.ndim == 1:
            return numbers
    raise _checks.fail(name, _ALLOWED, value)
