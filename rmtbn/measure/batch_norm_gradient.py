"""What batch normalisation does to gradients: the identity of Santurkar et al. 2018, and scale invariance.

For one channel with m values h, z = γĥ + β, ĥ = (h - μ)/s, s² = σ² + ε, and g = ∂L/∂z,

    ∂L/∂h = (γ/s) (g - ḡ - ĥ c),   ḡ = ⟨1, g⟩/m,   c = ⟨g, ĥ⟩/m,
    ‖∂L/∂h‖² = (γ²/s²) (‖g‖² - m ḡ² - (1 + ε/s²) m c²),

which for ε → 0 is Theorem 4.1 of arXiv:1805.11604 with equality. A filter w in front (h = ⟨w, x⟩ + b) has
⟨∂L/∂w, w⟩ = γ m c ε/s², which vanishes with ε: the loss does not depend on the length of w. Proofs:
docs/derivations/batch_norm_gradient.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rmtbn import _checks
from rmtbn.measure.loss import check_batch, gradient_at, parameters_of
from rmtbn.measure.passes import LayerPass, layer_passes

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NormGradient:
    """Squared gradient norms in front of one layer of batch normalisation, per channel, arrays of shape (channels,).

    Parameters
    ----------
    layer
        Name of the layer of batch normalisation.
    measured
        ‖∂L/∂h‖² over the examples and places of the channel, by automatic differentiation.
    limit
        (γ²/σ²)(‖g‖² - ⟨1, g⟩²/m - ⟨g, ĥ⟩²/m), the identity for ε → 0.
    exact
        The same with the layer's ε.
    without_norm
        (γ²/σ²)‖g‖², what a fixed scaling by γ/σ would give: the identity says by how much less it is.
    """

    layer: str
    measured: Array
    limit: Array
    exact: Array
    without_norm: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RadialGradient:
    """Gradients of the filters of one layer along the filters, arrays of shape (filters,).

    Parameters
    ----------
    layer
        Name of the layer.
    inner
        ⟨∂L/∂w, w⟩.
    cosine
        The same over ‖∂L/∂w‖‖w‖; NaN where one of the two is 0.
    """

    layer: str
    inner: Array
    cosine: Array


def batch_norm_gradients(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    y: Int[Tensor, " examples"],
    *,
    layers: Sequence[str] | None = None,
) -> tuple[NormGradient, ...]:
    """Measure the gradient in front of layers of batch normalisation, and predict it from the one behind them.

    Parameters
    ----------
    module
        Any network from inputs to logits, measured with batch statistics; left as found.
    x, y
        Inputs (examples, ...) and their classes.
    layers
        Names of layers of batch normalisation; all of them if left out.

    Returns
    -------
    tuple of NormGradient
        In the order of the layers; sums in float64.

    Raises
    ------
    InvalidArgumentError
        For a layer that is no batch normalisation, or a batch that is refused.
    """
    parts = dict(module.named_modules())
    every = [name for name, part in parts.items() if isinstance(part, _BatchNorm)]
    names = every if layers is None else [_checks.one_of("layers", name, every) for name in layers]
    return tuple(_identity(seen) for seen in layer_passes(module, x, y, layers=names, batch_stats="batch"))


def radial_gradients(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    y: Int[Tensor, " examples"],
    *,
    layers: Sequence[str],
    batch_stats: str | None = None,
) -> tuple[RadialGradient, ...]:
    """Measure the gradients of filters along the filters: 0 in front of batch normalisation with ε = 0.

    Parameters
    ----------
    module
        Any network from inputs to logits; left as found.
    x, y
        Inputs (examples, ...) and their classes.
    layers
        Names of layers with a parameter `weight`, whose first axis counts the filters.
    batch_stats
        "batch", "running", or None for the module's own mode.

    Returns
    -------
    tuple of RadialGradient
        In the order of the layers.

    Raises
    ------
    InvalidArgumentError
        For a layer without such a parameter, or a batch that is refused.
    """
    check_batch(module, x, y)
    weights = parameters_of(module, [f"{name}.weight" for name in layers])
    _, gradients = gradient_at(module, x, y, parameters=weights, batch_stats=batch_stats)
    return tuple(
        _radial(name, weight.detach().flatten(1).double(), gradient.flatten(1).double())
        for name, weight, gradient in zip(layers, weights.values(), gradients.values(), strict=True)
    )


def _identity(seen: LayerPass) -> NormGradient:
    assert isinstance(seen.layer, _BatchNorm)
    h, g, back = (_by_channel(t) for t in (seen.inputs, seen.gradient, seen.input_gradient))
    count, eps = h.shape[1], seen.layer.eps
    variance = h.var(1, correction=0)
    s2 = variance + eps
    gamma2 = torch.ones_like(s2) if seen.layer.weight is None else seen.layer.weight.detach().double().square()
    centred = h - h.mean(1, keepdim=True)
    squares, mean = g.square().sum(1), g.mean(1).square()
    along = (g * centred).mean(1).square()  # s² c²
    limit = gamma2 / variance * (squares - count * mean - count * along / variance)
    exact = gamma2 / s2 * (squares - count * mean - (1 + eps / s2) * count * along / s2)
    return NormGradient(
        layer=seen.name,
        measured=back.square().sum(1).cpu().numpy(),
        limit=limit.cpu().numpy(),
        exact=exact.cpu().numpy(),
        without_norm=(gamma2 / variance * squares).cpu().numpy(),
    )


def _by_channel(values: Tensor) -> Tensor:
    return values.detach().double().movedim(1, 0).flatten(1)


def _radial(name: str, weight: Tensor, gradient: Tensor) -> RadialGradient:
    inner = (weight * gradient).sum(1)
    return RadialGradient(
        layer=name,
        inner=inner.cpu().numpy(),
        cosine=(inner / (weight.norm(dim=1) * gradient.norm(dim=1))).cpu().numpy(),
    )
