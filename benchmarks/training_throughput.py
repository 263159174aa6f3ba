"""Time training in images per second, data loading included, and as a share of the card's measured matrix rate.

ResNet-110 with batch norm on 50,000 images of 32 x 32, cropped and flipped, in bf16 AMP: `rmtbn.train.loop.train` with
several recipes, turn by turn with the loop that a user would write: a Dataset that crops and flips one image at a time,
a DataLoader with workers, and `loss.item()` at each step. The floating-point operations of a step are counted by torch;
the rate of the card is that of products of large bf16 matrices, measured first. The first epoch of each run (warm-up,
compilation) is not counted; images per second are those of the best epoch, the spread is over the turns.

Figures: not yet measured on a GPU (no card was at hand when this was written). Date, device and rows go here. Those of
one CPU thread are in docs/training.md.

Run: python benchmarks/training_throughput.py                  (with CUDA: ResNet-110, some minutes)
     OMP_NUM_THREADS=1 python benchmarks/training_throughput.py (without: ResNet-20, few images, to see that it runs)
"""

import argparse
import math
import os
import time
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from rmtbn import inits, rng
from rmtbn.data.labelled import Labelled, standardise
from rmtbn.nets.resnet import resnet
from rmtbn.train.loop import train
from rmtbn.train.recipe import Recipe

GPU = {"depth": 110, "images": 50_000, "epochs": 3, "matrix": 8192, "turns": 3}
CPU = {"depth": 20, "images": 512, "epochs": 2, "matrix": 1024, "turns": 2}
BASE: dict[str, Any] = {"rate": 0.1, "augment": True, "schedule": "constant", "seed": 1}
RECIPES: dict[str, dict[str, Any]] = {
    "float32": {},
    "bf16": {"amp": "bf16"},
    "bf16, channels last": {"amp": "bf16", "channels_last": True},
    "bf16, channels last, batch 1024": {"amp": "bf16", "channels_last": True, "batch_size": 1024},
    "bf16, channels last, compiled": {"amp": "bf16", "channels_last": True, "compile": True},
    "bf16, channels last, compiled, batch 1024": {
        "amp": "bf16", "channels_last": True, "compile": True, "batch_size": 1024,
    },
    "bf16, channels last, graphs": {"amp": "bf16", "channels_last": True, "compile": "reduce-overhead"},
}  # fmt: skip
ON_CPU = ("float32", "bf16", "bf16, channels last")


def pixels(count: int) -> Labelled:
    """Random images of 256 levels; their content does not matter for speed."""
    generator = rng.torch_generator(1, "pixels")
    raw = torch.randint(256, (count, 3, 32, 32), generator=generator).double()
    targets = torch.randint(10, (count,), generator=generator)
    return Labelled(name="random pixels", inputs=standardise(raw), targets=targets, classes=10)


def network(depth: int, device: torch.device) -> nn.Module:
    net = resnet(depth=depth)
    return inits.initialise(net, "he_normal", generator=rng.torch_generator(1, "w"), activation="relu").to(device)


def operations(depth: int) -> float:
    """Floating-point operations of forward and backward pass per image, of convolutions and products."""
    net, x = network(depth, torch.device("cpu")), torch.zeros(2, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        net(x).sum().backward()
    return counter.get_total_flops() / 2


def matrix_rate(width: int, device: torch.device) -> float:
    """Floating-point operations per second of products of bf16 matrices, the best of some."""
    a, b = torch.randn(2, width, width, device=device).to(torch.bfloat16)
    best = math.inf
    for _ in range(5):
        start = clock(device)
        for _ in range(10):
            a @ b
        best = min(best, (clock(device) - start) / 10)
    return 2.0 * width**3 / best


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class OneByOne(Dataset[tuple[Tensor, int]]):
    """Images cropped and flipped one at a time, as the transforms of torchvision do it."""

    def __init__(self, images: Labelled) -> None:
        self.inputs, self.targets = images.inputs.float(), images.targets.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        row, column, flip = (int(torch.randint(high, ())) for high in (9, 9, 2))
        image = pad(self.inputs[place], (4,) * 4)[:, row : row + 32, column : column + 32]
        return image.flip(2) if flip else image, self.targets[place]


def ours(images: Labelled, depth: int, *, recipe: Recipe, device: torch.device) -> float:
    """Images per second of the best epoch but the first."""
    record = train(network(depth, device), images, recipe)
    return float(record.epochs.images_per_second.iloc[1:].max())


def theirs(images: Labelled, depth: int, *, epochs: int, device: torch.device) -> float:
    """Time the plain loop in the same way, in bf16."""
    workers = 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)
    loader = DataLoader(OneByOne(images), batch_size=128, shuffle=True, drop_last=True, num_workers=workers,
                        pin_memory=device.type == "cuda", persistent_workers=workers > 0)  # fmt: skip
    net = network(depth, device)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    best = 0.0
    for epoch in range(epochs):
        start = clock(device)
        for image, label in loader:
            x, y = image.to(device, non_blocking=True), label.to(device, non_blocking=True)
            with torch.autocast(device.type, dtype=torch.bfloat16):
                loss = cross_entropy(net(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss.item()
        seconds = clock(device) - start
        best = max(best, len(loader) * 128 / seconds) if epoch else best
    return best


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a share is of."""

    per_image: float
    rate: float

    def row(self, name: str, found: list[float], *, plain: list[float]) -> str:
        """Write a row of the table."""
        ratios = [a / b for a, b in zip(found, plain, strict=True)]
        spread = f" ± {stdev(ratios):.2f}" if len(ratios) > 1 else ""
        share = max(found) * self.per_image / self.rate
        return f"{name:<42} {max(found):>9,.0f} {share:>8.1%} {mean(ratios):>9.2f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="*", choices=RECIPES, help="some recipes")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    size = GPU if device.type == "cuda" else CPU
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    if device.type == "cpu":
        print("No GPU: a small network and few images, to see that it runs. The figures asked for are those of a GPU.")
    card = Card(per_image=operations(size["depth"]), rate=matrix_rate(size["matrix"], device))
    print(f"{name}, torch {torch.__version__}: bf16 products of {size['matrix']} reach {card.rate / 1e12:.3g} Tflop/s; "
          f"ResNet-{size['depth']} takes {card.per_image / 1e9:.3g} Gflop per image")  # fmt: skip
    images = pixels(size["images"])
    chosen = arguments.only or (RECIPES if device.type == "cuda" else ON_CPU)
    plain: list[float] = []
    found: dict[str, list[float]] = {key: [] for key in chosen}
    for _ in range(size["turns"]):
        plain.append(theirs(images, size["depth"], epochs=size["epochs"], device=device))
        for key in chosen:
            recipe = Recipe(**BASE, epochs=size["epochs"], **RECIPES[key])
            found[key].append(ours(images, size["depth"], recipe=recipe, device=device))
    print(f"{'loop':<42} {'images/s':>9} {'of card':>8} {'to plain':>9}")
    print(card.row("plain: DataLoader, bf16", plain, plain=plain))
    for key, speeds in found.items():
        print(card.row(key, speeds, plain=plain))


if __name__ == "__main__":
    main()
