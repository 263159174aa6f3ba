"""What a store holds of what it was asked for, and how long the rest would take."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from rmtbn.sweep.grid import Cell, key
from rmtbn.sweep.parquet import Header
from rmtbn.sweep.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How far a study has come.

    Parameters
    ----------
    study
        Its name.
    cells, done, failed
        Cells asked for, stored, and failed without being stored.
    seconds
        Wall time of the stored cells together, s.
    left
        Estimate of the wall time of the others on one worker, s: their number times the mean of the stored; NaN if none
        is stored.
    """

    study: str
    cells: int
    done: int
    failed: int
    seconds: float
    left: float


def status(study: str, version: int, *, cells: Iterable[Cell], store: Store) -> Status:
    """Say how far a study has come, from the ends of its files.

    Parameters
    ----------
    study, version
        Which study.
    cells
        What was asked for.
    store
        Where its cells are.
    """
    wanted = {key(study, version, cell) for cell in cells}
    times = [float(about.provenance["wall_seconds"]) for about in store.headers() if about.key in wanted]
    stored = set(store.keys()) & wanted
    mean = sum(times) / len(times) if times else float("nan")
    return Status(
        study=study,
        cells=len(wanted),
        done=len(stored),
        failed=len((set(store.failed()) & wanted) - stored),
        seconds=sum(times),
        left=mean * (len(wanted) - len(stored)) if len(stored) < len(wanted) else 0.0,
    )


def summary(store: Store) -> pd.DataFrame:
    """Return one row per stored cell: key, study, version, parameters, seed and provenance, without the results.

    Columns that a cell has none of are missing values there; a parameter that is named as a column of the provenance
    (device, dtype) is the parameter.
    """
    return pd.DataFrame.from_records([_row(about) for about in store.headers()])


def _row(about: Header) -> dict[str, object]:
    names = {"key": about.key, "study": about.study, "version": about.version}
    return {**names, **about.provenance, **about.cell.parameters, "seed": about.cell.seed}
