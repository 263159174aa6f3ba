"""Tabulated laws: the law they stand for, to the accuracy they state, at a hundredth of the cost; to files and back."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from rmtbn._checks import InvalidArgumentError
from rmtbn.result import EmpiricalSpectrum, SpectralMeasure, TabulatedLaw, from_parquet, tabulated, to_parquet
from rmtbn.result.tabulated_law import ACCURACY
from rmtbn.theory.fuss_catalan import FussCatalan
from rmtbn.theory.jacobian import jacobian_law
from rmtbn.theory.marchenko_pastur import MarchenkoPastur

LAWS = {
    "one Gaussian matrix": lambda: FussCatalan(depth=1),
    "four Gaussian matrices": lambda: FussCatalan(depth=4),
    "a thousand Gaussian matrices": lambda: FussCatalan(depth=1000),
    "tanh, Gaussian": lambda: jacobian_law("tanh", depth=2, sigma_w=1.3, sigma_b=0.2),
    "tanh, one orthogonal layer": lambda: jacobian_law("tanh", depth=1, weights="orthogonal", sigma_w=1.0, q0=1.0),
}
P = np.concatenate([np.linspace(0.001, 0.999, 61), [1e-5, 0.99999]])


@pytest.fixture(scope="module", params=LAWS)
def law(request):
    """A law with a density and no atoms."""
    return LAWS[request.param]()


@pytest.fixture(scope="module")
def table(law):
    """Its table."""
    return tabulated(law)


def test_table_has_the_distribution_function_of_the_law(law, table):
    """|F - F_table| <= 1e-6 at quantiles from 1e-5 to 1 - 1e-5, 0 and 1 beyond the edges."""
    x = law.log_ppf(P)
    assert isinstance(table, TabulatedLaw)
    assert np.max(np.abs(table.cdf_log(x) - P)) <= ACCURACY == table.accuracy
    edge = table.log_bulk[1]
    assert table.cdf_log([edge, edge + 1.0]).tolist() == [1.0, 1.0]
    assert table.cdf_log(-np.inf) == 0.0
    assert np.all(np.diff(table.cdf_log(np.linspace(x.min() - 5, edge, 5000))) >= 0)


def test_table_has_the_density_of_the_law(law, table):
    """Relative to the law's density within 1e-3 between the quantiles 0.001 and 0.999; none beyond the edge."""
    x = law.log_ppf(P[:-2])
    assert np.allclose(np.exp(table.log_pdf_log(x) - law.log_pdf_log(x)), 1.0, rtol=0, atol=1e-3)
    assert table.log_pdf_log(table.log_bulk[1] + 1e-9) == -np.inf


def test_quantiles_of_the_table_invert_it(law, table):
    """F(F^{-1}(p)) = p to the accuracy, monotone, with the edges of the law at 0 and 1."""
    quantiles = table.log_ppf(P)
    assert np.max(np.abs(law.cdf_log(quantiles) - P)) < 3 * ACCURACY
    assert table.log_ppf(1.0) == pytest.approx(law.log_bulk[1])
    assert table.log_ppf(0.0) == law.log_bulk[0]
    assert np.all(np.diff(table.log_ppf(np.linspace(0, 1, 3000)[1:])) >= 0)


def test_tail_below_the_table_is_a_power():
    """One Gaussian matrix: F ~ λ^{1/2} at 0, ten decades below where the table ends."""
    law = FussCatalan(depth=1)
    x = law.log_ppf([1e-9, 1e-12])
    assert np.allclose(np.log(tabulated(law).cdf_log(x)), np.log([1e-9, 1e-12]), rtol=0, atol=0.1)
    assert np.allclose(tabulated(law).log_ppf([1e-9, 1e-12]), x, rtol=0, atol=0.2)


def test_moments_are_those_of_the_law(law, table):
    """Moments are not interpolated."""
    assert table.moment(2) == law.moment(2)
    assert table.log_moment() == law.log_moment()


