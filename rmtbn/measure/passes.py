"""One pass forward and back: what chosen layers took in, and the gradient of the loss at what they gave out."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rmtbn.measure import recording
from rmtbn.measure.loss import check_batch, cross_entropy
from rmtbn.measure.snapshot import probe


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerPass:
    """One layer in one pass.

    Parameters
    ----------
    name, layer
        The layer.
    inputs, outputs
        What it took in and gave out, detached.
    gradient
        ∂L/∂(outputs) of the mean cross-entropy; zeros where the loss does not depend on them.
    """

    name: str
    layer: nn.Module
    inputs: Tensor
    outputs: Tensor
    gradient: Tensor


def layer_passes(
    module: nn.Module, x: Tensor, y: Tensor, *, layers: Sequence[str], batch_stats: str | None
) -> tuple[LayerPass, ...]:
    """Run the mean cross-entropy of `module` at (x, y) forward and back, and return what the named layers saw.

    Parameters
    ----------
    module
        Any network from inputs to logits; left as found.
    x, y
        Inputs and their classes.
    layers
        Names as in `named_modules`.
    batch_stats
        "batch", "running", or None for the module's own mode.

    Raises
    ------
    InvalidArgumentError
        For a batch as `loss.check_batch` refuses it, or layers as `recording.forward` refuses them.
    """
    check_batch(module, x, y)
    parts = dict(module.named_modules())
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> torch.utils.hooks.RemovableHandle:
        return parts[name].register_forward_pre_hook(lambda _, args: seen.__setitem__(name, args[0].detach().clone()))

    handles = [keep(name) for name in layers if name in parts]
    try:
        with probe(module, batch_stats):
            start = x.detach().requires_grad_()  # so that frozen networks have gradients too
            outputs, result = recording.forward(module, start, layers=layers, batch_stats=batch_stats)
            found = torch.autograd.grad(cross_entropy(result, y), outputs, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(
        LayerPass(
            name=name,
            layer=parts[name],
            inputs=seen[name],
            outputs=output.detach(),
            gradient=torch.zeros_like(output) if gradient is None else gradient,
        )
        for name, output, gradient in zip(layers, outputs, found, strict=True)
    )
