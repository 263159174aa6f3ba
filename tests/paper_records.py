"""Records of the studies of Bjorck et al. 2018 for tests: computed small, and changed to say something else."""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pyarrow as pa
from rmtbn.analyses._options import Common

from rmtbn.sweep.run import Records

Change = Callable[[str, dict, int, pd.DataFrame], pd.DataFrame]


def options(path, *, preset="quick", seed=1):
    """The values of the common options, nothing of which is written."""
    return Common(seed=seed, device="cpu", dtype="float32", out=path, preset=preset, engine="inline", workers=None,
                  as_json=True)  # fmt: skip


def changed(records: Records, change: Change) -> Records:
    """The same cells with other tables: `change(name, parameters, seed, frame)` returns what a table says instead."""

    def told(record):
        tables = {
            name: pa.Table.from_pandas(
                change(name, dict(record.cell.parameters), record.cell.seed, table.to_pandas()), preserve_index=False
            )
            for name, table in record.tables.items()
        }
        return replace(record, tables=tables)

    return replace(records, records=tuple(told(record) for record in records.records))


def few(records: Records) -> Records:
    """The cells of the first seed alone: too few networks to judge by."""
    first = min(record.cell.seed for record in records.records)
    return replace(records, records=tuple(r for r in records.records if r.cell.seed == first))
