"""Studies of many cells: how far they have come, going on with them, and getting at their results: `rmtbn sweep`.

A study is a built-in one with a grid from a TOML file, or a Python file of the user's own; its cells are kept in a
folder, or under any URL that fsspec knows, and are computed where the engine says. See docs/studies.md.
"""

from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from rmtbn import _checks
from rmtbn.sweep.compaction import compact
from rmtbn.sweep.parquet import Header
from rmtbn.sweep.plan import Plan, plans, remember
from rmtbn.sweep.source import Asked, from_python, from_toml
from rmtbn.sweep.status import status
from rmtbn.sweep.store import Store, open_store

from ._output import echo_json, example
from ._sweep_export import export
from ._sweeping import Sweeping, said, sweeping

# Name of a built-in study to where it is.
STUDIES = MappingProxyType(
    {
        "schemes": "rmtbn.analyses.schemes:STUDY",
        "spectrum": "rmtbn.analyses.spectrum:STUDY",
        "moments": "rmtbn.analyses.moments:STUDY",
        "phase-correlations": "rmtbn.analyses.phase:CORRELATIONS",
        "phase-training": "rmtbn.analyses.phase:TRAINING",
        "laws": "rmtbn.analyses._laws_networks:STUDY",
        "width-depth": "rmtbn.analyses.width_depth:STUDY",
        "lyapunov": "rmtbn.analyses.lyapunov:STUDY",
        "product": "rmtbn.analyses._product_cells:DRAWN",
        "class-bias": "rmtbn.analyses.class_bias:ANALYSIS.study",
        "conv-gradients": "rmtbn.analyses.conv_gradients:ANALYSIS.study",
        "channel-gradients": "rmtbn.analyses.channel_gradients:ANALYSIS.study",
        "channel-moments": "rmtbn.analyses.channel_moments:ANALYSIS.study",
        "gradient-tails": "rmtbn.analyses.gradient_tails:ANALYSIS.study",
        "sgd-noise": "rmtbn.analyses.sgd_noise:ANALYSIS.study",
        "step-size": "rmtbn.analyses.step_size:ANALYSIS.study",
        "product-spectra": "rmtbn.analyses.product_spectra:ANALYSIS.study",
        "learning-rates": "rmtbn.analyses.learning_rates:ANALYSIS.study",
        "max-rate": "rmtbn.analyses.max_rate:ANALYSIS.study",
        "shattering": "rmtbn.analyses.shattering:ANALYSIS.study",
        "rank": "rmtbn.analyses.rank:STUDY",
        "bn-explosion": "rmtbn.analyses.bn_explosion:STUDY",
        "bn-jacobian": "rmtbn.analyses.bn_jacobian:STUDY",
    }
)
CELLS = "cells"  # the folder of the cells in that of a study


@click.group(epilog=example("sweep run study.py --engine local --out reports"), subcommand_metavar="COMMAND")
def command() -> None:
    """Run studies of many cells, go on with them, look at them, join their files."""


