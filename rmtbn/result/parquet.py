"""Any spectral law to a Parquet file and back: a measured spectrum by its values, a law as a table."""

from pathlib import Path

from rmtbn import _checks
from rmtbn.result.empirical_spectrum import EmpiricalSpectrum
from rmtbn.result.spectral_measure import SpectralMeasure
from rmtbn.result.table_file import read_table
from rmtbn.result.tabulated_law import ACCURACY, TabulatedLaw, tabulated


def to_parquet(law: SpectralMeasure, path: str | Path, *, accuracy: float = ACCURACY) -> None:
    """Write a law to a file; one that is neither measured nor tabulated is tabulated first.

    Parameters
    ----------
    law
        Any spectral law.
    path
        Where to write; what is there is replaced.
    accuracy
        Of the distribution function of the table.
    """
    kept = law if isinstance(law, EmpiricalSpectrum | TabulatedLaw) else tabulated(law, accuracy=accuracy)
    kept.to_parquet(path)


def from_parquet(path: str | Path) -> EmpiricalSpectrum | TabulatedLaw:
    """Read what `to_parquet` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    InvalidArgumentError
        If it is not the file of a spectrum or of a law.
    """
    kind, _, _ = read_table(path)
    if _checks.one_of("kind", kind, ("spectrum", "law")) == "spectrum":
        return EmpiricalSpectrum.from_parquet(path)
    return TabulatedLaw.from_parquet(path)
