"""Tables of all cells of a store, as files for other tools."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from rmtbn import _checks
from rmtbn.sweep.status import summary
from rmtbn.sweep.store import Store
from rmtbn.sweep.tables import table, table_names

FORMATS = (".parquet", ".csv")
OVERVIEW = "cells"  # the table that says how each cell was made


def export(store: Store, to: Path, *, table: str | None) -> Iterator[Path]:
    """Write one table to a file, or all tables to a folder, and name the files.

    Parameters
    ----------
    store
        Where the cells are.
    to
        A .parquet or .csv file; a folder for all tables.
    table
        Name of the table; "cells" for parameters and provenance; None: all of them, as Parquet.
    """
    names = {OVERVIEW: None, **dict.fromkeys(table_names(store))}
    if table is None:
        to.mkdir(parents=True, exist_ok=True)
        yield from (_write(_frame(store, name), to / f"{name}.parquet") for name in names)
        return
    _checks.one_of("table", table, names)
    if to.suffix not in FORMATS:
        raise _checks.fail("to", f"a file that ends in {' or '.join(FORMATS)}", str(to))
    yield _write(_frame(store, table), to)


def _frame(store: Store, name: str) -> pd.DataFrame:
    return summary(store) if name == OVERVIEW else table(store, name)


def _write(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        frame.map(_text).to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    return path


def _text(value: object) -> object:
    """Write a list of numbers so that every digit stays, and anything else as it is."""
    return " ".join(map(repr, value.tolist())) if isinstance(value, np.ndarray) else value
