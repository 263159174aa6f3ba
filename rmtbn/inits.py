"""Initialisation schemes: a registry of weight laws that can be drawn from and asked about.

A law is a distribution with Var W_ij = σ_w²/fan_in and Var b_i = σ_b², so that theory and network use the same numbers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rmtbn import _checks
from rmtbn.activations import Activation, leaky_relu
from rmtbn.activations import activation as find_activation
from rmtbn.theory import mean_field

Distribution = Literal["gaussian", "uniform", "orthogonal"]
Module = TypeVar("Module", bound=nn.Module)
Generator = torch.Generator | np.random.Generator
Asked = float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightLaw:
    """Law of a layer's weights: independent entries (or a Haar matrix), Var W_ij = σ_w²/fan_in, Var b_i = σ_b².

    Biases are uniform where the weights are, else Gaussian.
    """

    distribution: Distribution
    sigma_w: float
    sigma_b: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """A rule that gives each layer its weight law.

    Parameters
    ----------
    distribution
        Of the weights.
    sigmas
        (φ, fan_in, fan_out, asked σ_w, asked σ_b) → (σ_w, σ_b).
    accepts
        Which of "sigma_w", "sigma_b" the user may set.
    source
        Where the rule comes from.
    """

    distribution: Distribution
    sigmas: Callable[[Activation, int, int, float | None, float | None], tuple[float, float]]
    accepts: tuple[str, ...] = ()
    source: str


def weight_law(
    scheme: str,
    activation: str | Activation,
    *,
    fan_in: int,
    fan_out: int | None = None,
    sigma_w: float | None = None,
    sigma_b: float | None = None,
) -> WeightLaw:
    """Return the law that a scheme gives to a layer.

    Parameters
    ----------
    scheme
        A name in `INITS`.
    activation
        Name or record of the φ that follows the layer.
    fan_in, fan_out
        Number of inputs and outputs of one unit, >= 1; `fan_out` defaults to `fan_in`.
    sigma_w, sigma_b
        Standard deviations for the schemes that leave them open: both for "gaussian" (σ_w is needed, σ_b is 0 unless
        given) and "orthogonal"; σ_b alone for "critical".

    Raises
    ------
    InvalidArgumentError
        For an unknown name, a σ that the scheme sets itself, or a missing one.
    """
    entry = INITS[_checks.one_of("scheme", scheme, INITS)]
    record = find_activation(activation)
    fan_in = _checks.integer("fan_in", fan_in, at_least=1)
    fan_out = fan_in if fan_out is None else _checks.integer("fan_out", fan_out, at_least=1)
    for name, value in (("sigma_w", sigma_w), ("sigma_b", sigma_b)):
        if value is not None:
            _checks.real(name, value, at_least=0.0)
            if name not in entry.accepts:
                raise _checks.fail(name, f"left out for the scheme {scheme!r}, which sets it", value)
    weight, bias = entry.sigmas(record, fan_in, fan_out, sigma_w, sigma_b)
    return WeightLaw(distribution=entry.distribution, sigma_w=weight, sigma_b=bias)


def initialise(
    module: Module,
    scheme: str,
    *,
    generator: Generator,
    activation: str | Activation | None = None,
    sigma_w: float | None = None,
    sigma_b: float | None = None,
) -> Module:
    """Draw the weights and biases of every linear and convolutional layer, in place.

    The draws are made in float64 on the generator's device and then rounded, so that networks of different dtype or
    device are the same network. Layers of other kinds keep their parameters (norms start at γ = 1, β = 0).

    Parameters
    ----------
    module
        Any network.
    scheme
        A name in `INITS`.
    generator
        Source of the draws, for example `rmtbn.rng.torch_generator(seed, "weights")`.
    activation
        φ of the network; if left out it is read off the modules, which must then hold one kind at most (none: linear).
    sigma_w, sigma_b
        As in `weight_law`.

    Returns
    -------
    Module
        The same module.

    Raises
    ------
    InvalidArgumentError
        As `weight_law`, or if `activation` is left out and cannot be told. Nothing has been drawn then.
    """
    record = _activation_of(module) if activation is None else find_activation(activation)
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear | _ConvNd)]
    laws = [
        weight_law(scheme, record, fan_in=fan_in, fan_out=fan_out, sigma_w=sigma_w, sigma_b=sigma_b)
        for fan_in, fan_out in (_fans(layer.weight) for layer in layers)
    ]
    draws = _torch_generator(generator)
    with torch.no_grad():
        for layer, law in zip(layers, laws, strict=True):
            # the assignment sets what a weight is computed from under weight normalisation
            layer.weight = layer.weight.copy_(_draw_weight(layer.weight, law, draws))
            if layer.bias is not None:
                layer.bias.copy_(law.sigma_b * _draw(layer.bias.shape, law.distribution, draws))
    return module


def _fans(weight: Tensor) -> tuple[int, int]:
    receptive = weight[0, 0].numel()
    return weight.shape[1] * receptive, weight.shape[0] * receptive


def _draw(shape: torch.Size, distribution: str, generator: torch.Generator) -> Tensor:
    """Independent entries of mean 0 and variance 1."""
    if distribution == "uniform":
        return (2 * torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device) - 1) * 3**0.5
    return torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)


def _draw_weight(weight: Tensor, law: WeightLaw, generator: torch.Generator) -> Tensor:
    entries = _draw(weight.shape, law.distribution, generator)
    fan_in, _ = _fans(weight)
    if law.distribution == "orthogonal":
        # NOTE: for more outputs than inputs torch.nn.init.orthogonal_ keeps WᵀW = I; here the entries keep variance
        # σ_w²/fan_in, so that the mean square of the activations follows the same map for every law.
        frame = _haar(entries.flatten(1)).view_as(entries)
        return frame * law.sigma_w * max(1.0, weight.shape[0] / fan_in) ** 0.5
    return entries * law.sigma_w / fan_in**0.5


def _haar(gaussian: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Haar-distributed orthonormal rows (or columns, if there are more rows); Mezzadri 2007, arXiv:math-ph/0609050."""
    tall = gaussian if gaussian.shape[0] >= gaussian.shape[1] else gaussian.T
    q, r = torch.linalg.qr(tall)
    q = q * torch.sign(torch.diagonal(r))
    return q if tall is gaussian else q.T


