"""The third kind of result: a number with its error."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A number with its standard error (measured, over networks) or stated accuracy (predicted)."""

    value: float
    se: float
    symbol: str
    label: str
    networks: int = 0

    @classmethod
    def over_networks(cls, values: ArrayLike, *, symbol: str, label: str) -> "Scalar":
        """Average one value per network, with the standard error of the mean (infinite for a single network)."""
        numbers = np.asarray(values, dtype=np.float64)
        se = float(numbers.std(ddof=1) / np.sqrt(numbers.size)) if numbers.size > 1 else float("inf")
        return cls(value=float(numbers.mean()), se=se, symbol=symbol, label=label, networks=int(numbers.size))
