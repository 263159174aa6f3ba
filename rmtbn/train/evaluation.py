"""Loss and accuracy with running statistics and with those of each batch, and what the running ones get wrong."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.train.batchnorm import initial_shares, using
from rmtbn.train.channel_moments import centred, gathered, tracking_norms

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How a network does on some examples.

    Parameters
    ----------
    loss
        Mean cross-entropy, nats; inf where it is not finite.
    accuracy
        Share of examples put in their class; outputs that are not finite are in none.
    examples
        How many there were.
    batch_stats
        "running" or "batch": what batch normalisation used.
    """

    loss: float
    accuracy: float
    examples: int
    batch_stats: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainEvalGap:
    """The same network and examples with batch statistics, as in train mode, and with running ones, as in eval mode.

    Parameters
    ----------
    batch, running
        The two evaluations.
    """

    batch: Evaluation
    running: Evaluation

    @property
    def loss(self) -> float:
        """Loss with running statistics minus loss with those of each batch, nats; NaN if both are infinite."""
        return self.running.loss - self.batch.loss

    @property
    def accuracy(self) -> float:
        """Accuracy with batch statistics minus accuracy with running ones."""
        return self.batch.accuracy - self.running.accuracy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StatisticsGap:
    """Running statistics against the true moments of what enters each layer.

    Parameters
    ----------
    layers
        Names of the layers of batch normalisation.
    mean_shift
        √ mean_c (running mean - mean)²/(variance + ε), per layer: in standard deviations.
    log_variance_ratio
        √ mean_c ln²((running variance + ε)/(variance + ε)), per layer.
    initial_share
        (1 - m)^k, what is still the initial value, per layer.
    batch_stats
        What the layers before used while the moments were taken.
    """

    layers: tuple[str, ...]
    mean_shift: Float[np.ndarray, " layers"]
    log_variance_ratio: Float[np.ndarray, " layers"]
    initial_share: Float[np.ndarray, " layers"]
    batch_stats: str


@torch.no_grad()
def evaluate(module: nn.Module, batches: Iterable[Batch], *, batch_stats: str = "running") -> Evaluation:
    """Measure loss and accuracy in eval mode, batch normalisation on the statistics named; the network stays as it is.

    Parameters
    ----------
    module
        From inputs to logits.
    batches
        Inputs and their classes, on the device of the network.
    batch_stats
        "running"; or "batch", by which the result depends on how the examples are put into batches.

    Raises
    ------
    InvalidArgumentError
        If there are no examples, or the statistics named cannot be used.
    """
    loss, right, examples = 0.0, 0, 0
    with using(module, batch_stats):
        for x, y in batches:
            outputs = module(x).double()
            loss += float(nn.functional.cross_entropy(outputs, y, reduction="sum"))
            right += int(((outputs.argmax(1) == y) & torch.isfinite(outputs).all(1)).sum())
            examples += len(y)
    if examples == 0:
        raise _checks.fail("batches", "one or more examples (an iterator can be walked once: give a list)", examples)
    mean = loss / examples if math.isfinite(loss) else math.inf
    return Evaluation(loss=mean, accuracy=right / examples, examples=examples, batch_stats=batch_stats)


def train_eval_gap(module: nn.Module, batches: Iterable[Batch]) -> TrainEvalGap:
    """Evaluate a network with the statistics of each batch and with the running ones, on the same batches.

    Parameters
    ----------
    module
        From inputs to logits.
    batches
        Inputs and their classes; walked through twice, so a list or a loader and no iterator.
    """
    batch = evaluate(module, batches, batch_stats="batch")
    return TrainEvalGap(batch=batch, running=evaluate(module, batches, batch_stats="running"))


@torch.no_grad()
def statistics_gap(module: nn.Module, batches: Iterable[Tensor], *, batch_stats: str = "running") -> StatisticsGap:
    """Compare the running statistics of each layer with the moments of what enters it, over all examples together.

    Parameters
    ----------
    module
        A network with torch's own batch normalisation; left as found.
    batches
        Inputs.
    batch_stats
        What the layers use in the meantime: "running" gives the moments of the network as it is evaluated, "batch"
        those of the network as it is trained.

    Raises
    ------
    InvalidArgumentError
        If there are no layers with running statistics, or no inputs, or a norm is of another class.
    """
    norms = centred(tracking_norms(module))
    if not norms:
        raise _checks.fail("module", "a network with running statistics", type(module).__name__)
    with using(module, batch_stats), gathered(norms) as found:
        for x in batches:
            module(x)
    if not found:
        raise _checks.fail("batches", "one or more batches of inputs (an iterator can be walked once)", 0)
    shifts, ratios = [], []
    for name, moments in found.items():
        norm = norms[name]
        spread = moments.unbiased_variance + norm.eps
        shifts.append(_rms((_double(norm.running_mean) - moments.mean) / spread.sqrt()))
        ratios.append(_rms(((_double(norm.running_var) + norm.eps) / spread).log()))
    shares = initial_shares(module)
    return StatisticsGap(
        layers=tuple(found),
        mean_shift=np.array(shifts),
        log_variance_ratio=np.array(ratios),
        initial_share=np.array([shares[name] for name in found]),
        batch_stats=batch_stats,
    )


def _double(running: Tensor | None) -> Tensor:
    return torch.zeros(()) if running is None else running.double()


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
