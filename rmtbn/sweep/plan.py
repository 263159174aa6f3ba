"""What a store was asked to hold: kept beside the cells, so that it can be said what is missing, and gone on with.

One Parquet file per version of a study: a row per cell: its key, its parameters as JSON in their order, its seed.
"""

import importlib
import json
import operator
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rmtbn import _checks
from rmtbn.sweep.compaction import prefix
from rmtbn.sweep.grid import Cell, Study, key
from rmtbn.sweep.parquet import UnreadableRecordError, readable
from rmtbn.sweep.source import module_of
from rmtbn.sweep.store import Store

PLANS = "_plans"
_SUFFIX = ".plan"  # a Parquet file, but no table of results


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The cells of a study that were asked for.

    Parameters
    ----------
    study, version
        Which study.
    place
        Where it is found again: ``module:NAME``, or ``file.py:NAME``; empty if it is nowhere.
    cells
        All its cells.
    """

    study: str
    version: int
    place: str
    cells: tuple[Cell, ...]

    def keys(self) -> dict[str, Cell]:
        """Return the cells by their keys."""
        return {key(self.study, self.version, cell): cell for cell in self.cells}

    def load(self) -> Study:
        """Import the study.

        Raises
        ------
        InvalidArgumentError
            If it is nowhere to be found, or has another version by now.
        """
        module, _, name = self.place.rpartition(":")
        if not module:
            raise _checks.fail("study", "found again by its module: run its own command or script instead", self.study)
        imported = module_of(Path(module)) if module.endswith(".py") else importlib.import_module(module)
        found = operator.attrgetter(name)(imported)
        if not isinstance(found, Study) or (found.name, found.version) != (self.study, self.version):
            raise _checks.fail("study", f"version {self.version} of {self.study}, as the store has it", found)
        return found


def remember(store: Store, study: Study, cells: Iterable[Cell]) -> None:
    """Keep what is asked for in the store."""
    asked = {key(study.name, study.version, cell): cell for cell in cells}
    texts = [json.dumps(list(cell.parameters.items()), allow_nan=False) for cell in asked.values()]
    about = {"study": study.name, "version": str(study.version), "place": place(study)}
    rows = pa.table({"key": list(asked), "parameters": texts, "seed": [cell.seed for cell in asked.values()]})
    sink = pa.BufferOutputStream()
    pq.write_table(rows.replace_schema_metadata(about), sink, compression="zstd")
    name, content = f"{PLANS}/{prefix(study.name)}.v{study.version}{_SUFFIX}", bytes(sink.getvalue())
    if store.blobs.get(name) != content:
        store.blobs.put(name, content)


def plans(store: Store) -> list[Plan]:
    """Return what was asked of a store, by name of the study; files that are no plans are passed over."""
    found = []
    for name in sorted(store.blobs.names(PLANS)):
        content = store.blobs.get(f"{PLANS}/{name}")
        if content is None or not name.endswith(_SUFFIX) or name.startswith("."):
            continue
        try:
            found.append(_read(content))
        except UnreadableRecordError:
            continue
    return found


def place(study: Study) -> str:
    """Say where a study can be imported from: a variable of the module of its function, or the `study` of one."""
    module = sys.modules.get(getattr(study.compute, "__module__", None) or "")
    name = next(filter(None, (_path(name, value, study) for name, value in vars(module).items())), "") if module else ""
    if module is None or not name or module.__name__ == "__main__":
        return ""
    file = getattr(module, "__rmtbn_file__", None)
    return f"{file or module.__name__}:{name}"


def _path(name: str, value: object, study: Study) -> str:
    """Write how a variable leads to a study: it is it, or has it as its attribute `study`."""
    if value is study:
        return name
    return f"{name}.study" if getattr(value, "study", None) is study else ""


def _read(content: bytes) -> Plan:
    with readable():
        rows = pq.read_table(pa.BufferReader(content))
        about = {name.decode(): value.decode() for name, value in (rows.schema.metadata or {}).items()}
        cells = tuple(
            Cell(parameters=dict(json.loads(row["parameters"])), seed=row["seed"]) for row in rows.to_pylist()
        )
        return Plan(study=about["study"], version=int(about["version"]), place=about["place"], cells=cells)
