"""Run a study: compute what is missing, store each cell as it lands, return all records."""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import pandas as pd
import pyarrow as pa

from rmtbn import _checks
from rmtbn.sweep import provenance
from rmtbn.sweep.drive import Tally, drive, recorded_failure
from rmtbn.sweep.engine import Engine, inline
from rmtbn.sweep.grid import Cell, Study, Value, key
from rmtbn.sweep.interrupt import InterruptedSweep
from rmtbn.sweep.job import Failure, Outcome
from rmtbn.sweep.jobs import jobs
from rmtbn.sweep.progress import Progress
from rmtbn.sweep.record import Record, labelled
from rmtbn.sweep.store import Store

_ROUNDS = 3  # of computing what turned out to be bad when it was read: a disk that spoils all is not to be fought


class CellsFailedError(RuntimeError):
    """Some cells failed; all others are stored.

    The attribute `failures` holds each failed cell with its error and traceback.
    """

    def __init__(self, study: str, failures: tuple[Failure, ...], *, total: int, known: int = 0) -> None:
        named = "; ".join(f"{study}({failure.cell}): {failure.error}" for failure in failures[:3])
        more = f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
        hint = f"; {known} failed before and were not tried again (retry_failed, --retry-failed)" if known else ""
        super().__init__(f"{len(failures)} of {total} cells failed, the others are stored: {named}{more}{hint}")
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
    study: Study,
    cells: Iterable[Cell],
    *,
    store: Store,
    engine: Engine | None = None,
    progress: bool = True,
    retry_failed: bool = False,
    seconds: float | None = None,
    together: int | None = None,
) -> Records:
    """Compute the cells that `store` does not hold yet and return the records of all.

    Each cell is stored as soon as it lands, so that an interrupted run (Ctrl-C, a crash, a kill) loses only what was
    being computed, and the same call again goes on from there. Stored cells that turn out to be damaged are set aside
    and computed again.

    Parameters
    ----------
    study
        What to compute.
    cells
        Where; a cell named twice is computed once.
    store
        Where finished cells are looked up and kept.
    engine
        How cells are computed, in this process if None; the results do not depend on it.
    progress
        Whether to show progress on stderr.
    retry_failed
        Whether to try again the cells whose failure is stored.
    seconds
        How long a cell may take, on an engine that can stop it; None: no limit.
    together
        How many cells of equal shape are computed in one call, for a study that can; None: as the study says.

    Raises
    ------
    CellsFailedError
        If cells failed, after all the others are stored.
    InterruptedSweep
        If SIGINT or SIGTERM came, after what was in flight is stored.
    """
    wanted = {key(study.name, study.version, cell): cell for cell in cells}
    found: dict[str, Record] = {}
    for _ in range(_ROUNDS):
        found.update(store.load(name for name in wanted if name not in found))
        if len(found) == len(wanted):
            return Records(study=study, records=tuple(found[name] for name in wanted))
        missing = [cell for name, cell in wanted.items() if name not in found]
        tally = advance(
            study, missing, store=store, engine=engine, progress=progress, retry_failed=retry_failed, seconds=seconds,
            together=together,
        )  # fmt: skip
        if tally.interrupted:
            left = len(missing) - tally.stored - tally.elsewhere - len(tally.failures)
            raise InterruptedSweep(f"{left} of {len(wanted)} cells of {study.name} are left for the same call again")
        if tally.failures:
            raise CellsFailedError(study.name, tally.failures, total=len(wanted), known=tally.known)
    found.update(store.load(name for name in wanted if name not in found))
    if len(found) < len(wanted):
        raise RuntimeError(f"cells of {study.name} were damaged in the store as often as they were written")
    return Records(study=study, records=tuple(found[name] for name in wanted))


def advance(
    study: Study,
    cells: Iterable[Cell],
    *,
    store: Store,
    engine: Engine | None = None,
    progress: bool = True,
    at_most: int | None = None,
    retry_failed: bool = False,
    seconds: float | None = None,
    together: int | None = None,
) -> Tally:
    """Compute the cells that `store` does not hold yet, or some of them, and return what was done, but no records.

    Parameters
    ----------
    study, cells, store, engine, progress, retry_failed, seconds, together
        As in `run`.
    at_most
        How many cells to compute, the first that are missing; None: all.

    Returns
    -------
    Tally
        Its `failures` are those of this call and, unless they were retried, those stored before.
    """
    wanted = {key(study.name, study.version, cell): cell for cell in cells}
    done, failed = set(store.keys()), set(store.failed())
    known = () if retry_failed else tuple(name for name in wanted if name in failed and name not in done)
    open_ = (name for name in wanted if name not in done and (retry_failed or name not in failed))
    missing = list(islice(open_, at_most))
    with closing(Progress(total=len(missing), label=study.name, shown=progress)) as shown:

        def watch(outcome: Outcome | None) -> None:
            if failed and outcome is not None and not isinstance(outcome, Failure):
                store.forgive(key(study.name, study.version, outcome.cell))
            shown.add(failed=isinstance(outcome, Failure))

        work = jobs(study, (wanted[name] for name in missing), seconds=seconds, together=together)
        tally = drive(study, work, store=store, engine=engine or inline(), watch=watch)
    before = (store.failure(name) for name in known)
    failures = [*tally.failures, *(recorded_failure(found) for found in before if found is not None)]
    order = {name: place for place, name in enumerate(wanted)} if failures else {}
    failures.sort(key=lambda failure: order[key(study.name, study.version, failure.cell)])
    return replace(tally, failures=tuple(failures), known=len(failures) - len(tally.failures))


def _values(values: Iterable[Value]) -> str:
    """List different values; a run of integers as its ends."""
    different = list(dict.fromkeys(values))
    first = different[0]
    if len(different) > 3 and isinstance(first, int) and different == list(range(first, first + len(different))):
        return f"{first} to {different[-1]}"
    return ", ".join(str(value) for value in different)
