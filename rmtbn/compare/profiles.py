"""Measured profiles over depth, and measured numbers, against predicted ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rmtbn import _checks
from rmtbn.compare.verdict import Verdict, judge
from rmtbn.result import DepthProfile, Scalar

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProfileComparison:
    """A measured profile against a predicted one.

    Parameters
    ----------
    depth, z
        Layers both have, and (measured - predicted)/se there.
    pvalue
        Of the largest |z| over the layers (Student's t over networks, Šidák's correction); None for one network.
    correction, undetectable
        N·(measured - predicted), the size of a 1/N correction that would explain the difference, and 2·N·se, the size
        that could not be told from zero; None where no width was given.
    verdict
        "agrees" if pvalue >= 0.01; else "agrees to order 1/N" if every |correction| - 3·N·se is within the allowance
        `finite_size`, "rejected" if not; "undecided" for one network.
    """

    depth: Array
    z: Array
    pvalue: float | None
    correction: Array | None
    undetectable: Array | None
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarComparison:
    """Two numbers: their difference in units of their joint error, its two-sided p-value, and the verdict at 0.01."""

    z: float
    pvalue: float
    verdict: Verdict


def compare_profiles(
    predicted: DepthProfile, measured: DepthProfile, *, width: int | None, finite_size: float
) -> ProfileComparison:
    """Compare layer by layer, with the 1/N correction that a difference would amount to.

    Parameters
    ----------
    predicted, measured
        Profiles that share at least one layer, both logarithms or neither.
    width
        N, or None if it is not known.
    finite_size
        κ: a difference of κ/N is left to finite size.

    Returns
    -------
    ProfileComparison
        Over the layers that both have.
    """
    if predicted.is_log != measured.is_log:
        raise _checks.fail("measured", "a logarithm just where `predicted` is", measured.is_log)
    depth, at, of = np.intersect1d(measured.depth, predicted.depth, return_indices=True)
    if depth.size == 0:
        raise _checks.fail("measured", "given at layers that `predicted` has too", measured.depth.tolist())
    difference, se = measured.value[at] - predicted.value[of], np.hypot(measured.se[at], predicted.se[of])
    z = np.divide(difference, se, where=se > 0, out=np.where(difference == 0, 0.0, np.copysign(np.inf, difference)))
    pvalue = _largest_z_pvalue(z, measured.networks)
    exceeds = width is None or bool(np.any(width * (np.abs(difference) - 3 * se) > finite_size))
    return ProfileComparison(
        depth=depth,
        z=z,
        pvalue=pvalue,
        correction=None if width is None else width * difference,
        undetectable=None if width is None else 2 * width * se,
        verdict=judge(pvalue, exceeds=exceeds),
    )


def _largest_z_pvalue(z: Array, networks: int) -> float | None:
    if networks == 1:
        return None
    single = 2 * (stats.t(networks - 1).sf(np.max(np.abs(z))) if networks else stats.norm.sf(np.max(np.abs(z))))
    return float(-np.expm1(z.size * np.log1p(-min(float(single), 1.0 - 1e-16))))


def compare_scalars(predicted: Scalar, measured: Scalar) -> ScalarComparison:
    """Compare two numbers by their joint error."""
    se = float(np.hypot(predicted.se, measured.se))
    difference = measured.value - predicted.value
    z = difference / se if se > 0 else (0.0 if difference == 0 else float(np.copysign(np.inf, difference)))
    law = stats.t(measured.networks - 1) if measured.networks > 1 else stats.norm
    pvalue = float(2 * law.sf(abs(z)))
    undecided = measured.networks == 1
    return ScalarComparison(z=z, pvalue=pvalue, verdict="undecided" if undecided else judge(pvalue, exceeds=True))
