"""Plain stochastic gradient descent on many networks of one architecture at once, all on the same batches."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import grad_and_value, stack_module_state, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from rmtbn import _checks, _modules


def train_ensemble(
    modules: Sequence[nn.Module],
    inputs: Float[Tensor, "examples ..."],
    targets: Int[Tensor, " examples"],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
) -> Float[np.ndarray, "networks steps"]:
    """Train the networks in place on the cross-entropy, by SGD without momentum on batches drawn with replacement.

    Parameters
    ----------
    modules
        Networks of one architecture, dtype and device, without batch normalisation in train mode.
    inputs, targets
        Examples and their classes.
    steps, batch_size
        Number of steps and size of a batch, >= 1.
    learning_rate
        Of every step, > 0.
    generator
        Source of the batches, on the CPU.

    Returns
    -------
    Array
        The loss of every network at every step, before it; NaN or inf where training diverged.

    Raises
    ------
    InvalidArgumentError
        If an argument is out of range, or the networks cannot be trained together.
    """
    steps, batch_size = (
        _checks.integer(name, value, at_least=1) for name, value in (("steps", steps), ("batch_size", batch_size))
    )
    rate = _checks.real("learning_rate", learning_rate, above=0.0)
    base = _trainable(modules)
    parameters, buffers = stack_module_state(list(modules))
    parameters = {name: value.detach() for name, value in parameters.items()}

    def loss(p: dict[str, Tensor], b: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(_modules.call(base, p | b, batch[0]), batch[1])

    step = vmap(grad_and_value(loss), in_dims=(0, 0, None))
    losses = []
    for _ in range(steps):
        chosen = torch.randint(len(targets), (batch_size,), generator=generator).to(inputs.device)
        gradients, values = step(parameters, buffers, (inputs[chosen], targets[chosen]))
        parameters = {name: value - rate * gradients[name] for name, value in parameters.items()}
        losses.append(values.detach())
    _write(modules, parameters)
    return torch.stack(losses, dim=1).cpu().numpy()


@torch.no_grad()
def accuracies(
    modules: Sequence[nn.Module], inputs: Float[Tensor, "examples ..."], targets: Int[Tensor, " examples"]
) -> Float[np.ndarray, " networks"]:
    """Measure the share of examples that each network puts in their class; 0 for outputs that are not finite."""
    base = _trainable(modules)
    parameters, buffers = stack_module_state(list(modules))
    outputs = vmap(lambda p, b: _modules.call(base, p | b, inputs))(parameters, buffers)
    right = (outputs.argmax(-1) == targets) & torch.isfinite(outputs).all(-1)
    return right.double().mean(1).cpu().numpy()


def _trainable(modules: Sequence[nn.Module]) -> nn.Module:
    if not modules:
        raise _checks.fail("modules", "one or more networks", list(modules))
    _modules.check_alike("", modules)
    if any(isinstance(part, _BatchNorm) and part.training for module in modules for part in _modules.parts(module)):
        raise _checks.fail("modules", "without batch normalisation in train mode", type(modules[0]).__name__)
    return modules[0]


@torch.no_grad()
def _write(modules: Sequence[nn.Module], parameters: dict[str, Tensor]) -> None:
    for i, module in enumerate(modules):
        for name, parameter in module.named_parameters():
            parameter.copy_(parameters[name][i])
