"""The laws that `rmtbn laws --law` knows: their options, their equations, and the networks that follow them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from scipy import optimize, special

from rmtbn import _checks
from rmtbn.result import SpectralMeasure
from rmtbn.theory import length
from rmtbn.theory.depth_limit import bernoulli_limit, root_limit, slope_spread, smooth_limit
from rmtbn.theory.fuss_catalan import FussCatalan, Raney
from rmtbn.theory.marchenko_pastur import MarchenkoPastur
from rmtbn.theory.residual import residual_law

from ._laws_networks import Kind

Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A family of laws.

    Parameters
    ----------
    title
        What it is the law of.
    equation, source
        How it is defined, and where.
    defaults
        The options that it takes, with their defaults; None stands for a default of the law itself.
    laws
        Options → the laws to draw, by their names in a legend: one, or one per depth.
    kind
        (Options, width) → the networks that follow it at that width; None for a law without networks.
    depth
        Depth of the networks that stand for a limit of infinite depth; None where depth is an option, or 1.
    is_root
        Whether λ^{1/L} follows the law rather than λ.
    """

    title: str
    equation: str
    source: str
    defaults: Options
    laws: Callable[[Options], dict[str, SpectralMeasure]]
    kind: Callable[[Options, int], Kind] | None
    depth: int | None = None
    is_root: bool = False

    def depths(self, options: Options) -> tuple[int, ...]:
        """Depths of the networks under the laws of some options."""
        return (self.depth,) if self.depth else tuple(options.get("depth") or (1,))


def asked(name: str, given: Options) -> tuple[Entry, Options]:
    """Find a law and complete its options.

    Raises
    ------
    InvalidArgumentError
        If it is unknown, or an option is given that it does not take.
    """
    entry = LAWS[_checks.one_of("law", name, LAWS)]
    if given.get("widths") and "depth" not in given:
        given = {**given, "depth": (len(given["widths"]) - 1,)}
    surplus = [option for option in given if option not in entry.defaults]
    if surplus:
        taken = ", ".join(f"--{option.replace('_', '-')}" for option in entry.defaults)
        raise _checks.fail(surplus[0], f"left out for the law {name!r}, which takes {taken}", given[surplus[0]])
    return entry, {**entry.defaults, **given}


def _fuss_catalan(options: Options) -> dict[str, SpectralMeasure]:
    return {f"L = {depth}": FussCatalan(depth=depth) for depth in options["depth"]}


def _raney(options: Options) -> dict[str, SpectralMeasure]:
    p, r = options["p"], options["r"]
    return {f"p = {p:g}, r = {r:g}": Raney(p=p, r=r)}


def _marchenko_pastur(options: Options) -> dict[str, SpectralMeasure]:
    return {f"c = {options['ratio']:g}": MarchenkoPastur(ratio=options["ratio"])}


def _jacobian(options: Options) -> dict[str, SpectralMeasure]:
    kind = _network(options, 0)
    if kind.widths is not None and len(kind.widths) != options["depth"][0] + 1:
        raise _checks.fail("widths", f"depth + 1 = {options['depth'][0] + 1} numbers", len(kind.widths))
    return {f"L = {depth}": kind.exact_law(depth) for depth in options["depth"]}


def _network(options: Options, _width: int) -> Kind:
    widths = options["widths"]
    if widths is not None and len(options["depth"]) > 1:
        raise _checks.fail("widths", "left out where several depths are asked for", widths)
    return Kind(widths=widths, **{name: options[name] for name in _NETWORK})


def _one_layer(options: Options, width: int) -> Kind:
    rows = max(1, round(options["ratio"] * width))
    return Kind(activation="linear", sigma_w=1.0, widths=(width, rows))


def _residual_blocks(options: Options, _width: int) -> Kind:
    """Linear blocks I + aG, a² = c/L."""
    return Kind(activation="linear", weights="residual", sigma_w=math.sqrt(options["c"] / DEEP))


def _nearly_linear(options: Options, _width: int) -> Kind:
    """Tanh at the q at which L times the spread of φ′² is s."""

    def surplus(log_q: float) -> float:
        return DEEP * slope_spread("tanh", q=math.exp(log_q)) - options["s"]

    if surplus(WIDEST) < 0:
        raise _checks.fail("s", f"smaller for networks of {DEEP} layers of tanh", options["s"])
    return _critical("tanh", math.exp(optimize.brentq(surplus, NARROWEST, WIDEST)), weights="orthogonal")


def _seldom_off(options: Options, _width: int) -> Kind:
    """Hard tanh at the p at which p^-L is e^s, so that the atom is where the limit has it; L(1 - p)/p is s + O(1/L)."""
    return _hard_tanh(math.exp(-options["s"] / DEEP), weights="orthogonal")


def _share_off(options: Options, _width: int) -> Kind:
    """Hard tanh that keeps a share p of its units, or linear layers for p = 1."""
    if options["p"] == 1:
        return Kind(activation="linear", weights=options["weights"], sigma_w=1.0)
    return _hard_tanh(options["p"], weights=options["weights"])


