"""Random generators named by labels, so that adding a draw anywhere moves no other draw.

A generator is a function of its seed and labels alone: not of the order of calls, the worker, or what else was drawn.
"""

import hashlib
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from rmtbn import _checks

if TYPE_CHECKING:
    import torch

Label: TypeAlias = str | int | float | np.generic


def generator(seed: int, *labels: Label) -> np.random.Generator:
    """Return the numpy generator named by `seed` and `labels`.

    Parameters
    ----------
    seed
        Any integer >= 0.
    labels
        What the draws are for, for example ``"weights", "layer", 3``. Other labels give independent streams.

    Examples
    --------
    >>> a, b = generator(1, "weights"), generator(1, "weights")
    >>> bool(a.random() == b.random())
    True
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(_entropy(seed, labels))))


def torch_generator(seed: int, *labels: Label) -> "torch.Generator":
    """Return the torch CPU generator named by `seed` and `labels`.

    It is always a CPU generator: what is drawn is then copied to its device, so that no result depends on the device.
    """
    import torch  # noqa: PLC0415 - theory may import rng, and theory never needs torch

    return torch.Generator().manual_seed(_entropy(seed, labels) % 2**63)


def _entropy(seed: int, labels: tuple[Label, ...]) -> int:
    _checks.integer("seed", seed, at_least=0)
    plain = (label.item() if isinstance(label, np.generic) else label for label in labels)  # numpy's 3 is 3
    name = "\x1f".join([str(int(seed)), *(f"{type(label).__name__}:{label!r}" for label in plain)])
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
