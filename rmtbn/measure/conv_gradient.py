"""Do the summands of a kernel's gradient cancel? Table 1 of Bjorck et al. 2018 (arXiv:1806.02375), section 4.

The gradient of a kernel entry is a sum over examples and places,
∂L/∂K_{o,i,u,v} = Σ_{b,x,y} d, d = ∂L/∂O_{b,o,x,y} · I_{b,i,x+u,y+v}, and a = Σ|d|, b = |Σd|: a/b is 1 where all
summands share their sign, and of the order of the root of their number where the signs are random. Table 1 gives the
means of a and b over the entries. No summand is ever stored: b = |conv2d_weight(I, G)| and a = conv2d_weight(|I|, |G|),
exactly, since a sum of |I·G| is the same sum with |I| and |G| in the place of I and G.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.grad import conv2d_weight

from rmtbn import _checks
from rmtbn.measure import recording
from rmtbn.measure.passes import LayerPass, layer_passes

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SumRatio:
    """Sums of the kernel gradient of one layer, of the mean cross-entropy.

    Parameters
    ----------
    layer
        Name of the layer.
    absolute
        Σ|d| for each kernel entry, shape (out, in/groups, height, width); (out, in) for a linear layer.
    signed
        Σd, the gradient itself, of the same shape.
    summands
        Number of summands of each entry: examples times places of the output.
    """

    layer: str
    absolute: Array
    signed: Array
    summands: int

    @property
    def a(self) -> float:
        """Mean of Σ|d| over the entries."""
        return float(self.absolute.mean())

    @property
    def b(self) -> float:
        """Mean of |Σd| over the entries."""
        return float(np.abs(self.signed).mean())

    @property
    def ratio(self) -> float:
        """a/b, the ratio of the two means, as in Table 1; inf where b alone is 0, NaN where both are."""
        return float(_divided(np.array(self.a), np.array(self.b)))

    @property
    def entry_ratios(self) -> Array:
        """Σ|d|/|Σd| entry by entry, of the shape of `absolute` (Appendix J); inf or NaN where |Σd| is 0."""
        return _divided(self.absolute, np.abs(self.signed))

    @property
    def channel_ratios(self) -> Array:
        """a/b of each output channel, shape (out,)."""
        others = tuple(range(1, self.absolute.ndim))
        return _divided(self.absolute.mean(axis=others), np.abs(self.signed).mean(axis=others))


def sum_ratios(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    y: Int[Tensor, " examples"],
    *,
    layers: Sequence[str] | None = None,
    batch_stats: str | None = None,
) -> tuple[SumRatio, ...]:
    """Measure Σ|d| and Σd of the kernel gradient of each layer.

    Parameters
    ----------
    module
        Any network from inputs to logits; left as found.
    x, y
        Inputs (examples, ...) and their classes.
    layers
        Names of two-dimensional convolutions or linear layers; all layers with a weight matrix if left out.
    batch_stats
        "batch", "running", or None for the module's own mode.

    Returns
    -------
    tuple of SumRatio
        In the order of the layers; the sums are taken in float64.

    Raises
    ------
    InvalidArgumentError
        For a layer of another kind or one that did not run exactly once, a batch that is not finite, or labels that are
        no classes of the output.

    Examples
    --------
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(1, 2, bias=False)).double()
    >>> (found,) = sum_ratios(net, torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([0, 0]))
    >>> found.summands, bool(found.ratio > 1)
    (2, True)
    """
    names = recording.weight_layers(module) if layers is None else tuple(layers)
    return tuple(_sums(seen) for seen in layer_passes(module, x, y, layers=names, batch_stats=batch_stats))


def weight_gradient(layer: nn.Module, inputs: Tensor, gradient: Tensor) -> Tensor:
    """Return Σ over examples and places of inputs times output gradient: ∂L/∂(weight) of a convolution or linear layer.

    Parameters
    ----------
    layer
        A `Conv2d` of any stride, dilation, groups and padding, or a `Linear`.
    inputs, gradient
        What it took in, and the gradient at what it gave out.

    Raises
    ------
    InvalidArgumentError
        For a layer of another kind.
    """
    if isinstance(layer, nn.Conv2d):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        padded = pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
        shape = (gradient.shape[1], inputs.shape[1] // layer.groups, *layer.kernel_size)
        strides = {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups}
        return conv2d_weight(padded, shape, gradient, **strides)  # type: ignore[no-untyped-call]
    _checks.instance("layers", layer, nn.Linear, "names of two-dimensional convolutions or linear layers")
    return gradient.flatten(0, -2).T @ inputs.flatten(0, -2)


def _sums(seen: LayerPass) -> SumRatio:
    inputs, gradient = seen.inputs.double(), seen.gradient.double()
    signed = weight_gradient(seen.layer, inputs, gradient)
    return SumRatio(
        layer=seen.name,
        absolute=weight_gradient(seen.layer, inputs.abs(), gradient.abs()).cpu().numpy(),
        signed=signed.cpu().numpy(),
        summands=gradient.numel() // len(signed),
    )


def _divided(a: Array, b: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(a / b)
