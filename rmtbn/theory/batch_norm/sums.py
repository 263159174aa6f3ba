"""Expectations that make the mean field of batch normalisation, as sums over one and two coordinates of the sphere.

A layer of batch normalisation and φ maps Σ = s G (G = I - 11ᵀ/B) to itself. Its derivative there, on symmetric
matrices of 1^⊥, commutes with the permutations of the batch, which split these matrices into three irreducible parts:
multiples of G; L, that is G diag(d) G with Σd = 0; and M, zero diagonal and zero row sums, of dimension B(B-3)/2. So
does the map of gradient covariances. The eigenvalues are traces over these parts; every trace is a quadratic form of
sums S_f = Σ f(u_i) and needs no more than two coordinates at a time.
Derivation: docs/derivations/batch_norm_mean_field.md.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from rmtbn.activations import Activation
from rmtbn.theory.batch_norm.sphere import sphere_rule

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SphereSums:
    """Expectations at one radius r of the normalised feature: x = φ(r u), d = φ′(r u), ρ = r².

    Parameters
    ----------
    q, pair
        E x₁² and E x₁x₂.
    forward_l, forward_m
        Traces of H ↦ E (uᵀHu) G x xᵀ G over L and M, H of norm 1.
    backward_g, backward_l, backward_m
        Traces of Π ↦ E P D Π D P over G, L and M, where P = G - ρ u uᵀ/B.
    """

    q: float
    pair: float
    forward_l: float
    forward_m: float
    backward_g: float
    backward_l: float
    backward_m: float

    @property
    def spread(self) -> float:
        """The spread over the batch, s = q - pair."""
        return self.q - self.pair

    def as_array(self) -> Array:
        """All numbers in the order of the fields."""
        return np.array([getattr(self, field.name) for field in fields(self)])


def sphere_sums(phi: Activation, *, batch_size: int, radius: float = 1.0) -> SphereSums:
    """Compute the sums for a batch of B >= 4 examples, by quadrature on the sphere."""
    rule = sphere_rule(batch_size, tuple(kink / radius for kink in phi.kinks))

    def functions(u: Array) -> Array:
        x, d = phi.phi(radius * u), phi.dphi(radius * u)
        return np.stack([x, u * x, u * u * x, d, u * d, u * u * d, u**3 * d])

    one, two = rule.one(functions), rule.two(functions)
    total = batch_size * one + batch_size * (batch_size - 1) * two  # E S_f S_g
    spread = one[0, 0] - two[0, 0]
    traces = _forward(one, total, spread, batch_size) + _backward(one, total, radius**2, batch_size)
    numbers = map(float, (one[0, 0], two[0, 0], *traces))
    return SphereSums(**dict(zip((field.name for field in fields(SphereSums)), numbers, strict=True)))


def _forward(one: Array, total: Array, spread: float, size: int) -> tuple[float, float]:
    """Traces over L, Σ (u_i² - 1)(x_i - x̄)²/(1 - 2/B), and over L and M together, (u·x)² - B|x - x̄|²/n."""
    x, ux, uux = 0, 1, 2
    mixed = total[uux, x] - size * one[uux, x]  # Σ_{i≠j} u_i² x_i x_j
    squares = (size - 2) * one[ux, ux] - 2 / size * mixed + total[x, x] / size
    trace_l = (squares - (size - 1) * spread) * size / (size - 2)
    return trace_l, total[ux, ux] - size * spread - trace_l


def _backward(one: Array, total: Array, rho: float, size: int) -> tuple[float, float, float]:
    """Traces over G, tr(P²DGD)/n; over L, [Σ(PDG)_ii² - tr(P²DGD)/B]/(1 - 2/B); all: [tr²(PD) + tr(PDPD)]/2."""
    d, w, y, z = 3, 4, 5, 6  # φ′, uφ′, u²φ′, u³φ′
    keep, cut = 1 - 2 / size, rho / size
    removed = size * one[w, w] - total[w, w] / size
    squared = (size - 2) * one[d, d] + total[d, d] / size**2 - (2 - rho) * rho * removed / size
    diagonal = size * (keep**2 * one[d, d] - 2 * keep * cut * one[d, y] + cut**2 * one[y, y])
    diagonal += 2 / size**2 * (keep * total[d, d] - cut * total[d, y])
    diagonal += 2 * rho / size**2 * (keep * total[w, w] - cut * total[w, z])
    diagonal += total[d, d] / size**3 + rho**2 * total[w, w] / size**3
    trace_g, trace_l = squared / (size - 1), (diagonal - squared / size) / keep
    own = 1 - 1 / size
    trace = own**2 * total[d, d] - 2 * own * cut * total[d, y] + cut**2 * total[y, y]
    between = total - size * one  # Σ_{i≠j}
    loop = size * (own**2 * one[d, d] - 2 * own * cut * one[d, y] + cut**2 * one[y, y])
    loop += (between[d, d] + 2 * rho * between[w, w] + rho**2 * between[y, y]) / size**2
    return trace_g, trace_l, (trace + loop) / 2 - trace_g - trace_l
