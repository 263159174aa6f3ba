"""Whether the gradients of single examples point the same way.

g_i = ∂ℓ_i/∂w, ℓ_i the cross-entropy of example i, so that their mean is the gradient of the mean loss. Without batch
statistics ℓ_i depends on example i alone. With them every example depends on the whole batch: g_i is then the gradient
of ℓ_i *in this batch*, through the statistics too, and another batch gives another g_i.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from rmtbn.measure import batch_statistics
from rmtbn.measure.loss import Parameters, check_batch, cross_entropy, differentiated, parameters_of
from rmtbn.measure.snapshot import probe

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExampleGradients:
    """Inner products of the gradients of the examples.

    Parameters
    ----------
    parameters
        Names of the parameters.
    grams
        ⟨g_i, g_j⟩ for each of them, shape (parameters, examples, examples).
    coupled
        Whether the examples share batch statistics.
    """

    parameters: tuple[str, ...]
    grams: Array
    coupled: bool

    @property
    def gram(self) -> Array:
        """⟨g_i, g_j⟩ over all the parameters, shape (examples, examples)."""
        return np.asarray(self.grams.sum(axis=0))

    @property
    def zero_examples(self) -> int:
        """Number of examples whose gradient is exactly zero: they have no direction."""
        return int((np.diagonal(self.gram) == 0).sum())

    @property
    def mean_cosine(self) -> float:
        """Mean cosine of the gradients of two different examples, zeros left out; NaN for fewer than two."""
        sizes = np.sqrt(np.diagonal(self.gram))
        kept = sizes > 0
        count = int(kept.sum())
        if count < 2:
            return float("nan")
        cosines = self.gram[np.ix_(kept, kept)] / np.outer(sizes[kept], sizes[kept])
        return float((cosines.sum() - count) / (count * (count - 1)))

    @property
    def coherence(self) -> float:
        """‖Σg_i‖²/Σ‖g_i‖²: 1 for orthogonal gradients, the number of examples for equal ones; NaN for zeros."""
        squares = float(np.trace(self.gram))
        return float(self.gram.sum() / squares) if squares > 0 else float("nan")

    @property
    def spread(self) -> float:
        """C = (1/N) Σ‖g_i - ḡ‖² over the N examples, ḡ their mean: what the noise of SGD is made of."""
        count = len(self.gram)
        return float(np.trace(self.gram) / count - self.gram.sum() / count**2)


def example_gradients(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    y: Int[Tensor, " examples"],
    *,
    parameters: Sequence[str] | None = None,
    batch_stats: str | None = None,
) -> ExampleGradients:
    """Measure the inner products of the gradients of all examples, parameter by parameter.

    With batch statistics it takes one forward pass and as many backward passes of the whole batch as there are
    examples; without, one of each per example. Memory is that of as many copies of the parameters.

    Parameters
    ----------
    module
        Any network from inputs to logits; left as found.
    x, y
        Inputs (examples, ...) and their classes.
    parameters
        Names of parameters as in `named_parameters`; all if left out.
    batch_stats
        "batch", "running", or None for the module's own mode.

    Returns
    -------
    ExampleGradients

    Raises
    ------
    InvalidArgumentError
        For an unknown parameter or a batch that is refused.
    """
    check_batch(module, x, y)
    start = parameters_of(module, parameters)
    coupled = batch_statistics.resolve(module, batch_stats) == "batch"
    with probe(module, batch_stats):
        losses = _coupled(module, x, y, start) if coupled else _alone(module, x, y, start)
        rows = [differentiated(loss, list(start.values()), retain_graph=coupled) for loss in losses]
    stacked = (torch.stack([g.flatten() for g in same]).double() for same in zip(*rows, strict=True))
    return ExampleGradients(
        parameters=tuple(start), grams=np.stack([(g @ g.T).cpu().numpy() for g in stacked]), coupled=coupled
    )


def _coupled(module: nn.Module, x: Tensor, y: Tensor, weights: Parameters) -> Iterator[Tensor]:
    """Yield the examples' losses of one graph."""
    yield from cross_entropy(functional_call(module, dict(weights), (x,)), y, reduction="none")


def _alone(module: nn.Module, x: Tensor, y: Tensor, weights: Parameters) -> Iterator[Tensor]:
    """Yield the loss of every example by itself, each of its own graph."""
    for i in range(len(x)):
        yield cross_entropy(functional_call(module, dict(weights), (x[i : i + 1],)), y[i : i + 1])
