"""Mean and variance of every channel over examples and places: Figures 4 and 5 of Bjorck et al. 2018 (1806.02375)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from rmtbn.measure import recording
from rmtbn.measure.snapshot import probe

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChannelMoments:
    """Moments of the channels of one layer's output; a unit of a fully connected layer is a channel of one place.

    Parameters
    ----------
    layer
        Name of the layer.
    mean
        Over examples and places, shape (channels,); ±inf or NaN where an output of the channel is.
    log_variance
        Natural log of the (biased) variance over examples and places, shape (channels,); -inf for a constant channel,
        inf where an output of the channel is not finite.
    """

    layer: str
    mean: Array
    log_variance: Array

    @property
    def mean_square_mean(self) -> float:
        """Mean over the channels of the squared channel mean."""
        return float(np.mean(self.mean**2))

    @property
    def log_mean_variance(self) -> float:
        """Natural log of the mean over the channels of their variance."""
        return float(np.logaddexp.reduce(self.log_variance) - np.log(self.log_variance.size))


def channel_moments(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    *,
    layers: Sequence[str] | None = None,
    batch_stats: str | None = None,
) -> tuple[ChannelMoments, ...]:
    """Measure the moments of the channels of each layer's output.

    Parameters
    ----------
    module
        Any network; left as found.
    x
        Inputs (examples, ...).
    layers
        Names of layers whose outputs are (examples, channels, ...places); those with a weight matrix or kernel if left
        out. `recording.names_of` gives the names of layers that are at hand.
    batch_stats
        "batch", "running", or None for the module's own mode.

    Returns
    -------
    tuple of ChannelMoments
        In the order of the layers. Outputs that are not finite are reported, not refused: they are what divergence is.

    Raises
    ------
    InvalidArgumentError
        For an unknown layer, one that did not run exactly once, or inputs that are not finite.
    """
    names = recording.weight_layers(module) if layers is None else tuple(layers)
    with probe(module, batch_stats), torch.no_grad():
        outputs, _ = recording.forward(module, x, layers=names, batch_stats=batch_stats, finite=False)
    return tuple(_moments(name, output) for name, output in zip(names, outputs, strict=True))


def _moments(name: str, output: Tensor) -> ChannelMoments:
    h = output.double().movedim(1, 0).flatten(1)
    scale = h.abs().amax(1, keepdim=True)
    scale[(scale == 0) | ~torch.isfinite(scale)] = 1.0
    unit = h / scale  # so that squares neither overflow nor underflow
    log_variance = unit.var(1, correction=0).log() + 2 * scale[:, 0].log()
    finite = torch.isfinite(h).all(1)
    return ChannelMoments(
        layer=name,
        mean=(unit.mean(1) * scale[:, 0]).cpu().numpy(),
        log_variance=torch.where(finite, log_variance, torch.inf).cpu().numpy(),
    )
