"""`rmtbn smoothness`: its cells, the claims of Santurkar et al. both ways, its page."""

import numpy as np
import pandas as pd
import pytest
from paper_records import changed, few, options
from rmtbn.analyses import smoothness

from rmtbn.report.render import render

TINY = {"depth": 8, "examples": 6, "data": "digits", "device": "cpu", "dtype": "float64"}
SMOOTHER = {"loss": 100.0, "distance": 100.0}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Networks of depth 20 on digits, without norm and with, three each, at the start and after 4 updates."""
    return smoothness.ANALYSIS.measure(options(tmp_path_factory.mktemp("reports")), data="digits")


def told(records, factors, *, deviation=1e-6, noise=0.05):
    """Records in which losses and distances without norm are so many times those with, up to noise by network."""

    def change(name, parameters, seed, frame):
        factor = np.exp(noise * (seed - 2))
        if name == "identity":
            return frame.assign(exact=deviation * factor, limit=deviation * factor)
        plain = parameters["kind"] == "none"
        loss, distance = (factors[key] * factor if plain else 1.0 for key in ("loss", "distance"))
        return frame.assign(
            loss=loss * frame.times, distance=distance * frame.times, gradient_norm=1.0, step=frame.times
        )

    return changed(records, change)


def verdicts(records):
    return [claim.verdict for claim in smoothness.own_claims(records)]


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice; ‖∂L/∂h‖² is that of the identity to rounding, and no more than that of a fixed scaling."""
    first, second = (smoothness.cell(seed=1, kind="final", updates=1, **TINY) for _ in range(2))
    for name, frame in first.items():
        pd.testing.assert_frame_equal(frame, second[name], check_exact=True)
    assert (first["identity"].exact < 1e-8).all()
    assert (first["identity"].exact <= first["identity"].limit).all()
    assert (first["identity"].share < 1).all()


def test_updates_move_the_weights():
    """After an update the loss at the start is another."""
    start = [smoothness.cell(seed=1, kind="none", updates=n, **TINY)["line"].start[0] for n in (0, 1)]
    assert start[0] != start[1]


def test_claims_hold_for_a_smoother_loss_and_the_identity(records):
    """100 times the range, distance and smoothness without norm; a deviation of 1e-6."""
    assert verdicts(told(records, SMOOTHER)) == ["supported"] * 4


@pytest.mark.parametrize(
    ("changes", "deviation", "contradicted"),
    [({"loss": 0.1}, 1e-6, {0}), ({"distance": 0.1}, 1e-6, {1, 2}), ({}, 0.1, {3})],
    ids=["range", "gradient", "identity"],
)
def test_each_claim_falls_with_its_number(records, changes, deviation, contradicted):
    """A larger range, distance or deviation with norm: these claims fall, the others stand."""
    found = verdicts(told(records, SMOOTHER | changes, deviation=deviation))
    assert {place for place, verdict in enumerate(found) if verdict == "contradicted"} == contradicted


def test_one_network_or_much_noise_decides_nothing(records):
    """Too few networks, or an error larger than the ratio."""
    assert verdicts(few(told(records, SMOOTHER))) == ["inconclusive"] * 4
    assert verdicts(told(records, SMOOTHER, noise=5.0))[:3] == ["inconclusive"] * 3


def test_a_loss_that_is_not_finite_is_above_every_other(records):
    """Infinite losses and distances without norm support the claims."""
    assert verdicts(told(records, {"loss": np.inf, "distance": np.inf}))[:3] == ["supported"] * 3


def test_none_of_the_31_claims_is_judged(records):
    """The claims are those of another paper."""
    assert smoothness.claims(records) == {}


def test_the_page_shows_the_claims(records):
    """The source of each claim."""
    assert render(smoothness.page(records)).count("1805.11604") >= 4
