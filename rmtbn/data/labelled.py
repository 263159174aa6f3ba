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
        Shape (examples, ...), floating point, of mean square 1 over the whole set; a test set has the shift and scale
        of its training set.
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

    def first(self, count: int) -> "Labelled":
        """Return the first `count` examples."""
        count = _checks.integer("count", count, at_least=1, at_most=len(self.targets))
        return Labelled(name=self.name, inputs=self.inputs[:count], targets=self.targets[:count], classes=self.classes)

    def to(self, *, device: torch.device, dtype: torch.dtype) -> "Labelled":
        """Return the same examples on a device, the inputs in a dtype."""
        inputs, targets = self.inputs.to(device=device, dtype=dtype), self.targets.to(device)
        return Labelled(name=self.name, inputs=inputs, targets=targets, classes=self.classes)

    def flattened(self) -> "Labelled":
        """Return the same examples as vectors."""
        return Labelled(name=self.name, inputs=self.inputs.flatten(1), targets=self.targets, classes=self.classes)

    def embedded(self, features: int, *, generator: torch.Generator) -> "Labelled":
        """Map the flattened examples to `features` entries by a random orthonormal frame, keeping their mean square.

        For at least as many features as the examples have, lengths and angles between examples stay as they are; for
        fewer it is a random projection, which keeps them up to O(1/√features) (Johnson & Lindenstrauss 1984).
        """
        features = _checks.integer("features", features, at_least=1)
        x = self.inputs.flatten(1)
        gaussian = torch.randn(max(features, x.shape[1]), min(features, x.shape[1]), generator=generator, dtype=x.dtype)
        frame, _ = torch.linalg.qr(gaussian)
        image = x @ (frame.T if features >= x.shape[1] else frame)
        scale = (x.square().mean() / image.square().mean()).sqrt()
        return Labelled(name=self.name, inputs=image * scale, targets=self.targets, classes=self.classes)


def standardise(raw: Float[Tensor, "examples ..."]) -> Float[Tensor, "examples ..."]:
    """Return (raw - m)/s with the mean m and standard deviation s of all entries: differences between pixels stay.

    Raises
    ------
    InvalidArgumentError
        If the entries are all the same number.
    """
    mean = raw.mean()
    spread = (raw - mean).square().mean().sqrt()
    if spread == 0:
        raise _checks.fail("inputs", "not all the same number", raw.flatten()[0].item())
    return (raw - mean) / spread
