"""Densities of spectra: areas are masses."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import integrate

from rmtbn._checks import InvalidArgumentError
from rmtbn.plot.spectrum_density import spectrum_density
from rmtbn.result import EmpiricalSpectrum, SpectralMeasure
from rmtbn.theory.fuss_catalan import FussCatalan


def spectrum(logs) -> EmpiricalSpectrum:
    return EmpiricalSpectrum(by_network=np.atleast_2d(logs), relative_error=1e-12, method="dense")


class AtomAtE2(SpectralMeasure):
    """All mass at λ = e²: the law of e times an orthogonal matrix."""

    accuracy = 0.0
    atoms = ((float(np.exp(2.0)), 1.0),)
    log_bulk = None

    def log_pdf_log(self, log_lam):
        return np.full(np.shape(log_lam), -np.inf)

    def cdf_log(self, log_lam):
        return np.asarray(np.asarray(log_lam) >= 2.0, dtype=float)

    def log_ppf(self, p):
        return np.full(np.shape(p), 2.0)

    def moment(self, k):
        return float(np.exp(2.0 * k))

    def log_moment(self, k=1):
        return 2.0**k


@pytest.fixture
def ax():
    return Figure().subplots()


def area(ax) -> float:
    values, edges, _ = ax.patches[0].get_data()
    return float(values @ np.diff(edges))


def curve(ax):
    (line,) = (line for line in ax.get_lines() if line.get_label() == "theory")
    return line.get_xydata().T


def test_histogram_is_of_squared_singular_values_in_decades():
    """σ = 10 lies at log10 λ = 2; the area is 1."""
    ax = spectrum_density(spectrum([0.0, np.log(10.0)]), bins=2, ax=Figure().subplots())
    values, edges, _ = ax.patches[0].get_data()
    np.testing.assert_allclose(edges, [0.0, 1.0, 2.0], atol=1e-12)
    np.testing.assert_allclose(values, [0.5, 0.5])


def test_zeros_are_written_out_as_mass(ax):
    """A quarter of zeros: the area is 3/4, and the text says 25 %."""
    spectrum_density(spectrum([2.0, 1.0, 0.0, -np.inf]), ax=ax)
    assert area(ax) == pytest.approx(0.75)
    assert [text.get_text() for text in ax.texts] == ["exact zeros: 25.0%"]


@pytest.mark.parametrize("depth", [1, 4, 50, 1000])
def test_curve_is_the_density_of_the_law_per_decade(ax, depth):
    """∫ curve d(log10 λ) = 1 − (mass out of sight), and its mean log is that of the law."""
    law = FussCatalan(depth=depth)
    logs = 0.5 * np.asarray(law.log_ppf((np.arange(500) + 0.5) / 500))
    spectrum_density(spectrum(logs), law=law, ax=ax)
    x, y = curve(ax)
    assert integrate.trapezoid(y, x) == pytest.approx(1.0, abs=0.02)
    assert area(ax) == pytest.approx(1.0)
    assert integrate.trapezoid(x * y, x) * np.log(10.0) == pytest.approx(law.log_moment(), rel=0.04, abs=0.05)


def test_histogram_of_draws_lies_under_the_curve(ax):
    """Bins of 20,000 draws agree with the curve of their law and not with that of another depth."""
    law = FussCatalan(depth=2)
    draws = law.rvs(20_000, generator=np.random.default_rng(1))
    spectrum_density(spectrum(0.5 * np.log(draws)), law=law, ax=ax)
    values, edges, _ = ax.patches[0].get_data()
    middles = 0.5 * (edges[1:] + edges[:-1])
    x, y = curve(ax)
    inside = values > 0.05
    assert np.abs(values - np.interp(middles, x, y))[inside].max() < 0.05
    other = Figure().subplots()
    spectrum_density(spectrum(0.5 * np.log(draws)), law=FussCatalan(depth=3), ax=other)
    assert np.abs(values - np.interp(middles, *curve(other)))[inside].max() > 0.1


def test_equal_values_are_one_bar(ax):
    """Orthogonal weights: all σ = 1; a bar of unit area at λ = 1."""
    spectrum_density(spectrum(np.zeros(8)), ax=ax)
    _, edges, _ = ax.patches[0].get_data()
    assert area(ax) == pytest.approx(1.0)
    np.testing.assert_allclose(edges, [-0.05, 0.05])


def test_atom_of_a_law_is_a_line_with_its_mass(ax):
    """All mass at λ = e²."""
    spectrum_density(spectrum(np.ones(4)), law=AtomAtE2(), ax=ax)
    (line,) = ax.get_lines()
    np.testing.assert_allclose(line.get_xdata(), 2.0 / np.log(10.0))
    assert line.get_label() == "theory: mass 1 at λ = 7.39"


def test_zeros_of_the_law_are_written_beside_those_measured(ax):
    law = spectrum([1.0, 0.0, -np.inf, -np.inf])
    spectrum_density(spectrum([2.0, 1.0, 0.0, -np.inf]), law=law, ax=ax)
    assert [text.get_text() for text in ax.texts] == ["exact zeros: 25.0%\nin theory: 50.0%"]


@pytest.mark.parametrize(("count", "bins"), [(64, 8), (1000, 20), (100_000, 40)])
def test_bins_follow_the_number_of_values(ax, count, bins):
    """2 n^(1/3), at most 40."""
    spectrum_density(spectrum(np.linspace(0.0, 1.0, count)), ax=ax)
    assert len(ax.patches[0].get_data().values) == bins


def test_all_zeros_draw_nothing_but_say_so(ax):
    spectrum_density(spectrum(np.full(3, -np.inf)), ax=ax)
    assert not ax.patches
    assert ax.texts[0].get_text() == "exact zeros: 100.0%"


def test_bins_are_checked(ax):
    with pytest.raises(InvalidArgumentError, match="`bins` must be an integer >= 1; got 0"):
        spectrum_density(spectrum([0.0, 1.0]), bins=0, ax=ax)
