"""What every command has in common: its options, its data, its store, and errors that the user can mend."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click
import torch

from rmtbn import _checks, rng
from rmtbn.data.arrays import from_file
from rmtbn.data.cifar import cifar10
from rmtbn.data.digits import digits
from rmtbn.data.gaussian import gaussian
from rmtbn.data.labelled import Labelled
from rmtbn.sweep.engine import Engine
from rmtbn.sweep.grid import Cell, Study
from rmtbn.sweep.run import Records
from rmtbn.sweep.store import FolderStore, MemoryStore, Store

from ._output import echo_json, example
from ._sweeping import Sweeping, sweeping

__all__ = ["Common", "common", "echo_json", "enough", "example", "load"]

DTYPES = ("float32", "float64")
NORM = click.Choice(["none", "batch"])  # those of which theory tells what these commands lay beside networks
PRESETS = ("quick", "default", "paper")
DATA_HELP = "digits, gaussian, a .npy file (one example per row) or a folder of CIFAR-10's binary files."
GAUSSIAN_EXAMPLES, GAUSSIAN_FEATURES = 1000, 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """The values of the options that every command takes."""

    seed: int
    device: str
    dtype: str
    out: Path
    preset: str
    engine: str
    workers: int | None
    as_json: bool
    sweep: Sweeping | None = None

    def __post_init__(self) -> None:
        if not _is_available(self.device):
            there = ", ".join(["'cpu'", *(f"'cuda:{i}'" for i in range(torch.cuda.device_count()))])
            raise _checks.fail("device", f"a device that is there ({there})", self.device)

    def run(self, study: Study, cells: Iterable[Cell], *, folder: str) -> Records:
        """Compute what is missing of a study and return its records; end the command where only a part was asked for.

        Parameters
        ----------
        study, cells
            What to compute.
        folder
            Of the reports, where its page goes; the cells are kept beside it.
        """
        return self._sweeping().records(study, cells, store=self.store(folder), device=self.device)

    def engine_function(self) -> Engine:
        """Return the engine that was asked for, for a command that calls `rmtbn.sweep.run.run` itself."""
        sweep = self._sweeping()
        if sweep.is_partial or sweep.retry_failed:
            raise _checks.fail("dry_run, limit, only, retry_failed", "left out for this command", "one of them")
        return sweep.make_engine(self.device)

    def _sweeping(self) -> Sweeping:
        return self.sweep or Sweeping(engine=self.engine, workers=self.workers)

    def store(self, study: str) -> Store:
        """Return where the cells of a study are kept: beside its page, or nowhere if only numbers were asked for."""
        return MemoryStore() if self.as_json else FolderStore(self.out / study / "cells")


def _is_available(device: str) -> bool:
    """Whether torch computes on a device, which it says by refusing to put a number there."""
    try:
        return torch.zeros(1, device=device).item() == 0
    except (RuntimeError, AssertionError):
        return False


def common(command: Callable[..., None], *, dtype: str = "float64") -> Callable[..., None]:
    """Add the options that every command takes; the command gets their values in one argument `options`, a `Common`.

    `dtype` is the default of the option of that name.
    """

    @functools.wraps(command)
    def collected(*, sweep: Sweeping, **values: Any) -> None:
        names = [field.name for field in fields(Common) if field.name in values]
        own: dict[str, Any] = {name: values.pop(name) for name in names}
        options = Common(**own, sweep=sweep, engine=sweep.engine, workers=sweep.workers)
        command(options=options, **values)

    folder = click.Path(path_type=Path, file_okay=False)
    decorators = (
        click.option("--preset", type=click.Choice(PRESETS), default="default", show_default=True, help="Size."),
        click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="First seed."),
        click.option("--device", default="cpu", show_default=True, help="Where to compute: cpu, cuda, cuda:1, ..."),
        click.option("--dtype", type=click.Choice(DTYPES), default=dtype, show_default=True, help="Precision."),
        click.option("--out", type=folder, default="reports", show_default=True, help="Folder of the reports."),
        click.option("--json", "as_json", is_flag=True, help="Print numbers on stdout and write nothing."),
    )
    return functools.reduce(lambda wrapped, decorate: decorate(wrapped), reversed(decorators), sweeping(collected))


def load(source: str) -> Labelled:
    """Return the data that `--data` names: digits, gaussian, a .npy file or a folder of CIFAR-10's binary files."""
    if source == "digits":
        return digits()
    if source == "gaussian":
        generator = rng.torch_generator(0, "gaussian data")
        return gaussian(examples=GAUSSIAN_EXAMPLES, features=GAUSSIAN_FEATURES, generator=generator)
    return from_file(source) if source.endswith(".npy") else cifar10(source)


def enough(data: Labelled, examples: int) -> None:
    """Refuse data of fewer examples than a batch needs."""
    if len(data.targets) < examples:
        raise _checks.fail("data", f"of at least {examples} examples", data.name)
