"""The measured spectrum: singular values of one or more networks as a spectral law."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from rmtbn import _checks
from rmtbn.result.spectral_measure import SpectralMeasure

Array = NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmpiricalSpectrum(SpectralMeasure):
    """Measured singular values of the Jacobians of one or more networks, and the law that puts equal mass on each.

    Parameters
    ----------
    by_network
        Log singular values, shape (networks, dimension), each row descending, -inf for exact zeros.
    relative_error
        Estimated relative error of the singular values (the smallest included).
    method
        The route that was taken, for example "product" or "dense".
    batch_stats
        Which Jacobian was meant where there is batch normalisation: "batch" (samples coupled), "running"; None without.

    Notes
    -----
    `pdf` is a Gaussian kernel estimate in log λ of the non-zero values (Silverman's bandwidth); `cdf`, `ppf` are exact.
    The networks are the unit of every error: the values of one network repel each other and are not independent.
    """

    by_network: Array
    relative_error: float
    method: str
    batch_stats: str | None = None
    _ascending: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows = _checks.array("by_network", self.by_network)
        if rows.ndim != 2 or rows.size == 0 or np.isposinf(rows).any():
            raise _checks.fail(
                "by_network", "a non-empty array (networks, dimension) of finite or -inf values", rows.shape
            )
        rows = -np.sort(-rows, axis=1)
        rows.setflags(write=False)
        object.__setattr__(self, "by_network", rows)
        object.__setattr__(self, "_ascending", np.sort(2.0 * rows, axis=None))

    @classmethod
    def pool(cls, spectra: Sequence["EmpiricalSpectrum"]) -> "EmpiricalSpectrum":
        """Join the spectra of several networks of one dimension; the networks stay the unit of the errors."""
        if not spectra or len({(s.dimension, s.batch_stats) for s in spectra}) != 1:
            raise _checks.fail("spectra", "one or more spectra of one dimension and one `batch_stats`", len(spectra))
        return cls(
            by_network=np.concatenate([s.by_network for s in spectra]),
            relative_error=max(s.relative_error for s in spectra),
            method="+".join(sorted({s.method for s in spectra})),
            batch_stats=spectra[0].batch_stats,
        )

    @property
    def networks(self) -> int:
        """Number of networks."""
        return int(self.by_network.shape[0])

    @property
    def dimension(self) -> int:
        """Number of singular values of one network."""
        return int(self.by_network.shape[1])

    @property
    def log_singular_values(self) -> Array:
        """All log singular values, networks pooled, descending; -inf for exact zeros."""
        return self._ascending[::-1] / 2.0

    @property
    def zero_fraction(self) -> float:
        """Share of exact zeros."""
        return float(np.mean(np.isneginf(self._ascending)))

    @property
    def accuracy(self) -> float:
        """Estimated relative error of the singular values."""
        return self.relative_error

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """The exact zeros: ((0, share),), or nothing."""
        return ((0.0, self.zero_fraction),) if self.zero_fraction > 0 else ()

    @property
    def log_bulk(self) -> tuple[float, float] | None:
        """Smallest and largest non-zero log λ."""
        nonzero = self._nonzero
        return (float(nonzero[0]), float(nonzero[-1])) if nonzero.size else None

    @property
    def _nonzero(self) -> Array:
        return self._ascending[np.searchsorted(self._ascending, -np.inf, side="right") :]

    def log_pdf_log(self, log_lam: ArrayLike) -> Array:
        """Log of the kernel estimate of the density of log λ, zeros left out."""
        x = _checks.array("log_lam", log_lam)
        points = self._nonzero
        if points.size == 0:
            return np.full(x.shape, -np.inf)
        spread = min(float(np.std(points)), float(np.subtract(*np.percentile(points, [75, 25]))) / 1.349)
        width = max(0.9 * spread * points.size**-0.2, 1e-12)  # Silverman 1986, eq. (3.31)
        scaled = (x[..., None] - points) / width
        log_kernel = special.logsumexp(-0.5 * scaled**2, axis=-1)
        return np.asarray(log_kernel - np.log(self._ascending.size * width * np.sqrt(2 * np.pi)))

    def cdf_log(self, log_lam: ArrayLike) -> Array:
        """Share of values with log λ <= log_lam."""
        x = _checks.array("log_lam", log_lam)
        return np.asarray(np.searchsorted(self._ascending, x, side="right") / self._ascending.size)

    def log_ppf(self, p: ArrayLike) -> Array:
        """Order statistics of log λ."""
        p = _checks.array("p", p, at_least=0.0, at_most=1.0)
        index = np.ceil(p * self._ascending.size - 1e-9).astype(int) - 1
        return np.asarray(self._ascending[np.clip(index, 0, self._ascending.size - 1)])

    def moment(self, k: int) -> float:
        """Mean of λ^k over all values and networks."""
        k = _checks.integer("k", k, at_least=0)
        with np.errstate(over="ignore", under="ignore"):
            return float(np.mean(np.exp(k * self._ascending))) if k else 1.0

    def log_moment(self, k: int = 1) -> float:
        """Mean of (log λ)^k over all values and networks."""
        k = _checks.integer("k", k, at_least=1)
        return float(np.mean(self._ascending**k))
