"""Where does a diverging step blow up? Figure 4 of Bjorck et al. 2018 (arXiv:1806.02375), section 3.2.

Training diverges at the first step whose mini-batch loss, before the step, is above 1e3 (the paper's rule) or not
finite. The update before it is then applied in parts, and the channels of some layers are looked at along the way.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from rmtbn import _checks, _modules
from rmtbn.measure.channel_moments import ChannelMoments, channel_moments
from rmtbn.measure.loss import check_batch, cross_entropy, loss_at, parameters_of
from rmtbn.measure.snapshot import left_as_found

Array = NDArray[np.float64]
Batch = tuple[Tensor, Tensor]

TENTHS = tuple(k / 10 for k in range(11))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FirstDivergence:
    """A short training run, up to its divergence or the end of its batches.

    Parameters
    ----------
    step
        Index of the first batch whose loss, before the step on it, is above the threshold or not finite: as many
        updates had been made. None if there was none.
    losses
        Loss of each batch before the step on it, shape (steps,); inf where not finite.
    before, after
        Parameters around the last update, by name; equal where no update was made.
    batch
        The inputs and classes of the last batch, on which the divergence was seen; None without any batch.
    """

    step: int | None
    losses: Array
    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]
    batch: Batch | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartialUpdates:
    """A network while one update is applied in parts.

    Parameters
    ----------
    fractions
        Parts of the update, shape (points,); 0 is before it and 1 after it.
    losses
        Mean cross-entropy, shape (points,); inf where not finite.
    moments
        For each part, the moments of the channels of each layer.
    """

    fractions: Array
    losses: Array
    moments: tuple[tuple[ChannelMoments, ...], ...]

    def channel_means(self, layer: str) -> Array:
        """Channel means of one layer, shape (points, channels): a heat map of Figure 4."""
        return np.stack([one.mean for one in self._of(layer)])

    def channel_log_variances(self, layer: str) -> Array:
        """Natural logs of the channel variances of one layer, shape (points, channels)."""
        return np.stack([one.log_variance for one in self._of(layer)])

    def _of(self, layer: str) -> list[ChannelMoments]:
        names = [one.layer for one in self.moments[0]]
        place = names.index(_checks.one_of("layer", layer, names))
        return [row[place] for row in self.moments]


def first_divergence(
    module: nn.Module,
    batches: Iterable[Batch],
    *,
    learning_rate: float,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    threshold: float = 1e3,
) -> FirstDivergence:
    """Train a copy by SGD until the loss of a batch is above a threshold or not finite.

    Parameters
    ----------
    module
        Any network from inputs to logits, in the mode it is to be trained in; left as found. Parameters that require
        no gradient are not trained.
    batches
        Inputs and classes, one pair per step; no more are taken than are needed.
    learning_rate
        Of every step, > 0.
    momentum, weight_decay
        Of `torch.optim.SGD`; 0.9 and 1e-4 as in the paper.
    threshold
        Loss above which training has diverged; 1e3 as in the paper, section 3.2.

    Returns
    -------
    FirstDivergence

    Raises
    ------
    InvalidArgumentError
        For a batch that is not finite, labels that are no classes, numbers out of range, or nothing to train.
    """
    if not any(p.requires_grad for p in module.parameters()):
        raise _checks.fail("module", "a network with parameters that require a gradient", type(module).__name__)
    rate = _checks.real("learning_rate", learning_rate, above=0.0)
    limit = _checks.real("threshold", threshold, above=0.0)
    momentum = _checks.real("momentum", momentum, at_least=0.0)
    decay = _checks.real("weight_decay", weight_decay, at_least=0.0)
    losses: list[float] = []
    seen: Batch | None = None
    with left_as_found(module), torch.enable_grad():
        student = copy.deepcopy(module)
        optimiser = torch.optim.SGD(student.parameters(), lr=rate, momentum=momentum, weight_decay=decay)
        before = after = _detached(student)
        for x, y in batches:
            check_batch(student, x, y)
            loss, seen = cross_entropy(student(x), y), (x, y)
            losses.append(float(loss.detach()) if bool(torch.isfinite(loss)) else float("inf"))
            if losses[-1] > limit:
                break
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            before, after = after, _detached(student)
    diverged = bool(losses) and losses[-1] > limit
    return FirstDivergence(
        step=len(losses) - 1 if diverged else None, losses=np.array(losses), before=before, after=after, batch=seen
    )


def partial_updates(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    y: Int[Tensor, " examples"],
    *,
    update: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    layers: Sequence[str],
    fractions: Sequence[float] | Array = TENTHS,
    batch_stats: str | None = None,
) -> PartialUpdates:
    """Measure the loss and the channels of some layers while an update is applied from 0 to 100 %.

    Parameters
    ----------
    module
        Any network from inputs to logits; left as found.
    x, y
        Inputs (examples, ...) and their classes.
    update
        Parameters by name before and after it, as `first_divergence` returns them.
    layers
        Names of the layers whose outputs are looked at.
    fractions
        Parts t of the update, w = (1-t)·before + t·after; from 0 to 1 by tenths if left out.
    batch_stats
        "batch", "running", or None for the module's own mode.

    Returns
    -------
    PartialUpdates
        Values that are not finite are reported as infinite, not refused.

    Raises
    ------
    InvalidArgumentError
        For unknown layers or parameters, or a batch that is not finite.
    """
    check_batch(module, x, y)
    before, after = update
    names = [_checks.one_of("update", name, parameters_of(module)) for name in before]
    parts = _checks.array("fractions", list(fractions))
    losses, moments = [], []
    for t in parts.tolist():
        weights = {name: torch.lerp(before[name], after[name], t) for name in names}
        losses.append(loss_at(module, x, y, parameters=weights, batch_stats=batch_stats))
        moments.append(_with_weights(module, weights, x, layers=layers, batch_stats=batch_stats))
    return PartialUpdates(fractions=parts, losses=np.array(losses), moments=tuple(moments))


class _Substituted(nn.Module):
    """A network run with other parameters; its layers are those of `network`, under that name."""

    def __init__(self, network: nn.Module, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.network = network
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        return _modules.call(self.network, self.weights, x)


def _with_weights(
    module: nn.Module, weights: Mapping[str, Tensor], x: Tensor, *, layers: Sequence[str], batch_stats: str | None
) -> tuple[ChannelMoments, ...]:
    """Look at the channels; the layers keep the names that they have in the module."""
    known = dict(module.named_modules())
    inside = ["network." + _checks.one_of("layers", name, known) for name in layers]
    found = channel_moments(_Substituted(module, weights), x, layers=inside, batch_stats=batch_stats)
    return tuple(
        ChannelMoments(layer=name, mean=one.mean, log_variance=one.log_variance)
        for name, one in zip(layers, found, strict=True)
    )


def _detached(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}
