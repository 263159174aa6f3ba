"""Run a study: compute what is missing, store each cell as it lands, return all records."""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from rmtbn import _checks
from rmtbn.sweep import provenance
from rmtbn.sweep.engine import Engine, Failure, inline
from rmtbn.sweep.grid import Cell, Study, Value, key
from rmtbn.sweep.progress import track
from rmtbn.sweep.record import Record, labelled
from rmtbn.sweep.store import Store


class CellsFailedError(RuntimeError):
    """Some cells raised; all others are stored, and the same call computes only what failed.

    The attribute `failures` holds each failed cell with its error and traceback.
    """

    def __init__(self, study: str, failures: tuple[Failure, ...], *, total: int) -> None:
        named = "; ".join(f"{study}({failure.cell}): {failure.error}" for failure in failures[:3])
        more = f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
        super().__init__(f"{len(failures)} of {total} cells failed, the others are stored: {named}{more}")
        self.failures = failures


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Records:
    """The finished cells of a study, in the order they were asked for."""

    study: Study
    records: tuple[Record, ...]

    def table(self, name: str) -> pd.DataFrame:
        """Return the rows that all cells wrote to one table, with the parameters and the seed as further columns.

        Raises
        ------
        InvalidArgumentError
            If no cell wrote such a table.
        """
        _checks.one_of("name", name, dict.fromkeys(known for record in self.records for known in record.tables))
        parts = [labelled(r.cell, r.tables[name]) for r in self.records if name in r.tables]
        frame: pd.DataFrame = pa.concat_tables(parts, promote_options="permissive").to_pandas()
        return frame

    def manifest(self) -> dict[str, str]:
        """Say for the end of a report what was computed and how: values of each parameter, seeds, versions, time."""
        cells = [record.cell for record in self.records]
        names = dict.fromkeys(name for cell in cells for name in cell.parameters)
        return {
            "study": f"{self.study.name}, version {self.study.version}",
            "cells": str(len(cells)),
            **{name: _values(cell.parameters[name] for cell in cells if name in cell.parameters) for name in names},
            "seeds": _values(cell.seed for cell in cells),
            **provenance.summarise([record.provenance for record in self.records]),
        }


def run(
    study: Study, cells: Iterable[Cell], *, store: Store, engine: Engine = inline, progress: bool = True
) -> Records:
    """Compute the cells that `store` does not hold yet and return the records of all.

    Each cell is stored as soon as it lands, so that an interrupted run (Ctrl-C, a crash, a kill) loses only what was
    being computed, and the same call again goes on from there.

    Parameters
    ----------
    study
        What to compute.
    cells
        Where; a cell named twice is computed once.
    store
        Where finished cells are looked up and kept.
    engine
        How cells are computed; the results do not depend on it.
    progress
        Whether to show progress on stderr.

    Raises
    ------
    CellsFailedError
        If cells raised, after all the others are stored.
    """
    wanted = {key(study.name, study.version, cell): cell for cell in cells}
    found = store.load(wanted)
    missing = [cell for name, cell in wanted.items() if name not in found]
    failures = []
    with closing(engine(study, missing)) as outcomes:
        for outcome in track(outcomes, total=len(missing), label=study.name) if progress else outcomes:
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                store.write(outcome)
                found[outcome.key] = outcome
    if failures:
        raise CellsFailedError(study.name, tuple(failures), total=len(wanted))
    return Records(study=study, records=tuple(found[name] for name in wanted))


def _values(values: Iterable[Value]) -> str:
    """List different values; a run of integers as its ends."""
    different = list(dict.fromkeys(values))
    first = different[0]
    if len(different) > 3 and isinstance(first, int) and different == list(range(first, first + len(different))):
        return f"{first} to {different[-1]}"
    return ", ".join(str(value) for value in different)
