"""Newton's method on many equations in one unknown each, at once."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def newton(residual: Callable[[Array], tuple[Array, Array]], u: Array) -> Array:
    """Solve residual(u) = 0 entry by entry, for residuals nearly linear in u (the callers choose such variables).

    Parameters
    ----------
    residual
        Returns the values and their derivatives, entry by entry.
    u
        Where to start.

    Raises
    ------
    ArithmeticError
        If an entry has not settled after 60 steps.
    """
    for _ in range(60):
        value, slope = residual(u)
        step = value / slope
        u = u - step
        if np.all(np.abs(step) <= 1e-8 * (1 + np.abs(u))):  # the square of the step is the error left
            return u
    raise ArithmeticError(f"Newton's method did not settle: last steps up to {float(np.max(np.abs(step))):.3g}")
