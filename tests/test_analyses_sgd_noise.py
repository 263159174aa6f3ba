"""`rmtbn sgd-noise`: its cells, its claims both ways, its page."""

import numpy as np
import pandas as pd
import pytest
from paper_records import changed, few, options
from rmtbn.analyses import sgd_noise

from rmtbn.report.render import render

TINY = {"depth": 8, "examples": 17, "draws": 5, "data": "digits", "device": "cpu", "dtype": "float64"}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Networks of depth 8 with and without norm on digits, three of each."""
    return sgd_noise.ANALYSIS.measure(options(tmp_path_factory.mktemp("reports")), data="digits")


def told(records, *, drawn=1.0, undrawn=0.6, larger=1.0, noise=0.01):
    """Records with these ratios of noise to bound; `larger` multiplies those of the larger batch."""

    def change(_name, _parameters, seed, frame):
        ratio = np.where(frame.replacement, drawn, undrawn)
        scale = np.where(frame.batch == max(sgd_noise.BATCHES), larger, 1.0)
        return frame.assign(noise=ratio * scale * np.exp(noise * (seed - 2)), bound=1.0, law=1.0)

    return changed(records, change)


def verdicts(records):
    return {key: claim.verdict for key, claim in sgd_noise.claims(records).items()}


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice; the law without replacement is (N - b)/(N - 1) of the bound, and the rate counts squared."""
    first, second = (sgd_noise.cell(seed=1, kind="none", **TINY)["noise"] for _ in range(2))
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    drawn, undrawn = (first[first.replacement == way].set_index("batch") for way in (True, False))
    assert undrawn.law[4] == pytest.approx(undrawn.bound[4] * 13 / 16)
    assert (drawn.law == drawn.bound).all()


def test_without_norm_the_noise_is_that_of_the_examples_gradients():
    """Every batch to rounding, and so the mean over them is the law: α²C/b with replacement."""
    rows = sgd_noise.cell(seed=1, kind="none", **TINY)["noise"]
    drawn = rows[rows.replacement]
    assert drawn.apart.max() < 1e-8
    np.testing.assert_allclose(drawn.noise, drawn.law, rtol=1e-8)
    assert sgd_noise.cell(seed=1, kind="final", **TINY)["noise"].apart.max() > 0.1


def test_the_two_batches_have_the_same_bound():
    """(α, b) and (2α, 4b): equal α²/b."""
    small, large = sgd_noise.BATCHES
    assert large == 4 * small
    assert sgd_noise.RATES[large] == 2 * sgd_noise.RATES[small]


def test_claims_hold_for_the_law(records):
    """1 with replacement, less without, the same for both batches."""
    assert verdicts(told(records)) == {7: "supported", 8: "supported"}


@pytest.mark.parametrize(
    ("numbers", "contradicted"),
    [({"drawn": 1.5}, {7}), ({"undrawn": 1.2}, {7}), ({"larger": 0.5}, {8}), ({"drawn": 0.5, "larger": 2.0}, {8})],
)
def test_each_claim_falls_with_its_number(records, numbers, contradicted):
    """More noise than the bound contradicts claim 7, a noise of its own for each batch claim 8."""
    found = verdicts(told(records, **numbers))
    assert {key for key, verdict in found.items() if verdict == "contradicted"} == contradicted


def test_one_network_decides_nothing(records):
    """Too few networks."""
    assert set(verdicts(few(told(records))).values()) == {"inconclusive"}


def test_the_page_shows_the_noise_and_the_claims(records):
    """Each claim with its number."""
    html = render(sgd_noise.page(records))
    for key in (7, 8):
        assert f"claim {key} of 31" in html
