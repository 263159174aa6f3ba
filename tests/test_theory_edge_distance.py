"""Distances to an edge: digits next to it, constants outside, shapes."""

import math

import mpmath
import numpy as np
import pytest

from rmtbn._checks import InvalidArgumentError
from rmtbn.theory.edge_distance import by_edge_distance


def test_the_distance_keeps_its_digits_next_to_the_edge():
    """ln 10 as two floats: an ulp below it the distance is right to 1e-14 relative, by one float to 1 % or worse."""
    with mpmath.workdps(50):
        exact = mpmath.log(10)
        edge = float(exact), float(exact - float(exact))
        x = np.nextafter(edge[0], 0.0)
        distance = float(exact - mpmath.mpf(float(x)))
    found = by_edge_distance(np.array([x]), edge, lambda fall: fall, below=-1.0, above=-2.0)
    assert found[0] == pytest.approx(distance, rel=1e-14)
    assert abs(edge[0] - x - distance) > 1e-2 * distance


def test_outside_of_the_bulk_there_are_constants():
    """λ = 0 and the edge itself, in any shape; the function sees the inside only."""
    seen = []

    def function(fall):
        seen.extend(fall.tolist())
        return fall

    x = np.array([[-math.inf, 0.5], [1.0, 2.0]])
    np.testing.assert_array_equal(
        by_edge_distance(x, (1.0, 0.0), function, below=0.0, above=7.0), [[0.0, 0.5], [7.0, 7.0]]
    )
    assert seen == [0.5]
    with pytest.raises(InvalidArgumentError, match="`log_lam` must be numbers without NaN"):
        by_edge_distance([math.nan], (1.0, 0.0), function, below=0.0, above=0.0)
