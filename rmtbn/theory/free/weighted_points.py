"""A law given by weighted points, as a factor of free products."""

from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import NDArray

from rmtbn.theory.free.factor_law import FactorLaw, kernel, log_angle

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightedPoints(FactorLaw):
    """A law of two or more atoms.

    Parameters
    ----------
    log_points
        Logarithms of the points, ascending; zeros are left out.
    weights
        Their masses, > 0, of sum 1 - (mass at zero).
    """

    log_points: Array
    weights: Array
    total: float = field(init=False)
    means: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "means", (self.log_moment(-1), self.log_moment(1)))
        object.__setattr__(self, "total", float(self.weights.sum()))

    @property
    def mass(self) -> float:
        """Mass not at zero."""
        return self.total

    @property
    def log_means(self) -> tuple[float, float]:
        """Ln E 1/d and ln E d."""
        return self.means

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """All its points."""
        return tuple(zip(self.log_points.tolist(), self.weights.tolist(), strict=True))

    @property
    def span(self) -> tuple[float, float]:
        """Least and largest ln d."""
        return float(self.log_points[0]), float(self.log_points[-1])

    @property
    def floor(self) -> float:
        """Least ln d."""
        return float(self.log_points[0])

    @property
    def inner(self) -> tuple[float, float]:
        """The second least and the second largest ln d."""
        return float(self.log_points[1]), float(self.log_points[-2])

    def scaled(self, log_factor: float) -> "WeightedPoints":
        """Return the law of e^log_factor·d."""
        return WeightedPoints(log_points=self.log_points + log_factor, weights=self.weights)

    def log_moment(self, k: int) -> float:
        """Compute ln E d^k, zero left out."""
        return float(np.logaddexp.reduce(k * self.log_points + np.log(self.weights)))

    def sums(self, v: Complex) -> tuple[Complex, Complex, Complex]:
        """Sum over the points."""
        return kernel(self.log_points - v.real[:, None], self.weights, v.imag)

    def potential_angle(self, v: Complex) -> Array:
        """Compute Im E ln(1 - d/ζ), continuous, in [0, π]."""
        return log_angle(self.log_points - v.real[:, None], v.imag) @ self.weights
