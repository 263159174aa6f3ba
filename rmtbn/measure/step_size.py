"""How far can one step go along the gradient? Figure 3 and Appendix H of Bjorck et al. 2018 (arXiv:1806.02375).

The relative loss is L(w - α ∇L(w))/L(w), on the batch of the gradient. Every evaluation begins from the same running
statistics and the same state of the generators, and nothing of them is left in the network.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.measure.loss import check_batch, gradient_at, loss_at, moved, parameters_of

Array = NDArray[np.float64]

# Steps per factor of 10 while the end of the lowering steps is bracketed; a rise between two of them goes unseen.
_PER_DECADE = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepSizes:
    """Loss along the gradient.

    Parameters
    ----------
    loss
        L(w), before the step.
    steps
        Steps α, shape (points,).
    relative_loss
        L(w - α ∇L)/L(w), shape (points,); inf where the loss is not finite.
    gradient_norm
        ‖∇L(w)‖ over all parameters.
    """

    loss: float
    steps: Array
    relative_loss: Array
    gradient_norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LargestStep:
    """The largest step that lowers the loss, between two steps that were tried.

    Parameters
    ----------
    step
        A step that lowers the loss, as does every step tried below it down to `smallest`; 0 if none did.
    above
        The next step tried, which does not lower it; inf if all steps up to `highest` did.
    smallest
        The smallest step of the search that lowered the loss; below it the change is lost in rounding, or the search
        began here. inf if none did.
    evaluations
        Number of losses looked at.
    """

    step: float
    above: float
    smallest: float
    evaluations: int


def relative_losses(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    y: Int[Tensor, " examples"],
    *,
    steps: Sequence[float] | Array,
    batch_stats: str | None = None,
) -> StepSizes:
    """Measure the relative loss after one step of gradient descent, for each of some steps.

    Parameters
    ----------
    module
        Any network from inputs to logits; left as found.
    x, y
        Inputs (examples, ...) and their classes, both for the gradient and for the loss.
    steps
        Steps α >= 0, in units of the parameters per unit of their gradient.
    batch_stats
        "batch", "running", or None for the module's own mode.

    Returns
    -------
    StepSizes

    Raises
    ------
    InvalidArgumentError
        For a negative step, a batch that is not finite, or a loss that is not finite or is 0 before the step.

    Examples
    --------
    >>> import torch
    >>> net = nn.Linear(1, 2, bias=False).double()
    >>> found = relative_losses(net, torch.ones(1, 1).double(), torch.tensor([0]), steps=[0.0, 0.1])
    >>> bool(found.relative_loss[0] == 1 > found.relative_loss[1])
    True
    """
    chosen = _checks.array("steps", list(steps), at_least=0.0)
    loss, size, along = _line(module, x, y, batch_stats)
    relative = np.array([along(float(step)) for step in chosen]) / loss
    return StepSizes(loss=loss, steps=chosen, relative_loss=relative, gradient_norm=size)


def largest_step(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    y: Int[Tensor, " examples"],
    *,
    accuracy: float = 0.01,
    lowest: float = 1e-8,
    highest: float = 1e4,
    batch_stats: str | None = None,
) -> LargestStep:
    """Find the end of the first run of steps that lower the loss: bracketed on a log grid, then bisected.

    The loss along the gradient need not rise only once. What is found is the end of the first interval of lowering
    steps, up to rises narrower than a quarter of a decade.

    Parameters
    ----------
    module, x, y, batch_stats
        As in `relative_losses`.
    accuracy
        `above` is at most (1 + accuracy) times `step`, in (0, 1].
    lowest, highest
        Where the search begins and ends, 0 < lowest < highest.

    Returns
    -------
    LargestStep

    Raises
    ------
    InvalidArgumentError
        As `relative_losses`, and for numbers out of range.
    """
    accuracy = _checks.real("accuracy", accuracy, above=0.0, at_most=1.0)
    lowest = _checks.real("lowest", lowest, above=0.0)
    highest = _checks.real("highest", highest, above=lowest)
    loss, _, along = _line(module, x, y, batch_stats)
    seen: list[float] = []

    def lowers(step: float) -> bool:
        seen.append(step)
        return along(step) < loss

    smallest, step, above = _bracket(lowers, lowest, highest)
    while 0 < step < above < math.inf and above > (1 + accuracy) * step:
        middle = math.sqrt(step * above)
        step, above = (middle, above) if lowers(middle) else (step, middle)
    return LargestStep(step=step, above=above, smallest=smallest, evaluations=len(seen))


def _bracket(lowers: Callable[[float], bool], lowest: float, highest: float) -> tuple[float, float, float]:
    """Return the first and last step of the first run that lowers the loss, and the next one, on the log grid."""
    count = max(2, math.ceil(math.log10(highest / lowest) * _PER_DECADE) + 1)
    first, last = math.inf, 0.0
    for step in np.geomspace(lowest, highest, count).tolist():
        if lowers(step):
            first, last = min(first, step), step
        elif last > 0:
            return first, last, step
    return first, last, math.inf if last > 0 else lowest


def _line(
    module: nn.Module, x: Tensor, y: Tensor, batch_stats: str | None
) -> tuple[float, float, Callable[[float], float]]:
    """Return the loss, the norm of its gradient, and the loss after a step along it."""
    check_batch(module, x, y)
    start = parameters_of(module)
    loss, gradient = gradient_at(module, x, y, parameters=start, batch_stats=batch_stats)
    if loss == 0:
        raise _checks.fail("module", "of a loss above 0 at x", loss)
    squares = sum(float(g.double().square().sum()) for g in gradient.values())

    def along(step: float) -> float:
        return loss_at(module, x, y, parameters=moved(start, gradient, step), batch_stats=batch_stats)

    return loss, math.sqrt(squares), along
