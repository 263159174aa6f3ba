"""All rows of a table of a store, in one call, with one type per column."""

import pandas as pd
import pyarrow as pa

from rmtbn import _checks
from rmtbn.sweep.record import labelled
from rmtbn.sweep.store import Store


def table(store: Store, name: str, *, study: str | None = None) -> pd.DataFrame:
    """Return the rows that all stored cells wrote to one table, with study, parameters and seed beside them.

    The study is left out where the cells have a column of that name. Numbers that are integers in one cell and floats
    in another become floats; texts are plain texts. A column that a cell does not have is missing there.

    Parameters
    ----------
    store
        Where the cells are. What cannot be trusted there is set aside.
    name
        Of the table.
    study
        Of the cells; None: all studies.

    Raises
    ------
    InvalidArgumentError
        If no cell wrote such a table.
    """
    _checks.one_of("name", name, table_names(store, study=study))
    found = (store.read(about.key) for about in store.headers() if study in {None, about.study})
    parts = [_with_study(record.study, labelled(record.cell, record.tables[name])) for record in found
             if record is not None and name in record.tables]  # fmt: skip
    frame: pd.DataFrame = pa.concat_tables(parts, promote_options="permissive").to_pandas()
    return frame


def table_names(store: Store, *, study: str | None = None) -> list[str]:
    """Return the names of the tables that stored cells wrote, in the order of their first appearance."""
    names = (name for about in store.headers() if study in {None, about.study} for name, _, _ in about.layout)
    return list(dict.fromkeys(names))


def _with_study(study: str, rows: pa.Table) -> pa.Table:
    taken = "study" in rows.column_names
    return rows if taken else rows.add_column(0, "study", pa.repeat(pa.scalar(study), rows.num_rows))
