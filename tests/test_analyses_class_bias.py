"""`rmtbn class-bias`: its cells, its claims both ways, its page."""

import numpy as np
import pandas as pd
import pytest
from paper_records import changed, few, options
from rmtbn.analyses import class_bias

from rmtbn.report.render import render

TINY = {"depth": 8, "examples": 6, "data": "digits", "device": "cpu", "dtype": "float64"}
AS_CLAIMED = {
    "none": {"modal": 0.99, "cosine": 0.45, "share": 0.5},
    "final": {"modal": 0.3, "cosine": 0.0, "share": 0.2},
}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """All four kinds of network of depth 20 on digits, three networks each."""
    return class_bias.ANALYSIS.measure(options(tmp_path_factory.mktemp("reports")), data="digits")


def told(records, numbers, *, noise=0.001):
    """Records with these numbers by kind, up to noise by network."""

    def change(name, parameters, seed, frame):
        if name != "bias" or parameters["kind"] not in numbers:
            return frame
        return frame.assign(**{key: value + noise * (seed - 2) for key, value in numbers[parameters["kind"]].items()})

    return changed(records, change)


def verdicts(records):
    return {key: claim.verdict for key, claim in class_bias.claims(records).items()}


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice; rows of the gradient at the logits add up to 0, and softmax(O)_y - 1 <= 0 at the true class."""
    first, second = (class_bias.cell(seed=1, kind="none", **TINY) for _ in range(2))
    pd.testing.assert_frame_equal(first["bias"], second["bias"], check_exact=True)
    rows = np.array(first["gradients"].gradient.tolist())
    np.testing.assert_allclose(rows.sum(axis=1), 0, atol=1e-12)
    assert (rows[np.arange(6), first["gradients"].target] <= 0).all()


def test_claims_hold_for_the_numbers_of_the_paper(records):
    """One class and cosine near 1/2 without norm; spread and 0 with it."""
    assert set(verdicts(told(records, AS_CLAIMED)).values()) == {"supported"}


@pytest.mark.parametrize(
    ("kind", "column", "value", "contradicted"),
    [
        ("none", "modal", 0.5, 18),
        ("final", "modal", 0.9, 18),
        ("none", "cosine", 0.0, 19),
        ("final", "cosine", 0.4, 19),
        ("none", "share", 0.2, 20),
    ],
)
def test_each_claim_falls_with_its_number(records, kind, column, value, contradicted):
    """One number on the other side of its bound contradicts one claim."""
    numbers = {k: dict(v) for k, v in AS_CLAIMED.items()}
    numbers[kind][column] = value
    found = verdicts(told(records, numbers))
    assert {key for key, verdict in found.items() if verdict == "contradicted"} == {contradicted}


def test_one_network_or_much_noise_decides_nothing(records):
    """Too few networks, or an error larger than the distance from the bound."""
    assert set(verdicts(few(told(records, AS_CLAIMED))).values()) == {"inconclusive"}
    assert verdicts(told(records, AS_CLAIMED, noise=0.3))[20] == "inconclusive"


def test_images_are_shown_in_the_order_of_their_classes(records):
    """Row i of the map is the image of the i-th class in ascending order; its least entry is at the true class."""
    found = class_bias.Biases(records)
    shown = found.heat_map("final").to_numpy()
    assert shown.shape == (found.examples, 10)
    assert (np.diff(shown.argmin(axis=1)) >= 0).all()


def test_the_page_shows_every_kind_and_the_claims(records):
    """Each claim with its number."""
    html = render(class_bias.page(records))
    for key in (18, 19, 20):
        assert f"claim {key} of 31" in html
