"""First corrections in 1/width to the mean field: fluctuations of q and of ln‖Jv‖² from network to network, for any φ.

Model: h^l = W^l φ(h^{l-1}) + b^l with n_l units, Gaussian entries of variance σ_w²/n_{l-1}, one input, one direction v.
Given layer l - 1 the units of layer l are independent: h_i ~ N(0, q_l), and u_i, the entries of W^l J_{l-1} v scaled to
variance 1, have a correlation a_l with h_i. So q_l and the log-norm go from layer to layer by sums over units,

    q_{l+1} = σ_w² Σ_i φ(h_i)²/n_l + σ_b²,      ‖J_l v‖²/‖J_{l-1} v‖² = (σ_w²/n_{l-1}) Σ_i φ′(h_i)² u_i²,

each with a mean and a variance of order 1/n that are moments over h ~ N(0, q_l). Following the small deviations of q_l
(their variance and, to second order, their mean), a_l² and the covariance of q_l with ln‖J_{l-1} v‖² gives mean and
variance of q_l and ln‖J_l v‖² to order 1/n. For a positively homogeneous φ the latter is the result of Hanin & Nica
(2019, arXiv:1812.05994). Derivation: docs/derivations/width_expansion.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmtbn import _checks
from rmtbn.activations import Activation, Elementwise
from rmtbn.activations import activation as find_activation
from rmtbn.theory import gauss_hermite
from rmtbn.theory.propagation import lengths

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthExpansion:
    """Statistics over networks to order 1/width; arrays of shape (depth,), layer 1 first.

    Parameters
    ----------
    q
        Mean-field length q_l (order 1).
    q_shift, q_variance
        E q_l - q and Var q_l, where q_l is the variance of a pre-activation given the layer before.
    log_norm_mean, log_norm_variance
        Of ln‖J_l v‖², J_l = D_l W_l … D_1 W_1.
    """

    q: Array
    q_shift: Array
    q_variance: Array
    log_norm_mean: Array
    log_norm_variance: Array

    @property
    def log_q_mean(self) -> Array:
        """E ln q_l to order 1/width: ln q + shift/q - variance/(2q²)."""
        return np.asarray(np.log(self.q) + self.q_shift / self.q - self.q_variance / (2 * self.q**2))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moments:
    """Moments over h ~ N(0, q), layer by layer; primes are derivatives with respect to q."""

    phi2: Array
    phi2_prime: Array
    phi2_second: Array
    slope2: Array
    slope2_prime: Array
    slope2_second: Array
    phi4: Array
    slope4: Array
    mixed: Array  # E φ²φ′²
    turned: Array  # E φφ′h
    stretched: Array  # E φ′²h²/q


def beta(activation: str | Activation, *, widths: Sequence[int], q: float = 1.0) -> float:
    """Compute Hanin and Nica's β = Σ_l (3 E φ′⁴/(E φ′²)² - 1)/n_l: ln‖Jv‖² is near N(-β/2, β) at χ₁ = 1.

    The bracket is 2 for linear, 5 for ReLU and 6(1 + a⁴)/(1 + a²)² - 1 for leaky ReLU of slope a, whatever q. For
    other φ it is the part of the variance at fixed lengths; `width_expansion` has the whole.

    Parameters
    ----------
    activation
        Name or record of φ.
    widths
        (n_0, ..., n_L), input first; the input's does not count.
    q
        Length of the pre-activations, > 0.
    """
    record = find_activation(activation)
    n, length = _widths(widths), np.asarray(_checks.real("q", q, above=0.0))
    second, fourth = (
        float(gauss_hermite.expectation(lambda h: record.dphi(h) ** k, length, kinks=record.kinks))  # noqa: B023
        for k in (2, 4)
    )
    return (3 * fourth / second**2 - 1) * math.fsum(1 / width for width in n[1:])


def log_fourth_moment_growth(activation: str | Activation, *, widths: Sequence[int]) -> float:
    """Compute ln of E‖x_L‖⁴/(E‖x_L‖²)² = Π_l (1 + β_l), exact for linear and (leaky) ReLU layers with χ₁ = 1.

    The same holds for ‖Jv‖, and close to e^β: the fourth moment explodes with L/n while the second is kept.

    Parameters
    ----------
    activation
        Name or record of a positively homogeneous φ.
    widths
        (n_0, ..., n_L), input first.

    Raises
    ------
    InvalidArgumentError
        If φ is not linear on each side of 0, or a width is below 1.
    """
    record = find_activation(activation)
    if record.slopes is None or any(kink != 0 for kink in record.kinks):
        raise _checks.fail("activation", "linear on each side of 0", record.name)
    one = beta(record, widths=(1, 1))
    return math.fsum(math.log1p(one / width) for width in _widths(widths)[1:])


def width_expansion(
    activation: str | Activation,
    *,
    widths: Sequence[int],
    sigma_w: float,
    sigma_b: float = 0.0,
    q0: float = 1.0,
    cosine: float = 0.0,
) -> WidthExpansion:
    """Expand the statistics of lengths and log-norms over networks to first order in 1/width.

    Parameters
    ----------
    activation
        Name or record of φ.
    widths
        (n_0, ..., n_L), input first.
    sigma_w, sigma_b
        Standard deviations of √n·W_ij, > 0, and of the bias, >= 0.
    q0
        Mean square of the input, > 0.
    cosine
        Cosine of the angle between the input and v (of order 1/√n_0 for a random v; it must be small).

    Returns
    -------
    WidthExpansion
        Right while its variances are small against 1.

    Raises
    ------
    InvalidArgumentError
        If an argument is out of range.
    """
    record, n = find_activation(activation), _widths(widths)
    weight = _checks.real("sigma_w", sigma_w, above=0.0) ** 2
    start = _checks.real("q0", q0, above=0.0)
    cosine = _checks.real("cosine", cosine, at_least=-1.0, at_most=1.0)
    q = lengths(start, record, depth=len(n) - 1, sigma_w=sigma_w, sigma_b=sigma_b)
    turn = weight * start / q[0] * cosine**2
    return _followed(_moments(record, q), n, q=q, weight=weight, turn=turn)


def _followed(m: _Moments, n: tuple[int, ...], *, q: Array, weight: float, turn: float) -> WidthExpansion:
    """Follow shift and variance of q, a², mean and variance of ln‖Jv‖², and the covariance of both, layer by layer."""
    shift = variance = mean = spread = covariance = 0.0
    rows = []
    for layer in range(len(q)):
        gain, size = m.slope2[layer], n[layer + 1]
        tilt, bend = m.slope2_prime[layer] / gain, m.slope2_second[layer] / gain
        noise = (3 * m.slope4[layer] / gain**2 - 1) / size
        mean += math.log(weight * gain * size / n[layer]) - noise / 2 + tilt * shift
        mean += (bend - tilt**2) * variance / 2 + turn * (m.stretched[layer] / gain - 1)
        spread += noise + tilt**2 * variance + 2 * tilt * covariance
        rows.append((shift, variance, mean, spread))
        slope = weight * m.phi2_prime[layer]
        shared = weight * (m.mixed[layer] / gain - m.phi2[layer]) / size  # of Σφ² and Σφ′²u² in one layer
        covariance = slope * (covariance + tilt * variance) + shared
        shift = slope * shift + weight * m.phi2_second[layer] * variance / 2
        variance = slope**2 * variance + weight**2 * (m.phi4[layer] - m.phi2[layer] ** 2) / size
        after = q[min(layer + 1, len(q) - 1)]
        turn = weight / (after * gain) * (m.turned[layer] ** 2 / q[layer] * turn + m.mixed[layer] / size)
    columns = np.array(rows).T
    return WidthExpansion(
        q=q, q_shift=columns[0], q_variance=columns[1], log_norm_mean=columns[2], log_norm_variance=columns[3]
    )


def _moments(record: Activation, q: Array) -> _Moments:
    """Moments by quadrature; d/dq E f = E f (z² - 1)/2q and d²/dq² E f = E f (z⁴ - 6z² + 3)/4q², z = h/√q."""

    def mean(f: Elementwise, weight: Elementwise = np.ones_like) -> Array:
        column = q[:, None]
        return gauss_hermite.expectation(lambda h: f(h) * weight(h * h / column), q, kinks=record.kinks)

    def first(z2: Array) -> Array:
        return (z2 - 1) / 2

    def second(z2: Array) -> Array:
        return (z2 * z2 - 6 * z2 + 3) / 4

    def phi2(h: Array) -> Array:
        return record.phi(h) ** 2

    def slope2(h: Array) -> Array:
        return record.dphi(h) ** 2

    return _Moments(
        phi2=mean(phi2),
        phi2_prime=mean(phi2, first) / q,
        phi2_second=mean(phi2, second) / q**2,
        slope2=mean(slope2),
        slope2_prime=mean(slope2, first) / q,
        slope2_second=mean(slope2, second) / q**2,
        phi4=mean(lambda h: phi2(h) ** 2),
        slope4=mean(lambda h: slope2(h) ** 2),
        mixed=mean(lambda h: phi2(h) * slope2(h)),
        turned=mean(lambda h: record.phi(h) * record.dphi(h) * h),
        stretched=mean(lambda h: slope2(h) * h * h) / q,
    )


def _widths(widths: Sequence[int]) -> tuple[int, ...]:
    n = tuple(_checks.integer("widths", width, at_least=1) for width in widths)
    if len(n) < 2:
        raise _checks.fail("widths", "the input width and one width per layer", n)
    return n
