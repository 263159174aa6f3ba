"""The physical branch: charts, Newton's method, and paths to the axis against closed forms."""

import math

import numpy as np
import pytest
from scipy import integrate

from rmtbn.theory.free import branch, factors
from rmtbn.theory.free.branch import Chart, ConvergenceError, Solution, follow
from rmtbn.theory.free.chain import Placed, spectral_curve
from rmtbn.theory.free.edges import anchors, edges
from rmtbn.theory.free.terms import Place
from rmtbn.theory.fuss_catalan import FussCatalan
from rmtbn.theory.marchenko_pastur import MarchenkoPastur

CHARTS = [Chart(low=-3.0, high=2.0), Chart(low=-math.inf, high=2.0)]


def gaussian(depth=1, ratio=1.0):
    curve = spectral_curve([Placed(factor=factors.gaussian(ratio=ratio), count=depth)])
    low, high = edges(curve)
    return curve, Chart(low=low, high=high)


@pytest.mark.parametrize("chart", CHARTS)
def test_charts_invert_and_know_their_slope(chart):
    """η(w(η)) = η, also off the axis; dw/dη by a difference quotient."""
    eta = np.linspace(0.05, 2.5, 11)
    np.testing.assert_allclose(chart.coordinate(chart.place(eta) + 0j), eta, rtol=1e-13)
    rate = (chart.place(eta + 1e-6) - chart.place(eta - 1e-6)) / 2e-6
    np.testing.assert_allclose(chart.slope(eta + 0j).real, rate, rtol=1e-8)
    w = np.array([0.5 + 1.0j, -2.0 + 3.0j, 1.0 + 0.1j])
    back = chart.coordinate(w)
    again = chart.high - back**2 if math.isinf(chart.low) else -0.5 + 2.5 * np.cos(back)
    np.testing.assert_allclose(again, w, rtol=1e-13)


def test_the_upper_edge_is_the_origin_of_a_chart():
    for chart in CHARTS:
        assert chart.place(np.array([0.0]))[0] == pytest.approx(2.0)
        assert np.all(np.diff(chart.place(np.linspace(0, 3, 9))) < 0)


@pytest.mark.parametrize("depth", [1, 7, 1000])
def test_paths_to_the_axis_end_on_the_density(depth):
    """-Im M/π of Gaussian products is Fuss & Catalan's density of ln λ, 1e-10 relative."""
    curve, chart = gaussian(depth)
    exact = FussCatalan(depth=depth)
    w = exact.log_ppf(np.array([1e-3, 0.1, 0.5, 0.9, 0.999]))
    found = follow(curve, w, chart=chart, anchors=anchors(curve))
    np.testing.assert_allclose(np.log(curve.density(found.u)), exact.log_pdf_log(w), rtol=0, atol=1e-10)
    np.testing.assert_allclose(curve.upper_tail(found.u, found.v), 1 - exact.cdf_log(w), rtol=0, atol=1e-11)


@pytest.mark.parametrize("ratio", [0.4, 1.0, 3.0])
def test_paths_end_at_the_transform_of_the_law(ratio):
    """M(z) = E λ/(z - λ) inside the half-plane, the density integrated."""
    law, (curve, chart) = MarchenkoPastur(ratio=ratio), gaussian(ratio=ratio)
    goal = np.array([0.5 + 0.4j, -1.0 + 2.0j, 1.3 + 3.0j])
    m = Place.at(follow(curve, goal, chart=chart, anchors=anchors(curve)).u, rank=curve.rank).m
    low, high = np.exp(law.log_bulk)
    for z, found in zip(np.exp(goal), m, strict=True):
        parts = [
            integrate.quad(lambda x, part=part, z=z: float(law.pdf(x)) * part(x / (z - x)), low, high, limit=400)[0]
            for part in (np.real, np.imag)
        ]
        assert abs(found - complex(*parts)) < 1e-7 * abs(found)


def test_newtons_method_finds_the_point_and_refuses_its_mirror_image():
    """From a near guess: converged, physical, ln z as asked; the conjugate solution is no physical one."""
    curve, chart = gaussian(3)
    w = np.array([0.3])
    exact = follow(curve, w, chart=chart, anchors=anchors(curve)).u
    leash = np.array([1.0])
    found = Solution.at(curve, exact + 1e-3, np.empty((0, 1), complex), w=w + 0j, leash=leash)
    assert found.converged.all()
    assert found.is_physical.all()
    np.testing.assert_allclose(found.u, exact, rtol=1e-13)
    step = 1e-6
    rate = (curve.residual(exact + step, found.v).log_z - curve.residual(exact - step, found.v).log_z) / (2 * step)
    np.testing.assert_allclose(found.slope, rate, rtol=1e-7)
    mirrored = Solution(
        u=found.u.conj(), v=found.v, slope=found.slope.conj(), pull=found.pull, converged=found.converged
    )
    assert not mirrored.is_physical.any()


def test_what_strays_is_given_up():
    """A guess farther off than the leash is not called converged."""
    curve, chart = gaussian(3)
    exact = follow(curve, np.array([0.3]), chart=chart, anchors=anchors(curve)).u
    found = Solution.at(curve, exact + 0.1, np.empty((0, 1), complex), w=np.array([0.3 + 0j]), leash=np.array([1e-3]))
    assert not found.converged.any()


def test_a_path_that_does_not_arrive_is_told(monkeypatch):
    """Too few steps: the error names the points."""
    curve, chart = gaussian(1000)
    monkeypatch.setattr(branch, "MAX_STEPS", 1)
    with pytest.raises(ConvergenceError, match=r"no physical branch found at ln λ = \[.*\d of 2 points"):
        follow(curve, np.array([0.5, -900.0]), chart=chart, anchors=anchors(curve))
