"""One step of training: the images of a batch, in micro-batches, their gradient, and the update."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.functional import cross_entropy

from rmtbn import rng
from rmtbn.train import parallel
from rmtbn.train.augment import Views, seen
from rmtbn.train.batchnorm import one_update
from rmtbn.train.checkpoint import Stateful
from rmtbn.train.evaluation import Batch
from rmtbn.train.held_images import HeldImages
from rmtbn.train.recipe import Recipe
from rmtbn.train.record import History
from rmtbn.train.schedule import Plateau, factor

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(slots=True, kw_only=True)
class Run:
    """What a step needs, and what it changes."""

    module: nn.Module
    model: nn.Module  # the module itself, or what wraps it
    images: HeldImages
    test: HeldImages | None
    recipe: Recipe
    device: torch.device
    optimiser: torch.optim.SGD
    scaler: GradScaler
    plateau: Plateau = field(default_factory=Plateau)
    history: History = field(default_factory=History)
    order: tuple[int, Tensor, Views] | None = None  # of which epoch, the images, their views
    began: tuple[int, float] = (0, 0.0)  # step and time from which speed is measured

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.recipe.steps_per_epoch(len(self.images.targets))

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.recipe.total_steps(len(self.images.targets))

    @property
    def parts(self) -> dict[str, Stateful]:
        """What a checkpoint keeps beside the network."""
        return {
            "optimiser": self.optimiser,
            "scaler": self.scaler,
            "plateau": self.plateau,
            "history": self.history,
        }


def advance(run: Run) -> None:
    """Make one step, and note loss and accuracy before it."""
    recipe, model = run.recipe, run.model
    rate = recipe.rate * factor(recipe.schedule, done=run.history.step / run.total, plateau=run.plateau)
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    run.optimiser.zero_grad(set_to_none=True)
    found = torch.zeros(2, dtype=torch.float64, device=run.device)
    with one_update(run.module) if recipe.accumulate > 1 else nullcontext():
        for part, (x, y) in enumerate(_micro_batches(run)):
            with parallel.unshared(model, last=part == recipe.accumulate - 1):
                with precision(run):
                    logits = model(x)
                    loss = cross_entropy(logits, y)
                torch.autograd.backward(run.scaler.scale(loss / recipe.accumulate))
            right = (logits.detach().argmax(1) == y).double().mean()
            found += torch.stack([loss.detach().double(), right]) / recipe.accumulate
    run.scaler.step(run.optimiser)
    run.scaler.update()
    run.history.add(found, rate=rate)


def _micro_batches(run: Run) -> Iterator[Batch]:
    """Give this process its images of the current step, in as many parts as the recipe says."""
    epoch, place = divmod(run.history.step, run.per_epoch)
    if run.order is None or run.order[0] != epoch:
        run.order = (epoch, *_drawn(run, epoch))
    _, order, views = run.order
    world, size = parallel.world(), run.recipe.batch_size // run.recipe.accumulate
    for part in range(run.recipe.accumulate):
        start = place * run.recipe.batch_size + part * size
        mine = slice(start + world.rank, start + size, world.size)
        x = run.images.inputs(order[mine])
        yield layout(seen(x, views[mine]) if run.recipe.augment else x, run.recipe), run.images.targets[order[mine]]


def _drawn(run: Run, epoch: int) -> tuple[Int64[Tensor, " images"], Views]:
    """Draw the order of the images of an epoch, and their views."""
    count, seed = len(run.images.targets), run.recipe.seed
    order = torch.randperm(count, generator=rng.torch_generator(seed, "order", epoch))
    views = Views.drawn(count, generator=rng.torch_generator(seed, "views", epoch))
    return order.to(run.device), views.to(run.device)


def layout(x: Tensor, recipe: Recipe) -> Tensor:
    """Return the same images, laid out as the recipe says."""
    return x.contiguous(memory_format=torch.channels_last) if recipe.channels_last and x.ndim == 4 else x


def precision(run: Run) -> AbstractContextManager[Any]:
    """Give the context of automatic mixed precision, where the recipe asks for it."""
    amp = run.recipe.amp
    return torch.autocast(run.device.type, dtype=_AUTOCAST[amp]) if isinstance(amp, str) else nullcontext()
