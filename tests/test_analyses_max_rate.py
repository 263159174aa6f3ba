"""`rmtbn max-rate`: its search, what counts as training, its claims both ways, its page."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from paper_records import changed, few, options
from rmtbn.analyses import max_rate
from rmtbn.analyses._image_networks import images, network
from rmtbn.analyses._max_rate_claims import claims, factor
from rmtbn.analyses._max_rate_records import Rates
from scipy import stats

from rmtbn import rng
from rmtbn.measure.hessian import curvature
from rmtbn.report.render import render
from rmtbn.train.record import TrainingRecord

SIZE = {"examples": 8, "batch": 4, "passes": 1, "halvings": 1}
TINY = {**SIZE, "depth": 8, "data": "digits", "device": "cpu", "dtype": "float32"}
CHANCE = math.log(4)


@pytest.fixture(scope="module", autouse=True)
def short():
    """Two rates, two products with the Hessian, and a few updates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(max_rate, "SIZES", {"quick": {**SIZE, "networks": 3}})
        patch.setattr(max_rate, "DEPTHS", {"quick": (8, 14)})
        for name, value in (("HIGHEST", 1.0), ("LOWEST", 0.316), ("PRODUCTS", 2)):
            patch.setattr(max_rate, name, value)
        yield


@pytest.fixture(scope="module")
def records(short, tmp_path_factory):
    """Networks of depths 8 and 14 on digits, without norm and with, three each."""
    return max_rate.ANALYSIS.measure(options(tmp_path_factory.mktemp("reports")), data="digits")


def told(records, *, shallow=0.1, deep=0.01, normed=1.0, curved=(10.0, 100.0), losses=(1.0, 2.0), noise=0.05):
    """Records with these largest rates, curvatures and losses at the two depths, up to noise by network."""

    def change(name, parameters, seed, frame):
        first, factor_ = parameters["depth"] == 8, math.exp(noise * (seed - 2))
        if name == "runs":
            return frame.assign(loss=losses[0 if first else 1] * factor_)
        rate = normed if parameters["kind"] == "final" else shallow if first else deep
        step = rate * factor_
        return frame.assign(last=step, above=step, curvature=curved[0 if first else 1] * factor_)

    return changed(records, change)


def verdicts(records):
    return {key: claim.verdict for key, claim in claims(records).items()}


