"""The running average r ← (1 - m) r + m b of the means b of mini-batches, for weights that do not change.

After k steps the initial value has the weight (1 - m)^k and the batch of j steps ago w_j = m (1 - m)^j. If every batch
is drawn anew, the variance of r is Σ w_j² times that of b, which tends to m/(2 - m). If each epoch deals all examples
out into n batches, the b of an epoch sum to a constant: they have the correlation -1/(n - 1), and

    Var r = Var b · Σ_epochs [n Σ w_j² - (Σ w_j)²]/(n - 1),

the inner sums over the batches of an epoch. It is smaller: n(n + 1) m³/24 of Var b for small m
(docs/derivations/running_average.md).
"""

import numpy as np

from rmtbn import _checks


def initial_share(momentum: float, *, steps: int) -> float:
    """Return the weight (1 - m)^k that the initial value still has.

    Parameters
    ----------
    momentum
        m in (0, 1], the weight of the new value.
    steps
        k >= 0.

    Examples
    --------
    >>> round(initial_share(0.1, steps=10), 4)
    0.3487
    """
    m = _checks.real("momentum", momentum, above=0.0, at_most=1.0)
    return float((1 - m) ** _checks.integer("steps", steps, at_least=0))


def relative_noise(momentum: float, *, steps: int, batches_per_epoch: int | None = None) -> float:
    """Return the variance of the average over that of a batch mean.

    Parameters
    ----------
    momentum
        m in (0, 1].
    steps
        k >= 1; with epochs, the last of them may be unfinished.
    batches_per_epoch
        n >= 2 batches without a common example that make up all of them; None: every batch is drawn anew.

    Raises
    ------
    InvalidArgumentError
        If an argument is out of range.

    Examples
    --------
    >>> round(relative_noise(0.1, steps=1000), 6), round(0.1 / 1.9, 6)
    (0.052632, 0.052632)
    >>> relative_noise(1.0, steps=5, batches_per_epoch=4)  # the last batch alone
    1.0
    """
    m = _checks.real("momentum", momentum, above=0.0, at_most=1.0)
    steps = _checks.integer("steps", steps, at_least=1)
    weights = m * (1 - m) ** np.arange(steps - 1, -1, -1.0)
    if batches_per_epoch is None:
        return float(np.sum(weights**2))
    n = _checks.integer("batches_per_epoch", batches_per_epoch, at_least=2)
    starts = np.arange(0, steps, n)
    own = np.add.reduceat(weights**2, starts).sum()
    together = (np.add.reduceat(weights, starts) ** 2).sum()
    return float((n * own - together) / (n - 1))
