"""Images divided into those that a network is trained on and those that it is tested on."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rmtbn.data.labelled import Labelled
from rmtbn.sweep.grid import Cell, grid

from ._image_networks import images
from ._options import Common


def divided(data: str, *, seed: int, train: int, test: int, device: str, dtype: str) -> tuple[Labelled, Labelled]:
    """Draw `train` images and, from the same source, `test` others.

    Raises
    ------
    InvalidArgumentError
        For data that are no images, or too few.
    """
    drawn = images(data, seed=seed, examples=train + test, device=device, dtype=dtype)
    held_out = Labelled(
        name=drawn.name, inputs=drawn.inputs[train:], targets=drawn.targets[train:], classes=drawn.classes
    )
    return drawn.first(train), held_out


def batched(images: Labelled, size: int) -> list[tuple[Tensor, Tensor]]:
    """Cut images and their classes into batches, in order; the last may be smaller."""
    inputs, targets = images.inputs, images.targets
    return [(inputs[start : start + size], targets[start : start + size]) for start in range(0, len(targets), size)]


def training_cells(
    options: Common, *, data: str, axes: Mapping[str, tuple[Any, ...]], sizes: Mapping[str, Any]
) -> tuple[Cell, ...]:
    """Return a cell for each network and each point of `axes`; `sizes` are constants, with `networks` as many seeds.

    Raises
    ------
    InvalidArgumentError
        For data that are no images, or fewer than `train` and `test` together.
    """
    constants = {name: value for name, value in sizes.items() if name != "networks"}
    counts = {name: int(sizes[name]) for name in ("train", "test")}
    divided(data, seed=0, device="cpu", dtype="float32", **counts)  # refused before any work
    constants |= {"data": data, "device": options.device, "dtype": options.dtype}
    shared = {name: (value,) for name, value in constants.items()}
    return grid({**axes, **shared}, seeds=tuple(range(options.seed, options.seed + int(sizes["networks"]))))
