"""Activation statistics per layer: moments over all, per unit and per example, and correlations of pairs of inputs.

The twin in theory is the length map of `rmtbn.theory.mean_field` (second moment q of the pre-activations).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.measure import recording

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerMoments:
    """Moments of one layer's outputs h, shape (examples, units), of one network; logarithms are natural.

    Parameters
    ----------
    layer
        Name of the layer.
    mean, log_second_moment, log_variance
        Mean, log of the mean square (q), and log of the variance, over all entries.
    unit_mean, unit_log_variance
        Over the examples, for each unit, shape (units,).
    example_mean, example_log_second_moment
        Over the units, for each example, shape (examples,).
    """

    layer: str
    mean: float
    log_second_moment: float
    log_variance: float
    unit_mean: Array
    unit_log_variance: Array
    example_mean: Array
    example_log_second_moment: Array


@torch.no_grad()
def activation_moments(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    *,
    layers: Sequence[str] | None = None,
    batch_stats: str | None = None,
) -> tuple[LayerMoments, ...]:
    """Measure the moments of the outputs of each layer of one network.

    Parameters
    ----------
    module
        Any network; left as found.
    x
        Inputs, shape (examples, ...).
    layers
        Names of the layers; those with a weight matrix if left out, whose outputs are the pre-activations.
    batch_stats
        "batch", "running", or None for the module's own mode.

    Returns
    -------
    tuple of LayerMoments
        In the order of the layers.

    Raises
    ------
    InvalidArgumentError
        For an unknown layer or inputs that are not finite.
    """
    outputs, _ = recording.forward(module, x, layers=layers, batch_stats=batch_stats)
    names = recording.weight_layers(module) if layers is None else tuple(layers)
    return tuple(_moments(name, output) for name, output in zip(names, outputs, strict=True))


@torch.no_grad()
def pair_correlations(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    *,
    layers: Sequence[str] | None = None,
    batch_stats: str | None = None,
) -> Float[np.ndarray, "layers pairs"]:
    """Measure the correlation c of pairs of inputs, ⟨h_a, h_b⟩/(‖h_a‖‖h_b‖) over the units of each layer.

    The pairs are the examples (0, 1), (2, 3), …; with batch statistics all of them are in one batch.

    Parameters
    ----------
    module, x, layers, batch_stats
        As in `activation_moments`; an example without a partner is left out of the pairs.

    Returns
    -------
    Array
        Shape (layers, pairs); NaN where an example's output is exactly zero (its correlation is undefined).

    Raises
    ------
    InvalidArgumentError
        As `activation_moments`, or for fewer than two examples.
    """
    _checks.integer("number of examples in x", len(x), at_least=2)
    outputs, _ = recording.forward(module, x, layers=layers, batch_stats=batch_stats)
    return np.stack([_correlations(output.flatten(1).double()) for output in outputs])


def _moments(name: str, output: Tensor) -> LayerMoments:
    h = output.flatten(1).double()
    scale = float(h.abs().max()) or 1.0
    h = h / scale  # so that squares neither overflow nor underflow
    log_scale = 2 * np.log(scale)
    return LayerMoments(
        layer=name,
        mean=float(h.mean()) * scale,
        log_second_moment=_log(h.square().mean()).item() + log_scale,
        log_variance=_log(h.var(correction=0)).item() + log_scale,
        unit_mean=h.mean(0).cpu().numpy() * scale,
        unit_log_variance=_log(h.var(0, correction=0)) + log_scale,
        example_mean=h.mean(1).cpu().numpy() * scale,
        example_log_second_moment=_log(h.square().mean(1)) + log_scale,
    )


def _log(values: Tensor) -> Array:
    return values.log().cpu().numpy()


def _correlations(h: Float[Tensor, "examples units"]) -> Array:
    h = h / h.abs().amax(1, keepdim=True)
    a, b = h[0 : 2 * (len(h) // 2) : 2], h[1::2]
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).cpu().numpy()
