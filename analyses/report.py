"""`rmtbn report`: the page that lists all reports of a folder."""

import click

from rmtbn import _checks
from rmtbn.report.render import entries, write_index

from ._options import Common, common, echo_json, example


@click.command(epilog=example("report --out reports"))
@common
def command(*, options: Common) -> None:
    """Write the list of all reports."""
    found = entries(options.out)
    if not found:
        raise _checks.fail("out", "a folder with reports in it (run `rmtbn schemes` first)", str(options.out))
    if options.as_json:
        echo_json({entry.href: {"title": entry.title, "verdicts": dict(entry.verdicts)} for entry in found})
        return
    path = options.out / "index.html"
    write_index(found, path)
    click.echo(path)