def _hard_tanh(p: float, *, weights: str) -> Kind:
    return _critical("hard_tanh", 0.5 / float(special.erfinv(p)) ** 2, weights=weights)


def _critical(activation: str, q: float, *, weights: str) -> Kind:
    """Networks whose fixed point q* is q, at the critical σ_w: σ_b² = q - E φ²/E φ′²."""
    ratio = length.phi_second_moment(q, activation) / length.dphi_second_moment(q, activation)
    return Kind(activation=activation, weights=weights, sigma_b=math.sqrt(max(0.0, q - float(ratio))))


DEEP = 64  # layers of the networks laid over limits of infinite depth
NARROWEST, WIDEST = -12.0, 3.0  # ln q of tanh networks
_NETWORK = ("activation", "weights", "sigma_w", "sigma_b", "q0")

LAWS: Mapping[str, Entry] = MappingProxyType(
    {
        "jacobian": Entry(
            title="Jacobian of a fully connected network at initialisation",
            equation="free product of the laws of W_l W_lᵀ and of φ′(h)², h ~ N(0, q_l), over the layers",
            source="Pennington, Schoenholz & Ganguli 2018, arXiv:1802.09979",
            defaults={
                "activation": "relu",
                "depth": (4,),
                "weights": "gaussian",
                "sigma_w": None,
                "sigma_b": 0.0,
                "q0": None,
                "widths": None,
            },
            laws=_jacobian,
            kind=_network,
        ),
        "fuss-catalan": Entry(
            title="Product of L square Gaussian matrices (Fuss–Catalan)",
            equation="λ = sin(pφ)^p/(sin φ · sin(Lφ)^L), p = L + 1, 0 < φ < π/p; moments C(pk, k)/(Lk + 1)",
            source="Penson & Życzkowski 2011, arXiv:1103.3453",
            defaults={"depth": (4,)},
            laws=_fuss_catalan,
            kind=lambda _options, _width: Kind(activation="linear", sigma_w=1.0),
        ),
        "marchenko-pastur": Entry(
            title="One Gaussian matrix of c·n rows and n columns (Marchenko–Pastur)",
            equation="density √((λ₊ − λ)(λ − λ₋))/(2πcλ), λ± = (1 ± √c)², and an atom 1 − 1/c at 0 for c > 1",
            source="Marchenko & Pastur 1967",
            defaults={"ratio": 1.0},
            laws=_marchenko_pastur,
            kind=_one_layer,
        ),
        "raney": Entry(
            title="Raney's law, of which Fuss–Catalan is p = L + 1, r = 1",
            equation="moments r·C(kp + r, k)/(kp + r)",
            source="Młotkowski 2010; Penson & Życzkowski 2011, arXiv:1103.3453",
            defaults={"p": 2.5, "r": 1.0},
            laws=_raney,
            kind=None,
        ),
        "residual": Entry(
            title="Jacobian of a deep residual network",
            equation="z = ((1 + M)/M)·exp(c(1 + 2M)), M = E λ/(z − λ), c the branches' variances added up",
            source="Tarnowski et al. 2019, arXiv:1809.08848; Ling, He & Qiu 2019, arXiv:1807.11694",
            defaults={"c": 1.0},
            laws=lambda options: {f"c = {options['c']:g}": residual_law(c=options["c"])},
            kind=_residual_blocks,
            depth=DEEP,
        ),
        "smooth-limit": Entry(
            title="Jacobian of an infinitely deep network of smooth activations near isometry",
            equation="z = ((1 + M)/M)·exp(sM), s = L·Var φ′²/(E φ′²)² kept as L → ∞, orthogonal weights",
            source="Pennington, Schoenholz & Ganguli 2018, arXiv:1802.09979",
            defaults={"s": 0.25},
            laws=lambda options: {f"s = {options['s']:g}": smooth_limit(s=options["s"])},
            kind=_nearly_linear,
            depth=DEEP,
        ),
        "bernoulli-limit": Entry(
            title="Jacobian of an infinitely deep network whose units seldom switch off",
            equation="z = exp(sv)/v, v = M/(1 + M), s = L(1 − p)/p kept as L → ∞, orthogonal weights",
            source="Pennington, Schoenholz & Ganguli 2018, arXiv:1802.09979",
            defaults={"s": 0.25},
            laws=lambda options: {f"s = {options['s']:g}": bernoulli_limit(s=options["s"])},
            kind=_seldom_off,
            depth=DEEP,
        ),
        "root-limit": Entry(
            title="λ^(1/L) of an infinitely deep network that keeps a share p of its units",
            equation="limit of the law of λ^(1/L) as L → ∞ at fixed p",
            source="docs/derivations/depth_limits.md",
            defaults={"p": 0.5, "weights": "gaussian"},
            laws=lambda options: {f"p = {options['p']:g}": root_limit(p=options["p"], weights=options["weights"])},
            kind=_share_off,
            depth=DEEP,
            is_root=True,
        ),
    }
)
