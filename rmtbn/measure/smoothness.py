"""How smooth is the loss along its gradient? The three measures of Santurkar et al. 2018 (arXiv:1805.11604), Figure 4.

From w, along the gradient g = ∇L(w), steps α are tried: the range of the losses L(w - αg), the distance of gradients
‖∇L(w - αg) - g‖, and the effective smoothness, the largest ‖∇L(w - αg) - g‖/(α‖g‖), the Lipschitz constant of the
gradient as far as it shows on this line.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.measure.loss import Parameters, check_batch, gradient_at, loss_and_gradient, moved, parameters_of

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Smoothness:
    """The loss and its gradient along the gradient.

    Parameters
    ----------
    loss, gradient_norm
        L(w) and ‖g‖.
    steps
        Steps α, shape (points,).
    losses
        L(w - αg), shape (points,); inf where not finite.
    gradient_distances
        ‖∇L(w - αg) - g‖, shape (points,); inf where the loss is not finite.
    """

    loss: float
    gradient_norm: float
    steps: Array
    losses: Array
    gradient_distances: Array

    @property
    def loss_range(self) -> tuple[float, float]:
        """Smallest and largest loss along the steps."""
        return float(self.losses.min()), float(self.losses.max())

    @property
    def smoothness(self) -> Array:
        """‖∇L(w - αg) - g‖/(α‖g‖) for each step; NaN where the gradient is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.gradient_distances / (self.steps * self.gradient_norm))

    @property
    def effective_smoothness(self) -> float:
        """Largest of `smoothness`."""
        return float(self.smoothness.max())


def smoothness(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    y: Int[Tensor, " examples"],
    *,
    steps: Sequence[float] | Array,
    batch_stats: str | None = None,
) -> Smoothness:
    """Measure the loss and its gradient along the gradient.

    Parameters
    ----------
    module
        Any network from inputs to logits; left as found.
    x, y
        Inputs (examples, ...) and their classes.
    steps
        Steps α > 0; the paper takes them from 1/2 to 4 times the rate that is trained with.
    batch_stats
        "batch", "running", or None for the module's own mode.

    Returns
    -------
    Smoothness

    Raises
    ------
    InvalidArgumentError
        For steps that are not above 0, a batch that is not finite, or a loss at w that is not finite.
    """
    chosen = _checks.array("steps", list(steps))
    if chosen.size == 0 or chosen.min() <= 0:
        raise _checks.fail("steps", "one or more numbers > 0", chosen.tolist())
    check_batch(module, x, y)
    start = parameters_of(module)
    loss, gradient = gradient_at(module, x, y, parameters=start, batch_stats=batch_stats)
    losses, distances = [], []
    for step in chosen.tolist():
        there = moved(start, gradient, step)
        value, other = loss_and_gradient(module, x, y, parameters=there, batch_stats=batch_stats)
        losses.append(math.inf if other is None else value)
        distances.append(math.inf if other is None else _distance(gradient, other))
    return Smoothness(
        loss=loss,
        gradient_norm=_norm(gradient),
        steps=chosen,
        losses=np.array(losses),
        gradient_distances=np.array(distances),
    )


def _distance(first: Parameters, second: Parameters) -> float:
    return _norm({name: second[name].double() - g.double() for name, g in first.items()})


def _norm(vectors: Parameters) -> float:
    return math.sqrt(sum(float(v.double().square().sum()) for v in vectors.values()))
