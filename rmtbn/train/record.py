"""What happened in training, step by step and epoch by epoch."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

THRESHOLD, TIMES = 1e3, 10.0
REASONS = ("finished", "diverged", "stopped")


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochSummary:
    """One epoch, or what there was of it.

    Parameters
    ----------
    epoch
        1, 2, …
    step
        Steps done at its end.
    train_loss, train_accuracy
        Means over its mini-batches as they were trained on: before each step, in train mode, augmented.
    test_loss, test_accuracy
        At its end, with running statistics; NaN without test images.
    rate
        Of its last step.
    images_per_second
        Trained on, evaluation not counted, in wall time, by all processes together.
    """

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    rate: float
    images_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingRecord:
    """A training run, to its end, its divergence, or where it was stopped.

    Parameters
    ----------
    epochs
        One row per epoch, with the columns of `EpochSummary`.
    steps
        One row per step: step (0, 1, …), loss and accuracy of its mini-batch before the update, rate.
    diverged_at
        First step whose loss is not finite or above `limit`, or None. Nothing of later steps is in the tables.
    limit
        Loss that counts as divergence: 1e3 as in Bjorck et al. 2018, section 3.2; where training begins above 100,
        ten times where it begins.
    reason
        Why training ended: one of `REASONS`.
    """

    epochs: pd.DataFrame
    steps: pd.DataFrame
    diverged_at: int | None
    limit: float
    reason: str


class History:
    """The tables of a run while it goes on, and part of its checkpoint.

    Losses of a step stay on the device until `read`, so that a GPU need not be waited for at every step.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.accuracies: list[float] = []
        self.rates: list[float] = []
        self.epochs: list[EpochSummary] = []
        self.diverged_at: int | None = None
        self._pending: list[Tensor] = []
        self._pending_rates: list[float] = []

    @property
    def step(self) -> int:
        """Steps done, those that are not read yet too."""
        return len(self.losses) + len(self._pending)

    @property
    def limit(self) -> float:
        """Loss above which training has diverged."""
        return max(THRESHOLD, TIMES * self.losses[0]) if self.losses and math.isfinite(self.losses[0]) else THRESHOLD

    def add(self, loss_and_accuracy: Tensor, *, rate: float) -> None:
        """Take loss and accuracy of a step, shape (2,), on any device."""
        self._pending.append(loss_and_accuracy)
        self._pending_rates.append(rate)

    def pending(self) -> Tensor | None:
        """Return what is not read yet, shape (steps, 2), or None."""
        return torch.stack(self._pending) if self._pending else None

    def read(self, values: Tensor | None) -> None:
        """Read the pending steps, and look for a divergence among them.

        Parameters
        ----------
        values
            `pending()`, or its mean over the processes.
        """
        rows: list[list[float]] = [] if values is None else values.double().cpu().tolist()
        for (loss, accuracy), rate in zip(rows, self._pending_rates, strict=True):
            self.losses.append(loss if math.isfinite(loss) else math.inf)
            self.accuracies.append(accuracy)
            self.rates.append(rate)
            if self.losses[-1] > self.limit:
                self.diverged_at = len(self.losses) - 1
                break
        self._pending, self._pending_rates = [], []

    def means(self, *, since: int) -> tuple[float, float]:
        """Return the mean loss and accuracy of the steps from `since` on."""
        return float(np.mean(self.losses[since:])), float(np.mean(self.accuracies[since:]))

    def record(self, *, stopped: bool) -> TrainingRecord:
        """Return the tables."""
        steps = {"step": range(len(self.losses)), "loss": self.losses, "accuracy": self.accuracies, "rate": self.rates}
        columns = [field.name for field in fields(EpochSummary)]
        reason = "diverged" if self.diverged_at is not None else "stopped" if stopped else "finished"
        return TrainingRecord(
            epochs=pd.DataFrame([asdict(one) for one in self.epochs], columns=columns),
            steps=pd.DataFrame(steps),
            diverged_at=self.diverged_at,
            limit=self.limit,
            reason=reason,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what was read, as tensors and plain values."""
        table = torch.tensor([self.losses, self.accuracies, self.rates], dtype=torch.float64)
        return {"steps": table, "epochs": [asdict(one) for one in self.epochs], "diverged_at": self.diverged_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what `state_dict` returned."""
        self.losses, self.accuracies, self.rates = state_dict["steps"].tolist()
        self.epochs = [EpochSummary(**one) for one in state_dict["epochs"]]
        self.diverged_at = state_dict["diverged_at"]
        self._pending, self._pending_rates = [], []
