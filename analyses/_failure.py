"""When a scheme has failed: the first depth at which something needed for training leaves its range."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

# A gradient norm or signal that has changed by 10³ cannot be followed by one learning rate; a condition number of 10⁶
# exhausts float32; inputs correlated beyond 0.99 are alike to every later layer.
RANGE = math.log(1e3)
CONDITION = math.log(1e6)
CORRELATION = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A criterion and the first depth at which it fails; how it does, in one word or two."""

    criterion: str
    depth: int
    how: str


def failures(rows: pd.DataFrame) -> list[Failure]:
    """List the criteria that fail, earliest first.

    Parameters
    ----------
    rows
        One row per depth, ascending from 1: columns depth, log_gradient (of the squared norm), log_q, log_condition and
        correlation, averaged over networks.
    """
    gradient = (rows.log_gradient - rows.log_gradient.iloc[0]) / 2
    signal = rows.log_q - rows.log_q.iloc[0]
    tests = (
        ("gradient", gradient < -RANGE, "gradient vanishes"),
        ("gradient", gradient > RANGE, "gradient explodes"),
        ("signal", signal < -RANGE, "signal vanishes"),
        ("signal", signal > RANGE, "signal explodes"),
        ("conditioning", rows.log_condition > CONDITION, "ill-conditioned"),
        ("correlation", rows.correlation > CORRELATION, "inputs become alike"),
    )
    found = [
        Failure(criterion=criterion, depth=int(rows.depth[failed].iloc[0]), how=how)
        for criterion, failed, how in tests
        if np.any(failed)
    ]
    return sorted(found, key=lambda failure: failure.depth)
