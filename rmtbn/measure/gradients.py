"""Norm of the loss gradient per layer. The twin in theory is the product of χ₁ (or λ_G under batch normalisation)."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.measure import recording
from rmtbn.measure.snapshot import probe


def log_gradient_norms(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    loss: Callable[[Tensor], Tensor],
    *,
    layers: Sequence[str] | None = None,
    batch_stats: str | None = None,
) -> Float[np.ndarray, " layers"]:
    """Measure log ‖∂ℓ/∂h‖² for the output h of each layer, the norm over all units and examples.

    Parameters
    ----------
    module
        Any network; its parameters, their gradients and its statistics are left as found.
    x
        Inputs, shape (examples, ...).
    loss
        The module's output → a scalar ℓ, for example a cross-entropy with the targets.
    layers
        Names of the layers; those with a weight matrix if left out, whose outputs are the pre-activations.
    batch_stats
        "batch", "running", or None for the module's own mode.

    Returns
    -------
    Array
        Shape (layers,); -inf where the gradient is exactly zero.

    Raises
    ------
    InvalidArgumentError
        For an unknown layer, inputs or outputs that are not finite, or a loss that is no finite scalar or does not
        depend on the module's output.
    """
    with probe(module, batch_stats):
        start = x.detach().requires_grad_()
        outputs, result = recording.forward(module, start, layers=layers, batch_stats=batch_stats)
        value = loss(result)
        if value.numel() != 1 or not torch.isfinite(value).all():
            raise _checks.fail("loss", "a finite scalar of the module's output", value.detach().tolist())
        if not value.requires_grad:
            raise _checks.fail("loss", "a function of the module's output", value.item())
        gradients = torch.autograd.grad(value.reshape(()), outputs, allow_unused=True)
    return np.array([_log_squared_norm(gradient) for gradient in gradients])


def _log_squared_norm(gradient: Tensor | None) -> float:
    if gradient is None:  # the layer ran, and the output does not depend on it
        return -np.inf
    g = gradient.double().flatten()
    scale = float(g.abs().max())
    return 2 * float(np.log(scale)) + float((g / scale).square().sum().log()) if scale > 0 else -np.inf
