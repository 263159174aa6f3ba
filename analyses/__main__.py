"""The console script: `rmtbn COMMAND`, one command per study."""

import errno
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import click

from rmtbn import __version__

# Name of the command, which is also its module here (with - for _), and its line of help. Nothing is imported until a
# command runs, so that help is immediate.
COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "schemes": "Find how, and at what depth, each initialisation scheme fails.",
        "spectrum": "Measure a network's singular values and lay the law over them.",
        "moments": "Measure signals, correlations and gradients at every layer.",
        "phase": "Map order and chaos over σ_w and σ_b, and what can be trained.",
        "laws": "Plot laws of singular values, and lay networks over them.",
        "width-depth": "Measure how much networks differ, against depth over width.",
        "lyapunov": "Measure how fast singular values grow or fall with depth.",
        "bn-jacobian": "Lay batch-normalised networks over the law of their batch Jacobian.",
        "bn-explosion": "Measure how fast gradients explode, with batch normalisation and without.",
        "rank": "Measure how far examples stay apart, with batch normalisation and without.",
        "product": "Measure matrices and their products, drawn or from a weight file.",
        "paper": "Run the studies of Understanding Batch Normalization and judge its 31 claims.",
        "gradient-tails": "Measure size and tails of gradients, with norm and without (fig. 2).",
        "channel-moments": "Measure channel means and variances along depth (fig. 5).",
        "channel-gradients": "Measure the gradient of kernels by pairs of channels (fig. 7).",
        "sgd-noise": "Measure the noise of a step of SGD against its law (section 3.1).",
        "product-spectra": "Measure products of Gaussian matrices against Theorem 1 (figs. 8, 9).",
        "class-bias": "Measure whether a network favours one class for every image (fig. 6).",
        "conv-gradients": "Measure whether the terms of kernel gradients cancel (Table 1).",
        "step-size": "Measure how far along the gradient the loss falls (fig. 3).",
        "divergence": "Measure when and where a step that is too large blows up (fig. 4).",
        "max-step": "Measure whether shallower networks stand larger steps (app. H).",
        "train": "Train one network, with progress, checkpoints and mixed precision, in one process or more.",
        "learning-rates": "Train at large and small rates, with several norms and without (fig. 1).",
        "max-rate": "Measure the largest rate that trains against depth (app. H).",
        "noise-scale": "Measure whether accuracy depends on rate and batch through their ratio.",
        "bn-modes": "Measure what a training loop does to batch statistics, and train mode against eval mode.",
        "smoothness": "Measure how smooth the loss is along its gradient, and the BN gradient identity.",
        "shattering": "Measure how alike gradients at different inputs are, against depth.",
        "sweep": "Run studies of many cells, go on with them, look at them, join their files.",
        "data": "Bring data sets to this machine and verify them.",
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names."""
        if args[0] not in COMMANDS:
            raise click.UsageError(f"No such command {args[0]!r}; there are {', '.join(COMMANDS)}.")
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Read the options before the command."""
        with _usage_in_one_line():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; say in one line what the user can mend."""
        with _usage_in_one_line(), _mendable():
            return super().invoke(ctx)


@contextmanager
def _usage_in_one_line() -> Iterator[None]:
    """Let click say what is wrong without its lines of usage, which it adds where an error has a context."""
    try:
        yield
    except click.UsageError as error:
        raise click.UsageError(error.format_message()) from None


@contextmanager
def _mendable() -> Iterator[None]:
    """Turn the errors that a user can mend into click's."""
    from rmtbn._checks import InvalidArgumentError  # noqa: PLC0415 - loads numpy, which help does without

    try:
        yield
    except (click.exceptions.Exit, click.Abort):  # no errors, though click derives them from RuntimeError
        raise
    except InvalidArgumentError as error:
        raise click.UsageError(_line(error)) from None
    except RuntimeError as error:
        refused = _refused(error, InvalidArgumentError)
        raise (click.UsageError(refused) if refused else click.ClickException(_line(error))) from None
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader of our output went away, which click ends quietly
            raise
        raise click.ClickException(f"{error.filename}: {error.strerror}" if error.filename else _line(error)) from None


def _refused(error: RuntimeError, kind: type[Exception]) -> str | None:
    """Return the message of cells that all failed for an argument of the user's."""
    name = f"{kind.__module__}.{kind.__qualname__}: "
    errors = [failure.error for failure in getattr(error, "failures", ())]
    return errors[0].removeprefix(name) if errors and all(text.startswith(name) for text in errors) else None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


@click.group(
    cls=Studies,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [OPTIONS]",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="rmtbn")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Random-matrix analysis of deep networks: how, and at what depth, an initialisation fails."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


if __name__ == "__main__":
    sys.exit(main())
