"""Lay two results of one kind side by side: distances with their errors over networks, and a verdict."""

from typing import overload

from rmtbn import _checks
from rmtbn.compare.given import GivenLaws, compare_given
from rmtbn.compare.laws import LawDistance, compare_laws
from rmtbn.compare.profiles import ProfileComparison, ScalarComparison, compare_profiles, compare_scalars
from rmtbn.compare.spectra import FINITE_SIZE, SpectrumComparison, compare_spectrum
from rmtbn.result import DepthProfile, EmpiricalSpectrum, Scalar, SpectralMeasure

__all__ = [
    "FINITE_SIZE",
    "GivenLaws",
    "LawDistance",
    "ProfileComparison",
    "ScalarComparison",
    "SpectrumComparison",
    "compare",
    "compare_given",
]


@overload
def compare(
    predicted: SpectralMeasure,
    measured: EmpiricalSpectrum,
    *,
    width: int | None = None,
    finite_size: float | None = None,
) -> SpectrumComparison: ...
@overload
def compare(
    predicted: SpectralMeasure,
    measured: SpectralMeasure,
    *,
    width: int | None = None,
    finite_size: float | None = None,
) -> SpectrumComparison | LawDistance: ...
@overload
def compare(
    predicted: DepthProfile,
    measured: DepthProfile,
    *,
    width: int | None = None,
    finite_size: float | None = None,
) -> ProfileComparison: ...
@overload
def compare(
    predicted: Scalar, measured: Scalar, *, width: int | None = None, finite_size: float | None = None
) -> ScalarComparison: ...
def compare(
    predicted: SpectralMeasure | DepthProfile | Scalar,
    measured: SpectralMeasure | DepthProfile | Scalar,
    *,
    width: int | None = None,
    finite_size: float | None = None,
) -> SpectrumComparison | LawDistance | ProfileComparison | ScalarComparison:
    """Compare two results of one kind.

    Parameters
    ----------
    predicted, measured
        Two spectral laws (the second usually an `EmpiricalSpectrum`), two profiles or two scalars.
    width
        N, for the 1/N correction of a profile; a spectrum takes its own dimension unless told otherwise.
    finite_size
        Coefficient κ of the allowance κ/N for what the prediction, made for N → ∞, leaves out. Spectra: 1.5
        (see `FINITE_SIZE`). Profiles: 0, that is no allowance.

    Raises
    ------
    InvalidArgumentError
        If the two are not of one kind, profiles share no layer or hold a logarithm on one side only, or a number is
        out of its range.
    """
    size = None if width is None else _checks.integer("width", width, at_least=1)
    kappa = None if finite_size is None else _checks.real("finite_size", finite_size, at_least=0.0)
    if isinstance(predicted, SpectralMeasure) and isinstance(measured, EmpiricalSpectrum):
        allowance = (FINITE_SIZE if kappa is None else kappa) / (size or measured.dimension)
        return compare_spectrum(predicted, measured, allowance)
    if isinstance(predicted, SpectralMeasure) and isinstance(measured, SpectralMeasure):
        return compare_laws(predicted, measured)
    if isinstance(predicted, DepthProfile) and isinstance(measured, DepthProfile):
        return compare_profiles(predicted, measured, width=size, finite_size=kappa or 0.0)
    if isinstance(predicted, Scalar) and isinstance(measured, Scalar):
        return compare_scalars(predicted, measured)
    raise _checks.fail(
        "measured", f"of one kind with `predicted`, a {type(predicted).__name__}", type(measured).__name__
    )
