"""The interface of a law that is known level by level: its density and its mass up to a given ln d."""

import abc

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Levels(abc.ABC):
    """The absolutely continuous part of a law of d, in ln d."""

    __slots__ = ()

    @abc.abstractmethod
    def at(self, x: Array) -> tuple[Array, Array]:
        """Compute the density of ln d, and P(ln d <= x) without atoms."""
