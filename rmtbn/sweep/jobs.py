"""From cells to jobs: which cells are computed, and which of them together."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rmtbn import _checks
from rmtbn.sweep.grid import Cell, Study, Value
from rmtbn.sweep.job import Job


def jobs(
    study: Study, cells: Iterable[Cell], *, seconds: float | None = None, together: int | None = None
) -> Iterator[Job]:
    """Cut cells into jobs, as they come: where the study has a group, cells of equal shape in one job.

    Parameters
    ----------
    study, cells
        What is computed.
    seconds
        How long a cell may take; a job of n cells may take n times as long. None: no limit.
    together
        Cells of a job, for a study that has a group; None: as the study says for the cells at hand.
    """
    limit = None if seconds is None else _checks.real("seconds", seconds, above=0.0)
    size = None if together is None else _checks.integer("together", together, at_least=1)
    for group in _grouped(study, cells, size=size):
        yield Job(cells=group, limit=None if limit is None else limit * len(group))


def _grouped(study: Study, cells: Iterable[Cell], *, size: int | None) -> Iterator[tuple[Cell, ...]]:
    if study.group is None:
        yield from ((cell,) for cell in cells)
        return
    waiting: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        shape = tuple(cell.parameters.get(name) for name in study.group.same)
        mine = waiting.setdefault(shape, [])
        mine.append(cell)
        if len(mine) >= (size or max(1, study.group.size(cell.parameters))):
            yield tuple(waiting.pop(shape))
    yield from (tuple(left) for left in waiting.values())


def chosen(cells: Iterable[Cell], only: Mapping[str, str]) -> list[Cell]:
    """Return the cells with the values asked for.

    Parameters
    ----------
    cells
        All cells.
    only
        Name of a parameter, or "seed", to the value it is to have, as text: ``{"norm": "batch", "seed": "3"}``.

    Raises
    ------
    InvalidArgumentError
        If a cell has no such parameter, or none has such a value.
    """
    found = list(cells)
    for name, text in only.items():
        fitting = [cell for cell in found if _reads(_value(cell, name), text)]
        if not fitting:
            values = dict.fromkeys(str(_value(cell, name)) for cell in found)
            raise _checks.fail(f"only {name}", "one of " + ", ".join(values), text)
        found = fitting
    return found


def _value(cell: Cell, name: str) -> Value:
    if name == "seed":
        return cell.seed
    if name not in cell.parameters:
        raise _checks.fail("only", f"named by one of {', '.join([*cell.parameters, 'seed'])}", name)
    value: Value = cell.parameters[name]
    return value


def _reads(value: Value, text: str) -> bool:
    """Whether a text is a way to write a value: 1e-3 for 0.001, true for True."""
    if isinstance(value, bool | str):
        return str(value).lower() == text.lower() if isinstance(value, bool) else value == text
    try:
        return value == float(text)
    except ValueError:
        return False
