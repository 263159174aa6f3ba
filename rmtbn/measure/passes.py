"""One pass forward and back: what chosen layers took in, and the gradient of the loss at what they gave out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rmtbn import _checks
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
    gradient, input_gradient
        ∂L/∂(outputs) and ∂L/∂(inputs) of the mean cross-entropy; zeros where the loss does not depend on them.
    """

    name: str
    layer: nn.Module
    inputs: Tensor
    outputs: Tensor
    gradient: Tensor
    input_gradient: Tensor


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
    if not layers:
        return ()
    parts = dict(module.named_modules())
    inputs: dict[str, Tensor] = {}
    handles = [parts[name].register_forward_pre_hook(_keeper(inputs, name)) for name in layers if name in parts]
    try:
        with probe(module, batch_stats):
            start = x.detach().requires_grad_()  # so that frozen networks have gradients too
            outputs, result = recording.forward(module, start, layers=layers, batch_stats=batch_stats)
            ends = [*outputs, *(inputs[name] for name in layers)]
            found = torch.autograd.grad(cross_entropy(result, y), ends, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    grads = [torch.zeros_like(end) if g is None else g for end, g in zip(ends, found, strict=True)]
    return tuple(
        LayerPass(
            name=name,
            layer=parts[name],
            inputs=inputs[name].detach(),
            outputs=output.detach(),
            gradient=gradient,
            input_gradient=back,
        )
        for name, output, gradient, back in zip(layers, outputs, grads, grads[len(layers) :], strict=False)
    )


def _keeper(kept: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[object, ...]], tuple[object, ...]]:
    """Make a hook that keeps a copy of a layer's input and hands it on: others may work on the input in place."""

    def keep(_module: nn.Module, args: tuple[object, ...]) -> tuple[object, ...]:
        if not args or not isinstance(args[0], Tensor):
            raise _checks.fail("layers", "layers that take a tensor first", name)
        kept[name] = args[0].clone()
        return kept[name], *args[1:]

    return keep
