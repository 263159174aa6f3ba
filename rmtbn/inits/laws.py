"""Laws of the weights of a layer, and the schemes that give each layer its law."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.activations import activation as find_activation
from rmtbn.theory import mean_field

Distribution = Literal["gaussian", "uniform", "orthogonal"]
Asked = float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightLaw:
    """Law of a layer's weights: independent entries (or a Haar matrix), Var W_ij = σ_w²/fan_in, Var b_i = σ_b².

    Biases are uniform where the weights are, else Gaussian. With `central_tap` all taps of a kernel but the central one
    are 0, and the variance is the mean over the taps.
    """

    distribution: Distribution
    sigma_w: float
    sigma_b: float
    central_tap: bool = False


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
    central_tap
        Whether only the central tap of a kernel is drawn.
    """

    distribution: Distribution
    sigmas: Callable[[Activation, int, int, float | None, float | None], tuple[float, float]]
    accepts: tuple[str, ...] = ()
    source: str
    central_tap: bool = False


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
        A name in `INITS` or `CONVOLUTION_INITS`.
    activation
        Name or record of the φ that follows the layer.
    fan_in, fan_out
        Number of inputs and outputs of one unit, >= 1; `fan_out` defaults to `fan_in`.
    sigma_w, sigma_b
        Standard deviations for the schemes that leave them open: both for "gaussian" (σ_w is needed, σ_b is 0 unless
        given), "orthogonal" and "delta_orthogonal"; σ_b alone for "critical".

    Raises
    ------
    InvalidArgumentError
        For an unknown name, a σ that the scheme sets itself, or a missing one.
    """
    entries = {**INITS, **CONVOLUTION_INITS}
    entry = entries[_checks.one_of("scheme", scheme, entries)]
    record = find_activation(activation)
    fan_in = _checks.integer("fan_in", fan_in, at_least=1)
    fan_out = fan_in if fan_out is None else _checks.integer("fan_out", fan_out, at_least=1)
    for name, value in (("sigma_w", sigma_w), ("sigma_b", sigma_b)):
        if value is not None:
            _checks.real(name, value, at_least=0.0)
            if name not in entry.accepts:
                raise _checks.fail(name, f"left out for the scheme {scheme!r}, which sets it", value)
    weight, bias = entry.sigmas(record, fan_in, fan_out, sigma_w, sigma_b)
    return WeightLaw(distribution=entry.distribution, sigma_w=weight, sigma_b=bias, central_tap=entry.central_tap)


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


def _isometric(_phi: Activation, fan_in: int, fan_out: int, sigma_w: Asked, sigma_b: Asked) -> tuple[float, float]:
    """Gain σ_w (1 unless asked) of the matrix at the tap, whose rows or columns, the fewer, are orthonormal."""
    return (1.0 if sigma_w is None else sigma_w) * min(1.0, fan_in / fan_out) ** 0.5, sigma_b or 0.0


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

CONVOLUTION_INITS: Mapping[str, Scheme] = MappingProxyType(
    {
        "delta_orthogonal": Scheme(
            distribution="orthogonal",
            sigmas=_isometric,
            accepts=("sigma_w", "sigma_b"),
            source="Xiao et al. 2018, arXiv:1806.05393, section 2.4: an isometry times the gain σ_w, 1 unless given",
            central_tap=True,
        )
    }
)
