"""The spread s = q(1 - c) that a layer with ε > 0 reproduces."""

import math
from collections.abc import Callable

from scipy import optimize

from rmtbn import _checks

# Of s, from above: a spread below 1e-6 of the largest, for which ε is within about 1e-6 of what lets none live, counts
# as none. Far below, the noise of an interpolated map (1e-17) would pass for a spread.
_HALVINGS = 20
_LARGEST = 1e30


def largest_root(next_spread: Callable[[float], float], *, name: str, value: float) -> float:
    """Find the largest s > 0 with next_spread(s) = s; next_spread rises with s and is bounded.

    Raises
    ------
    InvalidArgumentError
        If there is none: ε is so large that the spread over the batch falls to 0 layer by layer; `name` and `value` say
        whose fault it is.
    """

    def excess(log_spread: float) -> float:
        return math.log(next_spread(math.exp(log_spread))) - log_spread

    high = next_spread(_LARGEST) * (1 + 1e-9)
    for _ in range(_HALVINGS):
        low = high / 2
        if next_spread(low) > low:
            return math.exp(optimize.brentq(excess, math.log(low), math.log(high), xtol=1e-14))
        high = low
    raise _checks.fail(name, "so small that the spread over the batch does not die out", value)
