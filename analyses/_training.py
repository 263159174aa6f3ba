"""What `rmtbn train` trains and on what: networks and images by their names, and how its options make a recipe."""

import tomllib
from collections.abc import Callable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import click
import torch
from click.core import ParameterSource
from torch import nn

from rmtbn import _checks, inits, rng
from rmtbn.data.cifar import cifar10
from rmtbn.data.labelled import Labelled
from rmtbn.nets.cnn import plain_cnn
from rmtbn.train.recipe import COMPILE_MODES, PRECISIONS, Recipe
from rmtbn.train.schedule import SCHEDULES

from ._held_out import divided
from ._image_networks import KINDS, OTHER_NORMS, network
from ._options import load

NORMS = (*KINDS, *OTHER_NORMS)
CHANNELS = 16  # of a cnn, as many as a ResNet begins with
TESTED = 5  # one in so many images is held out, where the data have no test set of their own
POSITIVE, WHOLE = click.FloatRange(min=0, min_open=True), click.IntRange(min=1)
FIELDS: Mapping[str, Any] = {
    "rate": {"type": POSITIVE, "default": 0.1, "help": "Learning rate at the start."},
    "epochs": {"type": WHOLE, "help": "Passes over the images.  [default: 10, without --steps]"},
    "steps": {"type": WHOLE, "help": "Steps, in place of --epochs."},
    "batch_size": {"type": WHOLE, "default": 128, "help": "Images per step, of all processes."},
    "momentum": {"type": click.FloatRange(0, 1, max_open=True), "default": 0.9, "help": "Of SGD."},
    "weight_decay": {"type": click.FloatRange(min=0), "default": 1e-4, "help": "Of SGD."},
    "decay_norms": {"default": True, "help": "Whether γ and β decay too."},
    "schedule": {"type": click.Choice(list(SCHEDULES)), "default": "step", "help": "Of the rate."},
    "augment": {"default": False, "help": "Shift and flip images at random."},
    "amp": {"type": click.Choice(["no", *PRECISIONS]), "default": "no", "help": "Mixed precision."},
    "channels_last": {"default": False, "help": "Layout of images and kernels."},
    "compile": {"type": click.Choice(["no", *COMPILE_MODES]), "default": "no", "help": "Mode of torch.compile."},
    "accumulate": {"type": WHOLE, "default": 1, "help": "Micro-batches of a batch."},
    "sync_batch_norm": {"default": False, "help": "Batch norm over all processes (CUDA)."},
}


def recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each field of a recipe, and a file that has them; the command gets a `recipe`."""

    def collected(*, recipe_file: Path | None, **values: Any) -> None:
        own = {name: values.pop(name) for name in FIELDS}
        command(recipe=_recipe(own, recipe_file, seed=values["seed"]), **values)

    collected.__doc__ = command.__doc__
    file = click.Path(path_type=Path, dir_okay=False, exists=True)
    options = [_option(name, **kind) for name, kind in FIELDS.items()]
    options.append(click.option("--recipe", "recipe_file", type=file, help="TOML file of a recipe; options go first."))
    return reduce(lambda wrapped, option: option(wrapped), reversed(options), collected)


def _option(name: str, **kind: Any) -> Callable[..., Any]:
    """Make the option of a field; of a truth value, --field and --no-field."""
    flag = name.replace("_", "-")
    declared = f"--{flag}/--no-{flag}" if isinstance(kind.get("default"), bool) else f"--{flag}"
    return click.option(declared, name, show_default="default" in kind, **kind)


def _recipe(values: Mapping[str, Any], file: Path | None, *, seed: int) -> Recipe:
    """Return the recipe of the options, and of a file for what was not said on the command line."""
    context = click.get_current_context()
    said = {name for name in [*values, "seed"] if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    table: dict[str, Any] = {} if file is None else _table(file)
    length = {"epochs", "steps"}
    if said & length:
        table = {name: value for name, value in table.items() if name not in length}
    for name, value in {**values, "seed": seed}.items():
        if value is not None and (name in said or name not in table):
            table[name] = False if value == "no" else value
    return Recipe.of(table if length & set(table) else {**table, "epochs": 10})


def _table(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _checks.fail("recipe", f"a TOML file ({error})", str(file)) from None


def training_images(data: str, *, dtype: str) -> tuple[Labelled, Labelled]:
    """Return images to train on and to test on.

    A folder of CIFAR-10 has a test set; of digits one in five is held out, whatever the seed. Either way both are
    shifted and scaled alike.

    Raises
    ------
    InvalidArgumentError
        For data that are no labelled images.
    """
    if data != "digits":
        if data == "gaussian" or data.endswith(".npy"):
            raise _checks.fail("data", "labelled images: digits, or a folder of CIFAR-10's binary files", data)
        kept = {"device": torch.device("cpu"), "dtype": getattr(torch, dtype)}
        return cifar10(data).to(**kept), cifar10(data, split="test").to(**kept)
    total = len(load(data).targets)
    return divided(data, seed=0, train=total - total // TESTED, test=total // TESTED, device="cpu", dtype=dtype)


def named_network(name: str, *, norm: str, scheme: str, seed: int, like: Labelled) -> nn.Sequential:
    """Draw the network that a name such as "resnet-20" or "cnn-6" stands for, for images `like` these.

    Raises
    ------
    InvalidArgumentError
        For another name, or a depth or norm that there is not.
    """
    kind, _, number = name.partition("-")
    if kind not in {"resnet", "cnn"} or not number.isdecimal():
        raise _checks.fail("network", "resnet-N or cnn-N of N layers", name)
    if kind == "resnet":
        return network(seed=seed, kind=norm, depth=int(number), like=like, scheme=scheme)
    if norm in {"final", "only_final"}:
        raise _checks.fail("norm", "one that a cnn has ('final' is of resnets)", norm)
    net = plain_cnn(
        depth=int(number) - 1, channels=CHANNELS, norm=norm, in_channels=like.inputs.shape[1], classes=like.classes
    )
    generator = rng.torch_generator(seed, "weights", int(number))
    return inits.initialise(net, scheme, generator=generator, activation="relu").to(like.inputs.dtype)
