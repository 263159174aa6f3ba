"""The three kinds of result: a spectral law, a profile over depth, a scalar; each with what is known of its error.

`theory` predicts them, `measure` measures them, `compare` takes two of one kind and knows nothing else.
λ is a squared singular value throughout, and log is the natural logarithm.
"""

from rmtbn.result.depth_profile import DepthProfile
from rmtbn.result.empirical_spectrum import EmpiricalSpectrum
from rmtbn.result.parquet import from_parquet, to_parquet
from rmtbn.result.scalar import Scalar
from rmtbn.result.spectral_measure import LogSigmaView, SpectralMeasure
from rmtbn.result.tabulated_law import TabulatedLaw, tabulated

__all__ = [
    "DepthProfile",
    "EmpiricalSpectrum",
    "LogSigmaView",
    "Scalar",
    "SpectralMeasure",
    "TabulatedLaw",
    "from_parquet",
    "tabulated",
    "to_parquet",
]
