"""`rmtbn step-size`: its cells, its claim both ways, its page."""

import numpy as np
import pandas as pd
import pytest
from paper_records import changed, few, options
from rmtbn.analyses import step_size

from rmtbn.report.render import render

TINY = {"depth": 8, "examples": 6, "data": "digits", "device": "cpu", "dtype": "float64"}
AS_CLAIMED = {"none": 1e-4, "batch": 0.1, "final": 1.0}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """All four kinds of network of depth 20 on digits, three networks each."""
    return step_size.ANALYSIS.measure(options(tmp_path_factory.mktemp("reports")), data="digits")


def told(records, limits, *, noise=0.05):
    """Records in which the largest step is this by kind, up to noise by network."""

    def change(name, parameters, seed, frame):
        if name != "start" or parameters["kind"] not in limits:
            return frame
        return frame.assign(
            limit=limits[parameters["kind"]] * np.exp(noise * (seed - 2) * (parameters["kind"] != "none"))
        )

    return changed(records, change)


def verdict(records):
    return step_size.claims(records)[11].verdict


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice; L(w - αg)/L(w) = 1 - α‖g‖²/L + O(α²) at the smallest step."""
    first, second = (step_size.cell(seed=1, kind="none", low=-6, high=1, per_decade=1, **TINY) for _ in range(2))
    pd.testing.assert_frame_equal(first["curve"], second["curve"], check_exact=True)
    curve, start = first["curve"].iloc[0], first["start"].iloc[0]
    assert 1 - curve.relative_loss == pytest.approx(curve.step * start.gradient_norm**2 / start.loss, rel=1e-2)


@pytest.mark.parametrize(
    ("relative", "end"),
    [
        ([0.9, 0.5, 2.0, 0.9], 10**1.5),  # crosses 1 half way between ln 1/2 and ln 2
        ([1.1, 0.5, np.inf, 3.0], 10**1.5),
        ([1.1, 0.5, 16.0, 3.0], 10**1.2),
        ([0.9, 0.8, 0.7, 0.6], 1e3),
        ([1.0, 1.2, 0.9, 2.0], None),
        ([1.1, 1.2, 1.3, 1.4], 1.0),
    ],
    ids=["crossing", "first run", "nearer", "never rises", "begins late", "never falls"],
)
def test_the_end_of_the_lowering_steps_is_read_off_the_curve(relative, end):
    """On steps 1, 10, 100, 1000: where ln L crosses 0 after the first run of lowering steps."""
    part = -np.log(0.9) / np.log(2.0 / 0.9)
    expected = 10 ** (2 + part) if end is None else end
    assert step_size._end(np.logspace(0, 3, 4), np.array(relative)) == pytest.approx(expected)


def test_the_grid_holds_the_end_for_every_network(records):
    """No limit of the quick preset is at the end of its grid but where all steps lower the loss."""
    ends = records.table("start")
    assert (ends.limit > 10.0**ends.low).all()


def test_claim_11_holds_for_steps_like_those_of_the_paper(records):
    """1e-4 without norm, 0.1 and 1 with it."""
    assert verdict(told(records, AS_CLAIMED)) == "supported"


@pytest.mark.parametrize("kind", ["batch", "final"])
def test_claim_11_falls_where_one_network_with_norm_stands_no_larger_steps(records, kind):
    """Five times as large is not ten times as large."""
    assert verdict(told(records, AS_CLAIMED | {kind: 5e-4})) == "contradicted"


def test_one_network_or_much_noise_decides_nothing(records):
    """Too few networks, or an error larger than the ratio."""
    assert verdict(few(told(records, AS_CLAIMED))) == "inconclusive"
    assert verdict(told(records, AS_CLAIMED, noise=10.0)) == "inconclusive"


def test_the_page_shows_every_kind_and_the_claim(records):
    """The claim with its number."""
    assert "claim 11 of 31" in render(step_size.page(records))
