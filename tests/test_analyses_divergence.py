"""`rmtbn divergence`: its cells, its claims both ways, its page."""

import numpy as np
import pandas as pd
import pytest
from paper_records import changed, few, options
from rmtbn.analyses import divergence
from rmtbn.analyses._divergence_page import Runs

from rmtbn.report.render import render

TINY = {"depth": 8, "examples": 6, "data": "digits", "device": "cpu", "dtype": "float64", "batches": 3, "parts": 2}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Networks of depth 20 on digits, without norm and with, three each."""
    return divergence.ANALYSIS.measure(options(tmp_path_factory.mktemp("reports")), data="digits")


def told(records, *, updates=1.0, before=2.0, after=8.0, noise=0.05):
    """Records that diverge after so many updates, with so many decades of variance from the first layer to the last.

    The size of the mean has half as many; up to noise by network.
    """

    def change(name, parameters, seed, frame):
        if name == "runs":
            return frame.assign(updates=np.where(frame.rate >= 1e-3, updates + 10 * noise * (seed - 2), np.nan))
        decades = before + (after - before) * frame.part
        log = (frame.layer - 7) / 12 * decades * np.exp(noise * (seed - 2)) * np.log(10)
        return frame.assign(log_variance=log, mean=np.exp(log / 2))

    return changed(records, change)


def verdicts(records):
    return {key: claim.verdict for key, claim in divergence.claims(records).items()}


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice; a run ends at its divergence, and the update begins at the weights before it."""
    first, second = (divergence.cell(seed=1, kind="none", **TINY) for _ in range(2))
    for name, frame in first.items():
        pd.testing.assert_frame_equal(frame, second[name], check_exact=True)
    runs = first["runs"].groupby("rate")
    diverged = runs.updates.first().dropna()
    assert (runs.batch.max()[diverged.index] == diverged).all()
    assert (runs.loss.last()[diverged.index] > 1e3).all()
    assert set(first["channels"].part) == {0.0, 0.5, 1.0}


def test_claims_hold_for_what_the_paper_shows(records):
    """One update; 8 decades of variance and 4 of means, from 2 before it."""
    assert set(verdicts(told(records)).values()) == {"supported"}


@pytest.mark.parametrize(
    ("numbers", "contradicted"),
    [
        ({"updates": 5.5}, 12),
        ({"after": 1.2, "before": 0.5}, 13),
        ({"before": 12.0}, 13),
    ],
    ids=["late", "no growth with depth", "as much before"],
)
def test_each_claim_falls_with_its_number(records, numbers, contradicted):
    """One number on the other side of its bound contradicts one claim."""
    found = verdicts(told(records, **numbers))
    assert {key for key, verdict in found.items() if verdict == "contradicted"} == {contradicted}


def test_one_network_or_much_noise_decides_nothing(records):
    """Too few networks, or an error larger than the distance from the bound."""
    assert set(verdicts(few(told(records))).values()) == {"inconclusive"}
    assert set(verdicts(told(records, noise=0.8)).values()) == {"inconclusive"}


def test_a_rate_that_survives_above_one_that_diverges_counts_with_all_its_batches(records):
    """Divergence at 1e-3 and 1 but not at 1e-2 and 1e-1: as late as the run is long."""

    def change(name, parameters, seed, frame):
        if name != "runs":
            return frame
        return frame.assign(updates=np.where(frame.rate.isin([1e-3, 1.0]), 1.0, np.nan))

    assert Runs(changed(records, change)).latest().value == 6


def test_without_any_divergence_nothing_is_decided(records):
    """No run above the threshold: no updates, no channels, a page all the same."""

    def change(name, parameters, seed, frame):
        return frame.assign(updates=np.nan) if name == "runs" else frame.iloc[:0]

    quiet = changed(records, change)
    assert set(verdicts(quiet).values()) == {"inconclusive"}
    assert "No run diverged" in render(divergence.page(quiet))


def test_numbers_that_leave_the_floating_range_are_left_out(records):
    """The last part of the update at which all moments are finite is what counts."""
    plain = told(records)

    def change(name, parameters, seed, frame):
        if name == "runs":
            return frame
        return frame.assign(log_variance=frame.log_variance.where(frame.part < 1, np.inf))

    spans = [Runs(one).span("log_variance", whole=True).value for one in (plain, changed(plain, change))]
    np.testing.assert_allclose(np.exp(spans), [8.0, 2.0 + 6.0 * 0.8], rtol=1e-12)


def test_the_page_shows_the_claims(records):
    """Each claim with its number."""
    html = render(divergence.page(records))
    for key in (12, 13):
        assert f"claim {key} of 31" in html
