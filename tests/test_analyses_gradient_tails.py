"""`rmtbn gradient-tails`: its cells, its claims both ways, its page."""

import numpy as np
import pandas as pd
import pytest
from paper_records import changed, few, options
from rmtbn.analyses import gradient_tails

from rmtbn.report.render import render

TINY = {"depth": 8, "examples": 6, "data": "digits", "device": "cpu", "dtype": "float64"}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """All four kinds of network of depth 20 on digits, three networks each."""
    return gradient_tails.ANALYSIS.measure(options(tmp_path_factory.mktemp("reports")), data="digits")


def told(records, *, size=100.0, tail=3.0, noise=0.05):
    """Records in which the ratio of sizes and of kurtosis, without norm to with, is this up to noise by network."""

    def change(name, parameters, seed, frame):
        if name != "layers":
            return frame
        plain, factor = parameters["kind"] == "none", np.exp(noise * (seed - 2))
        return frame.assign(
            log_std=np.full(len(frame), np.log(size * factor) if plain else 0.0),
            kurtosis=np.full(len(frame), 4.0 * tail * factor if plain else 4.0),
        )

    return changed(records, change)


def verdicts(records):
    return {key: claim.verdict for key, claim in gradient_tails.claims(records).items()}


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice; every entry is in one bin; the tail falls from 1."""
    first, second = (gradient_tails.cell(seed=1, kind="final", **TINY) for _ in range(2))
    pd.testing.assert_frame_equal(first["layers"], second["layers"], check_exact=True)
    middle = first["layers"].set_index("layer").loc[TINY["depth"] // 2]
    assert first["histogram"]["count"].sum() == middle.entries
    assert first["tail"].share.is_monotonic_decreasing
    assert first["tail"].share.iloc[0] > 0.99


def test_claims_hold_for_the_numbers_of_the_paper(records):
    """100 times as large, kurtosis 3 times."""
    assert verdicts(told(records)) == {9: "supported", 10: "supported"}


@pytest.mark.parametrize(("numbers", "contradicted"), [({"size": 0.5}, 9), ({"tail": 0.5}, 10)])
def test_each_claim_can_have_the_other_sign(records, numbers, contradicted):
    """A smaller gradient, a lighter tail without norm: one claim falls, the other stands."""
    found = verdicts(told(records, **numbers))
    assert {key for key, verdict in found.items() if verdict == "contradicted"} == {contradicted}


def test_one_network_or_much_noise_decides_nothing(records):
    """Too few networks, or an error larger than the ratio."""
    assert set(verdicts(few(told(records))).values()) == {"inconclusive"}
    assert verdicts(told(records, tail=1.5, noise=1.0))[10] == "inconclusive"


def test_the_page_shows_size_and_tail_and_the_claims(records):
    """Each claim with its number; a tail index that needs more entries than there are is a dash."""
    html = render(gradient_tails.page(records))
    for key in (9, 10):
        assert f"claim {key} of 31" in html
