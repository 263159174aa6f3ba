"""The measured spectrum: singular values of one or more networks as a spectral law."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from rmtbn import _checks
from rmtbn.result.spectral_measure import SpectralMeasure
from rmtbn.result.table_file import read_table, write_table

Array = NDArray[np.float64]

_KIND = "spectrum"
_DESCRIPTION = (
    "relative_error",
    "method",
    "batch_stats",
    "log_floor",
    "cdf_error",
    "reason",
)  # beside the values in a file


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
    log_floor
        Per network the log σ below which the route could not tell values, shape (networks,): entries at or below it
        (other than -inf) are *censored*, known to lie in [0, floor], and are held at the floor. None if all are known.
    cdf_error
        Error of the share of values above a point, the largest over the points, where it was estimated from random
        probes; 0 where every value was computed.
    reason
        Why this route was taken, and its price, in words.

    Notes
    -----
    Censored values count by their mass only: `cdf` and `ppf` are right above the floor, `log_moment` is refused, and
    `moment` takes them at the floor, which is too much by at most their share times floor^k.
    `pdf` is a Gaussian kernel estimate in log λ of the known non-zero values (Silverman's bandwidth); `cdf`, `ppf` are
    exact.
    The networks are the unit of every error: the values of one network repel each other and are not independent.
    """

    by_network: Array
    relative_error: float
    method: str
    batch_stats: str | None = None
    log_floor: Array | None = None
    cdf_error: float = 0.0
    reason: str = ""
    _ascending: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows = _checks.array("by_network", self.by_network)
        if rows.ndim != 2 or rows.size == 0 or np.isposinf(rows).any():
            raise _checks.fail(
                "by_network", "a non-empty array (networks, dimension) of finite or -inf values", rows.shape
            )
        rows = self._censored(-np.sort(-rows, axis=1))
        rows.setflags(write=False)
        object.__setattr__(self, "by_network", rows)
        object.__setattr__(self, "_ascending", np.sort(2.0 * rows, axis=None))

    def _censored(self, rows: Array) -> Array:
        """Hold what is below the floor of its network at that floor."""
        if self.log_floor is None:
            return rows
        floor = _checks.array("log_floor", self.log_floor)
        if floor.shape != rows.shape[:1]:
            raise _checks.fail("log_floor", f"one number for each of {len(rows)} networks", floor.shape)
        object.__setattr__(self, "log_floor", floor)
        return np.where(np.isneginf(rows), rows, np.maximum(rows, floor[:, None]))

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
            log_floor=None
            if all(s.log_floor is None for s in spectra)
            else np.concatenate([s._floors for s in spectra]),
            cdf_error=max(s.cdf_error for s in spectra),
            reason="; ".join(dict.fromkeys(s.reason for s in spectra if s.reason)),
        )

    @property
    def _floors(self) -> Array:
        return np.full(self.networks, -np.inf) if self.log_floor is None else self.log_floor

    def to_parquet(self, path: str | Path) -> None:
        """Write one row per singular value, (network, log_singular_value), and what else is known beside them."""
        columns = {
            "network": np.repeat(np.arange(self.networks), self.dimension),
            "log_singular_value": self.by_network.ravel(),
        }
        about = {name: getattr(self, name) for name in (*_DESCRIPTION, "dimension")}
        write_table(path, columns, kind=_KIND, about=about)

    @classmethod
    def from_parquet(cls, path: str | Path) -> "EmpiricalSpectrum":
        """Read what `to_parquet` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        InvalidArgumentError
            If it is not the file of a spectrum.
        """
        _, columns, about = read_table(path, kind=_KIND)
        rows = columns["log_singular_value"].reshape(-1, about.pop("dimension"))
        floor = about.pop("log_floor")
        return cls(by_network=rows, log_floor=None if floor is None else np.array(floor, dtype=np.float64), **about)

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
    def censored(self) -> NDArray[np.bool_]:
        """Which entries of `by_network` are known to be at most the floor and no more."""
        return np.isfinite(self.by_network) & (self.by_network <= self._floors[:, None])

    @property
    def censored_fraction(self) -> float:
        """Share of censored values."""
        return float(np.mean(self.censored))

    @property
    def log_lam_floor(self) -> float:
        """Log λ above which every value of every network is known; -inf where nothing is censored."""
        return 2.0 * float(self._floors[self.censored.any(axis=1)].max(initial=-np.inf))

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
        """Smallest and largest non-zero log λ; the smallest is -inf, the only bound, where values are censored."""
        top = float(self._ascending[-1])
        if np.isneginf(top):
            return None
        return (-np.inf if self.censored.any() else float(self._known[0]), top)

    @property
    def _known(self) -> Array:
        """Log λ of what is neither zero nor censored, ascending."""
        return 2.0 * np.sort(self.by_network[np.isfinite(self.by_network) & ~self.censored])

    def log_pdf_log(self, log_lam: ArrayLike) -> Array:
        """Log of the kernel estimate of the density of log λ, zeros left out."""
        x = _checks.array("log_lam", log_lam)
        points = self._known
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
        p = _checks.probabilities(p)
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
        if self.censored.any():
            raise _checks.fail("spectrum", "without censored values, which have no known logarithm", "log_moment")
        return float(np.mean(self._ascending**k))