class MarchenkoPasturAndPoint(SpectralMeasure):
    """Half of the mass at λ = 9, half on (1/4, 9/4)."""

    law = MarchenkoPastur(ratio=0.25)
    accuracy, log_bulk, atoms = law.accuracy, law.log_bulk, ((9.0, 0.5),)

    def log_pdf_log(self, log_lam):
        return self.law.log_pdf_log(log_lam) - math.log(2)

    def cdf_log(self, log_lam):
        return self.law.cdf_log(log_lam) / 2 + 0.5 * (np.asarray(log_lam) >= math.log(9.0))

    def log_ppf(self, p):
        return np.where(np.asarray(p) <= 0.5, self.law.log_ppf(np.minimum(2 * np.asarray(p), 1.0)), math.log(9.0))

    def moment(self, k):
        return (self.law.moment(k) + 9.0**k) / 2

    def log_moment(self, k=1):
        return (self.law.log_moment(k) + math.log(9.0) ** k) / 2


@pytest.mark.parametrize(
    ("name", "sigma_b", "piled"), [("gelu", 0.05**0.5, 0), ("silu", 1.0, 2e-3), ("gelu", 1.62, 0.4)]
)
def test_a_pile_up_of_mass_is_not_smeared(name, sigma_b, piled, tmp_path):
    """F(x - δ) - 1e-6 <= F_table(x) <= F(x + δ) + 1e-6, δ the rounding of ln λ, around d = 1; quantiles; files."""
    law = jacobian_law(name, depth=1, weights="orthogonal", sigma_b=sigma_b)
    table, one, near = tabulated(law), 2 * math.log(law.sigma_w), np.logspace(-16, -3, 200)
    table.to_parquet(tmp_path / "law.parquet")
    assert np.ptp(law.cdf_log([one - 1e-6, one + 1e-6])) > piled
    x = np.unique(np.concatenate([law.log_ppf(P), one - near, one + near]))
    for found in (table, from_parquet(tmp_path / "law.parquet")):
        assert found.accuracy == ACCURACY
        assert_within_rounding(law, x, found.cdf_log(x))
        assert_within_rounding(law, found.log_ppf(P), P)


def assert_within_rounding(law, x, cdf):
    """F at x is `cdf`, to 1e-6 and the rounding of x."""
    rounding = 1.6e-14 * (1 + np.abs(x) + abs(law.log_bulk[1]))
    assert np.all(cdf >= law.cdf_log(x - rounding) - ACCURACY)
    assert np.all(cdf <= law.cdf_log(x + rounding) + ACCURACY)


WITH_ATOMS = {
    "ReLU": lambda: jacobian_law("relu", depth=2),
    "zeros of a tall matrix": lambda: MarchenkoPastur(ratio=4.0),
    "atom above the bulk": MarchenkoPasturAndPoint,
}


@pytest.mark.parametrize("make", WITH_ATOMS.values(), ids=WITH_ATOMS)
def test_atoms_are_kept_exactly_beside_the_table(make):
    """F with its jumps, quantiles on and between them, within the accuracy."""
    law = make()
    table = tabulated(law)
    assert np.allclose(table.atoms, law.atoms, rtol=1e-14, atol=0)
    inside = P[~np.isneginf(law.log_ppf(P))]
    x = law.log_ppf(inside)
    assert np.max(np.abs(table.cdf_log(x) - law.cdf_log(x))) <= 2 * ACCURACY
    zero = sum(mass for lam, mass in law.atoms if lam == 0)
    assert np.all(np.isneginf(table.log_ppf(np.linspace(0, zero, 5)))) == (zero > 0)
    assert np.max(np.abs(table.cdf_log(table.log_ppf(inside)) - law.cdf_log(law.log_ppf(inside)))) <= 2 * ACCURACY
    for lam, mass in law.atoms:
        if lam > 0:
            assert table.cdf_log(math.log(lam)) - table.cdf_log(math.log(lam) - 1e-9) == pytest.approx(mass)
            assert table.log_ppf(float(law.cdf(lam)) - mass / 2) == pytest.approx(math.log(lam))


