"""Gradient norms of many networks at every layer, in one pass forward and one back, at any depth.

The cotangent is pulled back layer by layer for all networks at once and its scale kept as a logarithm, so that
gradients of e^±10000 are measured. The twin in theory is the product of χ₁, or of λ_G under batch normalisation.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import vjp

from rmtbn import _checks
from rmtbn.measure.ensemble import State, pushed, unit


def ensemble_log_gradients(
    modules: Sequence[nn.Module],
    x: Float[Tensor, "examples ..."],
    loss: Callable[[Tensor], Tensor] | Tensor,
    *,
    batch_stats: str | None = None,
) -> dict[str, Float[np.ndarray, " networks"]]:
    """Measure log ‖∂ℓ/∂h‖² for the output h of every layer that holds a weight matrix, over all units and examples.

    Parameters
    ----------
    modules
        Networks of one architecture, left as found.
    x
        Inputs (examples, ...features), the same for all.
    loss
        One network's output (examples, ...) → a scalar ℓ, for example a cross-entropy; or a tensor v of the shape of
        the output, for ℓ = ⟨y, v⟩, whose gradient exists however far y is beyond the floating range.
    batch_stats
        "batch", "running", or None for the modules' own mode.

    Returns
    -------
    dict
        Layer → one value per network, in the order of the layers; -inf where the gradient is exactly 0.

    Raises
    ------
    InvalidArgumentError
        As `rmtbn.measure.ensemble.pushed`; if v is not like the output or not finite; and, for a function, if the
        outputs of the last layer or the loss leave the floating range.
    """
    with pushed(modules, x, batch_stats=batch_stats) as layers:
        visited = list(layers)
        cotangent = _fixed(visited[-1], loss) if isinstance(loss, Tensor) else _cotangent(visited[-1], loss)
        return pull_back(visited, cotangent)


def pull_back(visited: Sequence[State], cotangent: Tensor) -> dict[str, Float[np.ndarray, " networks"]]:
    """Pull a cotangent back through layers that were visited, keeping its size as a logarithm.

    Parameters
    ----------
    visited
        The layers in their order, within the context of `rmtbn.measure.ensemble.pushed`.
    cotangent
        At the output of the last, one for each network.

    Returns
    -------
    dict
        Layer with a weight matrix → log squared norm of the cotangent at its output, in the order of the layers.
    """
    log_scale = torch.zeros(len(cotangent), dtype=torch.float64, device=cotangent.device)
    found = {}
    for state in reversed(visited):
        cotangent, log_scale = unit(cotangent, log_scale)
        if state.has_weight:
            norm = cotangent.double().square().flatten(1).sum(1).log()
            found[state.name] = (norm + 2 * log_scale).cpu().numpy()
        cotangent = vjp(state.apply, state.inputs)[1](cotangent)[0]
    return dict(reversed(found.items()))


def _fixed(last: State, v: Tensor) -> Tensor:
    """Return the same cotangent for all networks."""
    if v.shape != last.outputs.shape[1:] or not bool(torch.isfinite(v).all()):
        shape = tuple(last.outputs.shape[1:])
        raise _checks.fail("loss", f"a function, or a finite tensor of the output's shape {shape}", tuple(v.shape))
    return v.to(last.outputs).expand_as(last.outputs).clone()


def _cotangent(last: State, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Differentiate each network's loss with respect to its output."""
    scale = last.log_scale.exp().to(last.outputs.dtype)
    outputs = last.outputs * scale.reshape(-1, *(1,) * (last.outputs.ndim - 1))
    if not bool(torch.isfinite(outputs).all()):
        raise _checks.fail("modules", "networks with finite outputs", "infinity or NaN at the last layer")
    with torch.enable_grad():
        start = outputs.detach().requires_grad_()
        total = torch.stack([loss(one).reshape(()) for one in start]).sum()
        (cotangent,) = torch.autograd.grad(total, start)
    if not bool(torch.isfinite(total)):
        raise _checks.fail("loss", "a finite scalar of a network's output", float(total.detach()))
    return cotangent
