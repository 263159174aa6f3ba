"""What a comparison concludes, and the deviation of one measured number from its prediction."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rmtbn.result import Scalar

Array = NDArray[np.float64]
Verdict = Literal["agrees", "agrees to order 1/N", "rejected", "undecided"]

LEVEL = 0.01  # a p-value below this is a disagreement


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A measured number, its standard error over networks, what was predicted, and the z-score.

    `z` is None where one of them is not finite (a moment that diverges, a single network): it cannot be judged then.
    """

    measured: float
    se: float
    predicted: float
    z: float | None


def judge(pvalue: float | None, *, exceeds: bool) -> Verdict:
    """Turn a p-value (None: one network) and whether the finite-size allowance is exceeded into a verdict."""
    if pvalue is None:
        return "undecided"
    if pvalue >= LEVEL:
        return "agrees"
    return "rejected" if exceeds else "agrees to order 1/N"


def deviation(per_network: Array, predicted: float) -> Deviation:
    """Compare the mean of one value per network with a prediction."""
    with np.errstate(invalid="ignore"):  # an infinite value has no spread; z says so
        one = Scalar.over_networks(per_network, symbol="", label="")
    judged = np.isfinite([one.value, one.se, predicted]).all()
    difference = one.value - predicted if judged else 0.0
    if judged and one.se == 0:  # the same in every network, such as the number of structural zeros
        same = abs(difference) <= 1e-12 * max(1.0, abs(predicted))
        z = 0.0 if same else float(np.copysign(np.inf, difference))
        return Deviation(measured=one.value, se=0.0, predicted=predicted, z=z)
    return Deviation(measured=one.value, se=one.se, predicted=predicted, z=difference / one.se if judged else None)
