"""Growth of tangents in many networks at every layer, in one pass, at any depth: log ‖J_l v‖².

The tangent is pushed layer by layer for all networks at once and its scale kept as a logarithm. The twins in theory are
the exact law of `rmtbn.theory.finite_width.log_norm_law` (linear, ReLU, leaky ReLU) and `rmtbn.theory.width_expansion`.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jvp

from rmtbn import _checks
from rmtbn.measure.ensemble import State, pushed, unit


def ensemble_log_growth(
    modules: Sequence[nn.Module],
    x: Float[Tensor, "examples ..."],
    v: Tensor,
    *,
    batch_stats: str | None = None,
) -> dict[str, Float[np.ndarray, " networks"]]:
    """Measure log(‖J_l v‖²/‖v‖²) after every layer l, J_l being the Jacobian from the batch of inputs to its outputs.

    Parameters
    ----------
    modules
        Networks of one architecture, left as found.
    x
        Inputs (examples, ...features), the same for all networks.
    v
        A tangent to the inputs, of the same shape; over a batch it is one vector, as batch statistics couple examples.
    batch_stats
        "batch", "running", or None for the modules' own mode.

    Returns
    -------
    dict
        Layer → one value per network, in the order of the layers; -inf where the tangent is lost.

    Raises
    ------
    InvalidArgumentError
        As `rmtbn.measure.ensemble.pushed`, and if `v` is not like `x` or is 0.
    """
    if v.shape != x.shape or not bool(v.any()) or not bool(torch.isfinite(v).all()):
        raise _checks.fail("v", f"a finite tangent of shape {tuple(x.shape)} that is not 0", tuple(v.shape))
    start = v / v.double().norm().to(v.dtype)
    tangent = start.expand(len(modules), *v.shape).clone()
    with pushed(modules, x, batch_stats=batch_stats) as states:
        return {state.name: logs for state, logs in push_on(states, tangent)}


def push_on(states: Iterable[State], tangent: Tensor) -> Iterator[tuple[State, Float[np.ndarray, " networks"]]]:
    """Push a tangent from layer to layer, keeping its size as a logarithm.

    Parameters
    ----------
    states
        The layers in their order, within the context of `rmtbn.measure.ensemble.pushed`.
    tangent
        At the input of the first, one for each network.

    Yields
    ------
    tuple
        A layer, and the log squared norm of the tangent at its output, one per network; -inf where it is lost.
    """
    log_scale = torch.zeros(len(tangent), dtype=torch.float64, device=tangent.device)
    for state in states:
        tangent = jvp(state.apply, (state.inputs,), (tangent,))[1]
        tangent, log_scale = unit(tangent, log_scale)
        norm = tangent.double().square().flatten(1).sum(1).log()
        yield state, (norm + 2 * log_scale).cpu().numpy()
