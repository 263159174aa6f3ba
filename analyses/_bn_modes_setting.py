"""A network in training, and what is done to copies of it: the tools of `_bn_modes_facts`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from rmtbn.data.labelled import Labelled
from rmtbn.train.channel_moments import tracking_norms
from rmtbn.train.evaluation import Batch, evaluate
from rmtbn.train.recipe import Recipe
from rmtbn.train.share_left import share_left

from ._held_out import batched

TEST_BATCH = 500

Row = tuple[str, float, float]
"""What is measured, the number that it should be (NaN: any above 0), and the number that it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A network as it was drawn and as it was trained, and on what."""

    drawn: nn.Sequential
    trained: nn.Sequential
    seen: Labelled
    held_out: Labelled
    recipe: Recipe

    @property
    def batch(self) -> Batch:
        """The first images, as many as a step sees."""
        size = self.recipe.batch_size
        return self.seen.inputs[:size], self.seen.targets[:size]

    @property
    def momentum(self) -> float:
        """That of all layers of batch normalisation."""
        momentum = next(iter(tracking_norms(self.drawn).values())).momentum
        assert momentum is not None
        return momentum

    def accuracy(self, net: nn.Module) -> float:
        """Test with running statistics."""
        return evaluate(net, self.test_batches()).accuracy

    def test_batches(self) -> list[Batch]:
        """Return the test images."""
        return batched(self.held_out, TEST_BATCH)

    def seen_batches(self) -> list[Tensor]:
        """Return the training images in batches."""
        return [x for x, _ in batched(self.seen, self.recipe.batch_size)]


def weight(net: nn.Module, action: Callable[[nn.Module], object]) -> float:
    """Measure the weight that new values have in the running statistics, mean over the layers."""

    def in_train_mode(one: nn.Module) -> None:
        action(one.train())

    return 1 - float(np.mean(list(share_left(net, in_train_mode).values())))


def backward(logits: Tensor, targets: Tensor, *, weight: float = 1.0) -> None:
    """Add the gradients of the mean cross-entropy, times a weight."""
    (weight * cross_entropy(logits, targets)).backward()  # type: ignore[no-untyped-call]


def refused(norm: nn.Module, x: Tensor) -> float:
    """Return 1 if train mode refuses an input, else 0."""
    try:
        norm.train()(x)
    except ValueError:
        return 1.0
    return 0.0


def gradients(net: nn.Module) -> dict[str, Tensor]:
    """Return the gradients of the parameters, by name."""
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Count the entries that are not equal, all of those that only one has."""
    same = one.keys() & other.keys()
    alone = sum(t.numel() for name, t in [*one.items(), *other.items()] if name not in same)
    return float(alone + sum(int((one[name] != other[name]).sum()) for name in same))


def largest_error(one: _BatchNorm, other: _BatchNorm) -> float:
    """Return the largest difference of two layers' running statistics."""
    found, expected = (torch.stack([n.running_mean, n.running_var]) for n in (one, other))  # type: ignore[list-item]
    return float((found - expected).abs().max())