def test_law_of_one_point_is_its_point():
    """No bulk, no table."""
    table = tabulated(jacobian_law("linear", depth=3, weights="orthogonal"))
    assert (table.log_bulk, table.atoms, table.support) == (None, ((1.0, 1.0),), (1.0, 1.0))
    assert table.cdf([0.5, 1.0, 2.0]).tolist() == [0.0, 1.0, 1.0]
    assert table.ppf([0.0, 0.5, 1.0]).tolist() == [1.0, 1.0, 1.0]
    assert np.all(table.pdf([0.5, 1.0]) == 0)


def test_a_finer_table_is_as_accurate_as_it_is_asked_to_be():
    """accuracy = 1e-9: three decades below the standard one, at quantiles of the law."""
    law = FussCatalan(depth=3)
    table, x = tabulated(law, accuracy=1e-9), law.log_ppf(P)
    assert table.accuracy <= 1e-6
    assert np.max(np.abs(table.cdf_log(x[:-2]) - P[:-2])) < 2e-9
    assert np.max(np.abs(law.cdf_log(table.log_ppf(P[:-2])) - P[:-2])) < 1e-8
    with pytest.raises(InvalidArgumentError, match="`accuracy`"):
        tabulated(law, accuracy=0.0)


def test_a_table_asks_the_law_for_few_points():
    """A page draws thousands of points; the law is asked for some two hundred."""

    class Counted(SpectralMeasure):
        asked = 0
        law = FussCatalan(depth=3)
        accuracy, atoms, log_bulk = law.accuracy, law.atoms, law.log_bulk

        def log_pdf_log(self, log_lam):
            return self.law.log_pdf_log(log_lam)

        def cdf_log(self, log_lam):
            Counted.asked += np.size(log_lam)
            return self.law.cdf_log(log_lam)

        def log_ppf(self, p):
            raise NotImplementedError

        moment = log_moment = log_ppf

    table = tabulated(Counted())
    asked = Counted.asked
    assert asked < 250
    for ask in (table.log_ppf, table.cdf_log, table.log_pdf_log):
        ask(np.linspace(0, 1, 1000))
    assert Counted.asked == asked


ROUND_TRIPS = {
    "Fuss–Catalan": lambda: FussCatalan(depth=4, log_scale=0.5),
    "hard edge far away": lambda: FussCatalan(depth=300),
    "ReLU": lambda: jacobian_law("relu", depth=2),
    "atom above the bulk": MarchenkoPasturAndPoint,
    "a point": lambda: jacobian_law("linear", depth=3, weights="orthogonal"),
}


