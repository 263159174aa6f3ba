"""Jobs: what an engine is given to compute, and what it gives back. `work` is what a worker runs."""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rmtbn.sweep.grid import Cell, Study
from rmtbn.sweep.parquet import encode
from rmtbn.sweep.provenance import Provenance, recorded
from rmtbn.sweep.record import Record, record


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A cell that has no result.

    Parameters
    ----------
    cell
        The cell.
    error
        Type and message of what was raised, or how its worker was lost, in one line.
    trace
        The traceback, where there is one.
    """

    cell: Cell
    error: str
    trace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A cell that was computed: the bytes of its file, and the seconds that it took."""

    cell: Cell
    content: bytes
    seconds: float


Outcome = Finished | Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Cells that are computed in one go.

    Parameters
    ----------
    cells
        One cell, or several of equal shape for the group function of the study.
    limit
        Seconds that the job may take, after which its worker is to be stopped; None: no limit.
    attempt
        1, or more for a job whose worker was lost before.
    """

    cells: tuple[Cell, ...]
    limit: float | None = None
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Why a job has no outcomes: its worker was lost.

    Parameters
    ----------
    reason
        What happened, in one line.
    again
        Whether another worker may fare better: not for a job that took too long.
    """

    reason: str
    again: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """A job and what came of it: an outcome per cell, or why there is none."""

    job: Job
    outcome: tuple[Outcome, ...] | Lost


def work(study: Study, job: Job) -> tuple[Outcome, ...]:
    """Compute the cells of a job, in whatever process this is; what a cell raises is its outcome."""
    if len(job.cells) > 1:
        return tuple(_together(study, job.cells))
    (cell,) = job.cells
    found = compute(study, cell)
    return (_finished(found) if isinstance(found, Record) else found,)


def compute(study: Study, cell: Cell) -> Record | Failure:
    """Compute one cell and say how it was made; what it raises becomes a `Failure`."""
    try:
        with recorded() as provenance:
            frames = study.compute(**cell.parameters, seed=cell.seed)
        return _record(study, cell, frames, provenance)
    except (Exception, SystemExit) as error:  # whatever a cell raises is its outcome: the others go on
        return _failure(cell, error)


def _together(study: Study, cells: Sequence[Cell]) -> list[Outcome]:
    """Compute cells in one call, each with its share of the time; if the call fails, none has a result."""
    if study.group is None:
        raise ValueError("a job of several cells for a study that has no group")
    try:
        with recorded() as provenance:
            tables = study.group.compute(cells)
        seconds = float(provenance["wall_seconds"]) / len(cells)
        shared: Provenance = {**provenance, "wall_seconds": seconds, "cells_together": str(len(cells))}
        found = zip(cells, tables, strict=True)
        return [_finished(_record(study, cell, frames, shared)) for cell, frames in found]
    except (Exception, SystemExit) as error:
        return [_failure(cell, error) for cell in cells]


def _record(study: Study, cell: Cell, frames: object, provenance: Provenance) -> Record:
    """Make the record; where the cell names its device and dtype, those are what it was made with."""
    named = {name: str(cell.parameters[name]) for name in ("device", "dtype") if name in cell.parameters}
    return record(study, cell, frames=frames, provenance={**provenance, **named})


def _finished(found: Record) -> Finished:
    return Finished(cell=found.cell, content=encode(found), seconds=float(found.provenance["wall_seconds"]))


def _failure(cell: Cell, error: BaseException) -> Failure:
    summary = traceback.format_exception_only(error)[-1].strip()
    return Failure(cell=cell, error=summary, trace="".join(traceback.format_exception(error)))


def alone(job: Job) -> tuple[Job, ...]:
    """Cut a job into jobs of one cell each."""
    return tuple(replace(job, cells=(cell,), attempt=1) for cell in job.cells)
