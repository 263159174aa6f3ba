"""Growth of every direction along depth: finite-time Lyapunov spectra of networks, all layers in one pass.

The twins in theory are `rmtbn.theory.finite_width.lyapunov_exponents` (linear networks, Newman 1986) and ln χ₁ of the
mean field (or λ_G under batch normalisation) for the growth of the mean square.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.linalg import product as products
from rmtbn.linalg import product_values
from rmtbn.linalg.push_forward import push_forward
from rmtbn.measure import batch_statistics, network
from rmtbn.measure.ensemble import aligned
from rmtbn.measure.stacked_tangents import stacked_steps
from rmtbn.measure.tangents import in_double
from rmtbn.result import DepthProfile

Array = NDArray[np.float64]

# Depths looked at if none are named, evenly spread: each costs a few re-factorisations.
_POINTS = 20
_MEMORY = 2**30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Growth:
    """Log singular values of the Jacobians from the input to chosen depths.

    Parameters
    ----------
    after
        Names of the layers after which was looked.
    depth
        Number of layers with weights up to there, shape (points,).
    log_singular_values
        Natural logs, descending in the last axis, -inf for exact zeros, shape (networks, points, inputs) where the
        examples of a batch couple, else (networks · examples, points, inputs).
    relative_error
        Estimated relative error of the singular values, shape (points,).
    batch_stats
        "batch", "running", or None without batch normalisation.
    """

    after: tuple[str, ...]
    depth: Array
    log_singular_values: Array
    relative_error: Array
    batch_stats: str | None

    @property
    def exponents(self) -> Array:
        """Finite-time Lyapunov exponents log σ_k(J_l) / l, of the shape of `log_singular_values`."""
        return self.log_singular_values / self.depth[:, None]

    @property
    def local_exponents(self) -> Array:
        """Growth per layer of each σ_k between one depth and the next, from 1 at the input; NaN between zeros."""
        values = self.log_singular_values
        before = np.concatenate([np.zeros_like(values[:, :1]), values[:, :-1]], axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (values - before) / np.diff(self.depth, prepend=0.0)[:, None]

    @property
    def log_mean_square(self) -> Array:
        """Log of the mean of σ² over the inputs, shape (networks, points): grows by ln χ₁ per layer in mean field."""
        values = self.log_singular_values
        return np.asarray(logsumexp(2.0 * values, axis=-1) - np.log(values.shape[-1]))

    def profile(self, k: int) -> DepthProfile:
        """Return the k-th exponent against depth, k from 1 (the largest), as a mean over networks with its error."""
        k = _checks.integer("k", k, at_least=1, at_most=self.log_singular_values.shape[-1])
        rows = self.exponents[..., k - 1]
        symbol, label = f"λ_{k}(l)", f"finite-time Lyapunov exponent {k}"
        return DepthProfile.over_networks(rows, depth=self.depth, symbol=symbol, label=label, is_log=False)


def growth(
    modules: Sequence[nn.Module],
    x: Float[Tensor, "examples ..."],
    *,
    after: Sequence[str] | None = None,
    batch_stats: str | None = None,
    memory_budget: int = _MEMORY,
) -> Growth:
    """Measure how every direction at the input grows with depth, in one pass through the networks.

    Parameters
    ----------
    modules
        Networks of one architecture, dtype and device, left as found; `[module]` for a single one.
    x
        Inputs (B, ...features), the same for all.
    after
        Names of layers, in any order; if left out, 20 depths evenly spread (all, if there are no more), each at the
        last layer before one with weights.
    batch_stats
        "batch", "running", or None for the modules' own mode.
    memory_budget
        Bytes that tangents may take in flight in layers without a rule of their own.

    Returns
    -------
    Growth

    Raises
    ------
    InvalidArgumentError
        As `rmtbn.measure.ensemble_jacobian.ensemble_spectrum`, and if `after` is empty or names no layer.
    """
    budget = _checks.integer("memory_budget", memory_budget, at_least=1)
    layers = aligned(modules)
    network.check_input(modules[0], x)
    weighted = np.cumsum([any(p.ndim > 1 for p in same[0].parameters()) for _, same in layers]).astype(np.float64)
    ends = _ends([name for name, _ in layers], weighted, after)
    statistics = batch_statistics.resolve(modules[0], batch_stats)
    with network.layer_by_layer(modules[0], statistics):
        network.check_output(modules[0], x)
        coupled = statistics == "batch" or network.couples(modules[0], x)
        segments = [[same for _, same in layers[a:b]] for a, b in zip([0, *ends], ends, strict=False)]
        logs, errors = _followed(segments, x, coupled=coupled, budget=budget)
    return Growth(
        after=tuple(layers[end - 1][0] for end in ends),
        depth=np.maximum(weighted[np.array(ends) - 1], 1.0),
        log_singular_values=logs,
        relative_error=errors,
        batch_stats=statistics,
    )


def _ends(names: list[str], weighted: Array, after: Sequence[str] | None) -> list[int]:
    """Count the layers up to and with each that is looked after, ascending."""
    if after is not None:
        if not after:
            raise _checks.fail("after", "one or more names of layers", after)
        return sorted({names.index(_checks.one_of("after", name, names)) + 1 for name in after})
    last = [i + 1 for i in range(len(names)) if i + 1 == len(names) or weighted[i + 1] > max(1, weighted[i])]
    chosen = np.unique(np.linspace(0, len(last) - 1, min(_POINTS, len(last))).round().astype(int))
    return [last[i] for i in chosen]


def _followed(segments: list[list[list[nn.Module]]], x: Tensor, *, coupled: bool, budget: int) -> tuple[Array, Array]:
    """Log singular values (groups, points, inputs) and their errors (points,), by re-factorised push-forward."""
    count, examples = len(segments[0][0]), 1 if coupled else len(x)
    inputs = x.numel() // examples
    single = in_double((same[0] for segment in segments for same in segment), x)
    x = x.double() if single else x
    product = products.identity(inputs, batch=(count * examples,), dtype=x.dtype, device=x.device, single=single)
    point = x.expand(count, *x.shape).clone()  # jvp refuses memory that is shared
    rows, errors = [], []
    for layers in segments:
        product, point = push_forward(product, point, stacked_steps(layers, coupled=coupled, memory_budget=budget))
        found = product_values.log_singular_values(product)
        missing = inputs - found.values.shape[-1]
        rows.append(torch.nn.functional.pad(found.values, (0, missing), value=-torch.inf).numpy())
        errors.append(float(found.relative_error.max()))
    return np.stack(rows, axis=1), np.array(errors)
