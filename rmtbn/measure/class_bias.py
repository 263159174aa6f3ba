"""Does a network favour one class for every input? Figure 6 of Bjorck et al. 2018 (arXiv:1806.02375).

The heat map is ∂L_b/∂O_{b,j} = softmax(O_b)_j - [j = y_b], L_b the cross-entropy of example b alone. A network that
puts every example in one class m, with large logits, has the rows e_m - e_y: cosine 1/2 between different classes y.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.measure.loss import check_batch, cross_entropy
from rmtbn.measure.snapshot import probe

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassBias:
    """Gradients at the logits of one batch, and the classes it is put in.

    Parameters
    ----------
    gradient
        ∂L_b/∂O_{b,j}, shape (examples, classes), float64.
    logits
        The network's output O, shape (examples, classes), float64.
    predicted
        Class of the largest logit of each example (the first of them, if there are several), shape (examples,).
    tied
        Number of examples whose largest logit is that of several classes: for them `predicted` says nothing.
    """

    gradient: Array
    logits: Array
    predicted: NDArray[np.int64]
    tied: int

    @property
    def modal_class(self) -> int:
        """Class that most examples are put in."""
        return int(np.bincount(self.predicted).argmax())

    @property
    def modal_fraction(self) -> float:
        """Share of examples that are put in that class."""
        return float(np.bincount(self.predicted).max() / self.predicted.size)

    @property
    def zero_rows(self) -> int:
        """Number of examples whose gradient is exactly zero in float64: they have no direction."""
        return int((self.gradient == 0).all(axis=1).sum())

    @property
    def row_cosine(self) -> float:
        """Mean cosine of the gradients of two different examples, rows of zeros left out; NaN for fewer than 2 rows."""
        return mean_cosine(self.gradient)

    @property
    def class_sums(self) -> Array:
        """Gradient of each class summed over the batch, shape (classes,); they add up to 0."""
        return np.asarray(self.gradient.sum(axis=0))

    @property
    def largest_class_share(self) -> float:
        """max|S_j|/Σ|S_j| of the `class_sums` S, at most 1/2, since they add up to 0."""
        sizes = np.abs(self.class_sums)
        return float(sizes.max() / sizes.sum()) if sizes.any() else float("nan")


def class_bias(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    y: Int[Tensor, " examples"],
    *,
    batch_stats: str | None = None,
) -> ClassBias:
    """Measure the gradient of each example's cross-entropy at the logits.

    Parameters
    ----------
    module
        Any network from inputs to logits; left as found.
    x, y
        Inputs (examples, ...) and their classes.
    batch_stats
        "batch", "running", or None for the module's own mode. The logits depend on the whole batch in the first case;
        the gradient at the logits is that of each example alone in both.

    Returns
    -------
    ClassBias

    Raises
    ------
    InvalidArgumentError
        For inputs or logits that are not finite, or labels that are no classes of the output.
    """
    check_batch(module, x, y)
    with probe(module, batch_stats), torch.no_grad():
        logits = module(x).double()
    if not bool(torch.isfinite(logits).all()):
        raise _checks.fail("module", "finite at x", "inf or NaN in its output")
    start = logits.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(cross_entropy(start, y, reduction="sum"), start)
    largest = logits.amax(1, keepdim=True)
    return ClassBias(
        gradient=gradient.cpu().numpy(),
        logits=logits.cpu().numpy(),
        predicted=logits.argmax(1).cpu().numpy(),
        tied=int(((logits == largest).sum(1) > 1).sum()),
    )


def mean_cosine(rows: Float[np.ndarray, "rows columns"]) -> float:
    """Return the mean cosine of two different rows, those of zeros left out; NaN for fewer than two.

    From the sum u of the n unit rows: Σ_{i≠j} ⟨u_i, u_j⟩ = ‖u‖² - n.
    """
    sizes = np.abs(rows).max(axis=1, keepdims=True)
    kept = rows[sizes[:, 0] > 0] / sizes[sizes[:, 0] > 0]  # so that squares do not underflow
    count = len(kept)
    if count < 2:
        return float("nan")
    total = (kept / np.linalg.norm(kept, axis=1, keepdims=True)).sum(axis=0)
    return float((total @ total - count) / (count * (count - 1)))
