"""All singular values of the Jacobian of all outputs of a batch by all its inputs.

With batch statistics the examples couple, and J is B·m × B·n. It maps 1 ⊗ v, one change of every example alike, to
zero, so that the space on which there is something to see is 1^⊥, of n = B - 1 contrasts per feature
(`rmtbn.measure.contrasts`). The twins in theory are `rmtbn.theory.bn_mean_field.batch_jacobian_law` and `zero_share`.
Its per-sample blocks are measured in `rmtbn.measure.batch_blocks`, what does not fit in memory in
`rmtbn.measure.batch_probes`. Derivation: docs/derivations/batch_norm_jacobian.md.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Float
from scipy import linalg
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.linalg import dense, product_values
from rmtbn.linalg import product as products
from rmtbn.linalg.push_forward import Step, push_forward
from rmtbn.measure import batch_leaks, batch_statistics
from rmtbn.measure.contrasts import Chain, chained
from rmtbn.result import EmpiricalSpectrum

SPACES = ("centred", "whole")
# Log amplification above which two layers are re-factorised one by one: Gaussian weights at N = 128 give 10.0 to 13.3
# (linear and tanh networks of 8 layers), and a stated error of 5e-9 and 3e-8.
_PAIR = 13.5
_COLUMNS = 256  # of the identity that are pushed at a time where J is assembled


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchSpectrum:
    """Singular values of a batch Jacobian, with its two kinds of zeros apart.

    Parameters
    ----------
    spectrum
        One network (one row): (B - 1)·m values on 1^⊥, or B·m of the whole matrix.
    zeros
        How many are exactly zero. In float32, leaks of 1e-6 of the others and less may be among them.
    leaked
        How many are not zero but tend to it as ε → 0: the scale of a feature passes a layer with γ ε/(v + ε)^{3/2}.
        Counted by the layer of lowest rank at ε = 0, and so a lower bound; equal to it but for a few units in small
        ReLU networks.
    space
        "centred" or "whole".
    """

    spectrum: EmpiricalSpectrum
    zeros: int
    leaked: int
    space: str

    @property
    def without_leak(self) -> EmpiricalSpectrum:
        """The spectrum with the leaked values as the zeros they are at ε → 0, which is what the theory speaks of."""
        row = self.spectrum.by_network[0].copy()
        kept = row.size - self.zeros - self.leaked
        row[kept:] = -np.inf
        found = self.spectrum
        return EmpiricalSpectrum(
            by_network=row[None],
            relative_error=found.relative_error,
            method=found.method,
            batch_stats=found.batch_stats,
            log_floor=found.log_floor,
            reason=found.reason,
        )


def spectrum(module: nn.Module, x: Tensor, *, space: str = "centred", method: str = "product") -> BatchSpectrum:
    """Measure all singular values of the batch Jacobian, with batch statistics.

    A linear layer costs 2 B² N³ operations; re-factorisations cost some 3 (BN)³ by "product", one for two layers where
    leaks lie apart (`rmtbn.measure.batch_leaks`) and else one a layer, the singular values 3 to 6 (BN)³ once.

    Parameters
    ----------
    module
        The network, from a batch (B, N) to (B, N'), left bit for bit as it is found: no running statistic moves.
    x
        The batch, of B >= 2 examples and the module's dtype and device.
    space
        "centred": C J Cᵀ, that is d(G f)/dx on 1^⊥, G = I - 11ᵀ/B. "whole": J.
    method
        "product": every value right, however small (`rmtbn.linalg.product`). "dense": assemble and take the SVD, in a
        third of the time and less memory; values below max(m, n) eps of the largest are censored.

    Returns
    -------
    BatchSpectrum

    Raises
    ------
    InvalidArgumentError
        As `rmtbn.measure.jacobian.spectrum`, for an unknown name, or inputs with dimensions of space.

    Examples
    --------
    >>> found = spectrum(nn.BatchNorm1d(1, eps=1e-6).double(), torch.tensor([[0.0], [1.0], [5.0]]).double())
    >>> found.zeros, found.leaked, found.space
    (0, 1, 'centred')
    """
    _checks.one_of("space", space, SPACES)
    measure = METHODS[_checks.one_of("method", method, METHODS)]
    with chained(module, x, centred=space == "centred") as links:
        logs, error, floor = measure(links, x)
        outputs = links.outputs * (len(x) - (space == "centred"))
        rank, cut = links.rank, links.rank_without_eps
    values = np.full(outputs, -np.inf)
    values[: min(rank, logs.size)] = logs[: min(rank, logs.size)]
    zeros = int(np.isneginf(values).sum())
    found = EmpiricalSpectrum(
        by_network=values[None],
        relative_error=error,
        method=method,
        batch_stats=batch_statistics.resolve(module, "batch"),
        log_floor=None if floor is None else np.array([floor]),
        reason=f"as asked; {links.end_rows} × {links.start_rows}, on {'1^⊥' if space == 'centred' else 'all examples'}",
    )
    return BatchSpectrum(spectrum=found, zeros=zeros, leaked=max(0, outputs - zeros - cut), space=space)


def _by_product(links: Chain, x: Tensor) -> tuple[np.ndarray, float, float | None]:
    """Log singular values by re-factorised push-forward, their relative error, and no floor."""
    steps = _steps(links)
    if links.rank < links.start_rows:
        start = products.identity(links.start_rows, batch=(1,), dtype=x.dtype, device=x.device)
        return *_values(push_forward(start, x, steps, wanted=False)[0]), None
    apart = batch_leaks.leaks(links, like=x)
    if apart is not None:
        others, error = _values(_in_pairs(batch_leaks.on(apart.others), steps))
        if others.size == apart.others.shape[1] and others[-1] - float(apart.log_values[0]) >= batch_leaks.GAP:
            logs = np.concatenate([others, apart.log_values.numpy()])
            return logs, max(error, apart.relative_error), None
    product = products.identity(links.start_rows, batch=(1,), dtype=x.dtype, device=x.device)
    for step in steps:  # ε makes every layer worth a re-factorisation of its own
        product = products.push(product, _moved(step, product.u), exact=False)  # of U only its image is used
    return *_values(product), None


def _in_pairs(product: products.Product, steps: Sequence[Step]) -> products.Product:
    """Push two steps at a time where they do not amplify rounding too much."""
    for first in range(0, len(steps), 2):
        pair = steps[first : first + 2]
        last = first + len(pair) == len(steps)  # of its U nothing is used
        once = _moved(pair[0], product.u)
        ahead = product
        if len(pair) == 2:
            both = _moved(pair[1], once)
            ahead = products.push(product, both, exact=last, wanted=not last, limit=_PAIR)
        if ahead.pushes == product.pushes:
            ends = last and len(pair) == 1
            ahead = products.push(product, once, exact=ends, wanted=not ends)
            ahead = (
                products.push(ahead, _moved(pair[1], ahead.u), exact=last, wanted=not last) if len(pair) == 2 else ahead
            )
        product = ahead
    return product


def _moved(step: Step, columns: Float[Tensor, "1 before r"]) -> Float[Tensor, "1 after r"]:
    """Apply the maps of a step, which look at no point."""
    return functools.reduce(lambda moved, move: move(moved, moved)[1], step, columns)


def _values(product: products.Product) -> tuple[np.ndarray, float]:
    found = product_values.log_singular_values(product)
    return found.values[0].numpy(), float(found.relative_error[0])


def _steps(links: Chain) -> list[Step]:
    """Cut the maps where weights begin: what follows until the next is not worth a re-factorisation of its own."""
    moves = [batch_leaks.tangent_map(move) for move in links.maps]
    cuts = [0, *(place for place in links.begins if place > 0), len(moves)]
    return [moves[a:b] for a, b in pairwise(cuts)]


def _by_dense(links: Chain, x: Tensor) -> tuple[np.ndarray, float, float | None]:
    """Log singular values of the assembled matrix, the relative error at the floor, and the floor."""
    matrix = assembled(links, x)
    share = dense.unresolved_below(matrix)
    values = _values_in_place(matrix)
    with np.errstate(divide="ignore"):
        logs = np.log(values)
    floor = float(logs[0]) + math.log(share)
    known = logs[logs > floor]
    error = share * math.exp(float(logs[0] - known[-1])) if known.size else 0.0
    return logs, error, floor if math.isfinite(floor) else None


def assembled(links: Chain, x: Tensor) -> Float[Tensor, "end start"]:
    """Assemble the Jacobian of a chain, some columns at a time; each column lies in one piece of memory."""
    matrix = torch.empty(links.start_rows, links.end_rows, dtype=x.dtype, device=x.device).mT
    for first in range(0, links.start_rows, _COLUMNS):
        stop = min(first + _COLUMNS, links.start_rows)
        columns = torch.zeros(links.start_rows, stop - first, dtype=x.dtype, device=x.device)
        columns[first:stop].fill_diagonal_(1.0)
        matrix[:, first:stop] = links.apply(columns)
    return matrix


def _values_in_place(matrix: Float[Tensor, "m n"]) -> np.ndarray:
    """Singular values of a matrix that is not needed any more: on the CPU without a copy of it."""
    if matrix.device.type != "cpu":
        return dense.singular_values(matrix)[0].numpy()
    try:
        return np.asarray(linalg.svdvals(matrix.numpy(), overwrite_a=True, check_finite=False), dtype=np.float64)
    except np.linalg.LinAlgError as error:
        raise RuntimeError('the SVD did not converge; use method "product"') from error


METHODS: Mapping[str, Callable[[Chain, Tensor], tuple[np.ndarray, float, float | None]]] = MappingProxyType(
    {"product": _by_product, "dense": _by_dense}
)
