"""Networks of finite width under a law: their weights drawn, the singular values of their Jacobians measured."""

import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from rmtbn import inits, rng
from rmtbn.activations import activation as find_activation
from rmtbn.measure.jacobian import prefix_spectra
from rmtbn.nets.activations import activation_module
from rmtbn.result import SpectralMeasure, tabulated
from rmtbn.sweep.grid import Study
from rmtbn.theory import length
from rmtbn.theory.jacobian import JacobianLaw, jacobian_law

WEIGHTS = ("gaussian", "orthogonal", "uniform")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of network, at every depth and width.

    Parameters
    ----------
    activation, weights
        φ, and "gaussian", "orthogonal", "uniform" (whose law is that of Gaussian weights) or "residual" (I + σ_w G/√N).
    sigma_w, sigma_b
        Standard deviations; σ_w None for its critical value at that σ_b.
    q0
        Mean square of the input; None for the input whose first layer is at the fixed point q*.
    widths
        n_0 ... n_L where they differ; None for equal ones.
    """

    activation: str
    weights: str = "gaussian"
    sigma_w: float | None = None
    sigma_b: float = 0.0
    q0: float | None = None
    widths: tuple[int, ...] | None = None

    @property
    def free_weights(self) -> str:
        """Law of the weights as free probability sees it: independent entries have one limit."""
        return "orthogonal" if self.weights == "orthogonal" else "gaussian"

    def exact_law(self, depth: int) -> JacobianLaw:
        """Compute the law of λ at a depth."""
        return _law(self, depth)

    def law(self, depth: int) -> SpectralMeasure:
        """Compute the law of λ at a depth, from a table where φ is smooth and a point costs milliseconds."""
        return _table(self, depth)

    def parameters(self, *, width: int, depths: Sequence[int], device: str, dtype: str) -> dict[str, Any]:
        """Name the parameters of a cell but for the number of its networks."""
        first = self.exact_law(1 if self.widths is None else len(self.widths) - 1)
        return {
            "activation": self.activation,
            "weights": self.weights,
            "sigma_w": first.sigma_w,
            "sigma_b": self.sigma_b,
            "q0": self._input_square(first) if self.q0 is None else self.q0,
            "widths": ",".join(map(str, self.widths or (width,))),
            "depths": ",".join(map(str, depths)),
            "device": device,
            "dtype": dtype,
        }

    def _input_square(self, law: JacobianLaw) -> float:
        """Mean square of the input that leaves every layer at q*: that of its activations; 1 where it does not matter.

        Where q* is repelling, rounding alone would leave it in the end, as networks of finite width do anyway.
        """
        record = find_activation(self.activation)
        if record.slopes is not None and set(record.kinks) <= {0.0}:
            return 1.0
        return float(length.phi_second_moment(law.q[0], record)) if law.q[0] > 0 else 0.0


@lru_cache(maxsize=256)
def _law(kind: Kind, depth: int) -> JacobianLaw:
    return jacobian_law(
        kind.activation,
        depth=depth,
        weights=kind.free_weights,
        sigma_w=kind.sigma_w,
        sigma_b=kind.sigma_b,
        q0=kind.q0,
        widths=kind.widths,
    )


@lru_cache(maxsize=256)
def _table(kind: Kind, depth: int) -> SpectralMeasure:
    law = _law(kind, depth)
    if find_activation(kind.activation).slopes is not None or law.curve.is_one_factor:
        return law  # a table would smear what piles up at one λ (GELU, SiLU at depth 1, orthogonal weights)
    return tabulated(law)


def cell(
    *,
    seed: int,
    activation: str,
    weights: str,
    sigma_w: float,
    sigma_b: float,
    q0: float,
    widths: str,
    depths: str,
    networks: int,
    device: str,
    dtype: str,
) -> dict[str, pd.DataFrame]:
    """Draw networks and measure all singular values of their Jacobians at several depths, in one pass each.

    Parameters
    ----------
    seed, networks
        The cell holds `networks` networks, each with draws of its own.
    activation, weights
        φ, and "gaussian", "orthogonal", "uniform" or "residual".
    sigma_w, sigma_b, q0
        Standard deviations, and the mean square of the input.
    widths
        "64" for 64 units in every layer, "64,32,16" for n_0, n_1, n_2.
    depths
        "1,4,16": where the Jacobian is taken, ascending.
    device, dtype
        Of the network and of the measurement.

    Returns
    -------
    dict
        "spectra": one row per network and depth, `active` the share of units with φ′ ≠ 0 in each layer up to it.
    """
    stops = [int(depth) for depth in depths.split(",")]
    sizes = layer_widths(widths, stops[-1])
    kind = {"device": torch.device(device), "dtype": getattr(torch, dtype)}
    rows = []
    for network in range(networks):
        draws = rng.torch_generator(seed, "laws", activation, weights, widths, network)
        module = drawn(sizes, activation=activation, weights=weights, sigma_w=sigma_w, sigma_b=sigma_b, generator=draws)
        x = torch.randn(1, sizes[0], generator=draws, dtype=torch.float64)
        x = math.sqrt(q0) * x / x.square().mean().sqrt()
        found = prefix_spectra(module.to(**kind), x.to(**kind), after=[f"phi_{stop}" for stop in stops])
        active = _active_shares(module, x.to(**kind), activation)
        for stop in stops:
            spectrum = found[f"phi_{stop}"]
            rows.append(
                {
                    "network": network,
                    "depth": stop,
                    "log_singular_values": spectrum.by_network[0].tolist(),
                    "relative_error": spectrum.relative_error,
                    "active": active[:stop],
                }
            )
    return {"spectra": pd.DataFrame(rows)}


STUDY = Study(name="laws", version=1, compute=cell)


def layer_widths(widths: str, depth: int) -> list[int]:
    """Read n_0 ... n_L from a cell's `widths`."""
    sizes = [int(width) for width in widths.split(",")]
    return sizes * (depth + 1) if len(sizes) == 1 else sizes


