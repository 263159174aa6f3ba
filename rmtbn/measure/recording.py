"""The outputs of chosen layers during one forward pass."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.measure import batch_statistics
from rmtbn.measure.snapshot import left_as_found


def weight_layers(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers that hold a weight matrix or kernel, in the order they were registered."""
    with left_as_found(module):  # to read a weight is a step of the power iteration where it has a spectral norm
        weights = {name: getattr(layer, "weight", None) for name, layer in module.named_modules()}
    return tuple(name for name, weight in weights.items() if isinstance(weight, Tensor) and weight.ndim >= 2)


def names_of(module: nn.Module, parts: Sequence[nn.Module]) -> tuple[str, ...]:
    """Return the names of some of a module's parts, for what asks for layers by name.

    Raises
    ------
    InvalidArgumentError
        For a part that is not in the module.
    """
    names = {id(part): name for name, part in module.named_modules()}
    for part in parts:
        if id(part) not in names:
            raise _checks.fail("parts", "parts of the module", type(part).__name__)
    return tuple(names[id(part)] for part in parts)


def forward(
    module: nn.Module, x: Tensor, *, layers: Sequence[str] | None, batch_stats: str | None, finite: bool = True
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
    finite
        Whether outputs that are not finite are refused.

    Raises
    ------
    InvalidArgumentError
        For an unknown layer, one that did not run exactly once or did not return one finite tensor, or inputs that are
        not finite.
    """
    names = weight_layers(module) if layers is None else tuple(layers)
    modules = dict(module.named_modules())
    for name in names:
        _checks.one_of("layers", name, modules)
    if not torch.isfinite(x).all():
        raise _checks.fail("x", "finite", "a tensor with NaN or infinity")
    outputs: dict[str, list[object]] = {name: [] for name in names}
    handles = [modules[name].register_forward_hook(_recorder(outputs[name])) for name in names]
    grad = torch.is_grad_enabled()
    try:
        with (
            batch_statistics.fixed(module, batch_statistics.resolve(module, batch_stats)),
            torch.set_grad_enabled(grad),
        ):
            result = module(x.clone())  # which its first layer may overwrite
    finally:
        for handle in handles:
            handle.remove()
    return tuple(_single(name, outputs[name], finite=finite) for name in names), result


def _recorder(kept: list[object]) -> Callable[[nn.Module, object, object], Tensor | None]:
    """Make a hook that keeps a layer's output and hands on a copy: what follows may work in place (ReLU often does)."""

    def keep(_module: nn.Module, _inputs: object, output: object) -> Tensor | None:
        kept.append(output)
        return output.clone() if isinstance(output, Tensor) else None

    return keep


def _single(name: str, outputs: list[object], *, finite: bool) -> Tensor:
    if len(outputs) != 1:
        raise _checks.fail("layers", "layers that run exactly once", f"{name!r}, which ran {len(outputs)} times")
    if not isinstance(outputs[0], Tensor):
        raise _checks.fail("layers", "layers that return one tensor", f"{name!r}: {type(outputs[0]).__name__}")
    if finite and not torch.isfinite(outputs[0]).all():
        raise _checks.fail("layers", "layers whose output is finite at x", f"{name!r}, with NaN or infinity")
    return outputs[0]
