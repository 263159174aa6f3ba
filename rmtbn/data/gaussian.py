"""Gaussian inputs: independent standard normal entries, with labels drawn at random."""

import torch

from rmtbn import _checks
from rmtbn.data.labelled import Labelled


def gaussian(*, examples: int, features: int, generator: torch.Generator, classes: int = 10) -> Labelled:
    """Draw inputs with independent N(0, 1) entries and uniform random classes.

    Parameters
    ----------
    examples, features
        Shape of the inputs, both >= 1.
    generator
        Source of the draws, on the CPU.
    classes
        Number of classes, >= 1; 10 as in the digits and CIFAR-10.

    Returns
    -------
    Labelled
        Inputs of shape (examples, features).

    Raises
    ------
    InvalidArgumentError
        If a number is below 1.
    """
    examples = _checks.integer("examples", examples, at_least=1)
    features = _checks.integer("features", features, at_least=1)
    classes = _checks.integer("classes", classes, at_least=1)
    return Labelled(
        name=f"Gaussian vectors of {features} entries",
        inputs=torch.randn(examples, features, generator=generator, dtype=torch.float64),
        targets=torch.randint(classes, (examples,), generator=generator),
        classes=classes,
    )
