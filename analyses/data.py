"""Data sets for the studies, brought to this machine: `rmtbn data fetch`."""

from pathlib import Path

import click

from rmtbn.data.archive import CIFAR10
from rmtbn.data.fetch import fetch

from ._output import example

ARCHIVES = {"cifar10": CIFAR10}


@click.group(epilog=example("data fetch cifar10"), subcommand_metavar="COMMAND")
def command() -> None:
    """Bring data sets to this machine and verify them."""


@command.command("fetch", epilog=example("data fetch cifar10 --to data"))
@click.argument("name", type=click.Choice(list(ARCHIVES)))
@click.option("--to", type=click.Path(path_type=Path), default="data", show_default=True, help="Folder to put it in.")
@click.option("--address", help="Another address of the same file.  [default: the official one]")
def fetch_command(*, name: str, to: Path, address: str | None) -> None:
    """Download a data set from its official address, go on where that stopped, verify and unpack it.

    Prints the folder, which --data of the studies takes. Without a network it says where to put the file by hand.
    """
    click.echo(fetch(to, archive=ARCHIVES[name], address=address, shown=True))