def searched(law, *, halvings=0):
    """The interval that is found, and the rates that were tried."""
    tried = []

    def trains(rate):
        tried.append(rate)
        return law(rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(max_rate, "HIGHEST", 10.0)
        patch.setattr(max_rate, "LOWEST", 1e-5)
        return max_rate.largest_rate(trains, halvings=halvings), tried


@pytest.mark.parametrize("end", [3e-5, 0.02, 7.0])
def test_the_search_brackets_the_largest_rate(end):
    """last <= end < above, half a decade apart; each halving of the logarithm halves that."""
    for halvings in (0, 1, 3):
        (last, above), tried = searched(lambda rate: rate <= end, halvings=halvings)
        assert last <= end < above
        assert math.log10(above / last) == pytest.approx(0.5 / 2**halvings, rel=0.02)
        assert tried == sorted(tried, reverse=True)[: len(tried)] if halvings == 0 else len(set(tried)) == len(tried)


def test_the_search_finds_the_largest_of_several_intervals():
    """A rate that trains above one that does not is the largest: nothing is supposed about rates in between."""
    (last, above), _ = searched(lambda rate: rate < 1e-3 or 0.2 < rate < 0.5)
    assert (last, above) == (0.316, 1.0)


def test_ends_of_the_search_are_said():
    """No rate: 0 and the lowest; all: the highest and inf."""
    assert searched(lambda _: False)[0] == (0.0, 1e-5)
    assert searched(lambda _: True)[0] == (10.0, math.inf)


LOSSES = {
    "learning": (np.linspace(1.5, 0.9, 16), True),
    "dead at chance": (CHANCE + 0.01 * np.sin(np.arange(16.0)), False),
    "falling from far above": (np.geomspace(1e3, 2.0, 16), False),
    "below by less than the noise": (CHANCE - 0.01 + 0.2 * np.cos(np.pi * np.arange(16.0)), False),
    "learnt late": (np.array([5.0] * 12 + [CHANCE - 0.11, CHANCE - 0.09] * 2), True),
}


@pytest.mark.parametrize("name", LOSSES)
def test_training_is_judged_by_the_last_quarter(name):
    """Mean + 2 standard errors of the last quarter below the entropy of the classes, whatever came before."""
    losses, expected = LOSSES[name]
    found = max_rate.judged(training(losses), four_classes())
    quarter = losses[-4:]
    assert found["chance"] == pytest.approx(CHANCE)
    assert found["loss"] == pytest.approx(quarter.mean())
    assert found["loss_se"] == pytest.approx(stats.sem(quarter))
    assert found["trains"] == expected


def test_what_diverged_did_not_train():
    """However low its losses were before."""
    found = max_rate.judged(training(np.array([0.1, 0.1, 0.1, 2e3]), diverged_at=3), four_classes())
    assert (found["trains"], found["diverged"], found["loss"]) == (False, True, math.inf)


def training(losses, *, diverged_at=None):
    steps = pd.DataFrame({"loss": losses})
    return TrainingRecord(epochs=pd.DataFrame(), steps=steps, diverged_at=diverged_at, limit=1e3, reason="finished")


def four_classes():
    """Images in four classes, two each."""
    drawn = images("digits", seed=1, examples=8, device="cpu", dtype="float32")
    return type(drawn)(name="four", inputs=drawn.inputs, targets=torch.arange(8) % 4, classes=10)


def test_chance_is_the_entropy_of_the_classes():
    """-Σ p ln p, by scipy; an absent class adds nothing."""
    targets = np.array([0, 0, 0, 1, 3, 3])
    assert max_rate.entropy(targets, 5) == pytest.approx(stats.entropy([3, 1, 0, 2]))


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice; the curvature is that of the network at its initialisation, on its first images."""
    first, second = (max_rate.cell(seed=1, kind="final", **TINY) for _ in range(2))
    for name, frame in first.items():
        pd.testing.assert_frame_equal(frame, second[name], check_exact=True)
    drawn = images("digits", seed=1, examples=8, device="cpu", dtype="float32")
    net = network(seed=1, kind="final", depth=8, like=drawn).train()
    expected = curvature(
        net, drawn.inputs, drawn.targets, tolerance=0.02, limit=2, generator=rng.torch_generator(1, "curvature")
    )
    assert first["network"].curvature[0] == expected.largest
    assert (first["runs"].steps <= 2).all()
    assert first["runs"].first_loss.nunique() == 1


def test_claims_hold_for_what_the_paper_shows(records):
    """Rates that fall tenfold as the curvature rises tenfold, and a hundred times as large with norm."""
    told_so = told(records)
    assert verdicts(told_so) == {26: "supported", 30: "supported"}
    assert factor(Rates(told_so)).verdict == "supported"
    slope, r2 = Rates(told(records, noise=0.0)).slope("log_rate")
    assert (slope.value, r2) == (pytest.approx(-1), pytest.approx(1))


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"shallow": 0.01, "deep": 0.1}, {26: "contradicted", 30: "contradicted"}),
        ({"curved": (100.0, 10.0), "losses": (2.0, 1.0)}, {26: "supported", 30: "contradicted"}),
        ({"losses": (2.0, 1.0)}, {26: "supported", 30: "contradicted"}),
    ],
    ids=["rates rise", "curvature falls", "loss falls"],
)
def test_claims_fall_with_their_numbers(records, numbers, expected):
    """One number the other way round contradicts the claims that rest on it."""
    assert verdicts(told(records, **numbers)) == expected


def test_the_factor_can_be_too_small(records):
    """Fifteen times in every network contradicts it; one network of 15 beside others of 100, or one alone, leaves it.

    So do intervals that reach across the bound: between 20 and 80 times.
    """
    assert factor(Rates(told(records, deep=1 / 15))).verdict == "contradicted"
    assert factor(Rates(few(told(records)))).verdict == "inconclusive"

    def one_small(name, parameters, seed, frame):
        if name == "runs" or parameters["kind"] == "final" or seed > 1:
            return frame
        return frame.assign(last=1 / 15, above=1 / 15)

    def wide(name, parameters, _seed, frame):
        return frame if name == "runs" else frame.assign(last=frame["last"] / 2**0.5, above=frame.above * 2**0.5)

    assert factor(Rates(changed(told(records), one_small))).verdict == "inconclusive"
    found = Rates(changed(told(records, deep=1 / 40, noise=0.0), wide))
    assert found.ends_of_ratio(14) == (pytest.approx(20), pytest.approx(80))
    assert factor(found).verdict == "inconclusive"


def test_one_network_or_much_noise_decides_nothing(records):
    """Too few networks, or rates whose difference is smaller than its error."""
    assert set(verdicts(few(told(records))).values()) == {"inconclusive"}

    def jumbled(name, parameters, seed, frame):
        step = 0.1 * math.exp((-1) ** seed * (1 if parameters["depth"] == 8 else -1))
        return frame if name == "runs" else frame.assign(last=step, above=step)

    assert set(verdicts(changed(told(records), jumbled)).values()) == {"inconclusive"}


def test_the_grid_is_part_of_the_error(records):
    """Equal intervals of every network: sd (ln above/last)/√12, √2 of it for a ratio."""

    def change(name, _parameters, _seed, frame):
        return frame if name == "runs" else frame.assign(last=0.1, above=0.2)

    found = Rates(changed(records, change))
    assert found.log_mean("none", 8, "rate").value == pytest.approx(math.log(0.1) + math.log(2) / 2)
    assert found.log_mean("none", 8, "rate").se == pytest.approx(math.log(2) / math.sqrt(12))
    assert found.log_ratio(8).se == pytest.approx(math.log(2) / math.sqrt(6))


def test_ends_of_the_search_stand_for_what_is_beyond_them(records):
    """No rate that trains: the lowest; none that does not: the highest."""

    def ends(last, above):
        def change(name, _parameters, _seed, frame):
            return frame if name == "runs" else frame.assign(last=last, above=above)

        return Rates(changed(records, change)).log_mean("none", 8, "rate").value

    assert ends(0.0, 1e-5) == pytest.approx(math.log(1e-5))
    assert ends(10.0, math.inf) == pytest.approx(math.log(10.0))


def test_rates_that_do_not_diverge_are_told_apart_from_those_that_train(records):
    """The largest rate without divergence, and the next one above it, from the runs."""

    def change(name, _parameters, _seed, frame):
        if name != "runs":
            return frame
        rates = [1.0, 0.3, 0.1, 0.03]
        return frame.iloc[[0] * 4].assign(rate=rates, diverged=[True, False, False, False], loss=2.0)

    found = Rates(changed(records, change)).log_mean("none", 8, "stable")
    assert found.value == pytest.approx(math.log(1.0 * 0.3) / 2)


def test_the_page_shows_the_claims_and_every_rate(records):
    """Each claim with its number, the factor, and the sibling for one step."""
    html = render(max_rate.ANALYSIS.page(records))
    for text in ("claim 26 of 31", "claim 30 of 31", "Batch normalisation permits", "max-step/index.html"):
        assert text in html