def drawn(
    sizes: Sequence[int],
    *,
    activation: str,
    weights: str,
    sigma_w: float,
    sigma_b: float,
    generator: torch.Generator,
) -> nn.Sequential:
    """Build a network of widths n_0 ... n_L whose Jacobian is D_L W_L ... D_1 W_1, in float64, and draw its weights."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for layer, (columns, rows) in enumerate(itertools.pairwise(sizes), start=1):
        layers[f"linear_{layer}"] = nn.Linear(columns, rows, dtype=torch.float64)
        layers[f"phi_{layer}"] = activation_module(activation)
    module = nn.Sequential(layers)
    scheme = "orthogonal" if weights == "orthogonal" else "gaussian"
    inits.initialise(module, scheme, generator=generator, activation=activation, sigma_w=sigma_w, sigma_b=sigma_b)
    if weights == "uniform":
        _make_uniform(module, sigma_w, generator)
    if weights == "residual":
        _add_identity(module)
    return module


def _make_uniform(module: nn.Sequential, sigma_w: float, generator: torch.Generator) -> None:
    """Replace the weights by uniform ones of the same variance, σ_w²/fan_in."""
    for layer in module:
        if isinstance(layer, nn.Linear):
            reach = sigma_w * math.sqrt(3 / layer.in_features)
            with torch.no_grad():
                layer.weight.uniform_(-reach, reach, generator=generator)


def _add_identity(module: nn.Sequential) -> None:
    """Turn W into I + W, so that a linear layer is a residual block."""
    for layer in module:
        if isinstance(layer, nn.Linear):
            with torch.no_grad():
                layer.weight += torch.eye(layer.in_features, dtype=layer.weight.dtype)


def _active_shares(module: nn.Sequential, x: Tensor, activation: str) -> list[float]:
    """Share of units with φ′(h) ≠ 0, layer by layer."""
    record, shares = find_activation(activation), []
    with torch.no_grad():
        for layer in module:
            if not isinstance(layer, nn.Linear):
                shares.append(float((record.dphi(x.double().cpu().numpy()) != 0).mean()))
            x = layer(x)
    return shares