@command.command("run", epilog=example("sweep run study.toml --only width=128 --engine local"))
@click.argument("study", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", default="reports", show_default=True, help="Folder or URL; cells go to OUT/<name>/cells.")
@click.option("--name", help="Of the folder in OUT.  [default: that of the file]")
@click.option("--json", "as_json", is_flag=True, help="Print how far the study is as JSON.")
@sweeping
def run_command(*, study: Path, out: str, name: str | None, as_json: bool, sweep: Sweeping) -> None:
    """Compute the cells of a study: a Python file with `cell` and GRID, or a TOML grid of a built-in one."""
    asked = from_toml(study, STUDIES) if study.suffix == ".toml" else from_python(study)
    folder = f"{out.rstrip('/')}/{name or study.stem}"
    _go_on(asked, open_store(f"{folder}/{CELLS}"), sweep, folder=folder, as_json=as_json)


@command.command("resume", epilog=example("sweep resume reports/study --engine local"))
@click.argument("folder", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print how far the studies are as JSON.")
@sweeping
def resume_command(*, folder: str, as_json: bool, sweep: Sweeping) -> None:
    """Compute what is missing of all that was asked of a folder."""
    store = _store(folder)
    found = plans(store)
    if not found:
        raise _checks.fail("DIR", "a folder that something was asked of", folder)
    for plan in found:
        _go_on(Asked(study=plan.load(), cells=plan.cells), store, sweep, folder=folder, as_json=as_json)


@command.command("status", epilog=example("sweep status reports/schemes"))
@click.argument("folder", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers and the failures as JSON.")
def status_command(*, folder: str, as_json: bool) -> None:
    """Say how many cells are done, failed or damaged, and how long the others would take."""
    store = _store(folder)
    found = [status(p.study, p.version, cells=p.cells, store=store) for p in _planned(store)]
    failures = _failures(store)
    if as_json:
        studies = {one.study: {"cells": one.cells, "done": one.done, "failed": one.failed, "seconds": one.seconds,
                               "seconds_left": one.left} for one in found}  # fmt: skip
        echo_json({"studies": studies, "failures": failures, "set_aside": store.aside()})
        return
    for one in found:
        click.echo(said(one))
    for failure in failures:
        click.echo(f"failed: {failure['cell']}: {failure['error']}")
    for name in store.aside():
        click.echo(f"set aside: {name}")


@command.command("export", epilog=example("sweep export reports/schemes --table depths --to depths.csv"))
@click.argument("folder", metavar="DIR")
@click.option("--table", help="Which table of the cells; `cells` says how each was made.  [default: all, a file each]")
@click.option("--to", type=click.Path(path_type=Path), required=True, help="A .parquet or .csv file; a folder for all.")
def export_command(*, folder: str, table: str | None, to: Path) -> None:
    """Write tables of all cells, with their parameters, as Parquet or CSV."""
    for path in export(_store(folder), to, table=table):
        click.echo(path)


@command.command("compact", epilog=example("sweep compact reports/schemes"))
@click.argument("folder", metavar="DIR")
def compact_command(*, folder: str) -> None:
    """Join the files of single cells into one file per study."""
    store = _store(folder)
    for name, version in sorted({(about.study, about.version) for about in store.headers()}):
        click.echo(f"{name}: {compact(store, name, version)} cells in one file")


def _go_on(asked: Asked, store: Store, sweep: Sweeping, *, folder: str, as_json: bool) -> None:
    """Compute what is missing, and say how far it has come."""
    study, chosen = asked.study, sweep.of(asked.cells)
    if not sweep.dry_run:
        remember(store, study, asked.cells)
        for _ in store.headers():  # sets aside what is truncated or foreign, for it to be computed again
            pass
        sweep.part(study, asked.cells, store=store, device=_device(asked), how=f"rmtbn sweep resume {folder}")
    found = status(study.name, study.version, cells=chosen, store=store)
    if as_json:
        echo_json({"study": found.study, "cells": found.cells, "done": found.done, "failed": found.failed,
                   "seconds": found.seconds, "seconds_left": found.left})  # fmt: skip
    else:
        click.echo(said(found))


def _device(asked: Asked) -> str:
    """Name the device of the cells, by their parameter of that name."""
    devices = {str(cell.parameters.get("device", "cpu")) for cell in asked.cells}
    return devices.pop() if len(devices) == 1 else "cpu"


def _store(folder: str) -> Store:
    """Open the store of a study's folder, or the folder of the cells itself."""
    inner = open_store(f"{folder.rstrip('/')}/{CELLS}")
    store = inner if inner.blobs.names() else open_store(folder)
    if not store.keys() and not store.failed() and not plans(store):
        raise _checks.fail("DIR", "a folder with cells in it", folder)
    return store


def _planned(store: Store) -> list[Plan]:
    """Return what was asked of a store, and what is in it though nothing is known of that."""
    known = plans(store)
    names = {(plan.study, plan.version) for plan in known}
    others: dict[tuple[str, int], list[Header]] = {}
    for about in store.headers():
        if (about.study, about.version) not in names:
            others.setdefault((about.study, about.version), []).append(about)
    found = [
        Plan(study=study, version=version, place="", cells=tuple(about.cell for about in headers))
        for (study, version), headers in sorted(others.items())
    ]
    return [*known, *found]


def _failures(store: Store) -> list[dict[str, Any]]:
    found = (store.failure(key) for key in store.failed())
    rows = [(record, record.tables["failure"].to_pylist()[0]) for record in found if record is not None]
    return [{"cell": f"{record.study}({record.cell})", "error": row["failure_error"], "trace": row["failure_trace"]}
            for record, row in rows]  # fmt: skip
