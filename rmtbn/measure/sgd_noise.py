"""The noise of stochastic gradient descent: E‖α∇ℓ - α∇_B ℓ‖² = α² C/|B| (Bjorck et al. 2018, arXiv:1806.02375).

C = (1/N) Σ‖g_i - ḡ‖² over the N examples. The paper states a bound; for batches drawn with replacement it is an
equality, and without replacement the factor (N - b)/(N - 1) makes it one (docs/derivations/sgd_noise.md). So (α, b) and
(2α, 4b) make the same noise. With batch statistics a batch's gradient is no mean of its examples', and no law holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.measure.example_gradients import ExampleGradients, example_gradients
from rmtbn.measure.loss import gradient_at, parameters_of
from rmtbn.result import Scalar

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SgdNoise:
    """Squared distances of the steps on mini-batches from the step on all examples.

    Parameters
    ----------
    squares
        ‖α∇ℓ - α∇_B ℓ‖² for each mini-batch drawn, shape (draws,).
    of_examples
        α²‖ḡ - mean of g_i over the batch‖² for the same mini-batches, from the inner products of the gradients of
        single examples, shape (draws,). Its expectation is `predicted`, whatever the network.
    predicted
        α² C/b, times (N - b)/(N - 1) without replacement.
    spread
        C, of the gradients of all examples.
    batch_size, learning_rate
        b and α.
    coupled
        Whether the examples share batch statistics: then `predicted` holds for no reason, and the difference is what
        the statistics of small batches do.
    """

    squares: Array
    of_examples: Array
    predicted: float
    spread: float
    batch_size: int
    learning_rate: float
    coupled: bool

    @property
    def measured(self) -> Scalar:
        """Mean of the `squares`, with its standard error over the draws."""
        return Scalar.over_networks(self.squares, symbol="E‖α∇ℓ − α∇_B ℓ‖²", label="noise of a step, over draws")

    @property
    def controlled(self) -> Scalar:
        """Mean of `squares` with `of_examples` as control variate: unbiased too, and exact up to rounding uncoupled."""
        values = self.squares - self.of_examples + self.predicted
        return Scalar.over_networks(values, symbol="E‖α∇ℓ − α∇_B ℓ‖²", label="noise of a step, controlled")


def sgd_noise(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    y: Int[Tensor, " examples"],
    *,
    batch_size: int,
    draws: int,
    generator: torch.Generator,
    learning_rate: float = 1.0,
    replacement: bool = True,
    examples: ExampleGradients | None = None,
    batch_stats: str | None = None,
) -> SgdNoise:
    """Measure the noise of SGD by gradients of mini-batches, beside its law from the gradients of single examples.

    Parameters
    ----------
    module
        Any network from inputs to logits; left as found.
    x, y
        All N examples: inputs (examples, ...) and their classes.
    batch_size
        b, from 1 to N (from 2 with batch statistics).
    draws
        Number of mini-batches, at least 2.
    generator
        Source of the mini-batches, on the CPU.
    learning_rate
        α > 0.
    replacement
        Whether an example can come twice in a batch.
    examples
        The gradients of all N examples at all parameters, if they have been measured; measured here if left out.
    batch_stats
        "batch", "running", or None for the module's own mode.

    Returns
    -------
    SgdNoise

    Raises
    ------
    InvalidArgumentError
        For numbers out of range or a batch that is refused.
    """
    count, alpha = len(x), _checks.real("learning_rate", learning_rate, above=0.0)
    b = _checks.integer("batch_size", batch_size, at_least=1, at_most=count)
    number = _checks.integer("draws", draws, at_least=2)
    single = example_gradients(module, x, y, batch_stats=batch_stats) if examples is None else examples
    if len(single.gram) != count:
        raise _checks.fail("examples", f"the gradients of the {count} examples of x", len(single.gram))
    weights = parameters_of(module)
    _, full = gradient_at(module, x, y, parameters=weights, batch_stats=batch_stats)
    squares, of_examples = [], []
    for chosen in _batches(count, b, number, replacement=replacement, generator=generator):
        here = chosen.to(x.device)
        _, found = gradient_at(module, x[here], y[here], parameters=weights, batch_stats=batch_stats)
        squares.append(sum(float((found[name].double() - g.double()).square().sum()) for name, g in full.items()))
        of_examples.append(_of_examples(single.gram, chosen.numpy()))
    factor = 1.0 if replacement else (count - b) / max(count - 1, 1)
    return SgdNoise(
        squares=alpha**2 * np.array(squares),
        of_examples=alpha**2 * np.array(of_examples),
        predicted=alpha**2 * single.spread / b * factor,
        spread=single.spread,
        batch_size=b,
        learning_rate=alpha,
        coupled=single.coupled,
    )


def _of_examples(gram: Array, chosen: NDArray[np.int64]) -> float:
    """‖ḡ - mean of g_i over the chosen‖² from ⟨g_i, g_j⟩."""
    weights = np.full(len(gram), 1 / len(gram)) - np.bincount(chosen, minlength=len(gram)) / chosen.size
    return float(weights @ gram @ weights)


def _batches(count: int, b: int, number: int, *, replacement: bool, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(number):
        if replacement:
            yield torch.randint(count, (b,), generator=generator)
        else:
            yield torch.randperm(count, generator=generator)[:b]
