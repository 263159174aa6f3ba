"""The cross-entropy of a network as a function of its parameters, none of which is ever written to."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rmtbn import _checks, _modules
from rmtbn.measure import network
from rmtbn.measure.snapshot import probe

Parameters = Mapping[str, Tensor]


def cross_entropy(
    output: Float[Tensor, "examples classes"], y: Int[Tensor, " examples"], *, reduction: str = "mean"
) -> Tensor:
    """Return the cross-entropy -ln softmax(o)_y in float64, so that small changes of a large loss are seen.

    Parameters
    ----------
    output
        Logits.
    y
        Classes.
    reduction
        "mean", "sum" or "none".

    Raises
    ------
    InvalidArgumentError
        For a class that the output does not have.
    """
    check_classes(y, output.shape[1])
    return nn.functional.cross_entropy(output.double(), y.long(), reduction=reduction)


def check_classes(y: Int[Tensor, " examples"], classes: int) -> None:
    """Refuse a class that an output of so many classes does not have.

    Raises
    ------
    InvalidArgumentError
        Naming `y`.
    """
    if not bool(((y >= 0) & (y < classes)).all()):
        raise _checks.fail("y", f"classes 0 to {classes - 1}", (int(y.min()), int(y.max())))


def check_batch(module: nn.Module, x: Tensor, y: Tensor) -> None:
    """Refuse inputs that are no finite batch of the module's dtype and device, or that have not one class each.

    Raises
    ------
    InvalidArgumentError
        Naming `x`, `y` or `module`.
    """
    network.check_input(module, x)
    if tuple(y.shape) != (len(x),):
        raise _checks.fail("y", f"one class for each of the {len(x)} examples", tuple(y.shape))
    if not any(p.is_floating_point() for p in module.parameters()):
        raise _checks.fail("module", "a network with parameters", type(module).__name__)


def parameters_of(module: nn.Module, names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Copy the floating-point parameters of a module (or those named) as leaves that require a gradient."""
    found = {name: p for name, p in module.named_parameters() if p.is_floating_point()}
    for name in names or ():
        _checks.one_of("parameters", name, found)
    return {name: found[name].detach().clone().requires_grad_() for name in (found if names is None else names)}


def loss_at(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    y: Int[Tensor, " examples"],
    *,
    parameters: Parameters,
    batch_stats: str | None = None,
) -> float:
    """Return the mean cross-entropy with other parameters; inf where it is not finite.

    Parameters
    ----------
    module
        Any network from inputs to logits; left as found, its generators too, so that dropout draws the same mask.
    x, y
        Inputs and their classes.
    parameters
        Values by name, for those that differ from the module's own.
    batch_stats
        "batch", "running", or None for the module's own mode.
    """
    with probe(module, batch_stats), torch.no_grad():
        value = float(cross_entropy(_modules.call(module, parameters, x), y))
    return value if math.isfinite(value) else math.inf


def gradient_at(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    y: Int[Tensor, " examples"],
    *,
    parameters: Parameters,
    batch_stats: str | None = None,
) -> tuple[float, dict[str, Tensor]]:
    """Return the mean cross-entropy and its gradient with respect to the `parameters` given, at their values.

    Parameters
    ----------
    module, x, y, batch_stats
        As in `loss_at`.
    parameters
        Leaves that require a gradient, as `parameters_of` makes them.

    Raises
    ------
    InvalidArgumentError
        If the loss is not finite.
    """
    value, found = loss_and_gradient(module, x, y, parameters=parameters, batch_stats=batch_stats)
    if found is None:
        raise _checks.fail("module", "of a finite loss at x", value)
    return value, found


def loss_and_gradient(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    y: Int[Tensor, " examples"],
    *,
    parameters: Parameters,
    batch_stats: str | None = None,
) -> tuple[float, dict[str, Tensor] | None]:
    """Return what `gradient_at` returns, by one forward pass too; None for a gradient where the loss is not finite.

    Parameters
    ----------
    module, x, y, parameters, batch_stats
        As in `gradient_at`.
    """
    with probe(module, batch_stats):
        value = cross_entropy(_modules.call(module, parameters, x), y)
        if not bool(torch.isfinite(value)):
            return float(value.detach()), None
        found = differentiated(value, list(parameters.values()))
    return float(value.detach()), dict(zip(parameters, found, strict=True))


def moved(parameters: Parameters, direction: Parameters, step: float) -> dict[str, Tensor]:
    """Return w - step · d for every parameter, as leaves that require a gradient."""
    return {name: (p.detach() - step * direction[name]).requires_grad_() for name, p in parameters.items()}


def differentiated(value: Tensor, ends: Sequence[Tensor], *, retain_graph: bool = False) -> list[Tensor]:
    """Return the gradient of a scalar; zeros for what it does not depend on."""
    if not ends or not value.requires_grad:
        return [torch.zeros_like(end) for end in ends]
    found = torch.autograd.grad(value, ends, allow_unused=True, retain_graph=retain_graph)
    return [torch.zeros_like(end) if g is None else g for end, g in zip(ends, found, strict=True)]
