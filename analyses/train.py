"""Train one network and watch: `rmtbn train`, also under `torchrun -m rmtbn.analyses train`.

The loop is that of `rmtbn.train.loop`; the page docs/training.md tells how to use it.
"""

from pathlib import Path
from typing import Any

import click

from rmtbn import inits
from rmtbn.data.labelled import Labelled
from rmtbn.sweep.interrupt import stopping
from rmtbn.train.loop import train
from rmtbn.train.parallel import joined, world
from rmtbn.train.recipe import Recipe
from rmtbn.train.record import EpochSummary, TrainingRecord

from ._image_networks import SCHEME, image_data
from ._options import DTYPES, Common, echo_json, example
from ._training import NORMS, named_network, recipe_options, training_images

FILE = click.Path(path_type=Path, dir_okay=False)


def numbers(record: TrainingRecord, *, network: str, norm: str, recipe: Recipe, data: Labelled) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "network": network,
        "norm": norm,
        "data": data.name,
        "recipe": recipe.table(),
        "reason": record.reason,
        "diverged_at": record.diverged_at,
        "limit": record.limit,
        "epochs": record.epochs.to_dict("records"),
        "steps": {name: record.steps[name].tolist() for name in ("loss", "accuracy", "rate")},
    }


def line(epoch: EpochSummary) -> str:
    """Write one epoch as a line for people."""
    return (
        f"epoch {epoch.epoch:>4}  step {epoch.step:>6}  rate {epoch.rate:.3g}  "
        f"train {epoch.train_loss:#.4g} {epoch.train_accuracy:6.1%}  test {epoch.test_loss:#.4g} "
        f"{epoch.test_accuracy:6.1%}  {epoch.images_per_second:,.0f} images/s"
    )


def conclusion(record: TrainingRecord, *, limit: float) -> str:
    """Say in one line how training ended."""
    if record.diverged_at is not None:
        loss = record.steps.loss.iloc[-1]
        return f"diverged at step {record.diverged_at}: loss {loss:.3g} is above {limit:.3g}"
    last = record.epochs.iloc[-1]
    return f"{record.reason} after {len(record.steps)} steps: test accuracy {last.test_accuracy:.2%}"


def stopped(steps: int, checkpoint: Path | None) -> click.ClickException:
    """Say how to go on."""
    how = f"the same command goes on from {checkpoint}" if checkpoint else "without --checkpoint nothing was kept"
    return click.ClickException(f"interrupted after {steps} steps; {how}")


@click.command(epilog=example("train --network resnet-20 --norm final --rate 0.1 --epochs 5"))
@click.option("--network", default="resnet-20", show_default=True, help="resnet-N or cnn-N, of N layers.")
@click.option(
    "--norm", type=click.Choice(NORMS), default="batch", show_default=True, help="What is normalised, and how."
)
@click.option(
    "--init", "scheme", type=click.Choice(list(inits.INITS)), default=SCHEME, show_default=True, help="Weights."
)
@image_data
@click.option("--checkpoint", type=FILE, help="File to go on from if it is there, and to write after every epoch.")
@click.option("--checkpoint-steps", type=click.IntRange(min=1), help="Write it every so many steps too.")
@click.option("--restart", is_flag=True, help="Do not go on from the checkpoint, but replace it.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of weights and order.")
@click.option("--device", default="cpu", show_default=True, help="Where to train: cpu, cuda, cuda:1, ...")
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="Of the weights.")
@click.option("--json", "as_json", is_flag=True, help="Print numbers on stdout.")
@recipe_options
def command(
    *, network: str, norm: str, scheme: str, data: str, recipe: Recipe, checkpoint: Path | None,
    checkpoint_steps: int | None, restart: bool, seed: int, device: str, dtype: str, as_json: bool,
) -> None:  # fmt: skip
    """Train one network, with progress, checkpoints and mixed precision, in one process or more."""
    Common(seed=seed, device=device, dtype=dtype, out=Path(), preset="default", engine="inline", workers=None,
           as_json=as_json)  # refuses a device that is not there  # fmt: skip
    images, test = training_images(data, dtype=dtype)
    net = named_network(network, norm=norm, scheme=scheme, seed=seed, like=images)
    with joined(device) as place, stopping() as stop:
        first = world().rank == 0
        record = train(
            net, images, recipe, test=test, checkpoint=checkpoint, checkpoint_steps=checkpoint_steps,
            resume=not restart, on_epoch=lambda epoch: click.echo(line(epoch), err=True),
            stop=lambda: stop.asked, device=place,
        )  # fmt: skip
    if record.reason == "stopped":
        raise stopped(len(record.steps), checkpoint)
    if first and as_json:
        echo_json(numbers(record, network=network, norm=norm, recipe=recipe, data=images))
    elif first:
        click.echo(conclusion(record, limit=record.limit))
