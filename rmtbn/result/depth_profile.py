"""The second kind of result: a scalar per layer."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtbn import _checks

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DepthProfile:
    """A scalar per layer, measured or predicted.

    Parameters
    ----------
    depth
        Layer numbers, shape (points,), increasing; layer l is the output of the l-th weight layer, 0 the input.
    value
        The quantity per layer, shape (points,); its natural logarithm if `is_log`.
    se
        Standard error of `value` over networks; zeros for a prediction.
    symbol, label
        The field's letter and a short description for axes and tables.
    is_log
        Whether `value` (and so `se`) is the logarithm of the quantity, for what can leave the floating range.
    networks
        Number of networks behind `se`; 0 for a prediction.
    """

    depth: Array
    value: Array
    se: Array
    symbol: str
    label: str
    is_log: bool = False
    networks: int = 0

    def __post_init__(self) -> None:
        for name in ("depth", "value", "se"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        shapes = {self.depth.shape, self.value.shape, self.se.shape}
        if len(shapes) != 1 or self.depth.ndim != 1:
            raise _checks.fail("value", "one number per depth, with one standard error each", shapes)
        if not np.all(np.diff(self.depth) > 0):
            raise _checks.fail("depth", "increasing", self.depth.tolist())

    @classmethod
    def over_networks(
        cls, values: ArrayLike, *, depth: ArrayLike, symbol: str, label: str, is_log: bool = False
    ) -> "DepthProfile":
        """Average `values` of shape (networks, points) over the networks, with the standard error of the mean.

        One network gives no standard error: `se` is then infinite, so that no comparison can be significant. So it is
        where a value is infinite, such as the logarithm of the gradient of a dead network.
        """
        rows = np.asarray(values, dtype=np.float64)
        count = rows.shape[0]
        certain = np.isfinite(rows).all(axis=0) & (count > 1)
        se = np.full(rows.shape[1], np.inf)
        se[certain] = rows[:, certain].std(axis=0, ddof=min(1, count - 1)) / np.sqrt(count)
        return cls(
            depth=np.asarray(depth, dtype=np.float64),
            value=rows.mean(axis=0),
            se=se,
            symbol=symbol,
            label=label,
            is_log=is_log,
            networks=count,
        )
