"""Studies that a user wrote: a Python file with a cell function and its grid, or a TOML file with a grid alone."""

import importlib
import inspect
import operator
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rmtbn import _checks
from rmtbn.sweep.grid import Cell, Study, grid

_FILE_RULE = "a file that defines `cell` and GRID, or STUDY and CELLS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A study and the cells that are wanted of it."""

    study: Study
    cells: tuple[Cell, ...]


def from_python(path: Path) -> Asked:
    """Read a study from a Python file.

    Parameters
    ----------
    path
        The file, which is imported. It defines ``cell(*, seed, ...)`` and ``GRID``, the values of its parameters, and
        may define ``SEEDS`` (1 alone), ``VERSION`` (1) and ``GROUP``; the study has the name of the file. Or it
        defines ``STUDY``, a `Study`, and ``CELLS``, a sequence of `Cell`.

    Raises
    ------
    InvalidArgumentError
        If the file lacks these, or another module has its name.
    """
    module = module_of(path)
    study, cells = getattr(module, "STUDY", None), getattr(module, "CELLS", None)
    if isinstance(study, Study) and isinstance(cells, Sequence):
        return Asked(study=study, cells=tuple(cells))
    axes = getattr(module, "GRID", None)
    if not isinstance(study, Study) or not isinstance(axes, Mapping):
        raise _checks.fail("file", _FILE_RULE, str(path))
    return Asked(study=study, cells=grid(axes, seeds=tuple(getattr(module, "SEEDS", (1,)))))


def module_of(path: Path) -> ModuleType:
    """Import a file as the module of its name, with a STUDY made of its `cell` if it has none of its own.

    Its folder is put on the path, for the workers and for what it imports from there.
    """
    file = path.resolve()
    if not file.is_file() or file.suffix != ".py" or not file.stem.isidentifier():
        raise _checks.fail("file", "a Python file with a name that can be imported", str(path))
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    module = importlib.import_module(file.stem)
    if Path(getattr(module, "__file__", None) or "").resolve() != file:
        raise _checks.fail("file", "named as no other module that is imported", str(path))
    made: Any = module
    made.__rmtbn_file__ = str(file)
    if not isinstance(getattr(module, "STUDY", None), Study) and callable(getattr(module, "cell", None)):
        version, group = getattr(module, "VERSION", 1), getattr(module, "GROUP", None)
        made.STUDY = Study(name=file.stem, version=version, compute=made.cell, group=group)
    return module


def from_toml(path: Path, studies: Mapping[str, str]) -> Asked:
    """Read the grid of a built-in study from a TOML file.

    Parameters
    ----------
    path
        The file: ``study`` (a name), ``seeds`` (a list, or ``{first = 1, count = 100}``; 1 alone if left out), and a
        table ``grid`` with a list of values, or one value, for every parameter of the study.
    studies
        Name to ``module:NAME`` of each study that there is.

    Raises
    ------
    InvalidArgumentError
        If the file is no TOML, or something is missing or unknown; it says what.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _checks.fail("file", f"TOML ({error})", str(path)) from None
    unknown = sorted(set(content) - {"study", "seeds", "grid"})
    if unknown:
        raise _checks.fail("file", "of study, seeds and [grid] only", ", ".join(unknown))
    module, _, name = studies[_checks.one_of("study", content.get("study"), studies)].partition(":")
    study: Study = operator.attrgetter(name)(importlib.import_module(module))
    asked = content.get("grid", {})
    _check_names(study, asked)
    axes = {name: tuple(value) if isinstance(value, list) else (value,) for name, value in asked.items()}
    return Asked(study=study, cells=grid(axes, seeds=_seeds(content.get("seeds", [1]))))


def _check_names(study: Study, asked: Mapping[str, Any]) -> None:
    """Compare the names of a grid with the parameters that the cell function takes."""
    takes = {name: p for name, p in inspect.signature(study.compute).parameters.items() if name != "seed"}
    missing = [name for name, p in takes.items() if p.default is p.empty and name not in asked]
    if missing:
        raise _checks.fail(
            "grid", f"with a value of every parameter of {study.name}", f"a grid without {', '.join(missing)}"
        )
    for name in asked:
        _checks.one_of("grid", name, takes)


def _seeds(asked: object) -> tuple[int, ...]:
    if isinstance(asked, Mapping) and set(asked) == {"first", "count"}:
        first, count = (_checks.integer(f"seeds.{name}", asked[name]) for name in ("first", "count"))
        return tuple(range(first, first + count))
    if isinstance(asked, list):
        return tuple(_checks.integer("seeds", seed, at_least=0) for seed in asked)
    raise _checks.fail("seeds", "a list of integers, or {first = 1, count = 100}", asked)
