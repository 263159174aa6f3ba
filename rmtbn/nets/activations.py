"""Torch forms of the activations of `rmtbn.activations`."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.activations import LEAKY_SLOPE


class Erf(nn.Module):
    """The error function, elementwise; φ(x) = erf(x), not the scaled erf(√π x/2)."""

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Apply erf."""
        return torch.erf(x)


class CReLU(nn.Module):
    """(relu(x), relu(-x)) side by side in the features, which it doubles (Shang et al. 2016, arXiv:1603.05201)."""

    def forward(self, x: Float[Tensor, "batch features ..."]) -> Float[Tensor, "batch doubled ..."]:
        """Rectify x and -x."""
        return torch.relu(torch.cat([x, -x], dim=1))


def activation_module(name: str) -> nn.Module:
    """Make the torch module of the activation called `name`."""
    return TORCH_ACTIVATIONS[_checks.one_of("activation", name, TORCH_ACTIVATIONS)]()


TORCH_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "linear": nn.Identity,
        "relu": nn.ReLU,
        "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE),
        "tanh": nn.Tanh,
        "erf": Erf,
        "hard_tanh": nn.Hardtanh,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "selu": nn.SELU,
    }
)
