"""Tabulated laws: the law they stand for, to the accuracy they state, at a hundredth of the cost."""

import numpy as np
import pytest
from rmtbn.analyses._tabulated import ACCURACY, TabulatedLaw, tabulated

from rmtbn.result import EmpiricalSpectrum, SpectralMeasure
from rmtbn.theory.fuss_catalan import FussCatalan
from rmtbn.theory.jacobian import jacobian_law

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


@pytest.mark.parametrize(
    "law",
    [
        lambda: jacobian_law("relu", depth=2),
        lambda: jacobian_law("linear", depth=3, weights="orthogonal"),
        lambda: EmpiricalSpectrum(by_network=np.array([[0.0, -np.inf]]), relative_error=0.0, method="dense"),
    ],
    ids=["zeros", "a point", "zeros measured"],
)
def test_laws_with_atoms_are_left_as_they_are(law):
    """An atom has no density to interpolate."""
    one = law()
    assert tabulated(one) is one


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
