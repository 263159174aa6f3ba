"""Layer-sequential unit variance: weights scaled so that on given inputs every layer's output has variance 1."""

from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rmtbn import _checks
from rmtbn.inits import draws
from rmtbn.inits.network import initialise

Module = TypeVar("Module", bound=nn.Module)


@torch.no_grad()
def lsuv(
    module: Module, x: Tensor, *, generator: draws.Generator, tolerance: float = 1e-3, max_iterations: int = 10
) -> Module:
    """Draw orthonormal weights, then divide each layer's by the deviation of its output until that is 1, in place.

    Algorithm 1 of Mishkin & Matas 2015 (arXiv:1511.06422), layer by layer in the order of one forward pass. The
    variance is that of all entries of a linear or convolutional layer's output on x: examples, channels and positions.

    Parameters
    ----------
    module
        Any network; batch normalisation follows its mode, and running statistics do not move.
    x
        A batch of inputs.
    generator
        Source of the draws.
    tolerance
        Largest |variance - 1| allowed, > 0.
        NOTE: the authors' code has 0.1; one division suffices where there is no bias, so a small one costs nothing.
    max_iterations
        Divisions per layer, >= 1; 10 as in the authors' code.

    Returns
    -------
    Module
        The same network, biases 0.

    Raises
    ------
    InvalidArgumentError
        If a layer's output does not vary over x or its variance does not come within the tolerance. The network is left
        with new weights up to that layer.
    """
    _checks.real("tolerance", tolerance, above=0.0)
    most = _checks.integer("max_iterations", max_iterations, at_least=1)
    initialise(module, "orthogonal", generator=generator, activation="linear")
    layers = {part: name for name, part in module.named_modules() if isinstance(part, nn.Linear | _ConvNd)}
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    seen: set[nn.Module] = set()
    handles = [
        layer.register_forward_hook(_scaler(name, seen, tolerance=tolerance, most=most))
        for layer, name in layers.items()
    ]
    try:
        module(x)
    finally:
        for handle in handles:
            handle.remove()
        for buffer, value in before:
            buffer.copy_(value)
    return module


def _scaler(
    name: str, seen: set[nn.Module], *, tolerance: float, most: int
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """Make a hook that scales a layer the first time it runs, and hands on what it then returns."""

    def scale(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if layer in seen:
            return output
        seen.add(layer)
        for step in range(most + 1):
            variance = float(output.var(correction=0))
            if not 0.0 < variance < float("inf"):
                raise _checks.fail("x", f"such that the output of {name!r} varies and is finite", variance)
            if abs(variance - 1.0) <= tolerance:
                return output
            if step < most:
                # the assignment sets what a weight is computed from under weight normalisation
                layer.weight = cast("Tensor", layer.weight).div_(variance**0.5)
                output = cast("Tensor", layer.forward(*inputs))
        raise _checks.fail("tolerance", f"one that {name!r} reaches in {most} steps, from {variance:.3g}", tolerance)

    return scale
