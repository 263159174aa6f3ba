"""Engines: where cells are computed. An engine is a function from a study and cells to their outcomes, as they land."""

import traceback
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

from rmtbn.sweep.grid import Cell, Study
from rmtbn.sweep.provenance import recorded
from rmtbn.sweep.record import Record, record


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A cell that raised.

    Parameters
    ----------
    cell
        The cell.
    error
        Type and message of what was raised, in one line.
    trace
        The traceback.
    """

    cell: Cell
    error: str
    trace: str


Outcome = Record | Failure

Engine = Callable[[Study, Iterable[Cell]], Generator[Outcome]]
"""``engine(study, cells)`` yields one outcome per cell, in any order, and stops what it started when it is closed."""


def compute(study: Study, cell: Cell) -> Outcome:
    """Compute one cell and say how it was made; what it raises becomes a `Failure`. This is what a worker runs."""
    try:
        with recorded() as provenance:
            frames = study.compute(**cell.parameters, seed=cell.seed)
        return record(study, cell, frames=frames, provenance=provenance)
    except Exception as error:  # whatever a cell raises is its outcome: the others go on
        summary = traceback.format_exception_only(error)[-1].strip()
        return Failure(cell=cell, error=summary, trace="".join(traceback.format_exception(error)))


def inline(study: Study, cells: Iterable[Cell]) -> Generator[Outcome]:
    """Compute the cells one after the other in this process."""
    for cell in cells:
        yield compute(study, cell)
