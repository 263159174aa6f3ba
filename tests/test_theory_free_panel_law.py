"""Laws in panels: transforms, angles and masses of laws in closed form, near the axis, on it and far away."""

import math

import mpmath
import numpy as np
import pytest

from rmtbn.theory.free.panel_law import PanelLaw
from rmtbn.theory.free.panel_poles import NODES
from rmtbn.theory.free.panels import Panels

ZETAS = [0.3 + 0.2j, 2.0 + 1e-3j, 2.5 + 1e-12j, 1.7 + 4.0j, -2.0 + 1e-15j, 60.0 + 1.0j, 1e-9 + 1e-9j]


def panels_of(log_d, density, ends):
    """Panels of ln d(h) and of a density of h on intervals of h."""
    low, high = np.array(ends[:-1])[:, None], np.array(ends[1:])[:, None]
    h, half = (low + high) / 2 + (high - low) / 2 * NODES, (high - low) / 2
    return Panels.of(log_d(h), density(h) * half)


def uniform(**changes):
    """D uniform on [1, 3]: d = h."""
    return PanelLaw(panels=panels_of(np.log, lambda h: np.full_like(h, 0.5), [1.0, 1.6, 2.2, 3.0]), **changes)


def wide():
    """Ln d uniform on [-60, 0], of which a window of 36 is summed one by one."""
    return PanelLaw(panels=panels_of(lambda h: h, lambda h: np.full_like(h, 1 / 60), np.linspace(-60, 0, 41)))


def turning():
    """Ln d = h² with h uniform on [-1, 1]: an extremum inside a panel, where the density is as x^-1/2."""
    return PanelLaw(panels=panels_of(np.square, lambda h: np.full_like(h, 0.5), [-1.0, -0.3, 0.4, 1.0]))


def uniform_transform(zeta):
    """E d/(ζ - d) = (ζ/2) ln((ζ - 1)/(ζ - 3)) - 1, by ln(1 + 2/(ζ - 3)), whose digits stay far from the law."""
    return zeta / 2 * np.log1p(2 / (zeta - 3)) - 1


def wide_transform(zeta):
    """∫ e^x/(ζ - e^x) dx/60 = ln((ζ - e^-60)/(ζ - 1))/60."""
    return (np.log(zeta - math.exp(-60)) - np.log(zeta - 1)) / 60


@pytest.mark.parametrize("zeta", ZETAS)
@pytest.mark.parametrize(
    ("law", "exact"), [(uniform(), uniform_transform), (wide(), wide_transform)], ids=["d", "ln d"]
)
def test_moment_transforms_of_uniform_laws(law, exact, zeta):
    """M, 1 + M and E K(1 + K) = -dM/d ln ζ, off the axis, near it and on it; the last by a difference quotient."""
    v = np.array([np.log(complex(zeta))])
    m, rest, slope = (part[0] for part in law.sums(v))
    assert abs(m - exact(zeta)) < 1e-11 * max(abs(exact(zeta)), 1e-6)
    assert abs(rest - m - 1) < 1e-11
    if abs(v.imag[0]) > 1e-2:
        step = 1e-5
        rate = (exact(np.exp(v[0] + step)) - exact(np.exp(v[0] - step))) / (2 * step)
        assert abs(slope + rate) < 1e-6 * abs(rate) + 1e-9


def test_the_transform_jumps_to_the_density_on_the_axis():
    """-Im M(λ + i0)/π is the density of ln d, d/2 here, also at an end of a panel and next to the ends of the law."""
    x = np.log([1.0 + 1e-9, 1.3, 1.6, 2.2, 2.9, 3.0 - 1e-9])
    density, mass = uniform().at(x)
    np.testing.assert_allclose(density, np.exp(x) / 2, rtol=1e-7)
    np.testing.assert_allclose(mass, (np.exp(x) - 1) / 2, rtol=0, atol=1e-9)
    np.testing.assert_allclose(uniform().at(np.log([0.2, 5.0]))[1], [0.0, 1.0], atol=1e-13)


def test_an_extremum_inside_a_panel_is_no_obstacle():
    """P(ln d <= x) = √x, density 1/(2√x): two preimages on one panel."""
    x = np.array([0.01, 0.05, 0.3, 0.9])
    density, mass = turning().at(x)
    np.testing.assert_allclose(density, 0.5 / np.sqrt(x), rtol=1e-9)
    np.testing.assert_allclose(mass, np.sqrt(x), rtol=0, atol=1e-10)
    assert turning().span == (pytest.approx(0.0, abs=1e-14), pytest.approx(1.0, abs=1e-13))


@pytest.mark.parametrize("angle", [1e-9, 0.4, 3.0, math.pi])
def test_the_potential_is_the_integral_of_the_transform(angle):
    """Im E ln(1 - d/ζ) = Im ½[(ζ - 1) ln(ζ - 1) - (ζ - 3) ln(ζ - 3)] - Im ln ζ for d uniform on [1, 3]."""
    v = np.array([-2.0, 0.4, 0.9, 3.0]) + 1j * angle
    zeta = np.exp(v)
    integral = ((zeta - 1) * np.log(zeta - 1) - (zeta - 3) * np.log(zeta - 3)) / 2
    np.testing.assert_allclose(uniform().potential_angle(v), integral.imag - angle, rtol=0, atol=1e-11)


