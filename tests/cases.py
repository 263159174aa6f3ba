"""Networks, norms, activations and initialisations, listed once; all tests parametrise over these."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rmtbn import rng
from rmtbn.activations import ACTIVATIONS
from rmtbn.inits import INITS, initialise
from rmtbn.nets.mlp import mlp
from rmtbn.nets.norms import NORMS

ACTIVATION_NAMES = tuple(ACTIVATIONS)
NORM_NAMES = tuple(name for name in NORMS if name != "instance")  # those of inputs without space
# Of what is drawn at random, 4 standard errors wide: one draw in every run, two more with the slow tests.
SEEDS = (1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3)))

# Each scheme with the arguments it needs.
SCHEMES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {name: {"sigma_w": 1.3, "sigma_b": 0.2} if name == "gaussian" else {} for name in INITS}
)


class Residual(nn.Module):
    """x + W₂ φ(W₁ x): a network that is no `Sequential`, whose layers are called in another order than registered."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.second = nn.Linear(width, width)
        self.first = nn.Linear(width, width)
        self.phi = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.phi(self.first(x)))


def conv_net() -> nn.Sequential:
    """A small convolutional network for inputs (examples, 3, 6, 6), with grouped and strided layers."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, groups=4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 5),
    )


def network(
    *,
    activation: str = "relu",
    norm: str = "none",
    scheme: str = "gaussian",
    depth: int = 3,
    width: int = 12,
    seed: int = 1,
    dtype: torch.dtype = torch.float64,
    **options: Any,
) -> nn.Sequential:
    """An MLP of the library, drawn with the seed; `options` go to `mlp` or, where named sigma_*, to the scheme."""
    sigmas = dict(SCHEMES[scheme]) | {name: options.pop(name) for name in ("sigma_w", "sigma_b") if name in options}
    module = mlp(depth=depth, width=width, activation=activation, norm=norm, **options).to(dtype)
    generator = rng.torch_generator(seed, "weights", activation, norm, scheme, depth, width)
    return initialise(module, scheme, generator=generator, activation=activation, **sigmas)


def inputs(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """Independent standard normal inputs."""
    return torch.randn(shape, generator=rng.torch_generator(seed, "inputs", *shape), dtype=torch.float64).to(dtype)
