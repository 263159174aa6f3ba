"""Kinds of network of `rmtbn lyapunov`, and what theory says of their exponents."""

import math
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmtbn import _checks
from rmtbn.activations import activation as find_activation
from rmtbn.theory import bn_mean_field, gauss_hermite, mean_field
from rmtbn.theory.exponent_spectrum import exponent_spectrum, relu_exponents
from rmtbn.theory.finite_width import log_singular_value_means, lyapunov_exponents
from rmtbn.theory.width_expansion import width_expansion

Array = NDArray[np.float64]

SLOPED = ("linear", "leaky_relu", "tanh", "erf", "selu")  # φ′ is nowhere 0, so that all exponents are finite
NAMES = {"relu": "ReLU", "leaky_relu": "leaky ReLU", "gelu": "GELU", "silu": "SiLU", "selu": "SELU"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of fully connected network: activation, norm, law of the weights, σ_w² and σ_b²."""

    activation: str
    norm: str
    init: str
    sigma_w2: float
    sigma_b2: float

    def parameters(self) -> dict[str, Any]:
        """Return them as parameters of a cell."""
        return asdict(self)

    def sigmas(self) -> dict[str, float]:
        """Return σ_w and σ_b."""
        return {"sigma_w": self.sigma_w2**0.5, "sigma_b": self.sigma_b2**0.5}

    @property
    def is_exact(self) -> bool:
        """Whether all exponents are known at every width."""
        relu = (self.activation, self.init, self.sigma_b2) == ("relu", "gaussian", 0.0)
        return self.norm == "none" and (self.activation == "linear" or relu)

    @property
    def q(self) -> float:
        """The length q* that the pre-activations settle at, where they start; 1 where it does not matter."""
        return _length(self)

    def check(self) -> None:
        """Refuse a kind whose activations vanish or grow without end with depth: it has no exponents of its own."""
        if not 0 < self.q < math.inf:
            rule = "such that the lengths of the activations settle at a finite value with depth (or give a sigma_b)"
            raise _checks.fail("sigma_w", rule, self.sigmas()["sigma_w"])


@cache
def _length(kind: Kind) -> float:
    return 1.0 if _is_scale_free(kind) else mean_field.fixed_point(kind.activation, **kind.sigmas()).q


def _is_scale_free(kind: Kind) -> bool:
    """Whether the exponents do not depend on the length of the activations."""
    record = find_activation(kind.activation)
    homogeneous = record.slopes is not None and set(record.kinks) <= {0.0} and not kind.sigma_b2
    return kind.norm == "batch" or kind.activation == "linear" or homogeneous


def input_square(kind: Kind) -> float:
    """Mean square of the inputs from which the pre-activations start at q*; 1 where it does not matter."""
    return 1.0 if _is_scale_free(kind) else (kind.q - kind.sigma_b2) / kind.sigma_w2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """What theory says of the exponents of one kind of network at one width.

    Parameters
    ----------
    spectrum
        All exponents, -∞ where singular values are 0.
    top, top_source
        The largest one.
    mean
        The mean of all, None where it is -∞ or not known.
    """

    spectrum: Array
    top: float
    top_source: str
    mean: float | None


@cache
def predict(kind: Kind, *, width: int, depth: int, batch: int) -> Prediction:
    """Predict the exponents, taken between half the depth and the depth where that matters."""
    if kind.norm == "batch":
        rate = bn_mean_field.fixed_point(kind.activation, batch_size=batch).explosion_rate
        normed = _batch_spectrum(kind, width=width, depth=depth, batch=batch)
        return Prediction(spectrum=normed, top=math.log(rate) / 2, top_source="½ ln λ_G, N → ∞", mean=None)
    spectrum = _spectrum(kind, width=width)
    if kind.is_exact:
        top, source = float(spectrum[0]), "exact"
    elif kind.init == "gaussian":
        top, source = _first_order(kind, width=width, depth=depth), "½ ln χ₁ and its 1/N"
    else:
        top, source = wide_top(kind), "½ ln χ₁, N → ∞"
    mean = _mean(kind, width=width) if kind.activation in SLOPED else None
    return Prediction(spectrum=spectrum, top=top, top_source=source, mean=mean)


def wide_top(kind: Kind) -> float:
    """½ ln χ₁: the largest exponent for N → ∞ without normalisation."""
    return 0.5 * math.log(float(mean_field.chi1(kind.q, kind.activation, sigma_w=kind.sigmas()["sigma_w"])))


def linear_like(kind: Kind) -> Kind:
    """Return linear networks with the same χ₁."""
    square = math.exp(2 * wide_top(kind))
    return Kind(activation="linear", norm="none", init=kind.init, sigma_w2=square, sigma_b2=0.0)


def wide_spectrum(kind: Kind, *, width: int) -> Array:
    """Return the exponents for N → ∞ at the shares (k - ½)/N."""
    share = (np.arange(width) + 0.5) / width
    sigma_w = kind.sigmas()["sigma_w"]
    return exponent_spectrum(kind.activation, share, q=kind.q, sigma_w=sigma_w, weights=kind.init)


def _spectrum(kind: Kind, *, width: int) -> Array:
    sigma_w = kind.sigmas()["sigma_w"]
    if kind.is_exact and kind.activation == "relu":
        return relu_exponents(width, sigma_w=sigma_w)
    if kind.is_exact:
        plain = lyapunov_exponents(width) if kind.init == "gaussian" else np.zeros(width)
        return np.asarray(plain + math.log(sigma_w))
    return wide_spectrum(kind, width=width)


def _batch_spectrum(kind: Kind, *, width: int, depth: int, batch: int) -> Array:
    """Growth of the quantiles of the batch Jacobian's law, N → ∞, between half the depth and the depth.

    The law is that on the (B - 1)·N directions orthogonal to (1, …, 1), at shares (k - ½)/((B - 1)N); N further ones,
    and those that it has as zeros, are -∞.
    """
    share = (np.arange((batch - 1) * width) + 0.5) / ((batch - 1) * width)
    last, half = (
        bn_mean_field.batch_jacobian_law(kind.activation, batch_size=batch, depth=d, weights=kind.init).log_ppf(
            1 - share
        )
        for d in (depth, depth // 2)
    )
    live = np.isfinite(last) & np.isfinite(half)
    growth = np.where(live, last - np.where(live, half, 0.0), -np.inf) / (2 * (depth - depth // 2))
    return np.concatenate([growth, np.full(width, -np.inf)])


def _first_order(kind: Kind, *, width: int, depth: int) -> float:
    """Half the growth of E ln‖Jv‖² per layer, to first order in 1/N (docs/derivations/width_expansion.md)."""
    widths = (width,) * (depth + 1)
    found = width_expansion(kind.activation, widths=widths, cosine=width**-0.5, q0=input_square(kind), **kind.sigmas())
    half = depth // 2
    return float(found.log_norm_mean[-1] - found.log_norm_mean[half - 1]) / (2 * (depth - half))


def _mean(kind: Kind, *, width: int) -> float:
    """E ln|det J| per layer and unit: that of the weights, exactly, and E ln|φ′| at q*."""
    record = find_activation(kind.activation)
    slope = gauss_hermite.expectation(lambda h: np.log(np.abs(record.dphi(h))), kind.q, kinks=record.kinks)
    weights = float(lyapunov_exponents(width).mean()) if kind.init == "gaussian" else 0.0
    return weights + math.log(kind.sigmas()["sigma_w"]) + float(slope)


def expected_log_sigma(kind: Kind, *, width: int, depth: int) -> Array | None:
    """E ln σ_k of linear Gaussian networks at a depth well beyond the width; None for other kinds."""
    if kind.norm != "none" or (kind.activation, kind.init) != ("linear", "gaussian"):
        return None
    return log_singular_value_means(width, depth=depth) + depth * math.log(kind.sigmas()["sigma_w"])


def name(kind: Kind) -> str:
    """Name a kind of network."""
    norm = ", batch norm" if kind.norm == "batch" else ""
    return f"{NAMES.get(kind.activation, kind.activation)}, {kind.init}{norm}{_sigmas(kind)}"


def short_name(kind: Kind) -> str:
    """Name a kind of network among others of its activation and norm."""
    return f"{kind.init}{_sigmas(kind)}"


def _sigmas(kind: Kind) -> str:
    """σ_w² and σ_b², which batch normalisation makes immaterial."""
    if kind.norm == "batch":
        return ""
    return f", σ_w² = {kind.sigma_w2:.3g}" + (f", σ_b² = {kind.sigma_b2:.3g}" if kind.sigma_b2 else "")
