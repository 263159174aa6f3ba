"""The networks and images that the studies of Bjorck et al. 2018 (arXiv:1806.02375) measure."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import click
import torch
from torch import nn

from rmtbn import _checks, inits, rng
from rmtbn.data.labelled import Labelled
from rmtbn.nets.numbering import paper_layers
from rmtbn.nets.resnet import resnet_cifar
from rmtbn.sweep.grid import Cell, Value, grid

from ._options import DATA_HELP, Common, enough, load

# What each kind of network normalises. "final" is the network of the paper (see its table 1): batch normalisation
# everywhere and once more after the last block; "only_final" has that last one alone.
KINDS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "none": MappingProxyType({"norm": "none"}),
        "batch": MappingProxyType({"norm": "batch"}),
        "final": MappingProxyType({"norm": "batch", "final_bn": True}),
        "only_final": MappingProxyType({"norm": "none", "only_final_bn": True}),
    }
)
# Other norms in the place of "final", for the studies that train. Instance norm has none after the last block: the mean
# over the places of an image, which comes next, would be β whatever the image.
OTHER_NORMS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {name: MappingProxyType({"norm": name, "final_bn": name != "instance"}) for name in ("layer", "group", "instance")}
)
NAMES: Mapping[str, str] = MappingProxyType(
    {
        "none": "no norm",
        "batch": "batch norm",
        "final": "batch norm, final too",
        "only_final": "final batch norm only",
        **{name: f"{name} norm" for name in OTHER_NORMS},
    }
)
SCHEME = "glorot_normal"  # with He's, logits without normalisation reach 1e8

# Depth, examples in the batch, networks (seeds). Default: seconds to minutes on two cores; paper: for a GPU.
SIZES: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "quick": MappingProxyType({"depth": 20, "examples": 32, "networks": 3}),
        "default": MappingProxyType({"depth": 110, "examples": 128, "networks": 4}),
        "paper": MappingProxyType({"depth": 110, "examples": 128, "networks": 10}),
    }
)


def image_data(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option that names the images."""
    return click.option("--data", default="digits", show_default=True, help=DATA_HELP)(command)


def network(*, seed: int, kind: str, depth: int, like: Labelled, scheme: str = SCHEME) -> nn.Sequential:
    """Draw a residual network of a kind for images `like` these, on their device and in their dtype.

    Every layer has draws of its own, which do not depend on the kind: networks of two kinds have the same weights.
    """
    choices = {**KINDS, **OTHER_NORMS}[kind]
    net = resnet_cifar(depth=depth, in_channels=like.inputs.shape[1], classes=like.classes, **choices).double()
    for layer, name in paper_layers(net).items():
        generator = rng.torch_generator(seed, "weights", depth, layer)
        inits.initialise(net.get_submodule(name), scheme, generator=generator, activation="relu")
    return net.to(device=like.inputs.device, dtype=like.inputs.dtype)


def images(data: str, *, seed: int, examples: int, device: str, dtype: str) -> Labelled:
    """Draw a batch of different images.

    Raises
    ------
    InvalidArgumentError
        For data that are no images, or too few.
    """
    source = load(data)
    if source.inputs.ndim != 4:
        raise _checks.fail("data", "images of shape (channels, height, width)", f"{data}: {source.inputs.shape[1:]}")
    enough(source, examples)
    drawn = source.take(examples, generator=rng.torch_generator(seed, "examples"))
    return drawn.to(device=torch.device(device), dtype=getattr(torch, dtype))


def mini_batches(data: str, *, seed: int, examples: int, number: int, like: Labelled) -> Iterator[Labelled]:
    """Draw mini-batches for a short training run, each of different images, on the device and in the dtype of `like`.

    How many are drawn does not change what is in them.
    """
    source = load(data)
    for place in range(number):
        drawn = source.take(examples, generator=rng.torch_generator(seed, "examples", place))
        yield drawn.to(device=like.inputs.device, dtype=like.inputs.dtype)


def image_cells(
    options: Common, *, data: str, axes: Mapping[str, tuple[Value, ...]] = MappingProxyType({}), **changes: Value
) -> tuple[Cell, ...]:
    """Return a cell for each network of a preset's `SIZES`, or of other sizes (`changes`), and each point of `axes`."""
    sizes: dict[str, Value] = {**SIZES[options.preset], **changes}
    networks = int(sizes.pop("networks"))
    images(data, seed=0, examples=int(sizes["examples"]), device="cpu", dtype="float32")  # refused before any work
    constants = {**sizes, "data": data, "device": options.device, "dtype": options.dtype}
    shared = {name: (value,) for name, value in constants.items()}
    return grid({**axes, **shared}, seeds=tuple(range(options.seed, options.seed + networks)))


def middle_layers(depth: int) -> tuple[int, int, int]:
    """Return the numbers of the layers in the middle of the three stages: 18, 54 and 90 of 110."""
    n = (depth - 2) // 6
    first = max(n, 2)
    return first, first + 2 * n, first + 4 * n


def early_layers(depth: int) -> tuple[int, int, int]:
    """Return the numbers of the layers six convolutions into each stage, or of its last: 8, 44 and 80 of 110."""
    n = (depth - 2) // 6
    first = min(6, 2 * n - 1)
    return 2 + first, 2 + 2 * n + first, 2 + 4 * n + first


def middle_layer(depth: int) -> int:
    """Return the number of the layer in the middle of the network: 55 of 110."""
    return depth // 2
