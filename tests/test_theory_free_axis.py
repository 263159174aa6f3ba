"""The table along the axis: its distribution function and density in closed form, its guesses, lost points."""

import math

import numpy as np
import pytest

from rmtbn.theory.free import factors
from rmtbn.theory.free.axis import GOOD, axis, solve
from rmtbn.theory.free.branch import Chart, follow
from rmtbn.theory.free.chain import Placed, spectral_curve
from rmtbn.theory.free.edges import anchors, edges
from rmtbn.theory.fuss_catalan import FussCatalan
from rmtbn.theory.marchenko_pastur import MarchenkoPastur


def table(*parts, reach=None):
    curve = spectral_curve([Placed(factor=factor, count=count) for factor, count in parts])
    low, high = edges(curve)
    chart, start = Chart(low=low, high=high), anchors(curve)
    far = reach or (math.pi if math.isfinite(low) else math.sqrt(high + 120.0))
    return curve, chart, start, axis(curve, chart=chart, anchors=start, reach=far)


CASES = [
    ((factors.gaussian(ratio=0.3), 1), MarchenkoPastur(ratio=0.3)),
    ((factors.gaussian(), 1), MarchenkoPastur(ratio=1.0)),
    ((factors.gaussian(), 5), FussCatalan(depth=5)),
]


@pytest.mark.parametrize(("part", "law"), CASES, ids=["soft", "hard", "product"])
def test_the_table_holds_the_distribution(part, law):
    """F and -dF/dη of Marchenko & Pastur, and of Fuss & Catalan."""
    _, chart, _, found = table(part)
    w = chart.place(found.eta)
    np.testing.assert_allclose(found.cdf, law.cdf_log(w), rtol=0, atol=1e-12)
    slope = np.exp(law.log_pdf_log(w)) * np.abs(chart.slope(found.eta + 0j))
    np.testing.assert_allclose(found.slope, slope, rtol=1e-8, atol=1e-14)
    assert np.all(np.diff(found.eta) > 0)
    assert found.eta[0] > 0
    assert found.eta[-1] < found.reach * (1 + 1e-12)


@pytest.mark.parametrize("part", [case[0] for case in CASES] + [(factors.points([1.0, 4.0, 5.0]), 3)])
def test_guesses_between_the_points_are_near(part):
    """Off by GOOD of the change over the cell, at any place between 0 and the reach, the ends too."""
    curve, chart, start, found = table(part)
    eta = found.reach * np.linspace(0.001, 0.985, 301)
    guess = found.nodes.guess(eta)
    points = solve(curve, chart.place(eta), guess, chart=chart, anchors=start)
    miss = np.abs(np.concatenate([(points.u - guess[0])[None], points.v - guess[1]])).max(axis=0)
    assert np.all(miss < 3 * GOOD * guess[2] + 1e-12)
    assert np.median(miss / guess[2]) < GOOD


def test_what_the_guess_does_not_reach_is_followed():
    """A guess of another point is not taken: the path from z < 0 gives the same as without it."""
    curve, chart, start, found = table((factors.gaussian(), 5))
    w = np.array([-3.0, 0.0, 1.0])
    exact = follow(curve, w, chart=chart, anchors=start)
    u, v, size = found.nodes.guess(chart.coordinate(w[::-1] + 0j).real)
    points = solve(curve, w, (u, v, size), chart=chart, anchors=start)
    np.testing.assert_allclose(points.u, exact.u, rtol=1e-12)
    np.testing.assert_array_equal(points.w, w)


@pytest.mark.parametrize("part", [(factors.gaussian(), 5), (factors.points([1.0, 4.0, 5.0]), 3)], ids=["MP", "points"])
def test_the_conjugate_root_is_not_taken(part):
    """A guess that is the complex conjugate solves the equations too, with M of the wrong sign: it is not physical."""
    curve, chart, start, found = table(part)
    w = chart.place(found.reach * np.array([0.2, 0.5, 0.8]))
    exact = follow(curve, w, chart=chart, anchors=start)
    assert np.all(exact.u.imag < -1e-3)
    points = solve(curve, w, (exact.u.conj(), exact.v.conj(), np.ones(3)), chart=chart, anchors=start)
    np.testing.assert_allclose(points.u, exact.u, rtol=1e-10)


def test_the_reach_ends_where_no_mass_is_seen():
    """Fuss & Catalan, L = 1: F = e^{w/2}·2/π far down, so that 1e-22 of the mass is below w = -100, not -4000."""
    _, chart, _, found = table((factors.gaussian(), 1), reach=math.sqrt(4000.0))
    end = float(chart.place(np.array([found.reach]))[0])
    assert -4000 < end < -99
    assert FussCatalan(depth=1).cdf_log(end) < 1e-22
