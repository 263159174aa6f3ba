"""The options of every command that say which cells are computed, where, and what becomes of those that fail."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import click

from rmtbn import _checks
from rmtbn.sweep.cluster import cluster
from rmtbn.sweep.engine import Engine, inline
from rmtbn.sweep.grid import Cell, Study
from rmtbn.sweep.interrupt import InterruptedSweep
from rmtbn.sweep.jobs import chosen
from rmtbn.sweep.local import local, visible_gpus
from rmtbn.sweep.plan import remember
from rmtbn.sweep.run import CellsFailedError, Records, advance, run
from rmtbn.sweep.status import Status, status
from rmtbn.sweep.store import Store

AGAIN = "the same command"  # how to go on
ENGINES = ("inline", "local", "ray")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweeping:
    """The values of the options that say how cells are computed."""

    engine: str = "inline"
    workers: int | None = None
    address: str | None = None
    gpus: float | None = None
    cell_seconds: float | None = None
    together: int | None = None
    dry_run: bool = False
    limit: int | None = None
    only: Mapping[str, str] | None = None
    retry_failed: bool = False

    def __post_init__(self) -> None:
        if self.engine == "inline" and self.workers not in {None, 1}:
            raise _checks.fail("workers", "1 for the engine 'inline', which computes in this process", self.workers)
        if self.engine == "inline" and self.cell_seconds is not None:
            raise _checks.fail("cell_seconds", "left out for the engine 'inline', which cannot stop", self.cell_seconds)
        for name, value in (("address", self.address), ("gpus", self.gpus)):
            if self.engine != "ray" and value is not None:
                raise _checks.fail(name, "left out for engines other than 'ray'", value)

    @property
    def is_partial(self) -> bool:
        """Whether less than all cells may be there at the end."""
        return self.dry_run or self.limit is not None or self.only is not None

    def make_engine(self, device: str) -> Engine:
        """Return the engine that was asked for, for cells on a device."""
        if self.engine == "ray":
            gpus = self.gpus if self.gpus is not None else float(device.startswith("cuda"))
            return cluster(self.address, workers=self.workers, num_gpus=gpus)
        if self.engine == "local":
            return local(self.workers, gpus=_gpus(device))
        return inline()

    def records(self, study: Study, cells: Iterable[Cell], *, store: Store, device: str) -> Records:
        """Compute what is missing and return the records of all cells; end the command here if they are not all there.

        Raises
        ------
        Exit
            If only some cells were asked for and others are missing, or none, for a dry run.
        """
        wanted = tuple(cells)
        if self.dry_run:
            click.echo(said(status(study.name, study.version, cells=self.of(wanted), store=store)))
            raise click.exceptions.Exit(0)
        self.of(wanted)  # refuses what no cell has before anything is written
        remember(store, study, wanted)
        if self.is_partial:
            self.part(study, wanted, store=store, device=device)
            found = status(study.name, study.version, cells=wanted, store=store)
            if found.done < found.cells:
                click.echo(said(found))
                raise click.exceptions.Exit(0)
        engine = self.make_engine(device)
        with resuming(AGAIN):
            return run(study, wanted, store=store, engine=engine, retry_failed=self.retry_failed,
                       seconds=self.cell_seconds, together=self.together)  # fmt: skip

    def part(self, study: Study, cells: Iterable[Cell], *, store: Store, device: str, how: str = AGAIN) -> None:
        """Compute those cells that were asked for and are missing.

        Parameters
        ----------
        study, cells
            What to compute.
        store
            Where finished cells are kept.
        device
            Of the cells.
        how
            The command by which an interrupted run goes on.

        Raises
        ------
        CellsFailedError
            If some failed.
        """
        wanted = self.of(cells)
        with resuming(how):
            tally = advance(study, wanted, store=store, engine=self.make_engine(device), at_most=self.limit,
                            retry_failed=self.retry_failed, seconds=self.cell_seconds,
                            together=self.together)  # fmt: skip
            if tally.interrupted:
                raise InterruptedSweep(f"what was begun of {study.name} is stored, {tally.stored} cells of this run")
        if tally.failures:
            raise CellsFailedError(study.name, tally.failures, total=len(wanted), known=tally.known)

    def of(self, cells: Iterable[Cell]) -> list[Cell]:
        """Return the cells that were asked for."""
        return chosen(cells, self.only or {})


@contextmanager
def resuming(how: str) -> Iterator[None]:
    """Say how to go on, where a run was interrupted."""
    try:
        yield
    except InterruptedSweep as error:
        raise click.ClickException(f"interrupted: {error}; {how} goes on") from None


def _gpus(device: str) -> tuple[str, ...]:
    """One worker per GPU for the device cuda, which then is another for each."""
    if device != "cuda":
        return ()
    import torch  # noqa: PLC0415 - a command that shows a status does without

    return visible_gpus(torch.cuda.device_count())


def said(found: Status) -> str:
    """Say how far a study has come, in a line."""
    text = f"{found.study}: {found.done} of {found.cells} cells done"
    if found.failed:
        text += f", {found.failed} failed"
    if found.done and found.done < found.cells:
        text += f"; the others would take about {found.left:.3g} s on one worker ({found.seconds:.3g} s for those done)"
    return text


def _only(_ctx: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> Mapping[str, str] | None:
    pairs = [text.partition("=") for text in texts]
    for name, sign, _ in pairs:
        if not sign or not name:
            raise _checks.fail("only", "written as name=value", name)
    return {name: value for name, _, value in pairs} or None


SIZE, REAL = click.IntRange(min=1), click.FloatRange(min=0, min_open=True)
_SECONDS = "Stop and fail a cell that takes longer (engines local, ray).  [default: no limit]"
_TOGETHER = "Cells of equal shape in one call, where the study can.  [default: by study: several on a GPU]"
OPTIONS = (
    click.option("--engine", type=click.Choice(ENGINES), default="inline", show_default=True,
                 help="Compute in this process, in several, or on a Ray cluster."),
    click.option("--workers", type=SIZE, help="Processes of engines local, ray.  [default: one per core, or per GPU]"),
    click.option("--address", help="Of a Ray cluster that runs, or auto.  [default: RAY_ADDRESS, else its own]"),
    click.option("--gpus", type=REAL, help="Of one worker on Ray, 0.25 for four on a GPU.  [default: 1 for cuda]"),
    click.option("--cell-seconds", type=REAL, help=_SECONDS),
    click.option("--together", type=SIZE, help=_TOGETHER),
    click.option("--dry-run", is_flag=True, help="Say how many cells are done and how long the others would take."),
    click.option("--limit", type=SIZE, help="Compute so many missing cells at most, and no page unless all are there."),
    click.option("--only", multiple=True, callback=_only, metavar="NAME=VALUE", help="Compute these cells; repeat."),
    click.option("--retry-failed", is_flag=True, help="Try again the cells whose failure is stored."),
)  # fmt: skip


def sweeping(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say how cells are computed; the command gets their values in one argument `sweep`."""

    @functools.wraps(command)
    def collected(**values: Any) -> None:
        names = [field.name for field in fields(Sweeping)]
        command(sweep=Sweeping(**{name: values.pop(name) for name in names}), **values)

    return functools.reduce(lambda wrapped, decorate: decorate(wrapped), reversed(OPTIONS), collected)