def _torch_generator(generator: Generator) -> torch.Generator:
    if isinstance(generator, torch.Generator):
        return generator
    return torch.Generator().manual_seed(int(generator.integers(2**63)))


def _activation_of(module: nn.Module) -> Activation:
    foreign = [str(m) for m in module.modules() if _is_foreign(m)]
    if foreign:
        raise _checks.fail("activation", "given for a module with an activation that has no record", foreign[0])
    kinds = [(_CLASS_NAMES[kind], m) for m in module.modules() if (kind := type(m).__name__) in _CLASS_NAMES]
    found = {(name, m.negative_slope if isinstance(m, nn.LeakyReLU) else None) for name, m in kinds}
    if len(found) > 1:
        raise _checks.fail("activation", "given for a module with several kinds of them", sorted(found, key=str))
    name, slope = next(iter(found), ("linear", None))
    return find_activation(name) if slope is None else leaky_relu(slope)


def _is_foreign(module: nn.Module) -> bool:
    """Whether it is an activation of torch's, elementwise, that `ACTIVATIONS` does not hold in this very form."""
    if type(module) in {nn.Hardtanh, nn.GELU}:
        return str(module) not in {"Hardtanh(min_val=-1.0, max_val=1.0)", "GELU(approximate='none')"}
    known = type(module).__name__ in _CLASS_NAMES or isinstance(module, _NOT_ELEMENTWISE)
    return type(module).__module__ == nn.ReLU.__module__ and not known


_NOT_ELEMENTWISE = (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin, nn.GLU)

_CLASS_NAMES = {
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "Tanh": "tanh",
    "Erf": "erf",
    "Hardtanh": "hard_tanh",
    "GELU": "gelu",
    "SiLU": "silu",
    "SELU": "selu",
}

