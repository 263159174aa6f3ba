"""True mean and variance of what enters each layer of batch normalisation, over all the data given."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rmtbn import _checks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChannelMoments:
    """Moments of the values of each channel, in float64.

    Parameters
    ----------
    count
        Values per channel: examples times places.
    mean
        Shape (channels,).
    scatter
        Sum of (x - mean)², shape (channels,).
    """

    count: int
    mean: Float[Tensor, " channels"]
    scatter: Float[Tensor, " channels"]

    @classmethod
    def of(cls, x: Float[Tensor, "batch channels ..."]) -> "ChannelMoments":
        """Measure a batch."""
        values = x.detach().double().transpose(0, 1).flatten(1)
        mean = values.mean(1)
        return cls(count=values.shape[1], mean=mean, scatter=(values - mean[:, None]).square().sum(1))

    def joined(self, other: "ChannelMoments") -> "ChannelMoments":
        """Return the moments of both sets of values together (Chan, Golub & LeVeque 1983, eq. 2.1)."""
        count, step = self.count + other.count, other.mean - self.mean
        between = step.square() * (self.count * other.count / count)
        mean = self.mean + step * (other.count / count)
        return ChannelMoments(count=count, mean=mean, scatter=self.scatter + other.scatter + between)

    @property
    def unbiased_variance(self) -> Float[Tensor, " channels"]:
        """The variance that batch normalisation keeps, with n - 1 in the denominator."""
        return self.scatter / (self.count - 1)


def tracking_norms(module: nn.Module) -> dict[str, _BatchNorm]:
    """Return the layers of batch normalisation that keep running statistics, by name, in the order of the module."""
    norms = {name: part for name, part in module.named_modules() if isinstance(part, _BatchNorm)}
    return {name: norm for name, norm in norms.items() if norm.running_var is not None}


def centred(norms: dict[str, _BatchNorm]) -> dict[str, _BatchNorm]:
    """Refuse norms whose statistics are not mean and variance of channels: only torch's own classes are known.

    Raises
    ------
    InvalidArgumentError
        Naming the layer.
    """
    for name, norm in norms.items():
        if not type(norm).__module__.startswith("torch."):
            raise _checks.fail("module", "one of torch's own batch normalisation", f"{name!r}: {type(norm).__name__}")
    return norms


@contextmanager
def gathered(
    norms: dict[str, _BatchNorm], *, when: Callable[[_BatchNorm], bool] = lambda _: True
) -> Iterator[dict[str, ChannelMoments]]:
    """Add up the moments of what enters each norm in the forward passes of this block.

    Parameters
    ----------
    norms
        Layers by name.
    when
        Which passes count, of a layer at the time of the pass.
    """
    found: dict[str, ChannelMoments] = {}

    def adding(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if isinstance(norm, _BatchNorm) and when(norm):
                fresh = ChannelMoments.of(inputs[0])
                found[name] = found[name].joined(fresh) if name in found else fresh

        return add

    handles = [norm.register_forward_pre_hook(adding(name)) for name, norm in norms.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def write(norm: _BatchNorm, *, mean: Tensor | None, variance: Tensor | None, share: float) -> None:
    """Move the running statistics of a layer towards new ones, by a share of the way.

    Parameters
    ----------
    norm
        The layer.
    mean, variance
        Shape (channels,), the variance unbiased; what is None stays as it is.
    share
        Weight of the new value: 1 replaces the old one.
    """
    for running, new in ((norm.running_mean, mean), (norm.running_var, variance)):
        if running is not None and new is not None:
            fresh = new.to(running)
            running.copy_(fresh if share == 1 else (1 - share) * running + share * fresh)