@pytest.mark.parametrize("angle", [0.01, 0.4, 3.0])
def test_the_potential_counts_what_is_far_away(angle):
    """Im E ln(1 - d/ζ) = -Im [Li₂(1/ζ) - Li₂(e^-60/ζ)]/60 for ln d uniform on [-60, 0], at both ends and between."""
    v = np.array([-70.0, -45.0, -30.0, -2.0, 25.0]) + 1j * angle
    expected = [-(_dilogarithm(1 / z) - _dilogarithm(math.exp(-60) / z)).imag / 60 for z in np.exp(v)]
    np.testing.assert_allclose(wide().potential_angle(v), expected, rtol=1e-10, atol=1e-13)


def _dilogarithm(z):
    return complex(mpmath.polylog(2, complex(z)))


def test_atoms_are_counted_once():
    """Half of the mass at d = 1/2, half uniform on [1, 3]: transform, distribution function, mass, moments."""
    law = PanelLaw(
        panels=panels_of(np.log, lambda h: np.full_like(h, 0.25), [1.0, 1.6, 2.2, 3.0]), flat=((math.log(0.5), 0.5),)
    )
    zeta = 0.7 + 0.1j
    m = law.sums(np.array([np.log(zeta)]))[0][0]
    assert abs(m - uniform_transform(zeta) / 2 - 0.5 * 0.5 / (zeta - 0.5)) < 1e-12
    np.testing.assert_allclose(law.at(np.log([0.4, 0.6, 2.0]))[1], [0.0, 0.5, 0.75], atol=1e-12)
    assert law.mass == 1.0
    assert law.atoms == ((math.log(0.5), 0.5),)
    assert law.span[0] == math.log(0.5)
    assert math.exp(law.log_moment(2)) == pytest.approx(0.5 * 0.25 + 0.5 * 26 / 6, rel=1e-12)


@pytest.mark.parametrize("k", [-3, -1, 0, 1, 2, 5])
def test_moments_of_a_uniform_law(k):
    """E d^k = (3^{k+1} - 1)/(2(k + 1)), ln 3/2 for k = -1."""
    exact = math.log(3) / 2 if k == -1 else (3.0 ** (k + 1) - 1) / (2 * (k + 1))
    assert math.exp(uniform().log_moment(k)) == pytest.approx(exact, rel=1e-12)
    assert uniform().log_means[0] == pytest.approx(math.log(math.log(3) / 2), abs=1e-12)


@pytest.mark.parametrize("log_factor", [-2.0, 1.3])
def test_a_scaled_law_is_shifted(log_factor):
    """e^a·d: ln d + a, in every number of the law, the sums over panels far away too."""
    for law in (uniform(), wide()):
        moved = law.scaled(log_factor)
        v = np.log(np.array([1.9 + 1e-9j, 0.01 + 0.1j, -40.0 + 1e-9j]))
        for found, expected in zip(moved.sums(v + log_factor), law.sums(v), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)  # 1e-9 off a pole, on rounded ln d
        np.testing.assert_allclose(moved.span, np.array(law.span) + log_factor, atol=1e-13)
        np.testing.assert_allclose(moved.at(v.real[:2] + log_factor), law.at(v.real[:2]), rtol=1e-9)
        for k in (-2, 1, 4):
            assert moved.log_moment(k) == pytest.approx(law.log_moment(k) + k * log_factor, abs=1e-12)
        assert moved.log_means[1] == pytest.approx(law.log_means[1] + log_factor, abs=1e-12)
    moved = uniform(infimum=0.0).scaled(log_factor)
    assert moved.floor == log_factor


def test_sums_do_not_depend_on_how_many_points_are_asked_for():
    """Chunks: 3,000 points at once, and one by one."""
    v = np.linspace(-61, 1, 3000) + 1j * np.tile([1e-9, 0.3, 3.0], 1000)
    together = wide().sums(v)[0]
    np.testing.assert_allclose(
        together[::500], [wide().sums(v[i : i + 1])[0][0] for i in range(0, 3000, 500)], rtol=1e-13
    )
    assert wide().sums(v[:0])[0].size == 0


@pytest.mark.parametrize("angle", [0.7, 2.5])
def test_two_terms_stand_for_what_is_beyond_the_window(angle):
    """D uniform on [1, 3], |ζ| = 1e9 and 1e-9: M = E d/ζ + E d²/ζ², 1 + M = -ζ E 1/d - ζ² E 1/d², -dM/d ln ζ."""
    far, near = np.exp(np.log(1e9) + 1j * angle), np.exp(np.log(1e-9) + 1j * angle)
    m, _, slope = (part[0] for part in uniform().sums(np.log([far])))
    assert abs(m / (2 / far + 13 / 3 / far**2) - 1) < 1e-12
    assert abs(slope / (2 / far + 26 / 3 / far**2) - 1) < 1e-12
    _, rest, slope = (part[0] for part in uniform().sums(np.log([near])))
    inverse, square = math.log(3) / 2, 1 / 3
    assert abs(rest / (-near * inverse - near**2 * square) - 1) < 1e-12
    assert abs(slope / (near * inverse + 2 * near**2 * square) - 1) < 1e-12


def test_a_scaled_law_keeps_its_moments():
    """E (e^3 d)^k, k = -2 … 2, from the sums over panels."""
    law = uniform().scaled(3.0)
    for k in (-2, -1, 1, 2):
        assert law.log_moment(k) == pytest.approx(3 * k + uniform().log_moment(k), abs=1e-13)
