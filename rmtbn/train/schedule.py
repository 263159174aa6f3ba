"""Learning rates along training: the factor by which the first rate is multiplied."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from rmtbn import _checks

PATIENCE = 10  # epochs without progress, and what counts as progress: defaults of torch's ReduceLROnPlateau
LEAST_PROGRESS = 1e-4
DROP = 0.1


def step(done: float) -> float:
    """Return 1, from half of training on 1/10, from three quarters on 1/100 (He et al. 2015, Bjorck et al. 2018)."""
    return 1.0 if done < 0.5 else DROP if done < 0.75 else 0.01


def constant(_done: float) -> float:
    """Return 1."""
    return 1.0


def cosine(done: float) -> float:
    """Return (1 + cos πt)/2 (Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5, without restarts)."""
    return (1 + math.cos(math.pi * done)) / 2


class Plateau:
    """Divide the rate by 10 when the training loss of an epoch was not below 1 - 1e-4 of the best for 11 epochs.

    The rule of `torch.optim.lr_scheduler.ReduceLROnPlateau` with its defaults, as a factor instead of in an optimiser.
    """

    def __init__(self) -> None:
        self.factor, self.best, self.bad_epochs = 1.0, math.inf, 0

    def see(self, loss: float) -> None:
        """Take the training loss of an epoch."""
        better = loss < self.best * (1 - LEAST_PROGRESS)
        self.best, self.bad_epochs = (loss, 0) if better else (self.best, self.bad_epochs + 1)
        if self.bad_epochs > PATIENCE:
            self.factor, self.bad_epochs = self.factor * DROP, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        return {"factor": self.factor, "best": self.best, "bad_epochs": self.bad_epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state."""
        self.factor, self.best = float(state_dict["factor"]), float(state_dict["best"])
        self.bad_epochs = int(state_dict["bad_epochs"])


def factor(schedule: str, *, done: float, plateau: Plateau) -> float:
    """Return the factor of a schedule.

    Parameters
    ----------
    schedule
        A name in `SCHEDULES`.
    done
        Share of the steps that are done, in [0, 1].
    plateau
        What "plateau" has seen; the others do not look at it.
    """
    law = SCHEDULES[_checks.one_of("schedule", schedule, SCHEDULES)]
    return plateau.factor if law is None else law(done)


# By the share of training that is done; None: by what the loss did.
SCHEDULES: Mapping[str, Callable[[float], float] | None] = MappingProxyType(
    {"step": step, "constant": constant, "cosine": cosine, "plateau": None}
)
