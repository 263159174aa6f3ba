"""Explosion rate of gradients: by what factor they, and the Jacobian, grow per layer, many networks in one pass.

A random cotangent at the output is pulled back to every layer, and a random tangent at the input pushed to every layer:
averaged over their draws ‖Jᵀv‖² and ‖Jv‖² are ‖J‖_F² but for a constant. Their logarithms are followed, so that depth
does not matter.
Two numbers are read off the inner layers, and they differ:

- the *rate*, the mean of ‖g^{l-1}‖²/‖g^l‖² over layers and networks: growth of the mean square, the twin of λ_G
  (`rmtbn.theory.bn_mean_field`) and, without normalisation, of χ₁;
- the *typical rate*, exp of the slope of ln ‖g^l‖² in l: growth of one network, lower by half the variance of the
  logarithm of a ratio, which is of order 1/N. The logarithms are a random walk in l, so that the best slope by least
  squares (generalised, for such errors) is the one through the two ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.measure.ensemble import aligned, pushed
from rmtbn.measure.ensemble_gradients import pull_back
from rmtbn.measure.ensemble_tangents import push_on
from rmtbn.result import DepthProfile, Scalar

Array = NDArray[np.float64]

_MEMORY = 2**30  # bytes: an eighth of a machine of 8 GB


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explosion:
    """Squared norms of a cotangent and of a tangent at every layer with weights, arrays of shape (networks, layers).

    Parameters
    ----------
    layers
        Names of the layers.
    log_gradient
        ln ‖∂ℓ/∂h^l‖² for the output h^l of each, ℓ a random linear function of the network's output.
    log_jacobian
        ln ‖J_l v‖², J_l the Jacobian from the inputs to h^l and v a random unit tangent; over v in the mean
        ‖J_l‖_F² divided by the number of inputs.
    edge
        Layers left out at each end of the network before rates are read off.
    """

    layers: tuple[str, ...]
    log_gradient: Array
    log_jacobian: Array
    edge: int

    @property
    def gradient_steps(self) -> Array:
        """Growth of ln ‖∂ℓ/∂h‖² from an inner layer to the one before it, shape (networks, inner layers - 1)."""
        return -self._steps(self.log_gradient)

    @property
    def jacobian_steps(self) -> Array:
        """Growth of ln ‖J v‖² from an inner layer to the one after it, shape (networks, inner layers - 1)."""
        return self._steps(self.log_jacobian)

    def gradient_rate(self) -> Scalar:
        """Return the mean growth of the squared gradient norm per layer, towards the input."""
        return _rate(self.gradient_steps, symbol="λ_G", label="growth of the squared gradient norm per layer")

    def jacobian_rate(self) -> Scalar:
        """Return the mean growth of ‖J‖_F² per layer."""
        return _rate(self.jacobian_steps, symbol="λ_G", label="growth of the squared norm of J per layer")

    def typical_gradient_rate(self) -> Scalar:
        """Return the growth of the squared gradient norm of a typical network, exp of the slope of its logarithm."""
        return _typical(self.gradient_steps, symbol="λ_G (typical)", label="growth of a typical squared gradient norm")

    def typical_jacobian_rate(self) -> Scalar:
        """Return the growth of ‖J v‖² of a typical network."""
        return _typical(self.jacobian_steps, symbol="λ_G (typical)", label="growth of a typical squared norm of J")

    def gradient_power(self) -> Scalar:
        """Return a of ‖g^l‖² ∝ (L/l)^a between the ends of the inner layers: the growth of residual networks."""
        first, last = self.edge + 1, len(self.layers) - self.edge
        slopes = self.gradient_steps.sum(axis=1) / np.log(last / first)
        return _over_finite(slopes, symbol="a", label="exponent of the squared gradient norm in depth")

    def profile(self) -> DepthProfile:
        """Return ln ‖∂ℓ/∂h^l‖² against that at the last layer, over networks."""
        values = self.log_gradient - self.log_gradient[:, -1:]
        depth = np.arange(1.0, values.shape[1] + 1)
        return DepthProfile.over_networks(
            values, depth=depth, symbol="‖g‖²", label="squared gradient norm", is_log=True
        )

    def _steps(self, values: Array) -> Array:
        with np.errstate(invalid="ignore"):  # -inf - -inf, of gradients that have died, is NaN
            return np.asarray(np.diff(values[:, self.edge : len(self.layers) - self.edge], axis=1))


def explosion(
    modules: Sequence[nn.Module],
    x: Float[Tensor, "examples ..."],
    *,
    generator: torch.Generator,
    edge: int | None = None,
    batch_stats: str | None = None,
    memory_budget: int = _MEMORY,
) -> Explosion:
    """Measure how gradients and the Jacobian grow per layer, with batch normalisation of any batch, or without.

    Parameters
    ----------
    modules
        Networks of one architecture, left as found, of at least 4 layers with weights (a residual block is one layer).
    x
        Inputs (examples, ...features), the same for all.
    generator
        Source of the tangents and cotangents, on the CPU; each network has its own.
    edge
        Layers to leave out at each end; a fifth of them, at least one, if left out. At the input the batch has not
        come to its fixed point, at the output the cotangent has not come to its own covariance.
    batch_stats
        "batch", "running", or None for the modules' own mode.
    memory_budget
        Bytes for the networks in flight, of which the layers' inputs are kept; as many go together as fit.

    Returns
    -------
    Explosion

    Raises
    ------
    InvalidArgumentError
        As `rmtbn.measure.ensemble.pushed`, and if fewer than two layers are left between the ends.

    Notes
    -----
    The standard errors of all rates are over networks, those whose gradients have not died on the way. Under batch
    normalisation of B <= 5 examples they mean nothing: a ratio has infinite variance then.
    """
    budget = _checks.integer("memory_budget", memory_budget, at_least=1)
    names = [name for name, same in aligned(modules) if any(p.ndim > 1 for p in same[0].parameters())]
    left_out = _edge(edge, len(names))
    seeds = torch.randint(2**62, (len(modules),), generator=generator).tolist()
    together = max(1, budget // _bytes(modules, x))
    chunks = [slice(i, i + together) for i in range(0, len(modules), together)]
    found = [_measured(modules[some], x, seeds=seeds[some], batch_stats=batch_stats) for some in chunks]
    gradients, jacobians = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Explosion(layers=tuple(names), log_gradient=gradients, log_jacobian=jacobians, edge=left_out)


def _edge(edge: int | None, layers: int) -> int:
    chosen = max(1, layers // 5) if edge is None else _checks.integer("edge", edge, at_least=0)
    if layers - 2 * chosen < 2:
        raise _checks.fail("edge", f"such that 2 of the {layers} layers with weights are between the ends", chosen)
    return chosen


def _bytes(modules: Sequence[nn.Module], x: Tensor) -> int:
    """Bytes that one network takes in flight if its layers are as large as its input."""
    layers = len(aligned(modules))
    return x.element_size() * (2 * layers * x.numel() + sum(p.numel() for p in modules[0].parameters()))


def _measured(
    modules: Sequence[nn.Module], x: Tensor, *, seeds: Sequence[int], batch_stats: str | None
) -> tuple[Array, Array]:
    """Log squared norms of cotangents and of unit tangents, (networks, layers) each."""
    with pushed(modules, x, batch_stats=batch_stats) as layers:
        visited, jacobians = [], []
        for state, logs in push_on(layers, _directions(seeds, x, stream=0)):
            visited.append(state)
            if state.has_weight:
                jacobians.append(logs)
        gradients = pull_back(visited, _directions(seeds, visited[-1].outputs[0], stream=1))
    return np.stack(list(gradients.values()), axis=1), np.stack(jacobians, axis=1)


def _directions(seeds: Sequence[int], like: Tensor, *, stream: int) -> Tensor:
    """Draw a unit vector of the shape of `like` for each network."""
    drawn = torch.stack(
        [
            torch.randn(like.shape, generator=torch.Generator().manual_seed(2 * seed + stream), dtype=torch.float64)
            for seed in seeds
        ]
    )
    norms = drawn.flatten(1).norm(dim=1)
    return (drawn / norms.reshape(-1, *(1,) * like.ndim)).to(like)


def _rate(steps: Array, *, symbol: str, label: str) -> Scalar:
    return _over_finite(np.exp(steps).mean(axis=1), symbol=symbol, label=label)


def _typical(steps: Array, *, symbol: str, label: str) -> Scalar:
    slope = _over_finite(steps.mean(axis=1), symbol=symbol, label=label)
    rate = float(np.exp(slope.value))
    return Scalar(value=rate, se=rate * slope.se, symbol=symbol, label=label, networks=slope.networks)


def _over_finite(values: Array, *, symbol: str, label: str) -> Scalar:
    """Average over the networks whose gradients have not died; NaN over 0 networks if all have."""
    alive = values[np.isfinite(values)]
    if alive.size == 0:
        return Scalar(value=np.nan, se=np.inf, symbol=symbol, label=label)
    return Scalar.over_networks(alive, symbol=symbol, label=label)
