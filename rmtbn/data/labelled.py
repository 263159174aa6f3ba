"""Labelled inputs, as every data source returns them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from rmtbn import _checks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """Examples with their classes.

    Parameters
    ----------
    name
        Where they come from, for captions.
    inputs
        Shape (examples, ...), float64, mean 0 and variance 1 over the whole set.
    targets
        Class of each example, 0 … classes - 1.
    classes
        Number of classes.
    """

    name: str
    inputs: Float[Tensor, "examples ..."]
    targets: Int64[Tensor, " examples"]
    classes: int

    def take(self, count: int, *, generator: torch.Generator) -> "Labelled":
        """Draw `count` different examples at random."""
        available = len(self.targets)
        count = _checks.integer("count", count, at_least=1, at_most=available)
        chosen = torch.randperm(available, generator=generator)[:count]
        return Labelled(name=self.name, inputs=self.inputs[chosen], targets=self.targets[chosen], classes=self.classes)

    def flattened(self) -> "Labelled":
        """Return the same examples as vectors."""
        return Labelled(name=self.name, inputs=self.inputs.flatten(1), targets=self.targets, classes=self.classes)


def standardise(raw: Float[Tensor, "examples ..."]) -> Float[Tensor, "examples ..."]:
    """Shift and scale by the mean and standard deviation over all entries (differences between pixels stay)."""
    return (raw - raw.mean()) / raw.std(correction=0)
