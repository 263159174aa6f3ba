"""Law of d = φ′(h)², h ~ N(0, q): the diagonal of D Dᵀ in a network's Jacobian, as a factor of a free product.

Where φ is linear between two kinks d has an atom, of mass P(a < h < b) = [erf(b/√(2q)) - erf(a/√(2q))]/2; elsewhere a
density, given in panels of h.
"""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.theory.free import factors
from rmtbn.theory.free.factors import Factor
from rmtbn.theory.free.panel_law import PanelLaw
from rmtbn.theory.free.panels import Panels
from rmtbn.theory.gauss_hermite import SMALLEST_Q
from rmtbn.theory.log_slope import RATES, split_slope
from rmtbn.theory.slope_levels import slope_levels
from rmtbn.theory.slope_panels import Slope, panels

Array = NDArray[np.float64]

# Standard deviations of h that are kept: up to where densities leave the floating range, or up to a mass of 4e-33 where
# that would let ln d range too far.
TAILS = (37.0, 12.0)
LONG, LONGEST = 4_000.0, 400_000.0  # range of ln d: what is too far, and what is refused
NEGLIGIBLE = 1e-22  # share of the mass at about the same ln d below which a panel is dropped
NARROW = 1e-12  # spread of ln d over twelve standard deviations below which d counts as constant
SAMPLE = 4001  # points of an interval on which zeros of φ′ are looked for
LEAST_SLOPE = 1e-290  # of a φ of the user's own; smaller ones have few digits, or none
FAR = 1e9  # h that stands for infinity where the infimum of d is looked for


def slope_factor(activation: Activation, q: float) -> Factor:
    """Compute the law of φ′(h)², h ~ N(0, q).

    Parameters
    ----------
    activation
        Record of φ.
    q
        Variance of the pre-activation, >= 0; 0 is the limit from above. Where ln d is constant to 1e-12 over twelve
        standard deviations (small q), d is taken as constant.

    Raises
    ------
    InvalidArgumentError
        If φ′ vanishes almost surely, or q is so large that φ′ spans more than 170,000 decades (erf: q > 1,388), or
        that a φ′ of the user's own underflows where h has mass, or has more than 200 zeros or extrema within 37
        standard deviations.
    """
    q = max(_checks.real("q", q, at_least=0.0), SMALLEST_Q)
    if activation.slopes is not None:
        return factors.points(np.square(activation.slopes), _masses(activation.kinks, q))
    slope = Slope(split=split_slope(activation), q=q, rate=RATES.get(activation.name))
    return _smooth(slope, activation.kinks)


def _smooth(slope: Slope, kinks: tuple[float, ...]) -> Factor:
    """Join the laws on the intervals between kinks; an even φ′ needs one side only."""
    reach = _reach(slope)
    cuts = [-reach, *(kink for kink in kinks if abs(kink) < reach), reach]
    even = not kinks and _is_even(slope, reach)
    intervals = _lit(slope, [(0.0, reach)] if even else list(pairwise(cuts)))
    found = [panels(slope, low, high) for low, high in intervals]
    flat = [_is_constant(log_d, density) for log_d, density in found]
    masses = [_mass(low, high, slope.q) * (2 if even else 1) for low, high in intervals]
    atoms = [
        (float(log_d[0, 0]), mass) for (log_d, _), mass, constant in zip(found, masses, flat, strict=True) if constant
    ]
    if all(flat):
        return factors.points(np.exp([x for x, _ in atoms]), [mass for _, mass in atoms])
    rest = [pair for pair, constant in zip(found, flat, strict=True) if not constant]
    log_d, density = _that_count(*(np.concatenate(part) for part in zip(*rest, strict=True)))
    moving = [interval for interval, constant in zip(intervals, flat, strict=True) if not constant]
    law = PanelLaw(
        panels=Panels.of(log_d, density * (2 if even else 1)),
        flat=tuple(sorted(atoms)),
        infimum=_infimum(slope, log_d),
        levels=slope_levels(slope, moving, copies=2 if even else 1),
    )
    return factors.of_law(law)


def _lit(slope: Slope, intervals: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Leave out intervals where φ′ = 0, and ends, of negligible mass, where it is below the floating range."""
    found = []
    for low, high in intervals:
        h = low + (high - low) * (np.arange(SAMPLE) + 0.5) / SAMPLE
        lit = np.flatnonzero(np.abs(slope.split(h)[0]) >= LEAST_SLOPE)
        if lit.size == 0:
            continue
        first, last = (low if lit[0] == 0 else float(h[lit[0]])), (high if lit[-1] == SAMPLE - 1 else float(h[lit[-1]]))
        lost = _mass(low, first, slope.q) + _mass(last, high, slope.q)
        if lost > NEGLIGIBLE or np.diff(lit).max(initial=1) > 2:  # an isolated zero is no loss
            raise _checks.fail(
                "q", f"so small that φ′, where it is not 0 between kinks, is above {LEAST_SLOPE}", slope.q
            )
        found.append((first, last))
    if not found:
        raise _checks.fail("activation", "one with a slope that is not 0 almost surely", "φ′ = 0")
    return found


def _reach(slope: Slope) -> float:
    for tail in TAILS:
        reach = tail * math.sqrt(slope.q)
        log_d = slope.log_d(reach * np.linspace(-1, 1, 101))
        seen = log_d[np.isfinite(log_d)]
        if seen.size == 0 or np.ptp(seen) < (LONG if tail == TAILS[0] else LONGEST):
            return reach
    raise _checks.fail("q", f"so small that ln φ′² ranges over less than {LONGEST:g}", slope.q)


def _that_count(log_d: Array, density: Array) -> tuple[Array, Array]:
    """Drop panels whose mass is negligible next to that of others at the same ln d: far tails where φ′ levels off."""
    place = np.floor(log_d.mean(axis=1)).astype(np.int64)
    place -= place.min()
    mass = density.sum(axis=1)
    nearby = np.convolve(np.bincount(place, weights=mass), np.ones(3), mode="same")
    kept = mass > NEGLIGIBLE * nearby[place]
    return log_d[kept], density[kept]


def _is_even(slope: Slope, reach: float) -> bool:
    h = reach * np.linspace(1e-3, 1, 1000)
    return bool(np.array_equal(slope.log_d(h), slope.log_d(-h)))


def _is_constant(log_d: Array, density: Array) -> bool:
    """Whether d is the same wherever the Gaussian has mass."""
    seen = log_d[density > 1e-30 * density.max()]
    return bool(np.ptp(seen) < NARROW)


def _infimum(slope: Slope, log_d: Array) -> float:
    """Infimum of ln d: over the panels and towards h = ±∞; φ′ has no limit there but 0, ∞ and constants."""
    lowest = min(float(log_d.min()), *slope.log_d(np.array([-FAR, FAR])).tolist())
    return lowest if lowest > -math.log(FAR) else -math.inf


def _mass(low: float, high: float, q: float) -> float:
    """P(low < h < high), by the tails on one side of 0."""
    a, b = (low, high) if low < 0 else (-high, -low)
    return float(special.ndtr(b / math.sqrt(q)) - special.ndtr(a / math.sqrt(q)))


def _masses(kinks: tuple[float, ...], q: float) -> Array:
    cuts = np.array([-math.inf, *kinks, math.inf]) / math.sqrt(2 * q)
    return np.asarray(np.diff(special.erf(cuts)) / 2)