# σ_b² of the scheme "critical" where it is left open. Saturating φ: a value in the middle of the range that Schoenholz
# et al. 2017 (arXiv:1611.01232) study for tanh; GELU and SiLU: beyond the σ_b² (0.1729, 0.5551) below which the
# critical fixed point repels.
_CRITICAL_BIAS_VARIANCE = {"tanh": 0.05, "erf": 0.05, "hard_tanh": 0.05, "selu": 0.05, "gelu": 0.3, "silu": 1.0}


def _he(phi: Activation, *_: object) -> tuple[float, float]:
    below = phi.slopes[0] if phi.name == "leaky_relu" and phi.slopes is not None else 0.0
    return (2 / (1 + below**2)) ** 0.5, 0.0


def _glorot(_phi: Activation, fan_in: int, fan_out: int, *_: object) -> tuple[float, float]:
    return (2 * fan_in / (fan_in + fan_out)) ** 0.5, 0.0


def _lecun(*_: object) -> tuple[float, float]:
    return 1.0, 0.0


def _torch_default(_phi: Activation, fan_in: int, *_: object) -> tuple[float, float]:
    return 3**-0.5, (3 * fan_in) ** -0.5


def _critical(phi: Activation, _in: int, _out: int, _w: float | None, sigma_b: float | None) -> tuple[float, float]:
    asked = _CRITICAL_BIAS_VARIANCE.get(phi.name, 0.0) ** 0.5 if sigma_b is None else sigma_b
    return mean_field.critical_point(phi, sigma_b=asked).sigma_w, asked


def _orthogonal(phi: Activation, _in: int, _out: int, sigma_w: Asked, sigma_b: Asked) -> tuple[float, float]:
    gain = _he(phi)[0] if phi.name in {"relu", "leaky_relu", "gelu", "silu"} else 1.0
    return gain if sigma_w is None else sigma_w, sigma_b or 0.0


def _gaussian(_phi: Activation, _in: int, _out: int, sigma_w: Asked, sigma_b: Asked) -> tuple[float, float]:
    if sigma_w is None:
        raise _checks.fail("sigma_w", "given for the scheme 'gaussian'", None)
    return sigma_w, sigma_b or 0.0


INITS: Mapping[str, Scheme] = MappingProxyType(
    {
        "he_normal": Scheme(
            distribution="gaussian", sigmas=_he, source="He et al. 2015, arXiv:1502.01852, eq. (10), (14)"
        ),
        "he_uniform": Scheme(
            distribution="uniform", sigmas=_he, source="He et al. 2015, arXiv:1502.01852, eq. (10), (14)"
        ),
        "glorot_normal": Scheme(distribution="gaussian", sigmas=_glorot, source="Glorot & Bengio 2010, eq. (12)"),
        "glorot_uniform": Scheme(distribution="uniform", sigmas=_glorot, source="Glorot & Bengio 2010, eq. (16)"),
        "lecun_normal": Scheme(
            distribution="gaussian", sigmas=_lecun, source="LeCun et al. 1998, Efficient BackProp, eq. (16)"
        ),
        "torch_default": Scheme(
            distribution="uniform", sigmas=_torch_default, source="torch.nn.Linear.reset_parameters"
        ),
        "orthogonal": Scheme(
            distribution="orthogonal",
            sigmas=_orthogonal,
            accepts=("sigma_w", "sigma_b"),
            source="Saxe et al. 2014, arXiv:1312.6120; gain √2 for the rectifiers, 1 otherwise",
        ),
        "critical": Scheme(
            distribution="gaussian",
            sigmas=_critical,
            accepts=("sigma_b",),
            source="Schoenholz et al. 2017, arXiv:1611.01232: χ₁(σ_w, σ_b) = 1",
        ),
        "gaussian": Scheme(
            distribution="gaussian",
            sigmas=_gaussian,
            accepts=("sigma_w", "sigma_b"),
            source="Poole et al. 2016, arXiv:1606.05340",
        ),
    }
)
