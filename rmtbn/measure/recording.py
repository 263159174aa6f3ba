"""The outputs of chosen layers during one forward pass."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.measure import batch_statistics


def weight_layers(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers that hold a weight matrix or kernel, in the order they were registered."""
    return tuple(
        name
        for name, layer in module.named_modules()
        if getattr(layer, "weight", None) is not None and isinstance(layer.weight, Tensor) and layer.weight.ndim >= 2
    )


def forward(
    module: nn.Module, x: Tensor, *, layers: Sequence[str] | None, batch_stats: str | None
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Run `module` on `x` and return the outputs of the named layers, in their order, and that of the module.

    Parameters
    ----------
    module
        Any network; its running statistics do not move.
    x
        A batch of inputs.
    layers
        Names as in `named_modules`; `weight_layers(module)` if None.
    batch_stats
        "batch", "running", or None for the module's own mode.

    Raises
    ------
    InvalidArgumentError
        For an unknown layer, one that did not run exactly once, or inputs that are not finite.
    """
    names = weight_layers(module) if layers is None else tuple(layers)
    modules = dict(module.named_modules())
    for name in names:
        _checks.one_of("layers", name, modules)
    if not torch.isfinite(x).all():
        raise _checks.fail("x", "finite", "a tensor with NaN or infinity")
    outputs: dict[str, list[Tensor]] = {name: [] for name in names}
    handles = [
        modules[name].register_forward_hook(lambda _m, _x, output, name=name: outputs[name].append(output))
        for name in names
    ]
    grad = torch.is_grad_enabled()
    try:
        with (
            batch_statistics.fixed(module, batch_statistics.resolve(module, batch_stats)),
            torch.set_grad_enabled(grad),
        ):
            result = module(x)
    finally:
        for handle in handles:
            handle.remove()
    for name in names:
        if len(outputs[name]) != 1:
            raise _checks.fail(
                "layers", "layers that run exactly once", f"{name!r}, which ran {len(outputs[name])} times"
            )
    return tuple(outputs[name][0] for name in names), result
