"""The three kinds of result: a spectral law, a profile over depth, a scalar; each with what is known of its error.

`theory` predicts them, `measure` measures them, `compare` takes two of one kind and knows nothing else.
λ is a squared singular value throughout, and log is the natural logarithm.
"""

import abc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from rmtbn import _checks

Array = NDArray[np.float64]


class SpectralMeasure(abc.ABC):
    """A probability law of λ, the squared singular values of a Jacobian J (eigenvalues of J Jᵀ, zeros included).

    Laws of deep networks span hundreds of decades, so a law is given by its primitives in log λ; what is in λ follows
    from them. The names are those of `scipy.stats`: atoms are counted by `cdf` and `ppf` and left out of `pdf`.
    """

    __slots__ = ()

    @property
    @abc.abstractmethod
    def accuracy(self) -> float:
        """Stated accuracy: relative of `pdf`, absolute of `cdf`."""

    @property
    @abc.abstractmethod
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Point masses as ((λ, mass), ...), ascending in λ; empty if there is none."""

    @property
    @abc.abstractmethod
    def log_bulk(self) -> tuple[float, float] | None:
        """Edges of the absolutely continuous part in log λ; None where the law is atoms only."""

    @abc.abstractmethod
    def log_pdf_log(self, log_lam: ArrayLike) -> Array:
        """Log density of log λ (absolutely continuous part; -inf outside the bulk)."""

    @abc.abstractmethod
    def cdf_log(self, log_lam: ArrayLike) -> Array:
        """P(log λ <= log_lam), atoms included."""

    @abc.abstractmethod
    def log_ppf(self, p: ArrayLike) -> Array:
        """Quantiles of log λ: the smallest value whose `cdf_log` is at least p (0 <= p <= 1); -inf in an atom at 0."""

    @abc.abstractmethod
    def moment(self, k: int) -> float:
        """E λ^k for an integer k >= 0; inf where it diverges or leaves the floating range."""

    @abc.abstractmethod
    def log_moment(self, k: int = 1) -> float:
        """E (log λ)^k; -inf or inf where there is an atom at 0."""

    @final
    def pdf(self, lam: ArrayLike) -> Array:
        """Density of λ (absolutely continuous part)."""
        lam = _checks.array("lam", lam)
        positive = lam > 0
        log_lam = np.log(lam, where=positive, out=np.zeros_like(lam))
        with np.errstate(over="ignore", under="ignore"):  # the density itself may leave the floating range near 0
            return np.where(positive, np.exp(self.log_pdf_log(log_lam) - log_lam), 0.0)

    @final
    def cdf(self, lam: ArrayLike) -> Array:
        """P(λ' <= λ), atoms included."""
        lam = _checks.array("lam", lam)
        log_lam = np.log(lam, where=lam > 0, out=np.full_like(lam, -np.inf))
        return np.where(lam < 0, 0.0, self.cdf_log(log_lam))

    @final
    def ppf(self, p: ArrayLike) -> Array:
        """Quantiles of λ, the inverse of `cdf`."""
        with np.errstate(over="ignore", under="ignore"):  # out of the floating range: inf or 0; `log_ppf` keeps it
            return np.asarray(np.exp(self.log_ppf(p)))

    @final
    @property
    def support(self) -> tuple[float, float]:
        """The smallest interval that holds the law, atoms included: (low, high) in λ."""
        with np.errstate(over="ignore", under="ignore"):
            bulk = np.exp(self.log_bulk or ()).tolist()
        points = [*bulk, *(lam for lam, _ in self.atoms)]
        return min(points), max(points)

    @final
    def rvs(self, n: int, *, generator: np.random.Generator) -> Array:
        """Draw n independent values of λ (eigenvalues of one matrix repel; these do not)."""
        n = _checks.integer("n", n, at_least=0)
        return self.ppf(generator.random(n))


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DepthProfile:
    """A scalar per layer, measured or predicted.

    Parameters
    ----------
    depth
        Layer numbers, shape (points,), increasing; layer l is the output of the l-th weight layer, 0 the input.
    value
        The quantity per layer, shape (points,); its natural logarithm if `is_log`.
    se
        Standard error of `value` over networks; zeros for a prediction.
    symbol, label
        The field's letter and a short description for axes and tables.
    is_log
        Whether `value` (and so `se`) is the logarithm of the quantity, for what can leave the floating range.
    networks
        Number of networks behind `se`; 0 for a prediction.
    """

    depth: Array
    value: Array
    se: Array
    symbol: str
    label: str
    is_log: bool = False
    networks: int = 0

    def __post_init__(self) -> None:
        for name in ("depth", "value", "se"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        shapes = {self.depth.shape, self.value.shape, self.se.shape}
        if len(shapes) != 1 or self.depth.ndim != 1:
            raise _checks.fail("value", "one number per depth, with one standard error each", shapes)

    @classmethod
    def over_networks(
        cls, values: ArrayLike, *, depth: ArrayLike, symbol: str, label: str, is_log: bool = False
    ) -> "DepthProfile":
        """Average `values` of shape (networks, points) over the networks, with the standard error of the mean.

        One network gives no standard error: `se` is then infinite, so that no comparison can be significant.
        """
        rows = np.asarray(values, dtype=np.float64)
        count = rows.shape[0]
        se = rows.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.full(rows.shape[1], np.inf)
        return cls(
            depth=np.asarray(depth, dtype=np.float64),
            value=rows.mean(axis=0),
            se=se,
            symbol=symbol,
            label=label,
            is_log=is_log,
            networks=count,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A number with its standard error (measured, over networks) or stated accuracy (predicted)."""

    value: float
    se: float
    symbol: str
    label: str
    networks: int = 0

    @classmethod
    def over_networks(cls, values: ArrayLike, *, symbol: str, label: str) -> "Scalar":
        """Average one value per network, with the standard error of the mean (infinite for a single network)."""
        numbers = np.asarray(values, dtype=np.float64)
        se = float(numbers.std(ddof=1) / np.sqrt(numbers.size)) if numbers.size > 1 else float("inf")
        return cls(value=float(numbers.mean()), se=se, symbol=symbol, label=label, networks=int(numbers.size))