@pytest.mark.parametrize("make", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
def test_laws_come_back_from_a_file_as_they_were_tabulated(make, tmp_path):
    """F, density, quantiles, atoms, edges, accuracy, moments (exact, up to order 8) and parameters."""
    law, path = make(), tmp_path / "law.parquet"
    table = tabulated(law)
    to_parquet(law, path)
    back = from_parquet(path)
    assert isinstance(back, TabulatedLaw)
    assert [one.name for one in tmp_path.iterdir()] == ["law.parquet"]
    assert (back.atoms, back.log_bulk, back.accuracy) == (table.atoms, table.log_bulk, table.accuracy)
    x = table.log_ppf(P)
    assert np.allclose(back.log_ppf(P), x, rtol=1e-7, atol=1e-9)
    x = x[np.isfinite(x)]
    assert np.allclose(back.cdf_log(x), table.cdf_log(x), rtol=0, atol=1e-9)
    assert np.allclose(back.log_pdf_log(x), table.log_pdf_log(x), rtol=0, atol=1e-4)
    assert [back.moment(k) for k in range(9)] == [law.moment(k) for k in range(9)]
    assert [back.log_moment(k) for k in (1, 2, 3, 4)] == [law.log_moment(k) for k in (1, 2, 3, 4)]
    assert back.parameters["law"] == type(law).__name__
    if isinstance(law, FussCatalan):
        assert back.parameters == {"law": "FussCatalan", "depth": law.depth, "log_scale": law.log_scale}


def test_moments_that_were_not_written_come_from_the_table(tmp_path):
    """E λ^9 and E (ln λ)^5 of one Gaussian matrix, from quantiles."""
    law = FussCatalan(depth=1)
    to_parquet(law, tmp_path / "law.parquet")
    back = from_parquet(tmp_path / "law.parquet")
    assert back.moment(9) == pytest.approx(law.moment(9), rel=1e-3)
    assert back.log_moment(5) == pytest.approx(law.log_moment(5), rel=0.1)


def test_tables_of_a_file_are_readable_by_others(tmp_path):
    """Columns log_lam, density and cdf, ascending."""
    tabulated(FussCatalan(depth=2)).to_parquet(tmp_path / "law.parquet")
    table = pd.read_parquet(tmp_path / "law.parquet")
    assert list(table.columns) == ["log_lam", "density", "cdf"]
    assert table.log_lam.is_monotonic_increasing
    assert table.cdf.is_monotonic_increasing


def test_measured_spectra_come_back_value_by_value(tmp_path):
    """Networks, exact zeros, error, method and batch statistics."""
    rows = np.array([[0.5, -1.0, -np.inf], [1e300, 0.0, -2e5]])
    spectrum = EmpiricalSpectrum(by_network=rows, relative_error=math.inf, method="product", batch_stats="batch")
    spectrum.to_parquet(tmp_path / "spectrum.parquet")
    back = from_parquet(tmp_path / "spectrum.parquet")
    assert isinstance(back, EmpiricalSpectrum)
    assert np.array_equal(back.by_network, spectrum.by_network)
    assert (back.relative_error, back.method, back.batch_stats) == (math.inf, "product", "batch")
    assert EmpiricalSpectrum.from_parquet(tmp_path / "spectrum.parquet").networks == 2


def test_censored_spectra_keep_their_floors_in_a_file(tmp_path):
    """Every field of the result but what follows from the values is in the file."""
    given = {"relative_error": 1e-9, "method": "slq", "log_floor": np.array([-1.0, -np.inf]), "cdf_error": 0.01}
    spectrum = EmpiricalSpectrum(by_network=np.array([[0.5, -3.0], [0.0, -2.0]]), reason="too large", **given)
    to_parquet(spectrum, tmp_path / "spectrum.parquet")
    back = from_parquet(tmp_path / "spectrum.parquet")
    for one in dataclasses.fields(spectrum):
        assert np.array_equal(getattr(back, one.name), getattr(spectrum, one.name)), one.name


def test_files_that_are_none_are_refused_by_name(tmp_path):
    """Missing, not Parquet, cut short, of others, of the other kind."""
    spectrum, path = (
        EmpiricalSpectrum(by_network=np.zeros((1, 400)), relative_error=0.0, method="dense"),
        tmp_path / "s",
    )
    with pytest.raises(FileNotFoundError):
        from_parquet(path)
    path.write_bytes(b"no Parquet")
    with pytest.raises(InvalidArgumentError, match=r"`path` must be a whole Parquet file"):
        from_parquet(path)
    to_parquet(spectrum, path)
    with pytest.raises(InvalidArgumentError, match=r"of kind 'law'; got 'spectrum'"):
        TabulatedLaw.from_parquet(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InvalidArgumentError, match=r"`path` must be a whole Parquet file"):
        from_parquet(path)
    pd.DataFrame({"x": [1]}).to_parquet(path)
    with pytest.raises(InvalidArgumentError, match=r"a result of this package wrote"):
        from_parquet(path)
