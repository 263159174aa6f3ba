"""The first kind of result: a probability law of λ, the squared singular values of a Jacobian."""

import abc
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    def log_condition_number(self, quantile: float = 0.0) -> float:
        """Log of the ratio of the singular values at the quantiles 1 - p and p of the non-zero part, p = `quantile`.

        At p = 0 it is the log condition number of the law, inf where the bulk reaches down to 0.
        """
        p = _checks.real("quantile", quantile, at_least=0.0, below=0.5)
        zero = sum(mass for lam, mass in self.atoms if lam == 0)
        if zero >= 1:
            raise _checks.fail("law", "one with mass outside 0", self)
        if p == 0:
            edges = () if self.log_bulk is None else self.log_bulk
            logs = [*edges, *(float(np.log(lam)) for lam, _ in self.atoms if lam > 0)]
            return (max(logs) - min(logs)) / 2
        low, high = self.log_ppf([zero + p * (1 - zero), 1 - p * (1 - zero)])
        return float(high - low) / 2

    @final
    def condition_number(self, quantile: float = 0.0) -> float:
        """Ratio of singular values σ at the quantiles 1 - p and p (see `log_condition_number`); inf beyond 1e308."""
        with np.errstate(over="ignore"):
            return float(np.exp(self.log_condition_number(quantile)))

    @final
    @property
    def in_log_sigma(self) -> "LogSigmaView":
        """The same law as one of log σ = (log λ)/2."""
        return LogSigmaView(self)


@final
class LogSigmaView:
    """A law of λ seen as the law of log σ, σ = √λ, with the names of `scipy.stats`."""

    __slots__ = ("_law",)

    def __init__(self, law: SpectralMeasure) -> None:
        self._law = law

    def pdf(self, log_sigma: ArrayLike) -> Array:
        """Density of log σ (absolutely continuous part)."""
        with np.errstate(under="ignore"):
            return np.asarray(2 * np.exp(self._law.log_pdf_log(2 * _checks.array("log_sigma", log_sigma))))

    def cdf(self, log_sigma: ArrayLike) -> Array:
        """P(log σ' <= log σ), atoms included."""
        return self._law.cdf_log(2 * _checks.array("log_sigma", log_sigma))

    def ppf(self, p: ArrayLike) -> Array:
        """Quantiles of log σ; -inf inside an atom at 0."""
        return np.asarray(self._law.log_ppf(p) / 2)

    def moment(self, k: int = 1) -> float:
        """E (log σ)^k; -inf or inf where there is an atom at λ = 0."""
        return self._law.log_moment(k) / 2.0**k

    def rvs(self, n: int, *, generator: np.random.Generator) -> Array:
        """Draw n independent values of log σ."""
        return self.ppf(generator.random(_checks.integer("n", n, at_least=0)))

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Point masses as ((log σ, mass), ...); -inf for λ = 0."""
        with np.errstate(divide="ignore"):
            return tuple((float(np.log(lam)) / 2, mass) for lam, mass in self._law.atoms)

    @property
    def support(self) -> tuple[float, float]:
        """Smallest interval of log σ that holds the law; -inf where λ = 0 belongs to it."""
        bulk = () if self._law.log_bulk is None else self._law.log_bulk
        with np.errstate(divide="ignore"):
            edges = [*bulk, *(float(np.log(lam)) for lam, _ in self._law.atoms)]
        return min(edges) / 2, max(edges) / 2
