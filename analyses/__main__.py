"""The console script: `rmtbn COMMAND`, one command per study."""

import importlib
import sys
from collections.abc import Mapping
from types import MappingProxyType

import click

from rmtbn import __version__
from rmtbn._checks import InvalidArgumentError

# Name of the command, which is also its module here (with - for _), and its line of help. Nothing is imported until a
# command runs, so that help is immediate.
COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "schemes": "Find how, and at what depth, each initialisation scheme fails.",
        "spectrum": "Measure a network's singular values and lay the law over them.",
        "report": "Write the list of all reports.",
        "info": "Show versions, devices and precision settings.",
    }
)


class Studies(click.Group):
    """Commands that are imported when they run, and errors in one line: exit code 2 for usage, 1 for failure."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """Import a command."""
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f".{name.replace('-', '_')}", __package__).command
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; say in one line what the user can mend."""
        try:
            return super().invoke(ctx)
        except InvalidArgumentError as error:
            raise click.UsageError(str(error)) from None
        except RuntimeError as error:
            usage = _usage_errors(error)
            raise (click.UsageError(usage) if usage else click.ClickException(str(error))) from None


def _usage_errors(error: RuntimeError) -> str | None:
    """Return the message of cells that all failed for an argument of the user's."""
    name = f"{InvalidArgumentError.__module__}.{InvalidArgumentError.__qualname__}: "
    errors = [failure.error for failure in getattr(error, "failures", ())]
    return errors[0].removeprefix(name) if errors and all(text.startswith(name) for text in errors) else None


@click.group(cls=Studies, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="rmtbn")
def main() -> None:
    """Random-matrix analysis of deep networks: how, and at what depth, an initialisation fails."""


if __name__ == "__main__":
    sys.exit(main())
