"""`rmtbn product-spectra`: its cells, its claims both ways, its page."""

import numpy as np
import pandas as pd
import pytest
import torch
from paper_records import changed, few, options
from rmtbn.analyses import _product_spectra_claims, product_spectra
from rmtbn.analyses._product_spectra_claims import Spectra

from rmtbn import rng
from rmtbn.report.render import render
from rmtbn.result import EmpiricalSpectrum
from rmtbn.theory.fuss_catalan import FussCatalan


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Six draws at N = 64."""
    return product_spectra.ANALYSIS.measure(options(tmp_path_factory.mktemp("reports")))


def told(records, rows):
    """Records with other singular values: `rows(factors, values)` gives those of each product."""

    def change(_name, _parameters, _seed, frame):
        values = [rows(f, np.array(v)) for f, v in zip(frame.factors, frame.log_singular_values, strict=True)]
        return frame.assign(log_singular_values=[list(v) for v in values])

    return changed(records, change)


def verdicts(records):
    return {key: claim.verdict for key, claim in product_spectra.ANALYSIS.claims(records).items()}


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice; the values are those of the product of its own draws, in a dense decomposition."""
    first, second = (product_spectra.cell(seed=1, width=12, device="cpu", dtype="float64") for _ in range(2))
    pd.testing.assert_frame_equal(first["products"], second["products"], check_exact=True)
    whole = torch.eye(12, dtype=torch.float64)
    for count in (1, 2, 3):
        generator = rng.torch_generator(1, "factor", count)
        whole = torch.randn(12, 12, generator=generator, dtype=torch.float64) @ whole / 12**0.5
        values = first["products"].log_singular_values[count - 1]
        np.testing.assert_allclose(values, torch.linalg.svdvals(whole).log(), rtol=1e-9, atol=1e-9)


def test_gaussian_products_follow_the_law(records):
    """At N = 64 the density, the growth of the condition number and its price; no claim is contradicted."""
    found = verdicts(records)
    assert {found[29], found[30]} == {"supported"}
    assert "contradicted" not in found.values()


def test_the_gap_has_the_unit_of_tracy_and_widom():
    """For M = 1, 4 + 2^(4/3) N^(-2/3) (Johnstone 2001) is one unit beyond the edge."""
    width, law = 100, FussCatalan(depth=1)
    values = np.log([law.support[1] + 2 ** (4 / 3) * width ** (-2 / 3), 1.0]) / 2
    spectra = Spectra.__new__(Spectra)
    spectra.width = width
    spectra.spectra = {1: EmpiricalSpectrum(by_network=values[None], relative_error=1e-12, method="product")}
    assert spectra.edge_gap(1).value == pytest.approx(1.0, rel=1e-4)


def test_steps_are_those_of_gradient_descent():
    """Descent itself on a diagonal problem reaches 10 % of the loss after as many steps."""
    lam = np.array([1.0, 0.3, 0.05, 0.01])
    steps = np.exp(_product_spectra_claims._log_steps(np.log(lam)))
    error, taken = np.ones(4), 0
    while np.mean(error**2) > 0.1:
        error, taken = error * (1 - lam), taken + 1
    assert taken == int(np.ceil(steps))


@pytest.mark.parametrize(
    ("rows", "contradicted"),
    [
        (lambda _count, v: v + 0.3, {27, 28}),  # not normalised
        (lambda count, v: v * (1 + 1 / count), {27, 28}),  # the spread of more factors
        (lambda _count, v: np.linspace(0.0, -3.0, v.size), {27, 28, 29, 30}),  # the same condition number at every M
    ],
    ids=["larger", "wider", "constant condition"],
)
def test_claims_are_contradicted_by_other_spectra(records, rows, contradicted):
    """What does not follow the law contradicts what is said of it."""
    found = verdicts(told(records, rows))
    assert contradicted <= {key for key, verdict in found.items() if verdict != "supported"}
    assert "contradicted" in {found[key] for key in contradicted}


def test_one_draw_decides_nothing(records):
    """Too few draws."""
    assert set(verdicts(few(records)).values()) == {"inconclusive"}


def test_the_page_shows_the_figures_and_the_claims(records):
    """Each claim with its number; the remembered condition numbers only at N = 1000."""
    html = render(product_spectra.ANALYSIS.page(records))
    for key in (27, 28, 29, 30):
        assert f"claim {key} of 31" in html
    assert "8 × 10⁵" not in html
