"""What the studies of Bjorck et al. 2018 have in common: they are run alike, and their claims are numbered."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from rmtbn.plot.theme import STYLES
from rmtbn.report.page import Claim, Page
from rmtbn.report.render import write
from rmtbn.sweep.grid import Cell, Study
from rmtbn.sweep.run import Records
from rmtbn.sweep.status import Status, status

from ._options import Common, echo_json


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperStudy:
    """A study of the paper, as `rmtbn paper` and its own command run it.

    Parameters
    ----------
    study
        What is measured; its name is that of the command and of the folder of its page.
    cells
        The cells for the options and `data`.
    claims
        The claims of `_paper_claims` that it judges, by number.
    page
        The whole page; its claims are those of `claims`.
    numbers
        What `--json` prints.
    of_images
        Whether `cells` takes the option `data`.
    """

    study: Study
    cells: Callable[..., tuple[Cell, ...]]
    claims: Callable[[Records], Mapping[int, Claim]]
    page: Callable[[Records], Page]
    numbers: Callable[[Records], Mapping[str, Any]]
    of_images: bool = True

    def measure(self, options: Common, **asked: Any) -> Records:
        """Compute what is missing and return all records."""
        cells = self.cells(options, **asked)
        return options.run(self.study, cells, folder=self.study.name)

    def status(self, options: Common, **asked: Any) -> Status:
        """Say how many of the cells are stored; nothing is computed."""
        store = options.store(self.study.name)
        return status(self.study.name, self.study.version, cells=self.cells(options, **asked), store=store)

    def write(self, options: Common, records: Records) -> str:
        """Write the page and return its path."""
        path = options.out / self.study.name / "index.html"
        write(self.page(records), path, styles=STYLES)
        return str(path)

    def execute(self, options: Common, **asked: Any) -> None:
        """Do what the command does: measure, then print numbers or write the page."""
        records = self.measure(options, **asked)
        if options.as_json:
            echo_json(self.numbers(records))
        else:
            click.echo(self.write(options, records))
