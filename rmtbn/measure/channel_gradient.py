"""Which channels carry a kernel's gradient: Figure 7 and Appendix G of Bjorck et al. 2018 (arXiv:1806.02375).

The map is the mean of |∂L/∂K_{o,i,u,v}| over the kernel's places (u, v). Its entries are not negative, so that a map
without any structure has a large first singular value all the same: for independent Gaussian gradients and places of
size 1, σ₁²/Σσ² is about 2/π = 0.64, the squared mean of |g| over its mean square, and more for larger kernels. The
signed gradient, unfolded to (out, in · places), has no such floor; both are given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.measure.conv_gradient import weight_gradient
from rmtbn.measure.passes import LayerPass, layer_passes

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChannelGradient:
    """The kernel gradient of one layer by its channels.

    Parameters
    ----------
    layer
        Name of the layer.
    magnitude
        Mean of |∂L/∂K| over the kernel's places, shape (out, in).
    signed
        ∂L/∂K unfolded, shape (out, in · places).
    input_mean
        Mean of every input channel over examples and places, shape (in,).
    """

    layer: str
    magnitude: Array
    signed: Array
    input_mean: Array

    @property
    def top_share(self) -> float:
        """σ₁²/Σσ² of `magnitude`: 1 for a map of rank one."""
        return _top_share(self.magnitude)

    @property
    def effective_rank(self) -> float:
        """Participation rank (Σσ²)²/Σσ⁴ of `magnitude`."""
        return _participation(self.magnitude)

    @property
    def signed_top_share(self) -> float:
        """σ₁²/Σσ² of `signed`."""
        return _top_share(self.signed)

    @property
    def signed_effective_rank(self) -> float:
        """Participation rank (Σσ²)²/Σσ⁴ of `signed`."""
        return _participation(self.signed)

    @property
    def outgoing(self) -> Array:
        """Mean of |∂L/∂K| over the weights that go out of every input channel, shape (in,)."""
        return self.magnitude.mean(axis=0)

    @property
    def mean_rank_correlation(self) -> float:
        """Spearman's ρ of |`input_mean`| and `outgoing` over the channels; NaN where one of them is constant."""
        means, outgoing = np.abs(self.input_mean), self.outgoing
        if np.ptp(means) == 0 or np.ptp(outgoing) == 0:
            return float("nan")
        return float(spearmanr(means, outgoing).statistic)


def channel_gradients(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    y: Int[Tensor, " examples"],
    *,
    layers: Sequence[str],
    batch_stats: str | None = None,
) -> tuple[ChannelGradient, ...]:
    """Measure the kernel gradient of the mean cross-entropy by channels, beside the means of the input channels.

    Parameters
    ----------
    module
        Any network from inputs to logits; left as found.
    x, y
        Inputs (examples, ...) and their classes.
    layers
        Names of two-dimensional convolutions without groups, or of linear layers.
    batch_stats
        "batch", "running", or None for the module's own mode.

    Returns
    -------
    tuple of ChannelGradient
        In the order of the layers, float64.

    Raises
    ------
    InvalidArgumentError
        As `rmtbn.measure.conv_gradient.sum_ratios`, and for a convolution in groups.
    """
    return tuple(_by_channel(seen) for seen in layer_passes(module, x, y, layers=layers, batch_stats=batch_stats))


def _by_channel(seen: LayerPass) -> ChannelGradient:
    if getattr(seen.layer, "groups", 1) != 1:
        raise _checks.fail("layers", "layers in one group", f"{seen.name!r} in {seen.layer.groups} groups")
    gradient = weight_gradient(seen.layer, seen.inputs.double(), seen.gradient.double()).flatten(1)
    inputs = seen.inputs.double()
    channels_last = inputs.movedim(1, -1) if isinstance(seen.layer, nn.Conv2d) else inputs
    return ChannelGradient(
        layer=seen.name,
        magnitude=gradient.abs().reshape(len(gradient), channels_last.shape[-1], -1).mean(2).cpu().numpy(),
        signed=gradient.cpu().numpy(),
        input_mean=channels_last.flatten(0, -2).mean(0).cpu().numpy(),
    )


def _squares(matrix: Array) -> Array:
    """Squared singular values over the largest, so that nothing underflows."""
    values = np.linalg.svd(matrix, compute_uv=False)
    return (values / values[0]) ** 2 if values[0] > 0 else np.full_like(values, np.nan)


def _top_share(matrix: Array) -> float:
    return float(1.0 / _squares(matrix).sum())


def _participation(matrix: Array) -> float:
    squares = _squares(matrix)
    return float(squares.sum() ** 2 / (squares**2).sum())
